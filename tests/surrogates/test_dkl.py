"""Deep kernels: the published sizes, the published faults only when asked for, and no torch before it is needed."""

import importlib
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

from foretune.errors import DataError, UsageError
from foretune.store.metadataset import CELLS
from foretune.surrogates.dkl import DeepKernel
from foretune.surrogates.dkl.inputs import PER_COLUMN, PRIORS, Inputs, Prior
from foretune.testing.surrogate_contract import SurrogateContract, at, hidden, made_store, of, same

pytest.importorskip("gpytorch")

CONFIG = {"lr": 1e-3, "variant": "deep", "targets": "all", "rescale": True}


class TestQT(SurrogateContract):
    def make(self):
        return DeepKernel("qt", ahead="next", rounds=80)


class TestQTT(SurrogateContract):
    def make(self):
        return DeepKernel("qtt", rounds=8)


def numbers(module):
    return sum(parameter.numel() for parameter in module.parameters())


@pytest.fixture(scope="module")
def modules():
    from foretune.surrogates.dkl import _process_module

    process = _process_module()
    return process, importlib.import_module("foretune.surrogates.dkl.network")


@pytest.mark.parametrize(("c", "k", "cells"), [(9, 11, 50), (3, 7, 10), (1, 2, 7)])
def test_check_14_the_tool_has_as_many_parameters_as_published(modules, c, k, cells):
    _, network = modules
    assert numbers(network.QTTFeatures({"numbers": c, "levels": k}, cells)) == 128 * (c + k + cells) + 81_936


@pytest.mark.parametrize(("d1", "d2"), [(24, 30), (1, 1)])
def test_check_14_the_research_code_has_as_many_parameters_as_published(modules, d1, d2):
    """Without the layer of 32 -> 32 (1,056 numbers) that the program builds and never calls."""
    _, network = modules
    assert numbers(network.QTFeatures({"model": d1, "settings": d2, "task": 4}, 50)) == 32 * (d1 + d2) + 9_452


@pytest.mark.parametrize("cells", [10, 7])
def test_check_14_another_length_of_curve_changes_one_layer_of_the_research_code(modules, cells):
    _, network = modules
    widths = {"model": 2, "settings": 3, "task": 4}
    short, long = (numbers(network.QTFeatures(widths, length)) for length in (cells, 50))
    assert long - short == 8 * (25 - cells // 2) * 16


def test_check_14_the_process_has_four_numbers_of_its_own(modules):
    process, network = modules
    features = network.QTTFeatures({"numbers": 2, "levels": 3}, CELLS)
    assert numbers(process.DeepKernelGP(features, 5)) == numbers(features) + 4


def test_the_fault_in_the_columns_of_categories_is_there_when_asked_for_and_not_otherwise():
    past = made_store(2, 20)
    assert Inputs.fit(past, past, "qtt", False).widths == {"numbers": 3, "levels": 7}
    cut = Inputs.fit(past, past, "qtt", True)
    assert cut.widths == {"numbers": 3, "levels": 3}
    new = made_store(1, first=6)
    plain, faithful = (DeepKernel(qtt_faithful=fault, rounds=1).fit(past) for fault in (False, True))
    last = list(cut.encoder.levels)[-1]
    other = {"rescale": False, "targets": "some", "variant": "wide"}[last]
    pools = [hidden(of(new, config), np.zeros(1)) for config in (CONFIG, {**CONFIG, last: other})]
    nothing = np.zeros(1, np.int64)
    assert same(*(faithful.predict(pool, nothing) for pool in pools))
    assert not same(*(plain.predict(pool, nothing) for pool in pools))


def test_what_others_of_the_pool_scored_counts_for_the_research_code_alone():
    past, new = made_store(2, 20), made_store(1, first=6)
    new = new.take(new.succeeded)
    one = np.where(np.arange(len(new)) == 0, 4, 0)
    for variant, moved in (("qt", True), ("qtt", False)):
        fitted = DeepKernel(variant, ahead="next", rounds=2).fit(past)
        before, after = (fitted.predict(hidden(new, seen), seen).mean[1:] for seen in (0 * one, one))
        assert (np.abs(before - after).max() > 1e-3) == moved


def test_the_best_that_was_seen_is_the_least_that_is_expected_and_a_whole_run_is_known():
    new = made_store(1, first=6)
    new = new.take(new.succeeded)
    fitted = DeepKernel(rounds=1).fit(made_store(2, 20))
    half, whole = (fitted.predict(hidden(new, at(new, cells)), at(new, cells)) for cells in (5, CELLS))
    assert (half.low >= new.curves["score"][:, :5].max(1) - 1e-9).all()
    assert (half.low < half.high).all()
    assert whole.mean == pytest.approx(new.score)
    assert np.array_equal(whole.low, whole.high)


def test_points_tell_of_the_next_cell_or_of_the_end_and_of_nothing_that_was_not_seen():
    past = made_store(1, 12)
    past = past.take(past.succeeded)
    inputs = Inputs.fit(past, past, "qt", False)
    cells = np.column_stack([inputs.scaled(past, past.curves["score"][:, cell]) for cell in range(CELLS)])
    following, end = inputs.points(past, "next"), inputs.points(past, "end")
    assert following.target == pytest.approx(cells.ravel())
    assert end.target == pytest.approx(np.repeat(cells.max(1), CELLS))
    seen = np.where(np.arange(len(past)) == 3, CELLS, 4)
    assert len(inputs.points(past, "next", seen).target) == seen.sum()
    assert inputs.points(past, "end", seen).target == pytest.approx(np.full(CELLS, cells[3].max()))


def test_a_loss_that_starts_high_takes_no_more_of_the_range_than_one_that_starts_low():
    past = made_store(2, 30, direction="min")
    past = past.take(past.succeeded)
    low, high = past.tasks
    starts = {"zero_shot_loss": 100 * high.features["zero_shot_loss"]}
    tall, scores = past.task == 1, {}
    for name, values in (("curves", past.curves["score"]), ("start", past.start["score"])):
        scores[name] = {"score": np.where(tall[:, None] if values.ndim == 2 else tall, 100 * values, values)}
    stretched = replace(
        past,
        tasks=(low, replace(high, features={**high.features, **starts})),
        score=np.where(tall, 100 * past.score, past.score),
        **scores,
    )
    plain, other = (Inputs.fit(runs, runs, "qt", False) for runs in (past, stretched))
    ends = other.scaled(stretched, stretched.score)
    assert ends == pytest.approx(plain.scaled(past, past.score))
    gains = other.gain(stretched, ends)
    cut = (ends <= 0) | (ends >= 2)
    assert gains[~cut] == pytest.approx(other.anchor.gain(stretched, stretched.score)[~cut])


def test_a_prior_of_the_best_seen_has_a_zero_and_a_unit_for_every_number_of_cells_and_a_constant_one_has_one():
    past = made_store(2, 20)
    past = past.take(past.succeeded)
    points = Inputs.fit(past, past, "qt", False).points(past, "end")
    best, constant = (Prior.fit(points, kind) for kind in PRIORS)
    assert best.sd[0] > best.sd[-1] > 0
    zero, unit = best.of(points.curve, points.progress)
    left = (points.target - zero) / unit
    for cell in range(CELLS):
        some = np.rint(points.progress * CELLS) == cell
        assert (left[some].mean(), left[some].std()) == pytest.approx((0, 1))
    assert best.of(np.zeros((1, CELLS)), np.array([0.5]))[0] == best.mean[0]
    zero, unit = constant.of(points.curve, points.progress)
    assert len(set(zero)) == len(set(unit)) == 1
    assert ((points.target - zero) / unit).std() == pytest.approx(1)


def test_errors_of_cells_foretold_one_from_another_add_up_with_the_prior_that_follows_them():
    sd = np.arange(CELLS, 0, -1.0)
    best, constant = (Prior(follows, 0 * sd, sd) for follows in (True, False))
    assert best.walk(np.array([CELLS - 1, CELLS - 2])) == pytest.approx([1, 5**0.5])
    assert constant.walk(np.array([0, 9])) == pytest.approx([1, 1])


@pytest.mark.parametrize("option", [{"prior": "constant"}, {"rate": 1e-4}, {"task_columns": True}])
def test_what_the_programs_do_can_be_asked_for(option):
    past, new = made_store(2, 20), made_store(1, first=6)
    new = new.take(new.succeeded)
    ours, theirs = (DeepKernel("qt", rounds=20, **more).fit(past) for more in ({}, option))
    seen = at(new, 3)
    assert not same(*(fitted.predict(hidden(new, seen), seen) for fitted in (ours, theirs)))


def test_features_of_the_task_are_read_where_there_are_tasks_enough():
    few = made_store(2, 5)
    named = sum(name.startswith("task.") for name in Inputs.fit(few, few, "qt", False).encoder.names)
    assert named
    many = made_store(PER_COLUMN * named, 2)
    for past, told in ((few, False), (many, True)):
        assert ("task" in Inputs.fit(past, past, "qt", False, None).widths) == told


def test_check_9_groups_of_tasks_are_held_out_whole(modules):
    process, _ = modules
    group = np.repeat(np.arange(6), 7)
    held = process.held_out(group, np.random.default_rng(0))
    assert len(set(group[held])) == 2
    assert not set(group[held]) & set(group[~held])
    assert not process.held_out(np.zeros(5), np.random.default_rng(0)).any()


def test_check_8_a_score_of_0_is_not_what_stands_for_a_cell_that_was_not_run():
    past = made_store(2, 20)
    inputs = Inputs.fit(past, past.take(past.succeeded), "qtt", False)
    shown = inputs.curve(past, np.full(len(past), 4))
    assert (shown[past.succeeded, :4] >= 1).all()
    assert (shown[:, 4:] == 0).all()


def test_absurd_losses_do_not_take_the_range_from_the_others():
    past = made_store(2, 30, direction="min")
    past.curves["score"][5], past.start["score"][5] = 1e30, np.nan
    inputs = Inputs.fit(past, past.take(past.succeeded), "qt", False)
    assert -1 < inputs.low < inputs.high < 1


def test_runs_without_a_score_in_any_cell_are_refused_in_words():
    past = made_store(2, 10)
    past.curves["score"][:] = np.nan
    with pytest.raises(DataError, match="no curve can be learned"):
        DeepKernel(rounds=1).fit(past)


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"variant": "qtx"}, "qt, qtt"),
        ({"ahead": "never"}, "end, next"),
        ({"variant": "qt", "qtt_faithful": True}, "never had it"),
        ({"prior": "none"}, "best, constant"),
        ({"rate": 0.0}, "rate > 0"),
        ({"rounds": 0}, "rounds >= 1"),
    ],
)
def test_what_cannot_be_is_refused(options, why):
    with pytest.raises(UsageError, match=why):
        DeepKernel(**options)


def test_without_gpytorch_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "gpytorch", None)
    monkeypatch.delitem(sys.modules, "foretune.surrogates.dkl.process", raising=False)
    with pytest.raises(UsageError, match=r"foretune\[gp\]"):
        DeepKernel(rounds=1).fit(made_store(2, 10))


def test_no_torch_is_loaded_before_a_fit():
    code = "import sys, foretune.surrogates.dkl as d; d.DeepKernel(); print('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "False\n"
