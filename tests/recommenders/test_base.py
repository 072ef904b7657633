"""The door that all recommenders share: what is told is seen, failures have no score, the best so far is known."""

import numpy as np
import pytest

from foretune.errors import UsageError
from foretune.recommenders import Default, Observation, Trial
from foretune.records import Line, MetaRun, MetaTask, RunCollection
from foretune.store.metadataset import CELLS, metadataset


def pool(direction="max", runs=3, tasks=1):
    about = tuple(MetaTask(f"t{n}", f"t{n}", f"t{n}", "accuracy", direction) for n in range(tasks))
    curve = Line("dev", "accuracy", (0, 10), (0.1, 0.9))
    made = tuple(
        MetaRun(f"{n}/{task.name}", task.task_id, {"lr": float(n)}, "ok", 10, (curve,))
        for n in range(runs)
        for task in about
    )
    return metadataset([RunCollection("made up", about, made)])


def observed(place, values, status="ok"):
    curve = np.array([*values, *[np.nan] * (CELLS - len(values))])
    nothing = np.full(CELLS, np.nan)
    return Observation(
        Trial(place, len(values)), status, {"score": curve, "dev_loss": nothing, "train_loss": nothing}, nothing
    )


def test_nothing_recorded_is_in_the_view_before_it_is_told():
    recommender = Default(pool())
    assert np.isnan(recommender.view.curves["score"]).all()
    assert np.isnan(recommender.view.score).all()
    assert recommender.incumbent() is None
    assert (recommender.view.start["score"] == 0.1).all()  # what the untrained model scores is known beforehand


@pytest.mark.parametrize(("direction", "best"), [("max", 1), ("min", 0)])
def test_the_incumbent_has_the_best_score_seen_in_the_metrics_direction(direction, best):
    recommender = Default(pool(direction))
    recommender.tell(observed(0, [0.2, 0.3]))
    recommender.tell(observed(1, [0.6, 0.4]))
    recommender.tell(observed(2, [0.9], status="diverged"))
    assert recommender.incumbent() == best
    assert recommender.view.score[1] == (0.6 if direction == "max" else 0.4)
    assert np.isnan(recommender.view.score[2])


def test_a_candidate_is_over_when_it_is_whole_or_failed():
    recommender = Default(pool())
    recommender.tell(observed(0, [0.5]))
    recommender.tell(observed(1, [0.5] * CELLS))
    recommender.tell(observed(2, [np.nan], status="oom"))
    assert recommender.over.tolist() == [False, True, True]
    assert recommender.seen.tolist() == [1, CELLS, 1]


def test_what_is_told_changes_nothing_that_was_recorded():
    recorded = pool()
    before = recorded.curves["score"].copy()
    Default(recorded).tell(observed(0, [0.5]))
    assert np.array_equal(recorded.curves["score"], before, equal_nan=True)


def test_the_default_is_asked_for_until_it_is_over():
    recommender = Default(pool(), default=2)
    assert recommender.ask() == Trial(2)
    recommender.tell(observed(2, [0.5] * CELLS))
    assert recommender.ask() is None


@pytest.mark.parametrize("made", [{"tasks": 2}, {"runs": 0}])
def test_a_pool_without_candidates_or_with_two_tasks_is_refused(made):
    bad = pool(tasks=2) if made.get("tasks") else pool().take(np.zeros(3, bool))
    with pytest.raises(UsageError):
        Default(bad)
