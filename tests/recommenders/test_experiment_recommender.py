"""The experiment in `experiments/recommender`: its tasks were seen by nobody, and equal seconds are counted fairly."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml

from experiments.recommender.analyse import difference, whole_seeds
from experiments.recommender.run import unguarded, within
from foretune.collection import CollectionPlan

EXPERIMENTS = Path(__file__).parents[2] / "experiments"
PLAN = yaml.safe_load((EXPERIMENTS / "recommender" / "protocol.yaml").read_text(encoding="utf-8"))


def test_no_task_is_in_the_shipped_collection():
    plans = [CollectionPlan.from_yaml(path) for path in (EXPERIMENTS / "bundled_store").glob("plan*.yaml")]
    assert len(plans) >= 3
    assert not set(PLAN["tasks"]) & {task.called for plan in plans for task in plan.tasks}
    assert len(PLAN["tasks"]) >= 5
    assert len(PLAN["seeds"]) >= 3


def test_every_claim_is_about_arms_that_run():
    assert {name for claim in PLAN["claims"] for name in claim.values()} <= set(PLAN["arms"])


@pytest.mark.parametrize(
    ("budget", "counted", "asked"), [(25.0, 2, 2.0), (22.0, 2, 2.0), (21.0, 1, 1.0), (1.0, 1, 1.0)]
)
def test_a_search_has_the_runs_that_end_within_its_seconds_and_one_at_least(budget, counted, asked):
    runs = ((SimpleNamespace(cost=SimpleNamespace(seconds=10.0)), 1.0) for _ in range(5))
    found, asking = within(runs, budget)
    assert (len(found), asking) == (counted, asked)


def test_without_its_precedence_the_default_stands_behind_the_next():
    default, other = SimpleNamespace(origin="default"), SimpleNamespace(origin="sampled")
    assert unguarded([default, other]) is other
    assert unguarded([other, default]) is other
    assert unguarded([default]) is default


@pytest.fixture
def cells() -> dict:
    def row(arm: str, task: str, seed: int) -> dict:
        test = 0.5 + 0.1 * (arm == "recommended") + 0.01 * seed - 0.15 * (arm == "recommended" and task == "cr")
        return {"task": task, "seed": seed, "arm": arm, "test": test, "seconds": 10.0 if arm == "recommended" else 40.0}

    return {(t, s, a): row(a, t, s) for t in PLAN["tasks"] for s in (0, 1) for a in PLAN["arms"]}


def test_a_difference_is_over_tasks_with_the_worst_one_named(cells):
    said = difference(PLAN, cells, [0, 1], "recommended", "default")
    assert said.startswith("| recommended - default | +0.070 |")
    assert "| 4 : 1 | cr -0.050 | 0.25 | not known |" in said


def test_a_seed_counts_where_every_arm_has_a_score_on_every_task(cells):
    assert whole_seeds(PLAN, cells) == [0, 1]
    cells["cr", 1, "tpe"]["test"] = None
    assert whole_seeds(PLAN, cells) == [0]
