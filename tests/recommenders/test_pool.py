"""Candidates: the published default first, then what did well elsewhere and can be run here, then sampled ones."""

from dataclasses import replace

import earlier_runs
import numpy as np
import pytest

from foretune.errors import UsageError
from foretune.recommenders import make_pool, published
from foretune.recommenders.pool import KNOWN, pipeline_of, plain_of
from foretune.records import MetaRun, Part, Recommendation, RunCollection, Schedule

NEW = earlier_runs.task(9)


def test_the_published_default_is_always_first():
    for past in (None, earlier_runs.dataset()):
        pool = earlier_runs.pool_of(NEW, past)
        assert pool.offered[0].bare == published(earlier_runs.situation(NEW))[0].bare
        assert [each.origin for each in pool.offered].count("default") == 1
        assert pool.offered[0].origin == "default"


def test_candidates_differ_and_are_unstarted_runs_of_the_task():
    pool = earlier_runs.pool_of(NEW, earlier_runs.dataset())
    assert len(pool.offered) == len(pool.runs) == 40 == len(set(pool.runs.config_ids))
    assert pool.runs.tasks == (NEW,)
    assert np.isnan(pool.runs.curves["score"]).all()


def test_what_ran_elsewhere_comes_back_as_the_same_pipeline():
    here = earlier_runs.situation(NEW)
    for pipeline in [published(here)[0], *earlier_runs.pool_of(NEW).offered]:
        back = pipeline_of(plain_of(pipeline, here), here)
        assert plain_of(back, here) == plain_of(pipeline, here)


def test_the_portfolio_holds_the_best_of_the_earlier_runs_first():
    past = earlier_runs.dataset()
    pool = earlier_runs.pool_of(NEW, past)
    best = max(past.configs, key=earlier_runs.quality)
    assert plain_of(pool.offered[pool.known[0]], earlier_runs.situation(NEW)) == best
    assert len(pool.known) <= KNOWN


CONFIG = plain_of(published(earlier_runs.situation(NEW))[0], earlier_runs.situation(NEW))


@pytest.mark.parametrize(
    "changes",
    [
        {"tuner": "of-another-package"},
        {"tuner.invented": 3},
        {"objective": "pattern"},
        {"batch_size": 97},
        {"steps": 0},
        {"steps": None},
        {"tuner": "frozen"},
    ],
)
def test_what_cannot_be_run_here_is_no_candidate(changes):
    config = {name: value for name, value in {**CONFIG, **changes}.items() if value is not None}
    assert pipeline_of(CONFIG, earlier_runs.situation(NEW)) is not None
    assert pipeline_of(config, earlier_runs.situation(NEW)) is None


def test_runs_of_a_tuner_that_is_gone_are_passed_over():
    collection = earlier_runs.past(tasks=3, per_task=2)
    gone = tuple(replace(run, config={**run.config, "tuner": "gone"}) for run in collection.runs)
    pool = earlier_runs.pool_of(NEW, earlier_runs.dataset(replace(collection, runs=gone)))
    assert pool.known == ()
    assert len(pool.offered) == 40


def test_a_chosen_tuner_is_the_only_one_among_the_candidates():
    pool = earlier_runs.pool_of(NEW, earlier_runs.dataset(), tuner="bitfit")
    assert {each.tuner.name for each in pool.offered} == {"bitfit"}


def test_what_the_user_fixed_is_laid_over_every_candidate_before_they_are_compared():
    def settle(pipeline: Recommendation) -> Recommendation:
        return replace(pipeline, schedule=Schedule(7, batch_size=8))

    pool = earlier_runs.pool_of(NEW, None, tuner="bitfit", settle=settle)
    assert len(pool.offered) == 1
    assert (pool.offered[0].schedule.steps, pool.offered[0].origin) == (7, "default")


def test_what_trains_nothing_is_a_pool_of_one():
    pool = earlier_runs.pool_of(NEW, earlier_runs.dataset(), tuner="frozen")
    assert [each.tuner for each in pool.offered] == [Part("frozen")]


def test_a_configuration_that_nobody_could_read_is_skipped():
    past = RunCollection("odd", (NEW,), (MetaRun("a", NEW.task_id, {"lr": 1.0}, "failed", 1),))
    assert earlier_runs.pool_of(earlier_runs.task(3), earlier_runs.dataset(past)).known == ()


def test_without_a_described_task_there_is_nothing_to_compare_with():
    with pytest.raises(UsageError, match="does not describe its task"):
        make_pool(replace(earlier_runs.situation(NEW), task=None))
