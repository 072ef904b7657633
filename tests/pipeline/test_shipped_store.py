"""What the shipped runs are worth on a task that was left out: checks 7 and 11, measured and not made up."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

import foretune
from foretune.comparison.replay.entries import DEFAULT
from foretune.evaluation.metrics import spearman
from foretune.recommenders.left_out import agreement, ranks_left_out
from foretune.records import RunCollection
from foretune.store.bundled import FOLDER
from foretune.store.collections import read_collection
from foretune.store.metadataset import CELLS, folds, metadataset
from foretune.surrogates.cost import CostModel, full_seconds

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3_600)]

TREES = 50


@pytest.fixture(scope="module")
def shipped() -> RunCollection:
    return read_collection(FOLDER)


def test_check_11_the_first_recommendation_is_not_worse_than_the_default_on_nineteen_of_twenty_tasks(
    shipped: RunCollection,
):
    done = foretune.replay(collection=shipped, recommenders=["transfer"], budgets=[1.0]).outcome
    assert done.noise is not None
    behind = (done.regrets["transfer"] - done.regrets[DEFAULT])[:, 0, 0]
    assert len(behind) == len(shipped.tasks)
    assert (behind <= done.noise[0]).mean() >= 0.95


@pytest.mark.parametrize("seed", [0, 5, 10, 20])
def test_whether_the_shipped_runs_are_trusted_to_rank_is_no_matter_of_the_seed(shipped: RunCollection, seed: int):
    """Two groups of tasks have scores that can be told apart; with 10 both were hidden at once."""
    spearman, groups = agreement(data := metadataset([shipped]), ranks_left_out(data, seed))
    assert groups == 2
    assert 0.6 < spearman < 0.8


@pytest.fixture(scope="module")
def costs(shipped: RunCollection) -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    return list(_costs(shipped))


def _costs(shipped: RunCollection) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Of each task: seconds as measured, as foretold before any run, and after its first run was timed."""
    data = metadataset([shipped])
    models: dict[str, CostModel] = {}
    for fold in folds(data, "task"):
        pool = data.take(fold.test & (data.status == "ok"))
        key = pool.tasks[0].group_key
        if key not in models:
            models[key] = CostModel(TREES).fit(data.take(fold.train))
        found, nothing, whole = full_seconds(pool), np.zeros(len(pool)), np.full(len(pool), CELLS)
        steps = int(pool.configs[0]["steps"])
        probed = models[key].scaled(pool, 0, found[0] / steps, steps)
        yield found, models[key].seconds(pool, nothing, whole), probed.seconds(pool, nothing, whole)


def test_check_7_which_run_is_dearer_is_foretold_of_a_task_that_was_left_out(costs):
    agreement = [spearman(list(foretold), list(found)) for found, foretold, _ in costs]
    assert np.median(agreement) >= 0.65


@pytest.mark.xfail(strict=True, reason="0.19: one run of the task sets the scale, and runs differ by more than that")
def test_check_7_after_a_probe_the_median_error_of_the_seconds_is_at_most_15_percent(costs):
    wrong = [np.median(np.abs(probed[1:] / found[1:] - 1)) for found, _, probed in costs]
    assert np.median(wrong) <= 0.15
