"""The gate: a fresh process that never imports foretune must give the predictions that the run recorded.

Compared are probabilities (after the temperature), numbers in standard deviations of the training targets, or texts.
Recorded predictions are made in fp32 whatever training ran in. A text alone and in a padded batch, merged and unmerged
weights, torch and onnxruntime then differ by rounding: 1e-6 in a probability (measured on MiniLM). 1e-3 leaves room for
deeper models and another device, and is below anything that is ever printed. Texts must be the same.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from foretune.errors import ExportError, StoreError
from foretune.export.source import Source
from foretune.training.predictor import Predictor

RELOAD = Path(__file__).with_name("reload.py")

ROWS = 64
"""At most as many recorded predictions are compared: the test split's first."""

TOLERANCE = 1e-3
"""Largest difference of a probability, or of a number in standard deviations."""

UNITS = {
    "classification": "probability",
    "choice": "probability",
    "regression": "standard deviations of the training targets",
    "generation": "share of texts that differ",
}


@dataclass(frozen=True)
class Comparison:
    """What the fresh process gave against what the run recorded.

    Attributes:
        rows: how many were compared.
        other: in how many the answer is another: label, candidate or text; 0 for numbers.
        largest: the largest difference, in ``unit``.
        tolerance: the largest that is allowed.
    """

    rows: int
    other: int
    largest: float
    unit: str
    tolerance: float = TOLERANCE

    @property
    def passed(self) -> bool:
        """Whether the export may be called one. NaN fails. A share of texts allows for so many other texts."""
        return self.largest <= self.tolerance and (not self.other or self.unit == UNITS["generation"])


def recorded(source: Source) -> pa.Table:
    """Up to ``ROWS`` rows of ``predictions.parquet``, spread evenly over the test split, then over the others.

    Raises:
        StoreError: the file is missing or not readable. ExportError: it has no row to compare.
    """
    path = source.run / "predictions.parquet"
    try:
        table = pq.read_table(path)
        splits = table["split"].to_pylist()
    except (OSError, KeyError, pa.ArrowException) as error:
        raise StoreError(
            f"An export is checked against `{path}`, which cannot be read ({type(error).__name__}). "
            "Restore it from a copy, or train again."
        ) from error
    order = sorted(dict.fromkeys(splits), key=lambda split: (split != "test", split != "dev"))
    chosen: list[int] = []
    for split in order:
        rows = np.flatnonzero(np.array(splits) == split)
        wanted = min(ROWS - len(chosen), len(rows))
        if wanted:
            chosen += rows[np.linspace(0, len(rows) - 1, wanted).astype(int)].tolist()
    if not chosen:
        raise ExportError(
            f"`{path}` holds no prediction that an export could be checked against. Train with a test split."
        )
    return table.take(chosen)


def expected(source: Source) -> pa.Table:
    """The rows of ``recorded`` with the answers that an export must give: for a point that the user chose, foretune's
    own there."""
    rows = recorded(source)
    if not source.chosen:
        return rows
    return Predictor.load(source.run, source.checkpoint.ref.name, source.point)(rows)


def answers(jobs: Sequence[tuple[Path, Path, Path]], scratch: Path) -> list[list[Any]]:
    """What one fresh process answers for each (export folder, base folder, rows file).

    Raises:
        ExportError: it could not load or run an export; the message ends with its last words.
    """
    outs = [scratch / f"answers-{i}.json" for i in range(len(jobs))]
    words = [str(word) for job, out in zip(jobs, outs, strict=True) for word in (*job, out)]
    done = subprocess.run(
        [sys.executable, "-P", str(RELOAD), *words],
        capture_output=True,
        encoding="utf-8",
        errors="replace",
        env={**os.environ, "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false", "PYTHONIOENCODING": "utf-8"},
    )
    if done.returncode:
        last = (done.stderr.strip().splitlines() or [""])[-1]
        why = last if done.returncode > 0 else f"killed by signal {-done.returncode}, which often means: out of memory"
        raise ExportError(f"A fresh process with stock tools could not use the export: {why}")
    return [json.loads(out.read_text(encoding="utf-8")) for out in outs]


def compare(how: Mapping[str, Any], rows: pa.Table, found: Sequence[Any], tolerance: float | None = None) -> Comparison:
    """Compare the answers ``found`` with the recorded ``rows``.

    A label counts as another one only where the recorded probabilities of the two are further apart than the tolerance:
    closer, and either is right.

    Args:
        how: the contents of ``export.json``.
        tolerance: the largest difference that is allowed, default ``TOLERANCE``.
    """
    kind, n = how["kind"], len(rows)
    allowed = TOLERANCE if tolerance is None else tolerance
    if kind == "generation":
        other = sum(a != b for a, b in zip(rows["prediction"].to_pylist(), found, strict=True))
        return Comparison(n, other, other / n, UNITS[kind], allowed)
    if kind == "regression":
        wanted = pc.cast(rows["prediction"], pa.float64()).to_numpy()
        return Comparison(n, 0, float(np.abs(np.array(found) - wanted).max() / how["scale"]), UNITS[kind], allowed)
    pairs = [(np.array(a), np.array(b)) for a, b in zip(rows["probabilities"].to_pylist(), found, strict=True)]
    if any(a.shape != b.shape for a, b in pairs):
        raise ExportError(
            "The export gives another number of probabilities than the run recorded: its head does not fit."
        )
    other = sum(bool(a.max() - a[b.argmax()] > allowed) for a, b in pairs)
    return Comparison(n, other, float(np.max([np.abs(a - b).max() for a, b in pairs])), UNITS[kind], allowed)
