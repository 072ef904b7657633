"""Dynamic subset against its placement control, whole tensors by chance: the row that a report must have."""

from __future__ import annotations

import csv
import io
from pathlib import Path

from foretune.comparison.harness import opened
from foretune.comparison.verdict import judge
from foretune.comparison.worker import work
from foretune.report import table_files
from foretune.report.comparison_page import render

PLACED = {"mask": "tensors", "silo": "global", "density": 0.3, "more": ["biases"]}


def test_apet_check_3_the_report_prints_method_minus_random_placement_with_an_interval(protocol, tmp_path: Path):
    methods = [
        {"name": "moving", "tuner": "dynamic-subset", "options": {"density": 0.3, "silo": "global"}, "lr": 1e-2},
        {"name": "placed", "tuner": "static-subset", "options": PLACED, "lr": 1e-2},
    ]
    cells = opened(protocol(methods=methods, data_seeds=[0, 1, 2], steps=12), store=tmp_path / "store")
    work(cells)
    verdict = judge(cells)
    (found,) = [c for c in verdict.contrasts if c.measure == "score"]
    assert (found.first, found.second, found.difference.n_seeds) == ("moving", "placed", 3)
    rows = csv.DictReader(io.StringIO(table_files.as_csv(verdict)))
    row = next(r for r in rows if (r["what"], r["name"], r["method"]) == ("contrast", "score", "moving"))
    assert row["against"] == "placed"
    assert float(row["low"]) <= float(row["value"]) <= float(row["high"])
    page = render(verdict)
    assert "moving" in page
    assert "placed" in page
