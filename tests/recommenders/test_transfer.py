"""transfer: which rule decides, what it asks for, and that it never asks for what is expected to be worse."""

from dataclasses import replace

import earlier_runs
import numpy as np
import pytest

from foretune.errors import DataError, UsageError
from foretune.recommenders import Observation, Transfer, Trial
from foretune.recommenders.transfer import improvement
from foretune.records import Line, MetaRun, MetaTask, ModelCard, RunCollection
from foretune.store.metadataset import CELLS, metadataset
from foretune.surrogates import ZeroShot

NEW = earlier_runs.task(2, rows=90)
NEW = replace(NEW, task_id="new", group_key="new")
PAST = earlier_runs.dataset(tasks=5)


def made(past=PAST, of=NEW, size=30, seed=0, pool=None, **changes):
    pool = pool or earlier_runs.pool_of(of, past, size)
    changes.setdefault("fit", earlier_runs.oracle())
    return Transfer(pool.runs, past, default=0, known=pool.known, seed=seed, **changes)


def told(recommender, trial, score, status="ok"):
    curve = np.full(CELLS, np.nan)
    curve[: trial.until] = score
    nothing = np.full(CELLS, np.nan)
    recommender.tell(Observation(trial, status, {"score": curve, "dev_loss": nothing, "train_loss": nothing}, nothing))


def play(recommender, turns):
    asked = []
    for _ in range(turns):
        trial = recommender.ask()
        if trial is None:
            break
        asked.append(trial)
        told(recommender, trial, 0.6 + earlier_runs.quality(recommender.view.configs[trial.place]))
    return asked


def values(recommender):
    return np.array([earlier_runs.quality(config) for config in recommender.view.configs])


@pytest.mark.parametrize("tasks", [0, 1, 2])
def test_below_three_tasks_the_published_default_decides(tasks):
    past = earlier_runs.dataset(tasks=tasks) if tasks else None
    recommender = made(past)
    assert (recommender.rule, recommender.ask()) == ("default", Trial(0))
    assert "No score is foretold" in recommender.evidence[0]


def test_copies_of_one_task_count_as_one():
    collection = earlier_runs.past(tasks=5)
    copies = tuple(replace(each, group_key="one") for each in collection.tasks)
    recommender = made(earlier_runs.dataset(replace(collection, tasks=copies)))
    assert recommender.rule == "default"
    assert "on 1 task have a score" in recommender.evidence[0]


def test_runs_that_all_failed_are_no_ground():
    collection = earlier_runs.past(tasks=5)
    failed = tuple(replace(run, status="diverged") for run in collection.runs)
    recommender = made(earlier_runs.dataset(replace(collection, runs=failed)))
    assert recommender.rule == "default"
    assert "on no task have a score" in recommender.evidence[0]


@pytest.mark.parametrize(
    ("changes", "says"),
    [({"family": "llama"}, "`llama` model"), ({"parameters": 2_000_000_000}, "it has 2,000,000,000 parameters")],
)
def test_of_a_model_unlike_the_earlier_ones_the_published_default_decides(changes, says):
    recommender = made(of=replace(earlier_runs.task(2, **changes), task_id="new", group_key="new"))
    assert recommender.rule == "default"
    assert says in recommender.evidence[0]
    assert recommender.ask() == Trial(0)


@pytest.mark.parametrize(
    ("changes", "says"),
    [({"rows": 100_000}, "training rows"), ({"classes": 500}, "classes")],
)
def test_outside_what_was_seen_the_portfolio_decides(changes, says):
    recommender = made(of=replace(earlier_runs.task(2, **changes), task_id="new", group_key="new"))
    assert recommender.rule == "portfolio"
    assert says in recommender.evidence[0]
    assert recommender.forecasts() is None
    assert recommender.ask() == Trial(recommender.known[0])


def test_an_objective_that_was_never_run_is_outside():
    config = {**PAST.configs[0], "objective": "pattern"}
    pool = earlier_runs.pool_of(NEW, PAST, 3)
    strange = replace(pool, runs=replace(pool.runs, configs=(config,) * 3))
    assert "objective=pattern" in made(pool=strange).evidence[0]


def stretched(places, steps=5_000):
    """A pool in which the candidates at ``places`` run far longer than any earlier run did."""
    pool = earlier_runs.pool_of(NEW, PAST, 30)
    configs = list(pool.runs.configs)
    for place in places:
        configs[place] = {**configs[place], "steps": steps}
    return replace(pool, runs=replace(pool.runs, configs=tuple(configs)))


@pytest.mark.parametrize("mode", ["one-shot", "grey-box"])
def test_what_runs_longer_than_any_earlier_run_is_not_ranked_and_it_is_said(mode):
    best = made().ranking()[0]
    assert best
    recommender = made(pool=stretched([best]), mode=mode)
    assert best not in recommender.ranking()
    assert recommender.ask().place != best
    steps = [config["steps"] for config in PAST.configs]
    assert f"steps {min(steps)} to {max(steps)}" in recommender.evidence[-1]
    assert "of `bert` models" in recommender.evidence[-1]


def test_the_default_stays_however_long_it_runs():
    assert 0 in made(pool=stretched([0])).ranking()


def test_lengths_that_the_user_chose_for_all_leave_nothing_out():
    usual = made(pool=stretched([]))
    assert made(pool=stretched(range(30))).ranking() == usual.ranking()


def test_a_longer_run_that_was_cut_shows_nothing_of_its_length():
    best = made().ranking()[0]
    whole = np.arange(len(PAST)) > 0
    configs = ({**PAST.configs[0], "steps": 5_000}, *PAST.configs[1:])
    long, cut = (replace(PAST, configs=configs, whole=done) for done in (np.ones(len(PAST), bool), whole))
    assert best in made(past=long, pool=stretched([best])).ranking()
    assert best not in made(past=cut, pool=stretched([best])).ranking()


def test_a_ranking_that_failed_on_tasks_left_out_does_not_decide():
    recommender = made(fit=earlier_runs.oracle(spearman=0.29))
    assert recommender.rule == "portfolio"
    assert "could not rank" in recommender.evidence[0]
    assert made(fit=earlier_runs.oracle(spearman=0.31)).rule == "surrogate"


def test_a_correlation_that_could_not_be_measured_does_not_decide():
    assert made(fit=earlier_runs.oracle(spearman=float("nan"))).rule == "portfolio"


def test_what_cannot_be_learned_is_said():
    def nothing(past, seed=0, curves=False):
        raise DataError("Too little.")

    recommender = made(fit=nothing)
    assert recommender.rule == "portfolio"
    assert "Too little." in recommender.evidence[0]


def alike(tasks=4, repeats=6):
    """Runs of one configuration on tasks of which nothing is known: they differ in their seeds alone."""
    about = tuple(MetaTask(f"t{n}", f"t{n}", f"g{n}", "accuracy", model=ModelCard("m", "bert")) for n in range(tasks))
    steps = tuple(range(1, CELLS + 1))
    runs = tuple(
        MetaRun(
            f"{of.name}/{seed}",
            of.task_id,
            {"lr": 0.1},
            "ok",
            CELLS,
            (Line("dev", "accuracy", steps, tuple(0.05 * step + 0.01 * seed for step in steps)),),
            seed,
        )
        for of in about
        for seed in range(repeats)
    )
    return RunCollection("alike", about, runs)


@pytest.mark.parametrize("mode", ["one-shot", "portfolio", "grey-box"])
def test_a_past_in_which_nothing_varies_and_a_pool_of_one_have_an_answer(mode):
    new = MetaTask("new", "new", "g new", "accuracy", model=ModelCard("m", "bert"))
    only = metadataset([RunCollection("pool", (new,), (MetaRun("0", "new", {"lr": 0.1}, "stopped", CELLS),))])
    recommender = Transfer(only, metadataset([alike()]), default=0, mode=mode)
    assert recommender.ask() == Trial(0, CELLS)
    assert recommender.rule == "portfolio"
    assert "a Spearman correlation of 0.00 only" in recommender.evidence[0]


def test_a_forest_says_that_there_is_nothing_to_learn_from():
    with pytest.raises(
        DataError, match=r"settings or features that vary, but all 24 runs are alike.*Keep runs of other"
    ):
        ZeroShot().fit(metadataset([alike()]))


def test_without_anything_known_here_the_fall_is_to_the_default():
    pool = replace(earlier_runs.pool_of(NEW, None), known=())
    assert made(pool=pool, fit=earlier_runs.oracle(spearman=0.0)).rule == "default"


def test_one_shot_asks_for_what_is_worth_most():
    recommender = made()
    assert recommender.ask() == Trial(int(np.argmax(values(recommender))), CELLS)


def test_what_fails_more_likely_than_not_is_not_tried():
    best = made().view.configs[made().ask().place]["tuner"]
    recommender = made(fit=earlier_runs.oracle(fails=(best,)))
    assert recommender.view.configs[recommender.ask().place]["tuner"] != best


def test_the_default_comes_first_when_all_is_likely_to_fail():
    tuners = tuple({str(config["tuner"]) for config in made().view.configs})
    assert made(fit=earlier_runs.oracle(fails=tuners)).ranking() == [0]


@pytest.mark.parametrize("direction", ["max", "min"])
@pytest.mark.parametrize("numbers", [True, False])
def test_11_nothing_that_is_expected_below_the_default_is_recommended(direction, numbers):
    past = earlier_runs.dataset(tasks=5, direction=direction)
    of = replace(earlier_runs.task(2, direction=direction), task_id="new", group_key="new")
    recommender = made(past, of, fit=earlier_runs.oracle(numbers=numbers))
    worth, ranking = values(recommender), recommender.ranking()
    assert 0 in ranking
    assert (worth[ranking] >= worth[0]).all()
    assert [*worth[ranking]] == sorted(worth[ranking], reverse=True)


def test_where_all_are_expected_alike_the_default_comes_first():
    assert made(fit=earlier_runs.oracle(flat=True)).ranking()[0] == 0


def test_a_word_that_no_earlier_run_had_is_not_recommended():
    pool = earlier_runs.pool_of(NEW, PAST, 30)
    best = made(pool=pool).ask().place
    configs = tuple({**c, "decay": "cubic"} if n == best else c for n, c in enumerate(pool.runs.configs))
    assert best not in made(pool=replace(pool, runs=replace(pool.runs, configs=configs))).ranking()


def test_portfolio_asks_for_what_did_well_elsewhere_first():
    recommender, ranking = made(mode="portfolio"), made().ranking()
    first = [place for place in recommender.known if place in ranking]
    assert 1 < len(first) < len(recommender.known)
    rest = [place for place in ranking if place not in first]
    assert [trial.place for trial in play(recommender, len(ranking))] == [*first, *rest]


def test_what_did_well_elsewhere_is_not_tried_where_it_is_expected_to_fail():
    fails = earlier_runs.oracle(fails=("lora",))
    recommender = made(mode="portfolio", fit=fails)
    asked = {recommender.view.configs[trial.place]["tuner"] for trial in play(recommender, 30) if trial.place}
    assert any(recommender.view.configs[place]["tuner"] == "lora" for place in recommender.known)
    assert "lora" not in asked


def test_grey_box_goes_in_tenths_and_ends():
    recommender = made(mode="grey-box", size=4)
    asked = play(recommender, 200)
    assert len(asked) < 200
    for place in {trial.place for trial in asked}:
        cells = [trial.until for trial in asked if trial.place == place]
        assert cells == list(range(1, len(cells) + 1))


def test_grey_box_leaves_what_failed():
    recommender = made(mode="grey-box")
    first = recommender.ask()
    told(recommender, first, np.nan, "diverged")
    assert recommender.ask().place != first.place


def test_10_what_was_told_again_leads_to_the_same_next_trial():
    one = made(mode="grey-box")
    asked = play(one, 12)
    other = made(mode="grey-box")
    for trial in asked:
        told(other, trial, 0.6 + earlier_runs.quality(other.view.configs[trial.place]))
    assert one.ask() == other.ask()


def test_a_pool_of_one_is_played_to_its_end():
    for mode in ("one-shot", "portfolio", "grey-box"):
        recommender = made(mode=mode, size=1)
        asked = play(recommender, 50)
        assert {trial.place for trial in asked} == {0}
        assert asked[-1].until == CELLS or mode == "grey-box"


def test_refit_learns_from_this_task_and_no_refit_does_not():
    fits = []

    def counting(past, seed=0, curves=False):
        fits.append(sorted(task.name for task in past.tasks))
        return earlier_runs.Oracle()

    play(made(mode="grey-box", fit=counting), 25)
    assert len(fits) == 1
    play(made(mode="grey-box", fit=counting, refit=True, refit_every=1.0), 25)
    assert len(fits) > 2
    assert fits[-1].count(NEW.name) == 2  # the new task beside an earlier one of the same name


def test_a_refit_takes_no_part_of_a_run_for_a_whole_one():
    fits = []

    def keeping(past, seed=0, curves=False):
        fits.append(past)
        return earlier_runs.Oracle()

    play(made(mode="grey-box", fit=keeping, refit=True, refit_every=0.5), 25)
    for past in fits[1:]:
        here = past.take(past.task == len(past.tasks) - 1)
        assert np.array_equal(np.isfinite(here.score), np.isfinite(here.curves["score"][:, -1]))
    early = fits[1].score[fits[1].task == len(fits[1].tasks) - 1]
    assert np.isnan(early).all()


def test_an_unknown_mode_is_answered():
    with pytest.raises(UsageError, match="one-shot, portfolio, grey-box"):
        made(mode="all-in")


def test_expected_improvement_grows_with_mean_and_spread():
    assert improvement(np.array([0.1, 0.2]), np.array([0.1, 0.1]), 0.3)[1] > improvement(
        np.array([0.1]), np.array([0.1]), 0.3
    )
    assert improvement(np.array([0.1]), np.array([0.0]), 0.3)[0] == 0
