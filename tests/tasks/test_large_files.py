"""100,000 rows pass through without ever being Python objects at once."""

from __future__ import annotations

import csv
import tracemalloc
from pathlib import Path

import pyarrow as pa

from foretune.tasks import Task, draw

ROWS = 100_000
LIMIT = 8_000_000
"""Bytes of Python objects at the peak: 100,000 rows as dicts of strings take more than 60 MB."""


def test_100_000_rows_stay_in_arrow(tmp_path: Path) -> None:
    with open(tmp_path / "big.csv", "w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["text", "label"])
        writer.writerows(
            (f"a text of middling length, with number {i}, as people write them", i % 4) for i in range(ROWS)
        )
    arrow_before = pa.total_allocated_bytes()
    tracemalloc.start()
    try:
        task = Task.from_csv(tmp_path / "big.csv")
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert task.splits["train"].num_rows == ROWS
    assert task.splits["train"]["row"][-1].as_py() == ROWS
    assert peak < LIMIT
    assert pa.total_allocated_bytes() - arrow_before < 2 * (tmp_path / "big.csv").stat().st_size
    assert draw(task, shots=16).train.num_rows == 48
