"""A plan: ranked, with expectations, the default's own among them, ties named, and the nearest earlier tasks."""

from dataclasses import replace

import earlier_runs
import numpy as np
import pytest

from foretune.errors import UsageError
from foretune.recommenders import Measured, Observation, Planner, plan, published
from foretune.recommenders.ground import nearest
from foretune.recommenders.noise import noise_floor
from foretune.recommenders.plan import RANKED, _cheapest
from foretune.recommenders.transfer import MODES
from foretune.records import Plan
from foretune.store.metadataset import CELLS

NEW = replace(earlier_runs.task(2, rows=90), task_id="new", group_key="new", name="new one")
PAST = earlier_runs.dataset(tasks=5)


def planner(past=PAST, mode="one-shot", size=40, **oracle):
    return Planner(past, mode, size=size, fit=earlier_runs.oracle(**oracle))


def here(**changes):
    return earlier_runs.situation(NEW, **changes)


def text(made):
    return " ".join(made.evidence)


def test_without_earlier_runs_the_plan_is_the_published_one_word_for_word():
    best, sentences = published(here())
    made = plan(here())
    assert made == Plan((best,), "default", (*sentences, "No score is foretold: no earlier run was consulted."))


@pytest.mark.parametrize("tasks", [1, 2])
def test_a_store_of_too_few_tasks_says_so(tasks):
    made = plan(here(), earlier_runs.dataset(tasks=tasks))
    assert made.recommender == "default"
    assert made.best.score is None
    assert f"on {tasks} task{'s' * (tasks > 1)} have a score, and it takes 3" in text(made)


def test_a_tuner_that_trains_nothing_leaves_nothing_to_learn():
    assert planner().plan(here(tuner="frozen")).recommender == "default"


def test_the_ranking_is_by_worth_and_holds_the_default():
    made = planner().plan(here())
    scores = [each.score for each in made.ranked]
    assert scores == sorted(scores, reverse=True)
    assert len(made.ranked) <= RANKED
    assert made.default in made.ranked
    assert made.recommender == "transfer"
    assert f"expected to reach accuracy {made.default.score:.3f}" in text(made)
    assert made.best.interval[0] <= made.best.score <= made.best.interval[1]


def test_a_chance_of_failing_is_said_where_some_earlier_run_failed_and_nowhere_else():
    assert not PAST.failed.any()
    unknown = planner().plan(here())
    assert {each.p_fail for each in unknown.ranked} == {None}
    assert f"None of the {len(PAST)} earlier runs failed" in text(unknown)
    status = np.where(np.arange(len(PAST)) == 3, "oom", PAST.status)
    told = planner(replace(PAST, status=status)).plan(here())
    assert told.best.p_fail == 0.05
    assert "earlier runs failed" not in text(told)


def test_without_a_number_to_say_the_plan_says_why():
    unknown = replace(NEW, metric="mcc")
    made = planner(numbers=False).plan(earlier_runs.situation(unknown))
    assert made.recommender == "transfer"
    assert made.best.score is None
    assert "No score is foretold: nothing that is known before training is in the unit of mcc." in text(made)


def test_an_interval_allows_for_a_dev_set_smaller_than_those_of_the_earlier_tasks():
    """The oracle's is 0.1 either way, and the earlier dev sets have 640 rows."""
    few = replace(NEW, rows={"train": 90, "dev": 8})
    as_told, wider = (planner().plan(earlier_runs.situation(of)) for of in (NEW, few))
    assert as_told.best.interval == pytest.approx((as_told.best.score - 0.1, as_told.best.score + 0.1))
    assert "smaller than theirs" not in text(as_told)
    assert wider.best.score == as_told.best.score
    chance = wider.best.score * (1 - wider.best.score)
    half = (0.1**2 + 1.2815515655446004**2 * chance * (1 / 8 - 1 / 640)) ** 0.5
    assert wider.best.interval == pytest.approx((max(0.0, wider.best.score - half), min(1.0, wider.best.score + half)))
    assert "allows for a dev set smaller than theirs" in text(wider)


@pytest.mark.parametrize(("middle", "rows"), [(1.02, 640), (1.02, 8), (-0.2, 640)])
def test_no_score_is_foretold_that_the_metric_cannot_take_and_the_order_stays(middle, rows):
    of = earlier_runs.situation(replace(NEW, rows={"train": 90, "dev": rows}))
    usual, far = planner().plan(of), planner(middle=middle).plan(of)
    for each in far.ranked:
        low, high = each.interval
        assert 0 <= low <= each.score <= high <= 1
    assert [each.bare for each in far.ranked] == [each.bare for each in usual.ranked]


def test_the_default_is_shown_even_when_it_is_far_behind():
    many = planner(size=200).plan(here())
    assert len(many.ranked) == RANKED
    assert many.ranked[-1].origin == "default"


@pytest.mark.parametrize("mode", MODES)
def test_the_plan_survives_its_file(mode):
    made = planner(mode=mode).plan(here())
    assert Plan.from_json(made.to_json()) == made
    assert made.mode == mode


def test_a_plan_from_before_there_were_expectations_still_loads():
    plain = plan(here()).to_json()
    for name in ("details", "mode", "tied"):
        del plain[name]
    for each in plain["ranked"]:
        for name in ("p_fail", "measured", "origin"):
            del each[name]
    assert Plan.from_json(plain) == plan(here())


def test_a_chosen_tuner_is_ranked_among_its_own():
    made = planner().plan(here(tuner="bitfit"))
    assert {each.tuner.name for each in made.ranked} == {"bitfit"}


def test_seconds_are_those_of_other_machines_until_steps_were_timed_here():
    first = planner().plan(here())
    assert not first.best.measured
    assert first.best.seconds == pytest.approx(0.01 * first.best.schedule.steps)
    assert "machines that earlier runs were made on" in text(first)
    timed = planner().plan(here(measured=Measured(first.best, step_seconds=0.5, around_seconds=7.0)))
    assert [each.bare for each in timed.ranked] == [each.bare for each in first.ranked]
    assert all(each.measured for each in timed.ranked)
    assert timed.best.seconds == pytest.approx(0.5 * timed.best.schedule.steps + 7.0)


def test_what_does_not_fit_the_budget_is_not_ranked():
    free = planner().plan(here())
    budget = 0.5 * free.best.schedule.steps - 1
    measured = Measured(free.best, step_seconds=0.5)
    made = planner().plan(here(measured=measured, budget_seconds=budget, seconds_per_step=0.5))
    assert made.best.bare != free.best.bare
    assert all(0.5 * each.schedule.steps <= budget for each in made.ranked)


def test_what_does_not_fit_the_memory_is_not_ranked():
    made = planner().plan(here(memory_bytes=16 * 10**6))
    assert {each.schedule.batch_size for each in made.ranked} <= {4, 8, 16}
    assert planner().plan(here(memory_bytes=1)).ranked[0].origin == "default"


def test_where_no_past_run_was_timed_no_seconds_are_said():
    assert planner(cost=None).plan(here()).best.seconds is None


def test_what_differs_by_less_than_a_repetition_is_tied():
    collection = earlier_runs.past(tasks=5)
    again = [
        earlier_runs.run(
            collection.tasks[0], first.config, 1000 + n, seed=1, curve=tuple(0.2 + 0.01 * n for _ in range(10))
        )
        for n, first in enumerate(collection.runs[:6])
    ]
    past = earlier_runs.dataset(replace(collection, runs=(*collection.runs, *again)))
    floor, source = noise_floor(past, NEW)
    assert floor > 0.1
    assert "over seeds" in source
    made = planner(past).plan(here())
    assert made.tied > 1
    assert f"Ranks 1 to {made.tied} are tied" in text(made)
    assert abs(made.ranked[made.tied - 1].score - made.best.score) < floor


def test_of_the_tied_the_cheapest_is_named_unless_it_is_the_first():
    tied = [replace(published(here())[0], seconds=seconds) for seconds in (40.0, None, 10.0, 20.0)]
    assert _cheapest(tied) == " The cheapest of them is rank 3, at 25% of the time of rank 1."
    assert _cheapest(tied[2:]) == ""
    assert _cheapest(tied[1:]) == ""


def test_without_repetitions_the_rows_of_dev_are_the_floor():
    floor, source = noise_floor(PAST, NEW)
    assert floor == pytest.approx(0.5 / 640**0.5)
    assert "640 dev rows" in source


def test_an_unknown_noise_ties_nothing():
    of = replace(NEW, metric="mcc")
    made = Planner(PAST, size=20, fit=earlier_runs.oracle()).plan(earlier_runs.situation(of))
    assert made.tied == 1


def test_the_nearest_tasks_come_first_and_copies_once():
    places = [place for place, _ in nearest(PAST, NEW)]
    assert PAST.tasks[places[0]].name == "task 2"
    copies = replace(PAST, tasks=tuple(replace(each, group_key="one") for each in PAST.tasks))
    assert len(nearest(copies, NEW)) == 1
    assert "task 2" in planner().plan(here()).details[0]


def test_a_portfolio_foretells_nothing():
    made = planner(spearman=0.1).plan(here())
    assert made.recommender == "transfer"
    assert {each.score for each in made.ranked} == {None}
    assert "portfolio" in text(made)


def test_where_nothing_beats_the_default_it_is_said():
    assert "No candidate is expected to do better" in text(planner(flat=True).plan(here()))


def test_it_learns_once_however_often_it_plans():
    calls = []

    def counting(past, seed=0, curves=False):
        calls.append(1)
        return earlier_runs.Oracle()

    asked = Planner(PAST, size=10, fit=counting)
    first = asked.plan(here())
    asked.plan(here(measured=Measured(first.best, 0.1)))
    assert len(calls) == 1


def test_what_was_learned_of_one_past_is_not_taken_for_another():
    """With ``refit`` the past grows by what was seen of the task, and is learned anew."""
    learned = []

    def counting(past, seed=0, curves=False):
        learned.append(len(past))
        return earlier_runs.Oracle()

    asked = Planner(PAST, "grey-box", size=10, fit=counting, refit=True)
    _, recommender = asked.recommender(here())
    recommender.refit_every = 1.0
    while (trial := recommender.ask()) is not None:
        told(recommender, trial, 0.7)
    assert learned[0] == len(PAST)
    assert len(learned) > 2
    assert learned[1:] == sorted(learned[1:])
    assert learned[1] > learned[0]
    asked.plan(here())
    assert learned.count(len(PAST)) == 1


@pytest.mark.parametrize("mode", ["portfolio", "grey-box"])
def test_what_does_not_fit_the_memory_is_never_tried(mode):
    """But the published default, as in a plan: what is expected of memory is no measurement."""
    asked = Planner(PAST, mode, size=40, fit=earlier_runs.oracle())
    tried = {}
    for memory in (None, 20e6):
        pool, recommender, _ = asked.to_play(here(memory_bytes=memory))
        tried[memory] = set()
        while (trial := recommender.ask()) is not None:
            told(recommender, trial, 0.7)
            tried[memory].add(pool.offered[trial.place].schedule.batch_size)
    assert max(tried[None]) > 20
    assert max(tried[20e6]) <= 20


def told(recommender, trial, score):
    curve = np.full(CELLS, np.nan)
    curve[: trial.until] = score
    nothing = np.full(CELLS, np.nan)
    curves = {"score": curve, "dev_loss": nothing, "train_loss": nothing}
    recommender.tell(Observation(trial, "ok", curves, nothing))


def test_an_unknown_mode_is_answered():
    with pytest.raises(UsageError, match="--mode"):
        Planner(PAST, "all-in")


def test_10_curves_of_nan_and_a_task_whose_runs_all_failed_leave_a_plan():
    collection = earlier_runs.past(tasks=5, per_task=6)
    nan = tuple(np.nan for _ in range(10))
    runs = tuple(
        replace(each, status="diverged", lines=(replace(each.lines[0], values=nan),))
        if each.task_id == "t0" or number % 7 == 0
        else each
        for number, each in enumerate(collection.runs)
    )
    past = earlier_runs.dataset(replace(collection, runs=runs))
    made = Planner(past, size=30).plan(here())
    assert made.recommender == "transfer"
    assert all(each.score is None or np.isfinite(each.score) for each in made.ranked)


@pytest.mark.parametrize("direction", ["max", "min"])
def test_what_is_really_learned_finds_a_better_pipeline(direction):
    past = earlier_runs.dataset(tasks=6, per_task=24, direction=direction, shared=False)
    of = replace(earlier_runs.task(2, rows=90, direction=direction), task_id="new", group_key="new")
    here = earlier_runs.situation(of)
    made = Planner(past, size=60).plan(here)
    assert made.recommender == "transfer"
    assert "Learned from" in text(made), made.evidence
    from foretune.recommenders.pool import plain_of

    chosen, default = (earlier_runs.quality(plain_of(each, here)) for each in (made.best, made.default))
    assert chosen >= default
    sign = of.sign
    assert all(sign * each.score >= sign * made.default.score for each in made.ranked)
