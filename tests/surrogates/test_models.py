"""Anchors, widths of intervals, and what the models promise beside the contract. Checks 5, 8, 9 and 10."""

import os
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from foretune.errors import DataError, UsageError
from foretune.store.metadataset import CELLS, ROLES, folds
from foretune.surrogates import (
    CostModel,
    FailureModel,
    LastValue,
    MeanTable,
    QuantileBoosting,
    Transfer,
    ZeroShot,
    quantile_boosting,
    zero_shot,
)
from foretune.surrogates.anchor import Anchor
from foretune.surrogates.conformal import equal_weights, left_out, quantile, width
from foretune.surrogates.encode import Encoder
from foretune.surrogates.zero_shot import Ranker, rank_within
from foretune.testing.surrogate_contract import FAILS, at, configurations, hidden, made_store, of, rank_correlation

CONFIG = {"lr": 1e-3, "variant": "deep", "targets": "all", "rescale": True}


def with_features(data, features, direction="max"):
    metric = "accuracy" if direction == "max" else "loss"
    tasks = [
        replace(task, features=dict(each), direction=direction, metric=metric)
        for task, each in zip(data.tasks, features, strict=True)
    ]
    return replace(data, tasks=tuple(tasks))


def successes(**options):
    new = made_store(1, first=6, **options)
    return new.take(new.succeeded)


def test_the_anchor_is_the_kind_that_most_tasks_have():
    data = made_store(3, 4)
    probe, loss = {"landmark_probe": 0.4}, {"zero_shot_loss": 2.0, "untrained": 1.0}
    assert Anchor.fit(with_features(data, [probe, probe, {}])).kind == "start"
    data = replace(data, start={role: np.full(len(data), np.nan) for role in ROLES})
    assert Anchor.fit(with_features(data, [probe, {}, {}])).kind == "landmark_probe"
    assert Anchor.fit(with_features(data, [loss, probe, {}], "min")).kind == "zero_shot_loss"
    assert Anchor.fit(with_features(data, [loss, {}, {}])).kind == "none"
    assert Anchor.fit(with_features(data, [{"untrained": 1.0}] * 3, "min")).kind == "untrained"


def test_an_anchor_is_of_the_task_and_none_is_not_0():
    data = with_features(made_store(3, 4), [{"landmark_probe": 0.4}, {}, {"landmark_probe": 0.6}])
    found = Anchor("landmark_probe").of(data)
    assert np.array_equal(found, np.repeat([0.4, np.nan, 0.6], 4), equal_nan=True)
    assert Anchor("start").of(data) == pytest.approx(np.repeat([0.2, 0.23, 0.26], 4))
    assert set(Anchor("none").of(data)) == {0.0}


def test_an_anchor_in_another_unit_is_none():
    """The landmark is an accuracy, and says nothing in the unit of a correlation."""
    data = made_store(3, 4)
    tasks = tuple(replace(task, metric="mcc") for task in data.tasks)
    assert np.isnan(Anchor("landmark_probe").of(replace(data, tasks=tasks))).all()


def test_of_a_metric_that_no_anchor_serves_nothing_is_foretold_until_something_was_seen():
    past, new = made_store(6, 8), made_store(1, 8, first=6)
    pool = replace(new, tasks=tuple(replace(task, metric="mcc") for task in new.tasks)).take(new.succeeded)
    nothing, some = np.zeros(len(pool), np.int64), np.where(np.arange(len(pool)) == 0, 3, 0)
    for model in (ZeroShot(1, 20), QuantileBoosting(20)):
        assert np.isnan(model.fit(past).predict(hidden(pool, nothing), nothing).mean).all()
    told = model.predict(hidden(pool, some), some)
    assert np.isfinite(told.mean).all()
    assert told.mean[0] >= pool.curves["score"][0, :3].max()


@given(st.lists(st.tuples(st.floats(-9, 9), st.integers(0, 3)), min_size=1), st.floats(0.01, 1))
def test_a_quantile_has_its_share_of_the_weight_below_it(rows, share):
    values, tasks = (np.array(column) for column in zip(*rows, strict=True))
    weights = equal_weights(tasks)
    found = quantile(values, weights, share)
    assert weights[values <= found].sum() >= share - 1e-6
    assert weights[values < found].sum() < share + 1e-6
    assert {round(weights[tasks == task].sum() * len(set(tasks)), 6) for task in set(tasks)} == {1.0}


def test_check_5_a_width_covers_the_runs_it_was_measured_on():
    rng = np.random.default_rng(0)
    truth, tasks = rng.normal(size=900), np.repeat(np.arange(9), 100)
    wider = width(np.full(900, -0.1), np.full(900, 0.1), truth, tasks)
    assert np.mean(np.abs(truth) <= 0.1 + wider) == pytest.approx(0.8, abs=0.02)


def test_tasks_weigh_equally_in_a_width_however_many_runs_they_have():
    truth, tasks = np.append(np.zeros(90), np.ones(10)), np.repeat([0, 1], [90, 10])
    assert width(np.zeros(100), np.zeros(100), truth, tasks) == 1.0
    assert width(np.zeros(100), np.zeros(100), truth, np.zeros(100)) == 0.0


def test_check_9_groups_are_left_out_whole_and_each_once():
    data = made_store(8, 3)
    tasks = tuple(
        replace(task, group_key=f"group {place // 2 if place < 4 else place}") for place, task in enumerate(data.tasks)
    )
    data = replace(data, tasks=tasks)
    parts = list(left_out(data, 0))
    assert (np.sum(parts, axis=0) == 1).all()
    assert all(not set(data.groups[part]) & set(data.groups[~part]) for part in parts)
    assert list(left_out(data.take(data.task < 5), 0)) == []


@pytest.mark.parametrize(("kind", "module"), [(ZeroShot, zero_shot.conformal), (QuantileBoosting, quantile_boosting)])
def test_check_9_what_a_width_is_measured_by_was_learned_without_those_it_is_measured_on(kind, module, monkeypatch):
    """One group alone has settings of its own. A model that is judged on the group cannot have a column of them."""
    measured = []

    def spy(low, high, truth, tasks):
        measured.append((low, high, tasks))
        return width(low, high, truth, tasks)

    monkeypatch.setattr(module, "width", spy)
    data = made_store(6, 10)
    own = np.random.default_rng(0).normal(size=len(data))
    configs = tuple(
        {**config, "only here": float(own[place])} if data.task[place] == 2 else config
        for place, config in enumerate(data.configs)
    )
    assert "only here" in " ".join(Encoder.fit(replace(data, configs=configs)).names)
    for each in (data, replace(data, configs=configs)):
        kind(5).fit(each)
    half = len(measured) // 2
    for (low, high, tasks), (low_too, high_too, _) in zip(measured[:half], measured[half:], strict=True):
        mine = tasks == 2
        assert np.array_equal(low[mine], low_too[mine])
        assert np.array_equal(high[mine], high_too[mine])


@pytest.mark.parametrize("kind", [ZeroShot, QuantileBoosting])
def test_check_9_nothing_of_a_task_that_is_held_out_enters_what_is_learned_or_how_wide_it_is(kind):
    """Settings, features and scores of the task that is judged are absurd, and the model of its fold is the same."""
    data = made_store(6, 10)
    judged = data.task == 5
    about = {**data.tasks[5].features, **dict.fromkeys(data.tasks[5].features, 1e9)}
    absurd = replace(
        data,
        tasks=(*data.tasks[:5], replace(data.tasks[5], features=about)),
        configs=tuple({"lr": 1e9} if judged[place] else config for place, config in enumerate(data.configs)),
        score=np.where(judged, 1e9, data.score),
    )
    new = successes()
    seen = at(new, 0)
    one, other = (
        kind(5).fit(each.take(fold.train)).predict(new, seen)
        for each in (data, absurd)
        for fold in folds(each, "task")
        if each.task[fold.test][0] == 5
    )
    for name in ("order", "mean", "low", "high"):
        assert np.array_equal(getattr(one, name), getattr(other, name))


def test_check_5_intervals_are_calibrated_from_five_groups_on_and_cover_new_tasks():
    new, few = successes(), QuantileBoosting(5).fit(made_store(4, 8))
    seen = at(new, 2)
    assert not few.predict(new, seen).calibrated
    told = QuantileBoosting(15).fit(made_store(5, 12, first=7)).predict(new, seen)
    assert told.calibrated
    assert 0.6 <= np.mean((told.low <= new.score) & (new.score <= told.high)) <= 1.0


def test_a_run_is_never_expected_to_end_below_what_it_has_shown_and_a_full_one_is_known():
    new, model = successes(), QuantileBoosting(10).fit(made_store(2, 12))
    told = model.predict(new, at(new, 7))
    assert (told.low >= new.curves["score"][:, :7].max(1) - 1e-12).all()
    told = model.predict(new, at(new, CELLS))
    assert told.low == pytest.approx(new.score)
    assert told.high == pytest.approx(new.score)


def test_transfer_orders_untouched_candidates_by_the_forests_and_started_ones_by_their_curves():
    past, new = made_store(3), successes()
    model, forests = Transfer(2, 40, 20).fit(past, 1), Ranker.fit(past, 1, 2, 40)
    untouched, half = (model.predict(new, at(new, cells)) for cells in (0, 5))
    assert (np.diff(forests.order(new)[np.argsort(untouched.order)]) >= 0).all()
    assert np.array_equal(half.order, QuantileBoosting(20).fit(past, 1).predict(new, at(new, 5)).order)
    mixed = at(new, 0)
    mixed[::2] = 5
    told = model.predict(new, mixed)
    assert np.array_equal(told.order[::2], half.order[::2])
    assert np.abs(np.sort(told.order[1::2]) - np.sort(told.mean[1::2] - 0.2 - 0.03 * 6)).max() < 1e-6


def test_ranks_are_within_a_task_and_a_failure_has_the_worst():
    past = made_store(2, failed=[1])
    ranks = rank_within(past)
    assert ranks[past.score == past.score[past.task == 0][past.succeeded[past.task == 0]].max()].tolist() == [1.0]
    assert ranks[past.failed & (past.task == 0)].max() < ranks[past.succeeded].min()
    assert set(ranks[past.task == 1]) == {0.5}


def test_a_run_that_is_not_whole_has_no_rank_and_moves_nobody_elses():
    past = made_store(tasks=1, configs=6)
    whole = np.arange(6) != 2
    ranks = rank_within(replace(past, whole=whole, score=np.where(whole, past.score, np.nan)))
    assert np.isnan(ranks).tolist() == (~whole).tolist()
    assert np.array_equal(ranks[whole], rank_within(past.take(whole)))


def test_runs_that_are_not_whole_teach_a_ranker_nothing():
    past, new = made_store(tasks=4, configs=12), made_store(tasks=1, first=6)
    whole = np.arange(len(past)) % 3 > 0
    part = replace(past, whole=whole, score=np.where(whole, past.score, np.nan))
    some, alone = (Ranker.fit(each, forests=1, trees=20).order(new) for each in (part, past.take(whole)))
    assert np.array_equal(some, alone)


def test_more_forests_or_iterations_are_other_forecasts():
    past, new = made_store(2), successes()
    orders = [ZeroShot(n, 10).fit(past).predict(new, at(new, 0)).order for n in (1, 2)]
    assert not np.array_equal(*orders)
    means = [QuantileBoosting(n).fit(past).predict(new, at(new, 0)).mean for n in (5, 10)]
    assert not np.array_equal(*means)


def test_the_table_prefers_what_was_good_and_puts_the_unknown_last():
    past = made_store(3)
    best = configurations(30)[int(np.nanargmax(past.score[:30]))]
    told = MeanTable().fit(past).predict(of_all([{**CONFIG, "lr": 0.5}, best]), np.zeros(2, np.int64))
    assert told.order[1] == pytest.approx(0.0, abs=0.1)
    assert told.order[0] < -1
    assert np.isnan(told.mean[0])
    assert np.isfinite(told.mean[1])


def of_all(configs):
    new = successes()
    one = of(new, configs[0]).take(np.zeros(len(configs), np.int64))
    parts = [of(new, config) for config in configs]
    return replace(
        one, configs=tuple(p.configs[0] for p in parts), config_ids=np.array([p.config_ids[0] for p in parts], object)
    )


def test_the_last_value_moves_with_the_curve_and_gives_room_above_only():
    new = successes()
    told = LastValue().fit(made_store(3)).predict(new, at(new, 4))
    assert told.mean == pytest.approx(new.curves["score"][:, 3])
    assert np.array_equal(told.low, np.maximum(told.low, told.mean))
    assert (told.high > told.mean).all()


def test_failures_are_foretold_from_the_settings_and_never_certain():
    past, new = made_store(5), made_store(1, first=6)
    chance = FailureModel().fit(past).predict(hidden(new, at(new, 0)), at(new, 0))
    assert chance[new.failed].min() > 0.5 > 0.2 > chance[new.succeeded].max()
    fine = past.take(past.succeeded)
    rate = FailureModel().fit(fine).predict(new, at(new, 0))
    assert set(rate) == {1 / (len(fine) + 2)}
    doomed = FailureModel().fit(past.take(past.failed)).predict(new, at(new, 0))
    assert 0.9 < doomed[0] < 1
    assert {config["lr"] for config, broken in zip(new.configs, new.failed, strict=True) if broken} == {FAILS}


def shuffled(past, seed=0):
    """The same runs, but which of them failed is drawn by lot."""
    return replace(past, status=np.random.default_rng(seed).permutation(past.status))


@pytest.mark.parametrize("curves", [True, False])
def test_a_classifier_that_is_no_better_than_the_rate_on_tasks_left_out_is_not_believed(curves):
    past, new = made_store(8), made_store(1, first=9)
    chance = FailureModel(curves).fit(shuffled(past)).predict(hidden(new, at(new, 0)), at(new, 0))
    rate = past.failed.mean()
    assert np.abs(chance - rate).max() < 0.15
    assert FailureModel(curves).fit(past).predict(hidden(new, at(new, 0)), at(new, 0))[new.failed].min() > 0.5


def test_with_too_few_groups_to_leave_any_out_failing_is_as_likely_as_it_was():
    past, new = made_store(4), made_store(1, first=6)
    chance = FailureModel().fit(past).predict(new, at(new, 0))
    assert set(chance) == {(past.failed.sum() + 1) / (len(past) + 2)}


def costly(tasks=4, factor=1.0, first=0):
    """A store in which seconds and bytes depend on a setting, and on the machine."""
    data = made_store(tasks, 20, first=first)
    times = factor * np.array([{"plain": 1.0, "wide": 2.0, "deep": 5.0}[str(c["variant"])] for c in data.configs])
    peak = np.where(data.failed, np.nan, times * 1e9)
    cost = {"train_seconds": np.where(data.failed, np.nan, 100 * times), "peak_bytes": peak}
    return replace(data, seconds=np.arange(10, 101, 10) * times[:, None], cost=cost)


def test_check_8_costs_are_positive_seconds_that_add_up():
    new, model = costly(1, first=6), CostModel().fit(costly())
    blank = hidden(new, at(new, 0))
    first, rest, whole = (model.seconds(blank, at(new, a), at(new, b)) for a, b in ((0, 3), (3, 10), (0, 10)))
    assert (whole > 0).all()
    assert first + rest == pytest.approx(whole)
    assert rank_correlation(whole, new.seconds[:, -1]) > 0.9
    assert model.seconds(blank, at(new, 10), at(new, 10)) == pytest.approx(0)
    assert (model.bytes(blank) > 0).all()


def test_check_7_a_probe_or_a_measured_run_sets_the_scale_of_another_machine():
    new, model = costly(1, factor=7.0, first=6), CostModel().fit(costly())
    blank, truth = hidden(new, at(new, 0)), new.seconds[:, -1]
    probed = model.scaled(blank, 0, seconds_per_step=truth[0] / 50, steps=50, peak_bytes=7e9)
    assert probed.seconds(blank, at(new, 0), at(new, CELLS))[0] == pytest.approx(truth[0])
    assert np.median(np.abs(probed.seconds(blank, at(new, 0), at(new, CELLS)) / truth - 1)) < 0.15
    assert probed.bytes(blank)[0] == pytest.approx(7e9)
    seen = at(new, 0)
    seen[3] = 2
    told = model.seconds(hidden(new, seen), seen, at(new, CELLS))
    assert told[3] == pytest.approx(0.8 * truth[3])
    assert np.median(np.abs(told / truth - 1)) < 0.25
    later = model.seconds(new, seen, at(new, CELLS))
    assert np.array_equal(told, later)


def test_costs_that_nobody_measured_and_probes_that_cannot_be_are_refused_in_words():
    past = made_store(2)
    untimed = replace(past, seconds=np.full_like(past.seconds, np.nan), cost={})
    with pytest.raises(DataError, match="has training seconds"):
        CostModel().fit(untimed)
    model = CostModel().fit(replace(past, cost={}))
    assert np.isnan(model.bytes(past)).all()
    with pytest.raises(UsageError, match="seconds_per_step"):
        model.scaled(past, 0, seconds_per_step=0.0, steps=5)


@pytest.mark.slow
def test_any_number_of_threads_gives_the_same_bits():
    program = (
        "import hashlib, numpy as np; from foretune.surrogates import Transfer;"
        "from foretune.testing.surrogate_contract import made_store, at;"
        "new = made_store(1, first=6); told = Transfer(2, 40, 40).fit(made_store(6)).predict(new, at(new, 2));"
        "print(hashlib.sha256(np.stack([told.order, told.mean, told.low, told.high]).tobytes()).hexdigest())"
    )
    said = {
        subprocess.run(
            [sys.executable, "-c", program], env={**os.environ, "OMP_NUM_THREADS": threads},
            capture_output=True, text=True, check=True,
        ).stdout
        for threads in ("1", "2", "3")
    }  # fmt: skip
    assert len(said) == 1
