"""The run folder: the adapter with all that a stranger's process needs to use it, and the predictions."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq

from foretune.errors import StoreError
from foretune.records import RunRecord
from foretune.training.measure import predictions
from foretune.training.prepare import Prepared

if TYPE_CHECKING:
    import numpy as np

RECIPE = "foretune.json"
RECIPE_FORMAT = 1


def save_adapter(run: Prepared, record: RunRecord, folder: Path) -> int:
    """Write ``adapter/``: weights, tokenizer, ``foretune.json``. Returns the bytes of what was learned.

    The folder is built beside and then renamed, so that a reader meets a whole adapter or none.
    """
    from safetensors import SafetensorError

    new, final = folder / "adapter.new", folder / "adapter"
    try:
        shutil.rmtree(new, ignore_errors=True)
        new.mkdir(parents=True)
        run.engine.tuner.save(run.engine.bare, new)
        learned = sum(f.stat().st_size for f in new.rglob("*") if f.is_file())
        run.engine.checkpoint.tokenizer.save_pretrained(new)
        (new / RECIPE).write_text(json.dumps(recipe(run, record), indent=2, ensure_ascii=False), encoding="utf-8")
        shutil.rmtree(final, ignore_errors=True)
        os.replace(new, final)
    except (OSError, SafetensorError) as error:
        raise StoreError(
            f"The adapter could not be written to `{final}` ({error}). "
            "Free some space and run the same command again: training is kept in the folder's checkpoint."
        ) from error
    return learned


def recipe(run: Prepared, record: RunRecord) -> dict[str, Any]:
    """What a process needs beside the weights to predict as this run did."""
    schema = run.task.schema
    return {
        "format": RECIPE_FORMAT,
        "digest": record.digest,
        "model": asdict(record.config.model),
        "kind": schema.kind,
        "columns": dict(schema.columns),
        "labels": list(schema.labels),
        "metric": schema.metric,
        "references": schema.references,
        "tuner": {"name": run.engine.tuner.name, "options": asdict(run.engine.tuner)},
        "objective": {"name": run.engine.objective.name, "options": asdict(run.engine.objective)},
        "temperature": record.temperature,
        "seeds": asdict(record.config.seeds),
        "task": record.config.task.fingerprint,
        "versions": dict(record.surroundings),
    }


def save_predictions(run: Prepared, outputs: Mapping[str, np.ndarray], temperature: float | None, folder: Path) -> None:
    """Write ``predictions.parquet``: one row per evaluated example, see ``prediction_rows``."""
    parts = [
        prediction_rows(
            split, run.tables[split], run.task.schema.labels, predictions(run, raw, temperature), run.task.schema.kind
        )
        for split, raw in outputs.items()
    ]
    if parts:
        write_table(pa.concat_tables(parts), folder / "predictions.parquet")


def prediction_rows(split: str, table: pa.Table, labels: tuple[str, ...], guess: Any, kind: str) -> pa.Table:
    """``split, row, text, pair, choices, label, prediction, probability, probabilities`` for one split.

    The texts are kept whole: an export is checked against these rows when the user's file may be gone.

    Args:
        guess: what ``measure.predicted`` gives: probabilities ``(n, C)``, values ``(n,)`` or texts.
    """
    n = len(table)
    chances: list[list[float] | None] = [None] * n
    if kind == "classification":
        best = guess.argmax(1)
        answers = [labels[i] for i in best]
        top, chances = guess[range(n), best].tolist(), guess.tolist()
    elif kind == "choice":
        best = guess.argmax(1)
        counts = [len(c) for c in table["choices"].to_pylist()]
        answers = [str(i) for i in best]
        top, chances = guess[range(n), best].tolist(), [row[:k] for row, k in zip(guess.tolist(), counts, strict=True)]
    else:
        answers = list(guess) if kind == "generation" else [repr(float(v)) for v in guess]
        top = [None] * n
    return pa.table(
        {
            "split": pa.array([split] * n, pa.string()),
            **{name: table[name] for name in ("row", "text", "pair", "choices", "label")},
            "prediction": pa.array(answers, pa.string()),
            "probability": pa.array(top, pa.float64()),
            "probabilities": pa.array(chances, pa.list_(pa.float64())),
        }
    )


def write_table(table: pa.Table, path: Path) -> None:
    """Write Parquet atomically."""
    new = path.with_suffix(".new")
    try:
        pq.write_table(table, new, compression="zstd")
        os.replace(new, path)
    except OSError as error:
        raise StoreError(
            f"`{path}` could not be written ({error.strerror or error}). Free some space and try again."
        ) from error
