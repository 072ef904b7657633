"""The mean difference over several tasks: a family of contrasts of its own, on tasks that are fixed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from foretune.comparison.contrasts import mean_over_tasks
from foretune.comparison.harness import opened
from foretune.comparison.verdict import judge
from foretune.comparison.worker import work
from foretune.records.verdict import ALL, SCORE
from foretune.report import comparison_page


def test_a_pair_that_meets_on_every_task_has_a_contrast_over_all_of_them(protocol, kind: Path, other: Path, tmp_path):
    cells = opened(protocol(tasks=[str(kind), str(other)], methods=["lora", "full", "head"]), store=tmp_path)
    work(cells)
    verdict = judge(cells)
    overall = {(c.first, c.second): c for c in verdict.contrasts if c.task == ALL}
    assert len(overall) == 3
    for pair, found in overall.items():
        single = [c for c in verdict.contrasts if (c.first, c.second) == pair and c.task != ALL and c.measure == SCORE]
        assert found.difference.value == pytest.approx(np.mean([c.difference.value for c in single]))
        assert found.difference.n_items == sum(c.difference.n_items for c in single)
        assert (found.contrasts, {c.contrasts for c in single}) == (3, {6})
        assert set(found.ratios) == set(single[0].ratios)
    assert "across 2" in comparison_page.render(verdict)
    one = judge(opened(protocol(methods=["lora", "full", "head"]), store=tmp_path))
    assert not [c for c in one.contrasts if c.task == ALL]


def test_nothing_is_said_over_all_tasks_while_a_run_of_one_of_them_is_missing(protocol, kind: Path, other: Path, done):
    tasks = [done.plan.protocol.tasks[0], {"source": str(other), "name": "later"}]
    asked = protocol(tasks=tasks, data_seeds=[0, 1, 2], steps=12, methods=done.plan.protocol.methods)
    assert not [c for c in judge(opened(asked, store=done.root)).contrasts if c.task == ALL]


@pytest.mark.parametrize("shared", [0.0, 0.1])
def test_its_interval_covers_the_true_mean_as_often_as_it_says(shared: float):
    """Three tasks of unequal size and difference; what a seed does to all tasks at once is in the interval."""
    rng, levels, rows = np.random.default_rng(0), (0.3, 0.0, -0.1), (300, 100, 40)
    hits = 0
    for _ in range(300):
        common = rng.normal(0, shared, (8, 1))
        tables = [
            level + common + rng.normal(0, 0.05, (8, 1)) + rng.normal(0, 0.8, (1, n)) + rng.normal(0, 0.6, (8, n))
            for level, n in zip(levels, rows, strict=True)
        ]
        found = mean_over_tasks(tables)
        assert found.value == pytest.approx(np.mean([table.mean() for table in tables]))
        hits += found.low <= np.mean(levels) <= found.high
    assert 0.93 <= hits / 300 <= 0.99


def test_scores_without_rows_are_averaged_seed_by_seed():
    first, second = np.array([0.1, 0.3, 0.2]), np.array([0.0, 0.1, 0.2])
    found = mean_over_tasks([first, second])
    assert found.value == pytest.approx(0.15)
    assert (found.n_seeds, found.n_items) == (3, None)
    assert mean_over_tasks([first, None]) is None
    assert mean_over_tasks([first, second[:2]]) is None
