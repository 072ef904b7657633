"""Recommenders race on recorded curves: equal budgets, nothing leaks, and bad input is answered. Checks 9, 10, 11."""

import math
from dataclasses import replace

import numpy as np
import pytest

from foretune.comparison.replay.controls import CONTROLS, one_per_group, shuffled_features, shuffled_targets
from foretune.comparison.replay.entries import DEFAULT, Entry
from foretune.comparison.replay.pools import held_out, noise_floor
from foretune.comparison.replay.race import observed, race
from foretune.comparison.replay.run import RACED, RANDOM, run_replay
from foretune.errors import DataError, UsageError
from foretune.evaluation.regret import expected_at_random
from foretune.recommenders import RECOMMENDERS, RandomSearch, Transfer
from foretune.recommenders.base import Recommender, Trial
from foretune.recommenders.forecasts import Forecasts
from foretune.recommenders.foresight import Foresight
from foretune.records import RunCollection
from foretune.report import replay_tables
from foretune.store.metadataset import CELLS, metadataset
from foretune.testing.recommender_contract import toy_collection, toy_held

CONFIGS = 20
ADVICE = {"lr": 1e-4, "tuner": "lora"}


def dataset(**options):
    return metadataset([toy_collection(**options)])


def start(kind):
    return lambda pool, past, default, seed: kind(pool, past, default=default, seed=seed)


@pytest.fixture(scope="module")
def done():
    return run_replay(
        dataset(repeats=2),
        collection="toy",
        recommenders=["random", "halving", "portfolio"],
        default=ADVICE,
        seeds=3,
        controls=tuple(CONTROLS),
    )


def test_random_search_comes_out_at_its_exact_expectation():
    held = toy_held()
    for k in (1, 2, 5):
        drawn = [held.regrets[race(held, start(RandomSearch), (float(k),), seed).incumbents[0]] for seed in range(400)]
        exact = expected_at_random(held.regrets, held.preference, k)
        assert np.mean(drawn) == pytest.approx(exact, abs=4 * np.std(drawn) / 20 + 0.02)


def test_past_runs_win_and_the_control_shows_that_they_do(done):
    portfolio, control = done.standing("portfolio", 1.0), done.standing("portfolio, shuffled targets", 1.0)
    assert portfolio.mean < 0.2
    assert portfolio.mean < done.standing(RANDOM, 1.0).mean / 2
    assert control.mean > 2 * portfolio.mean
    assert portfolio.behind < 0


def test_a_recommender_that_reads_no_past_has_no_control_row(done):
    assert done.unchanged["shuffled-targets"] == ("random", "halving")
    assert "random, shuffled targets" not in done.entries


def test_every_pairing_says_on_how_many_groups_it_rests(done):
    assert {row.n for row in done.pairings} == {6}
    assert {row.second for row in done.pairings} == {DEFAULT, RANDOM}
    row = next(row for row in done.pairings if (row.first, row.second, row.budget) == ("portfolio", DEFAULT, 1.0))
    assert row.difference < 0
    assert (row.wins, row.losses) == (6, 0)
    assert row.sign_p == pytest.approx(2 / 2**6)
    assert row.wilcoxon_p == pytest.approx(2 / 2**6)
    assert row.low <= row.difference <= row.high
    values = sorted((each.wilcoxon_p, each.holm_p) for each in done.pairings)
    assert values[0][1] == pytest.approx(min(1.0, len(values) * values[0][0]))
    assert all(before <= after for before, after in values)


def test_regret_falls_with_the_budget_for_random_search(done):
    means = [done.standing(RANDOM, budget).mean for budget in done.budgets]
    assert means == sorted(means, reverse=True)


def test_the_same_replay_twice_is_the_same():
    first, again = (run_replay(dataset(), recommenders=["random", "asha"], seeds=2) for _ in range(2))
    assert all(np.array_equal(first.regrets[name], again.regrets[name]) for name in first.entries)


def test_the_incumbent_is_chosen_on_dev_and_judged_on_test():
    made = dataset()
    test = made.test.copy()
    swapped = np.flatnonzero(made.task == 0)
    test[swapped] = -test[swapped]
    held = held_out(replace(made, test=test), "leave-one-task-out")[0][0]
    lap = race(held, start(RandomSearch), (float(CONFIGS),), 0)
    assert lap.incumbents[0] == int(np.nanargmax(held.preference))
    assert held.regrets[lap.incumbents[0]] > 0.9
    assert lap.best[0] == pytest.approx(held.regrets[np.isfinite(held.preference)].min())


def test_check_9_recommenders_see_no_test_score_and_no_copy_of_the_task():
    told = []

    class Spy(Recommender):
        name = "spy"
        evidence = ("None.",)

        def ask(self):
            told.append((self.view, self.past))
            return None

    made = toy_collection()
    copy = replace(made.tasks[0], task_id="copy", name="copy")
    runs = tuple(replace(run, run_id=f"c{run.run_id}", task_id="copy") for run in made.runs if run.task_id == "task-0")
    collection = RunCollection("copied", (*made.tasks, copy), (*made.runs, *runs))
    held, _ = held_out(metadataset([collection]), "leave-one-task-out")
    race(held[0], start(Spy), (1.0,), 0)
    ((view, past),) = told
    assert np.isnan(view.test).all()
    assert np.isnan(view.score).all()
    assert np.isnan(view.curves["score"]).all()
    assert np.isnan(past.test).all()
    assert {task.name for task in past.tasks} == {f"task-{n}" for n in range(1, 6)}
    assert held[0].left_out == ("copy",)


def test_check_9_copies_count_once_and_can_be_removed():
    made = toy_collection()
    tasks = tuple(replace(task, group_key="one" if n < 3 else task.group_key) for n, task in enumerate(made.tasks))
    both = metadataset([replace(made, tasks=tasks)])
    whole = run_replay(both, recommenders=["random"], seeds=1, controls=())
    assert (len(whole.fields), {row.n for row in whole.pairings}) == (6, {4})
    fewer = run_replay(both, recommenders=["random"], seeds=1, controls=(), duplicates=False)
    assert len(fewer.fields) == 4
    assert "2 tasks were removed as copies: task-1, task-2." in fewer.notes
    assert one_per_group(metadataset([made]))[1] == ()


def test_unseen_configurations_are_on_no_other_task_and_the_split_is_that_of_the_specification():
    held, _ = held_out(dataset(), "leave-one-task-out", unseen=True)
    order = np.random.default_rng(0).permutation(20)
    names = list(dict.fromkeys(dataset().config_ids))
    assert held[0].pool.config_ids.tolist() == [names[number] for number in order[10:]]
    assert not set(held[0].pool.config_ids) & set(held[0].past.config_ids)


def test_a_family_is_held_out_as_a_whole():
    held, _ = held_out(dataset(), "leave-one-family-out")
    assert len(held) == 6
    assert all(h.task.family not in {task.family for task in h.past.tasks} for h in held)


def test_a_failure_is_told_when_the_run_breaks_and_costs_what_was_spent():
    held = toy_held()
    broken = int(np.flatnonzero(held.failed)[0])
    assert observed(held, Trial(broken, 3)).status == "stopped"
    assert observed(held, Trial(broken, 4)).status == "diverged"
    assert held.costs.cells(broken, 0, CELLS) == 4
    assert held.costs.cells(broken, 3, CELLS) == 1
    assert held.costs.cells(0, 0, CELLS) == CELLS


def test_what_was_asked_for_is_told_and_nothing_behind_it():
    told = observed(toy_held(), Trial(0, 3))
    assert np.isfinite(told.curves["score"]).tolist() == [True] * 3 + [False] * 7
    assert told.seconds[:3].tolist() == [1.0, 2.0, 3.0]


def test_nobody_spends_more_than_the_budget(done):
    for name in done.laps:
        assert max(lap.cells for row in done.laps[name] for lap in row) <= 10 * CELLS


def test_in_a_race_for_seconds_dear_runs_buy_fewer_trials():
    held = toy_held()
    assert held.costs.timed
    lap = race(held, start(RandomSearch), (3.0,), 0, "seconds")
    assert 0 < lap.seconds <= 3 * held.costs.full_run
    assert lap.thinking > 0
    done = run_replay(dataset(), recommenders=["random"], unit="seconds", seeds=1, controls=())
    assert done.settings["unit"] == "seconds"
    with pytest.raises(DataError, match=r"A race for seconds needs the time of every run, but 6 of 6 tasks lack some"):
        run_replay(dataset(timed=False), recommenders=["random"], unit="seconds")


def test_in_a_race_for_seconds_the_default_is_paid_for_by_its_own_seconds():
    advice = {**ADVICE, "tuner": "full"}  # its runs take twice as long as the others
    done = run_replay(dataset(), recommenders=["random"], unit="seconds", budgets=[1.0, 2.0], default=advice)
    held, _ = held_out(dataset(), "leave-one-task-out", default=advice)
    costs = [h.costs.time(h.default, 0, CELLS) / h.costs.full_run for h in held]
    assert all(1 < cost <= 2 for cost in costs)
    assert done.regrets[DEFAULT][:, 0, 0].tolist() == [1.0] * 6
    assert done.regrets[DEFAULT][:, 0, 1].tolist() == [h.regrets[h.default] for h in held]
    whole = run_replay(dataset(), recommenders=["random"], budgets=[1.0], default=advice)
    assert whole.regrets[DEFAULT][:, 0, 0].tolist() == [h.regrets[h.default] for h in held]


def test_in_a_race_for_seconds_random_search_in_expectation_has_no_row_and_it_is_said():
    done = run_replay(dataset(), recommenders=["random", "portfolio"], unit="seconds", default=ADVICE)
    assert RANDOM not in done.entries
    assert {row.second for row in done.pairings} == {DEFAULT}
    assert any("has no row in a race for seconds" in note for note in done.notes)


def test_every_learner_is_paired_with_the_baselines_that_raced():
    done = run_replay(
        dataset(), recommenders=["bayesian", "portfolio", "halving:eta=4"], default=ADVICE, budgets=[1.0, 2.0]
    )
    pairs = {(row.first, row.second) for row in done.pairings}
    assert {second for first, second in pairs if first == "bayesian"} == {DEFAULT, RANDOM, "portfolio", "halving:eta=4"}
    assert {second for first, second in pairs if first == "portfolio"} == {DEFAULT, RANDOM}
    row = next(r for r in done.pairings if (r.first, r.second, r.budget) == ("bayesian", "portfolio", 2.0))
    differences = (done.regrets["bayesian"] - done.regrets["portfolio"])[:, 0, 1]
    assert row.difference == pytest.approx(differences.mean())
    assert row.low <= row.difference <= row.high
    assert row.holm_p >= row.wilcoxon_p
    table = replay_tables.against(done)
    assert "bayesian minus portfolio" in {line[0] for line in table.rows}
    assert any("portfolio, better on" in sentence for sentence in replay_tables.sentences(done))


@pytest.mark.parametrize(("default", "who"), [(ADVICE, "the published default"), (None, "the first candidate")])
def test_a_learner_that_leaves_it_to_the_default_everywhere_is_named_with_its_reason(default, who):
    done = run_replay(
        dataset(), protocol="leave-one-family-out", recommenders=["transfer", "portfolio"], default=default
    )
    said = [note for note in done.notes if note.startswith("transfer ")]
    assert len(said) == 1
    assert f"transfer ran nothing but {who} in any of its laps" in said[0]
    assert "Earlier runs say nothing of this model" in said[0]
    assert f"So {who} decides" in said[0]
    assert not any(note.startswith("portfolio ") for note in done.notes)


def test_rule_7_repeated_runs_measure_the_noise_and_stand_once_in_the_pool(done):
    deviation, configurations = done.noise
    assert configurations == 6 * 18
    assert 0 < deviation < 0.1
    assert {field.candidates for field in done.fields} == {20}
    assert noise_floor(dataset()) is None
    tiny = [row for row in done.pairings if abs(row.difference) < deviation]
    assert all(row.below_noise for row in tiny)


def test_shuffled_targets_keep_every_number_and_move_it():
    held = toy_held()
    _, past = shuffled_targets(held.pool, held.past, np.random.default_rng(0))
    for number in range(len(past.tasks)):
        runs = past.task == number
        assert np.array_equal(np.sort(past.score[runs]), np.sort(held.past.score[runs]), equal_nan=True)
    assert not np.array_equal(past.score, held.past.score, equal_nan=True)
    assert past.config_ids.tolist() == held.past.config_ids.tolist()


def test_shuffled_features_leave_no_task_its_own():
    held = toy_held()
    pool, past = shuffled_features(held.pool, held.past, np.random.default_rng(0))
    before, after = (*held.past.tasks, *held.pool.tasks), (*past.tasks, *pool.tasks)
    assert all(a.features != b.features for a, b in zip(before, after, strict=True))
    assert [task.name for task in before] == [task.name for task in after]


def test_the_nearest_candidate_stands_for_the_default():
    held = toy_held()
    config = held.pool.configs[held.default]
    assert config["tuner"] == "lora"
    assert abs(math.log10(config["lr"]) + 4) < 0.25
    with pytest.raises(UsageError, match="a setting `rte`, which no candidate on `task-0` has"):
        held_out(dataset(), "leave-one-task-out", default={"rte": 1.0})


def test_a_default_told_task_by_task_is_found_whole_or_not_at_all():
    runs = dataset()
    wanted = dict(toy_held().pool.configs[5])
    held, _ = held_out(runs, "leave-one-task-out", default=lambda task: wanted)
    assert {dict(h.pool.configs[h.default]) == wanted for h in held} == {True}
    held, _ = held_out(runs, "leave-one-task-out", default=lambda task: {**wanted, "lr": wanted["lr"] * 1.001})
    assert {h.default for h in held} == {None}

    def once(task):
        return wanted if task.name == "task-0" else None

    done = run_replay(runs, recommenders=["random"], default=once, seeds=1, controls=())
    assert DEFAULT not in done.entries
    assert done.settings["default"] == "published"
    assert "default is known on 1 of 6 tasks alone" in " ".join(replay_tables.sentences(done))


def test_options_reach_a_recommender_and_wrong_ones_are_named():
    done = run_replay(dataset(), recommenders=["halving", "halving:eta=2"], seeds=1, controls=())
    assert {"halving", "halving:eta=2"} <= set(done.entries)
    with pytest.raises(UsageError, match=r"`etta=2` is no option of `halving`\. Did you mean `eta`"):
        Entry.parse("halving:etta=2")
    with pytest.raises(UsageError, match=r"`portfoli` is not a recommender\. Did you mean `portfolio`"):
        run_replay(dataset(), recommenders=["portfoli"])


def test_check_10_minimised_metrics_give_the_same_race():
    up, down = (
        run_replay(dataset(direction=d), recommenders=["portfolio"], seeds=1, controls=()) for d in ("max", "min")
    )
    for name in up.entries:
        assert up.regrets[name] == pytest.approx(down.regrets[name], abs=1e-9)


def test_check_10_a_task_whose_runs_all_failed_is_left_out_in_words():
    made = toy_collection()
    runs = tuple(replace(run, status="failed", lines=()) if run.task_id == "task-2" else run for run in made.runs)
    done = run_replay(metadataset([replace(made, runs=runs)]), recommenders=["portfolio"], seeds=1, controls=())
    assert len(done.fields) == 5
    assert done.notes == ("`task-2` was not raced on: all of its 20 runs failed or have no dev score.",)
    broken = tuple(replace(run, status="oom") for run in made.runs)
    with pytest.raises(DataError, match="No task can be held out"):
        run_replay(metadataset([replace(made, runs=broken)]), recommenders=["random"])


def test_check_10_curves_of_nan_and_missing_test_scores_are_answered():
    made = toy_collection()

    def spoilt(line):
        return replace(line, values=(math.nan,) * len(line.values))

    runs = tuple(
        replace(run, lines=tuple(map(spoilt, run.lines))) if number % 3 == 0 else run
        for number, run in enumerate(made.runs)
    )
    done = run_replay(metadataset([replace(made, runs=runs)]), recommenders=["halving", "portfolio"], seeds=1)
    assert all(np.isfinite(values).all() for values in done.regrets.values())
    untested = tuple(replace(run, lines=run.lines[:1]) for run in made.runs)
    done = run_replay(metadataset([replace(made, runs=untested)]), recommenders=["random"], seeds=1)
    assert not any(field.on_test for field in done.fields)
    assert "6 of 6 tasks have no test scores" in done.notes[0]


def test_check_10_a_pool_of_one_and_a_store_of_one_task():
    done = run_replay(dataset(configs=1), recommenders=["random", "halving", "portfolio"], seeds=1, controls=())
    assert all((done.regrets[name][..., 0] == 0).all() for name in done.entries)
    with pytest.raises(DataError, match="leaves nothing to learn from: 1 tasks"):
        run_replay(dataset(tasks=1), recommenders=["random"])


def test_two_tasks_are_raced_and_their_p_is_one_half():
    done = run_replay(dataset(tasks=2), recommenders=["portfolio"], seeds=1, default=ADVICE, controls=())
    row = next(row for row in done.pairings if row.second == DEFAULT and row.budget == 1)
    assert (row.n, row.sign_p) == (2, 0.5)


@pytest.mark.parametrize("budgets", [(), (0,), (-1, 2), (math.inf,), (math.nan,), (0.05,)])
def test_check_10_a_budget_that_cannot_be_is_refused(budgets):
    with pytest.raises(UsageError, match=r"budgets are full-run equivalents|pays for no trial"):
        run_replay(dataset(), recommenders=["random"], budgets=budgets)


def test_check_10_a_budget_too_small_for_a_recommender_counts_as_nothing_found():
    done = run_replay(dataset(), recommenders=["random", "halving"], budgets=(0.5, 1.0), seeds=2, controls=())
    assert done.standing("random", 0.5).missing > 0.5
    assert done.standing("random", 1.0).missing < done.standing("random", 0.5).missing
    assert done.standing("halving", 0.5).missing == 0
    assert done.standing(RANDOM, 0.5).mean == 1


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"protocol": "leave-one-out"}, "`leave-one-out` is not a protocol. Did you mean"),
        ({"learn_from": "train"}, "but not from `train`"),
        ({"unit": "hours"}, "but not in `hours`"),
        ({"seeds": 0}, "`seeds` must be a whole number from 1 on, but got 0"),
        ({"controls": ["shuffled"]}, "`shuffled` is not a control"),
        ({"recommenders": []}, "at least 1 recommender"),
        ({"recommenders": ["default"]}, "Give its settings"),
    ],
)
def test_an_option_that_cannot_be_is_one_sentence(options, words):
    with pytest.raises(UsageError, match=words):
        run_replay(dataset(), **{"recommenders": ["random"], **options})


def test_a_recommender_that_asks_for_nonsense_is_named(monkeypatch):
    class Astray(Recommender):
        name = "astray"
        evidence = ("None.",)

        def ask(self):
            return Trial(99)

    monkeypatch.setitem(RECOMMENDERS, "astray", Astray)
    with pytest.raises(UsageError, match="`astray` asked for candidate 99 of a pool of 20"):
        run_replay(dataset(), recommenders=["astray"], seeds=1)


class Backwards(Foresight):
    """Prefers what did worst on every earlier task, and is sure of it."""

    spearman, judged, cost = 1.0, 6, None

    def learn(self):
        """Nothing."""

    @property
    def ranks(self):
        return -np.where(self.past.succeeded, self.past.score, -1.0)

    def of(self, pool, seen):
        far = np.abs(np.log10([config["lr"] for config in pool.configs]) + 3)
        n, unknown = len(pool), np.full(len(pool), np.nan)
        return Forecasts(far, unknown, unknown, unknown, False, np.zeros(n), np.ones(n))


def test_check_11_a_ranking_that_lost_to_the_default_on_tasks_left_out_does_not_displace_it():
    held, _ = held_out(dataset(), "leave-one-task-out", default={"lr": 1e-3})
    for each in held:
        chosen = {}
        for guarded in (True, False):

            def asked(pool, past, default, seed, guarded=guarded):
                return Transfer(pool, past, default=default, seed=seed, standard=guarded, fit=Backwards)

            chosen[guarded] = race(each, asked, (1.0,), 0).incumbents[0]
        assert chosen[True] == each.default
        assert chosen[False] != each.default
        assert chosen[False] < 0 or each.regrets[chosen[False]] > each.regrets[each.default] + 0.1


def test_thresholds_of_the_specification_stand_beside_the_rows_that_they_are_of():
    asked = {"recommenders": ["portfolio"], "default": ADVICE}
    found = run_replay(dataset(), collection="taskset", **asked)
    assert [(row.check, row.entry, row.budget) for row in found.thresholds] == [
        (3, "portfolio", 1),
        (3, "portfolio", 2),
    ]
    assert [row.met for row in found.thresholds] == [
        found.standing("portfolio", 1.0).mean <= 0.10,
        found.standing("portfolio", 2.0).mean <= 0.03,
    ]
    said = replay_tables.sentences(found)
    assert sum(("met." in line) for line in said) == 2
    assert run_replay(dataset(), collection="taskset", unseen=True, **asked).thresholds == ()
    assert run_replay(dataset(), collection="another", **asked).thresholds == ()


def test_ours_races_where_nobody_is_named_and_is_held_to_the_thresholds_of_any_collection():
    found = run_replay(dataset(tasks=4, configs=8), default=ADVICE, budgets=(0.5, 1.0))
    assert set(found.laps) == set(RACED)
    assert {(row.check, row.entry) for row in found.thresholds} == {(3, "transfer"), (11, "transfer")}
