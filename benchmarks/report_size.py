"""The report of a run with 10,000 predictions of 77 classes: bytes, and seconds of a whole `foretune report` process.

python benchmarks/report_size.py
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from foretune.evaluation import judge
from foretune.records import Cost, ModelRef, Part, RunConfig, RunRecord, Schedule, TaskRef
from foretune.store.folder import write_run

ROWS, CLASSES, ROUNDS = 10_000, 77, 5


def write_sample(folder: Path) -> None:
    """A run folder with made-up but well-formed predictions."""
    rng = np.random.default_rng(0)
    labels = tuple(f"intent_{i:02d}" for i in range(CLASSES))
    truth = rng.integers(CLASSES, size=ROWS)
    logits = rng.normal(size=(ROWS, CLASSES)) + 4.0 * np.eye(CLASSES)[truth]
    chances = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    config = RunConfig(
        ModelRef("demo", pooling="mean"),
        TaskRef("made-up", "classification"),
        Part("lora"),
        Part("head"),
        Schedule(100),
    )
    judged = judge("classification", truth, chances, metric="accuracy", labels=labels)
    record = RunRecord(config, "ok", evaluations={"test": judged}, labels=labels, cost=Cost(train_seconds=1.0))
    write_run(folder, record)
    best = chances.argmax(1)
    table = pa.table(
        {
            "split": ["test"] * ROWS,
            "row": np.arange(1, ROWS + 1),
            "text": [f"made-up question number {i}, neither short nor long" for i in range(ROWS)],
            "label": [labels[i] for i in truth],
            "prediction": [labels[i] for i in best],
            "probability": chances[np.arange(ROWS), best],
            "probabilities": list(chances),
        }
    )
    pq.write_table(table, folder / "predictions.parquet")


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_sample(folder)
        taken, size = [], 0
        for _ in range(ROUNDS):
            start = time.perf_counter()
            command = [sys.executable, "-m", "foretune", "report", name, "--json"]
            out = subprocess.run(command, check=True, capture_output=True, text=True).stdout
            taken.append(time.perf_counter() - start)
            size = json.loads(out)["bytes"]
    print(f"report of {ROWS:,} predictions: {size / 1e6:.2f} MB (aim < 2), {statistics.median(taken):.2f} s (aim < 2)")


if __name__ == "__main__":
    main()
