"""The gap between in and out of distribution."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from foretune.evaluation import gap, intervals, judge, metrics, wilson
from foretune.records import Evaluation


def accuracy_of(right, n):
    return Evaluation(n, {"accuracy": right / n}, {"accuracy": wilson(right, n)})


def test_the_gap_of_accuracies_equals_the_printed_values_of_newcombe():
    # Newcombe (1998), Statistics in Medicine 17:873, table II, method 10.
    for (a, m), (b, n), low, high in (
        ((56, 70), (48, 80), 0.0524, 0.3339),
        ((9, 10), (3, 10), 0.1705, 0.8090),
        ((10, 10), (0, 10), 0.6075, 1.0),
    ):
        found = gap("other", "accuracy", accuracy_of(a, m), accuracy_of(b, n))
        assert (found.value, found.low, found.high) == pytest.approx((a / m - b / n, low, high), abs=5e-5)


@given(st.data())
def test_swapping_the_sides_turns_the_sign(data):
    m, n = data.draw(st.integers(1, 500)), data.draw(st.integers(1, 500))
    one = accuracy_of(data.draw(st.integers(0, m)), m)
    two = accuracy_of(data.draw(st.integers(0, n)), n)
    there, back = gap("x", "accuracy", one, two), gap("x", "accuracy", two, one)
    assert (there.value, there.low, there.high) == pytest.approx((-back.value, -back.high, -back.low))
    assert there.low <= there.value <= there.high


def test_a_side_without_an_interval_gives_a_gap_without_bounds():
    found = gap("x", "ece", Evaluation(9, {"ece": 0.1}), Evaluation(9, {"ece": 0.3}))
    assert found.value == pytest.approx(-0.2)
    assert math.isnan(found.low)
    assert math.isnan(found.high)
    assert math.isnan(gap("x", "ece", Evaluation(9), Evaluation(9)).value)


def test_the_gap_of_macro_f1_covers_the_truth():
    rng = np.random.default_rng(0)

    def drawn(n, right, seed):
        labels = rng.integers(0, 3, n)
        predictions = np.where(rng.random(n) < right, labels, (labels + rng.integers(1, 3, n)) % 3)
        value = metrics.macro_f1(labels, predictions)
        found = intervals.bootstrap_counts(labels, predictions, metrics.macro_f1_of, seed=seed, draws=400)
        return Evaluation(n, {"macro_f1": value}, {"macro_f1": intervals.settle(found, value, n, 0, 1)})

    found = [gap("x", "macro_f1", drawn(100, 0.85, s), drawn(60, 0.6, s + 1)) for s in range(250)]
    assert 0.9 <= np.mean([g.low <= 0.25 <= g.high for g in found]) <= 0.99


def test_judged_splits_give_a_gap_directly():
    inside = judge("regression", [1.0, 2.0, 3.0, 4.0], [1.1, 2.0, 2.9, 4.2], metric="spearman")
    outside = judge("regression", [1.0, 2.0, 3.0, 4.0], [2.0, 1.0, 4.0, 3.0], metric="spearman")
    assert gap("x", "spearman", inside, outside).value == pytest.approx(0.4)
