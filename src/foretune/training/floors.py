"""The floors of a run, on the same rows: majority, TF-IDF, and the frozen embedding of the base model."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from foretune.evaluation import Inputs, floors, probe
from foretune.models import FrozenModel
from foretune.objectives import Encoded, for_kind
from foretune.objectives import make as make_objective
from foretune.objectives.base import pad_inputs
from foretune.records import Evaluation, Part
from foretune.training.batches import by_length
from foretune.training.folder import prediction_rows, write_table
from foretune.training.measure import gold, judged
from foretune.training.prepare import Prepared

if TYPE_CHECKING:
    pass

Floors = dict[str, dict[str, Evaluation]]


def measure_floors(run: Prepared, frozen: FrozenModel, folder: Path | None = None) -> Floors:
    """Floor -> split -> evaluation; the answers go to ``floors.parquet`` in ``folder``.

    The floors learn from the training rows alone, as the run's own weights do, and are judged on every other split.
    """
    outputs = simple_floors(run)
    if run.task.schema.kind != "generation":
        outputs["embedding"] = embedding_floor(run, frozen)
    if folder:
        write_table(_rows(run, outputs), folder / "floors.parquet")
    return {
        name: {split: judged(run, split, guess) for split, guess in splits.items()} for name, splits in outputs.items()
    }


def simple_floors(run: Prepared) -> dict[str, dict[str, Any]]:
    """The floors that need no language model."""
    schema = run.task.schema
    train, *others = (_inputs(run.tables[split]) for split in ("train", *_splits(run)))
    found = floors(
        schema.kind, train, gold(run, "train"), dict(zip(_splits(run), others, strict=True)), len(schema.labels)
    )
    return {name: dict(splits) for name, splits in found.items()}


def embedding_floor(run: Prepared, frozen: FrozenModel) -> dict[str, Any]:
    """Logistic or ridge regression on the frozen model's pooled features.

    The text is read as the kind's own objective reads it, without prompt or demonstrations. A candidate of a multiple
    choice is a row of its own, right or wrong; its question's candidates are then normalised.
    """
    splits = ("train", *_splits(run))
    kind, classes = run.task.schema.kind, len(run.task.schema.labels)
    plain = make_objective(Part(for_kind(kind)))
    own = isinstance(run.engine.objective, type(plain))
    vectors = {
        split: frozen_features(frozen, run.encoded[split] if own else plain.encode(table, None, frozen.checkpoint))
        for split, table in run.tables.items()
    }
    if kind != "choice":
        targets = gold(run, "train")
        return {s: probe(vectors["train"], targets, vectors[s], kind, classes) for s in splits[1:]}
    train = run.encoded["train"]
    right = np.zeros(len(train.tokens), np.int64)
    right[train.groups[:-1] + gold(run, "train")] = 1
    return {
        s: _per_question(probe(vectors["train"], right, vectors[s], "classification", 2)[:, 1], run.encoded[s])
        for s in splits[1:]
    }


def _per_question(chance: np.ndarray, encoded: Encoded) -> np.ndarray:
    counts = np.diff(encoded.groups)
    table = np.zeros((len(encoded), int(counts.max())))
    table[np.arange(table.shape[1])[None, :] < counts[:, None]] = np.maximum(chance, 1e-12)
    return table / table.sum(1, keepdims=True)


def frozen_of(run: Prepared) -> FrozenModel:
    """The model that the run started from, without what it has learned."""
    return FrozenModel(run.engine.checkpoint, run.engine.accelerator.device)


def frozen_features(frozen: FrozenModel, encoded: Encoded) -> np.ndarray:
    """The untouched model's pooled hidden states ``(sequences, hidden)``, in the order of ``encoded``."""
    order = list(by_length(encoded.tokens.lengths))

    def batches() -> Iterator[dict[str, Any]]:
        for rows in order:
            yield pad_inputs(encoded, rows, frozen.checkpoint)

    found = frozen.features(batches())
    placed = np.empty_like(found)
    placed[np.concatenate(order)] = found
    return placed


def _splits(run: Prepared) -> list[str]:
    return [split for split in run.tables if split != "train"]


def _inputs(table: pa.Table) -> Inputs:
    pairs, choices = table["pair"].to_pylist(), table["choices"].to_pylist()
    return Inputs(
        table["text"].to_pylist(),
        [p or "" for p in pairs] if any(p is not None for p in pairs) else None,
        choices if any(c is not None for c in choices) else None,
    )


def _rows(run: Prepared, outputs: Mapping[str, Mapping[str, Any]]) -> pa.Table:
    schema = run.task.schema
    parts = []
    for name, splits in outputs.items():
        for split, guess in splits.items():
            rows = prediction_rows(split, run.tables[split], schema.labels, guess, schema.kind)
            parts.append(rows.append_column("floor", pa.array([name] * len(rows), pa.string())))
    return pa.concat_tables(parts)
