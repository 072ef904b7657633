"""First choices against the published default, on earlier tasks that were left out: who is first is settled there."""

from dataclasses import replace

import earlier_runs
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from foretune.pipeline.without_past import without_past
from foretune.recommenders import Planner, Transfer, Trial
from foretune.recommenders.foresight import TRUST, foresee
from foretune.recommenders.left_out import (
    Against,
    _held,
    agreement,
    first_known,
    first_ranked,
    raced,
    ranks_left_out,
)
from foretune.recommenders.recorded import marked
from foretune.surrogates import conformal

TASKS = 8
LEVEL = 0.3
"""How far the default is lowered or raised; chance on 640 dev rows is a fifteenth of it."""

NEW = replace(earlier_runs.task(2, rows=90), task_id="new", group_key="new")
WORSE_DEFAULT, BETTER_DEFAULT = -LEVEL, LEVEL


def with_default(gain, *, failed=False, tasks=TASKS):
    """Earlier runs in which the published default scores ``gain`` more than its settings are worth otherwise."""
    collection = earlier_runs.past(tasks=tasks)
    runs = []
    for run in collection.runs:
        if run.run_id.endswith("/0/0"):  # the first of each task
            (line,) = run.lines
            line = replace(line, values=tuple(value + gain for value in line.values))
            run = replace(run, lines=(line,), status="diverged" if failed else run.status)
        runs.append(run)
    return marked(earlier_runs.dataset(replace(collection, runs=tuple(runs))), without_past)


def transfer(past, **changes):
    pool = earlier_runs.pool_of(NEW, past, 30, **changes.pop("situation", {}))
    return Transfer(pool.runs, past, default=0, known=pool.known, **changes)


def test_the_runs_of_the_published_default_are_known_on_every_task():
    past = with_default(0.0)
    assert past.default.sum() == TASKS
    assert all(past.configs[place]["tuner"] == "lora" for place in np.flatnonzero(past.default))
    kept = past.take(past.task == 3)
    assert kept.default.sum() == 1


def test_repetitions_of_the_default_are_the_default_too():
    collection = earlier_runs.past(tasks=3)
    again = earlier_runs.run(collection.tasks[0], collection.runs[0].config, 99, seed=1)
    past = marked(earlier_runs.dataset(replace(collection, runs=(*collection.runs, again))), without_past)
    assert past.default.sum() == 4


def test_nothing_is_marked_where_nobody_says_what_the_default_is():
    assert not marked(with_default(0.0), None).default.any()


@pytest.mark.parametrize(("gain", "first"), [(WORSE_DEFAULT, False), (BETTER_DEFAULT, True)])
def test_check_11_the_default_gives_way_to_what_did_better_on_tasks_left_out_and_to_nothing_else(gain, first):
    recommender = transfer(with_default(gain))
    assert recommender.rule == "surrogate"
    assert recommender.default_first == first
    assert (recommender.ask() == Trial(0)) == first
    said = " ".join(recommender.evidence)
    assert f"in {TASKS} settings (task, rows, model) the first choice" in said
    assert ("The default gives way" in said) == first


def test_check_11_where_first_choices_only_drew_level_the_default_comes_first_and_the_others_follow():
    """A forest that knows the default to be worth as much as the best: nothing was gained by leaving it."""
    past = with_default(0.0)
    level = replace(past, score=np.where(past.succeeded, 0.6, np.nan))
    against = raced(level, first_ranked(level, ranks_left_out(level)))
    assert (against.tasks, against.better, against.worse) == (TASKS, 0, 0)
    assert not against.ahead
    recommender = transfer(past, fit=earlier_runs.oracle(against=against))
    usual = transfer(past, fit=earlier_runs.oracle())
    assert usual.ranking()[0] != 0
    assert recommender.ranking() == [0, *(place for place in usual.ranking() if place)]


@pytest.mark.parametrize("mode", ["one-shot", "portfolio", "grey-box"])
def test_in_every_mode_the_default_is_tried_first_where_nothing_speaks_against_it(mode):
    behind = earlier_runs.oracle(against=Against(20, 3, 2))
    recommender = transfer(with_default(0.0), mode=mode, fit=behind)
    assert recommender.ask().place == 0
    assert transfer(with_default(0.0), mode=mode, fit=earlier_runs.oracle()).ask().place != 0


def test_a_plan_shows_the_default_first_and_still_what_is_expected_of_the_others():
    behind = earlier_runs.oracle(against=Against(20, 3, 2))
    made = Planner(with_default(0.0), fit=behind).plan(earlier_runs.situation(NEW))
    assert made.best.origin == "default"
    assert made.ranked[1].score > made.best.score
    said = " ".join(made.evidence)
    assert "the first choice was better than the published default by more than noise in 3 and worse in 2." in said
    assert "No candidate is expected to do better" not in said


@pytest.mark.parametrize(
    "changes",
    [
        {"budget_seconds": 10.0, "seconds_per_step": 1.0},
        {"settle": lambda each: replace(each, schedule=replace(each.schedule, lr=2e-3))},
    ],
    ids=["cut to a budget", "another rate"],
)
def test_a_default_that_was_cut_or_changed_has_no_precedence_and_it_is_said(changes):
    behind = earlier_runs.oracle(against=Against(20, 3, 2))
    made = Planner(with_default(0.0), fit=behind).plan(earlier_runs.situation(NEW, **changes))
    assert "cut to the budget or changed here" in " ".join(made.evidence)
    assert made.best.origin != "default"


def test_how_fast_it_multiplies_does_not_change_the_default():
    def precise(each):
        return replace(each, schedule=replace(each.schedule, precision="bf16"))

    assert earlier_runs.pool_of(NEW, settle=precise).standard


def test_a_default_that_failed_is_worse_than_whatever_ran():
    past = with_default(0.0, failed=True)
    against = raced(past, first_ranked(past, ranks_left_out(past)))
    assert against == Against(TASKS, TASKS, 0)
    assert not transfer(past).default_first


def test_a_first_choice_that_failed_is_worse():
    past = with_default(0.0)
    first = first_ranked(past, ranks_left_out(past))
    broken = np.isin(past.config_ids, list(first.values())) & ~past.default
    past = replace(past, status=np.where(broken, "diverged", past.status), score=np.where(broken, np.nan, past.score))
    assert raced(past, first) == Against(TASKS, 0, TASKS)


def test_where_the_default_never_ran_the_ranking_decides_and_it_is_said():
    recommender = transfer(earlier_runs.dataset(tasks=TASKS))
    assert not recommender.default_first
    assert "nothing could be held against it" in " ".join(recommender.evidence)


def test_of_a_tuner_that_the_user_chose_its_own_runs_alone_are_asked():
    past = with_default(BETTER_DEFAULT)
    assert transfer(past).default_first
    chosen = transfer(past, situation={"tuner": "bitfit"})
    assert "No earlier task has a run of the published default" in " ".join(chosen.evidence)
    ranks = ranks_left_out(past)
    tuners = {config["tuner"] for config in past.configs}
    for tuner in tuners:
        ids = {str(key) for key, config in zip(past.config_ids, past.configs, strict=True) if config["tuner"] == tuner}
        assert set(first_ranked(past, ranks, tuner).values()) <= ids
        assert set(first_known(past, tuner).values()) <= ids


@pytest.mark.parametrize(("gain", "first"), [(WORSE_DEFAULT, False), (BETTER_DEFAULT, True)])
def test_the_portfolio_too_comes_before_the_default_only_where_it_did_better(gain, first):
    past = with_default(gain)
    if first:  # a portfolio that knows the default begins with it, and draws level
        assert raced(past, first_known(past)) == Against(TASKS, 0, 0)
    recommender = transfer(past, fit=earlier_runs.oracle(spearman=0.1))
    assert recommender.rule == "portfolio"
    assert (recommender.default_first, recommender.ask() == Trial(0)) == (first, first)
    assert set(recommender.ranking()) == {0, *recommender.known}
    assert "Left out in turn" in recommender.evidence[1]
    made = Planner(past, fit=earlier_runs.oracle(spearman=0.1)).plan(earlier_runs.situation(NEW))
    assert (made.best.origin == "default") == first
    assert ("Behind the published default the order is that of a portfolio" in " ".join(made.evidence)) == first


def test_nothing_is_learned_from_the_task_that_is_judged():
    """The rank of a run does not change with what its own group scored, however absurd."""
    past = with_default(0.0)
    ranks = ranks_left_out(past)
    for place in range(TASKS):
        mine = past.task == place
        absurd = replace(past, score=np.where(mine, 1 - past.score, past.score))
        np.testing.assert_array_equal(ranks_left_out(absurd)[mine], ranks[mine])


def test_ranks_agree_with_scores_where_they_carry_over():
    past = with_default(0.0)
    rho, groups = agreement(past, ranks_left_out(past))
    assert groups == TASKS
    assert rho > 0.5


@given(st.integers(0, 200), st.data())
def test_the_default_gives_way_only_to_what_is_rarely_worse_and_more_often_better(tasks, data):
    worse = data.draw(st.integers(0, tasks))
    against = Against(tasks, data.draw(st.integers(0, tasks - worse)), worse)
    if tasks and against.ahead:
        assert against.better > against.worse
        assert against.worse / tasks <= 0.05
    more = replace(against, better=tasks - worse)
    assert more.ahead >= against.ahead


def test_what_was_found_on_shuffled_scores_is_no_ground_to_leave_the_default():
    past = with_default(0.0)
    generator = np.random.default_rng(0)
    given_ = np.arange(len(past))
    for place in range(TASKS):
        runs = np.flatnonzero(past.task == place)
        given_[runs] = generator.permutation(runs)
    luck = replace(past, score=past.score[given_])
    found = foresee(luck).against_default()
    assert found.tasks == TASKS
    assert not found.ahead


def test_the_few_tasks_that_can_be_judged_are_never_hidden_together_whatever_the_seed():
    """On the others nothing that was tried made a difference: whoever learns from them alone ranks at random."""
    past = earlier_runs.dataset(tasks=12)
    told = np.isin(past.task, (3, 7))
    past = replace(past, score=np.where(told, past.score, 0.6))
    for seed in range(30):
        for held in _held(past, seed):
            assert len({*past.task[held]} & {3, 7}) < 2
    together = next(seed for seed in range(99) if any(held[told].all() for held in conformal.left_out(past, seed)))
    assert agreement(past, ranks_left_out(past, together))[0] >= TRUST
