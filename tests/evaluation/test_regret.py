"""Regret on a scale that tasks share, and random search in exact expectation."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from foretune.evaluation.regret import expected_at_random, filled, normalised_regret

values = st.lists(st.integers(-5, 5), min_size=1, max_size=6)


@given(values, st.data())
def test_the_expectation_is_that_of_all_draws(scores, data):
    regrets = np.array(data.draw(st.lists(st.floats(0, 1), min_size=len(scores), max_size=len(scores))))
    k = data.draw(st.integers(1, len(scores)))
    order = np.argsort(-np.array(scores), kind="stable")
    rank = {int(place): at for at, place in enumerate(order)}
    draws = [min(draw, key=rank.__getitem__) for draw in itertools.combinations(range(len(scores)), k)]
    assert expected_at_random(regrets, scores, k) == pytest.approx(np.mean(regrets[draws]))


def test_more_draws_than_candidates_find_the_preferred_one_and_failures_are_preferred_by_nobody():
    assert expected_at_random([0.3, 1.0], [0.5, math.nan], 9) == pytest.approx(0.3)
    assert expected_at_random([0.3, 1.0], [0.5, math.nan], 1) == pytest.approx(0.65)


@given(st.lists(st.floats(-1e3, 1e3), min_size=1, max_size=30), st.floats(0.5, 4))
def test_regret_knows_no_unit(scores, scale):
    regrets = normalised_regret(scores)
    assert (regrets >= 0).all()
    assert (regrets <= 1).all()
    assert regrets[int(np.argmax(scores))] == 0
    if np.ptp(scores) > 1e-3:
        assert normalised_regret(scale * np.array(scores) + 7) == pytest.approx(regrets, abs=1e-6)


def test_one_absurd_run_does_not_make_the_others_alike():
    scores = np.r_[np.linspace(0, 1, 40), -1e34]
    assert normalised_regret(scores)[20] == pytest.approx(0.5, abs=0.05)


def test_a_pool_of_one_or_of_equals_has_no_regret():
    assert normalised_regret([0.4]).tolist() == [0.0]
    assert normalised_regret([0.4, 0.4]).tolist() == [0.0, 0.0]


def test_a_failed_run_is_worth_the_worst_and_nothing_less_than_no_training():
    assert filled([0.9, math.nan, 0.2]).tolist() == [0.9, 0.2, 0.2]
    assert filled([0.9, math.nan, 0.2], untrained=0.5).tolist() == [0.9, 0.5, 0.5]
    assert filled([1.0, 1e34], sign=-1, untrained=2.0).tolist() == [-1.0, -2.0]
    assert filled([math.nan, math.nan]).tolist() == [0.0, 0.0]


def test_where_nothing_beat_no_training_the_runs_are_still_told_apart():
    assert filled([0.2, 0.4], untrained=0.5).tolist() == [0.2, 0.4]
