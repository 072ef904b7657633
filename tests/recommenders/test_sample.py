"""Candidates: every point can be run, a sequence belongs to its seed, and a tuner's own space is where it is read."""

from __future__ import annotations

from collections import Counter
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from foretune.errors import UsageError
from foretune.recommenders.sample import BATCHES, sample
from foretune.recommenders.situation import Situation
from foretune.records import Choice, Part, Real, Space, TaskCard
from foretune.training.prepare import require_schedule
from foretune.tuners import TUNERS, make


def situation(rows: int = 96, kind: str = "classification", **given) -> Situation:
    objective = {"classification": "head", "generation": "response"}[kind]
    card = TaskCard("toy", kind, {"train": rows}, classes=2)
    return Situation(card, "encoder", 1_000, given.pop("methods", TUNERS), Part(objective), **given)


ROWS, SEEDS = st.integers(1, 5_000), st.integers(0, 2**32)


@given(rows=ROWS, seed=SEEDS, first=st.integers(0, 300), kind=st.sampled_from(("classification", "generation")))
def test_every_point_can_be_run(rows, seed, first, kind):
    for candidate in sample(situation(rows, kind), 8, seed, first):
        tuner = make(candidate.tuner)
        require_schedule(candidate.schedule, tuner)
        assert {**candidate.tuner.options, "lr": candidate.schedule.lr} in tuner.space
        assert set(candidate.tuner.options) == set(tuner.space.dimensions) - {"lr"}
        assert candidate.schedule.batch_size <= rows
        assert candidate.schedule.evaluations <= candidate.schedule.steps


@given(seed=SEEDS, first=st.integers(0, 40), n=st.integers(0, 40))
def test_a_piece_of_a_sequence_is_that_piece_of_it(seed, first, n):
    whole = sample(situation(), first + n, seed)
    assert sample(situation(), n, seed, first) == whole[first:]


@given(rows=ROWS, fewest=st.integers(1, 50), more=st.integers(0, 500), examples=st.none() | st.integers(1, 5_000))
def test_runs_are_no_longer_than_was_said(rows, fewest, more, examples):
    for candidate in sample(situation(rows), 8, steps=(fewest, fewest + more), examples=examples):
        steps, batch = candidate.schedule.steps, candidate.schedule.batch_size
        assert fewest <= steps <= fewest + more
        assert examples is None or steps * batch <= examples or steps == fewest


def test_every_tuner_that_trains_has_its_share_and_every_setting_its_turn():
    candidates = sample(situation(2_000), 512)
    tried = Counter(candidate.tuner.name for candidate in candidates)
    assert set(tried) == {name for name, tuner in TUNERS.items() if tuner.lr > 0}
    assert max(tried.values()) - min(tried.values()) <= 8
    for name in tried:
        mine = [candidate for candidate in candidates if candidate.tuner.name == name]
        for option, dimension in TUNERS[name].space.dimensions.items():
            if isinstance(dimension, Choice):
                assert {each.tuner.options[option] for each in mine} == set(dimension.options), (name, option)
    assert {candidate.schedule.batch_size for candidate in candidates} == set(BATCHES)
    assert {candidate.schedule.clip for candidate in candidates} == {None, 1.0}


def test_rates_spread_over_the_whole_range_of_a_tuner_on_its_own_scale():
    rates = sorted(candidate.schedule.lr for candidate in sample(situation(tuner="head"), 256))
    space = TUNERS["head"].space.dimensions["lr"]
    quarters = [space.at(share) for share in (0.25, 0.5, 0.75)]
    counts = [sum(rate < quarter for rate in rates) for quarter in quarters]
    assert counts == pytest.approx([64, 128, 192], abs=3)


def test_what_a_tuner_has_no_use_for_is_not_set():
    for candidate in sample(situation(), 256):
        alone = candidate.tuner.name == "head"
        assert (candidate.schedule.head_lr is None) == alone
        if candidate.tuner.name in ("prompt-tuning", "prefix-tuning"):
            assert candidate.schedule.weight_decay == 0
    assert all(each.schedule.head_lr is None for each in sample(situation(kind="generation"), 32))
    assert all(each.schedule.head_lr is None for each in sample(situation(fresh_head=False), 32))


def test_the_users_tuner_is_the_only_one():
    assert {candidate.tuner.name for candidate in sample(situation(tuner="dora"), 32)} == {"dora"}


def test_the_order_in_which_methods_are_listed_changes_nothing():
    backwards = dict(reversed(TUNERS.items()))
    assert sample(situation(methods=backwards), 32) == sample(situation(), 32)


def test_a_tuner_of_another_package_is_read_on_its_own_space():
    odd = SimpleNamespace(name="odd", lr=1.0, space=Space({"depth": Real(1 / 3, 1 / 3 + 1e-9)}))
    (candidate,) = sample(situation(methods={"odd": odd}), 1)
    assert candidate.tuner.options["depth"] in odd.space.dimensions["depth"]
    assert candidate.schedule.lr == 1.0


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"n": -1}, "n=-1"),
        ({"first": -2}, "first=-2"),
        ({"steps": (0, 5)}, "got 0 and 5"),
        ({"steps": (9, 5)}, "got 9 and 5"),
    ],
)
def test_numbers_that_cannot_be_are_refused(change, words):
    with pytest.raises(UsageError, match=words):
        sample(situation(), **{"n": 4, **change})


def test_without_a_tuner_that_trains_there_are_no_candidates():
    with pytest.raises(UsageError, match="`frozen`"):
        sample(situation(methods={"frozen": TUNERS["frozen"]}), 4)
    with pytest.raises(UsageError, match="Did you mean `lora`"):
        sample(situation(tuner="lroa"), 4)
