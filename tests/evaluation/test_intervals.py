"""Intervals: known values, what they must always satisfy, and their coverage in simulations."""

import math

import numpy as np
import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st

from foretune.errors import UsageError
from foretune.evaluation import intervals, metrics


@st.composite
def successes_of(draw):
    n = draw(st.integers(1, 3000))
    return draw(st.integers(0, n)), n


@given(successes_of())
def test_wilson_lies_in_the_unit_interval_and_contains_the_share(drawn):
    successes, n = drawn
    low, high = intervals.wilson(successes, n)
    assert 0 <= low <= successes / n <= high <= 1
    assert low < high
    mirrored = intervals.wilson(n - successes, n)
    assert (1 - high, 1 - low) == pytest.approx(mirrored, abs=1e-9)


def test_wilson_equals_the_printed_values_of_newcombe():
    # Newcombe (1998), Statistics in Medicine 17:857, table I, method 3.
    for successes, n, low, high in ((81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0, 0.1611)):
        assert intervals.wilson(successes, n) == pytest.approx((low, high), abs=5e-5)


def test_wilson_covers_the_true_share():
    # Exact: the probability of all outcomes whose interval contains the truth, averaged over many truths.
    n = 30
    bounds = np.array([intervals.wilson(k, n) for k in range(n + 1)])
    shares = np.linspace(0.02, 0.98, 97)
    covered = [
        scipy.stats.binom.pmf(np.arange(n + 1), n, p)[(bounds[:, 0] <= p) & (p <= bounds[:, 1])].sum() for p in shares
    ]
    assert 0.94 < np.mean(covered) < 0.965
    assert min(covered) > 0.83


def test_bad_counts_are_named():
    with pytest.raises(UsageError, match="successes=3, n=2"):
        intervals.wilson(3, 2)


def test_the_bootstrap_of_a_mean_is_close_to_the_normal_interval():
    values = np.random.default_rng(0).normal(size=400)
    half = 1.96 * values.std() / 20
    assert intervals.bootstrap_mean(values, seed=0) == pytest.approx(
        (values.mean() - half, values.mean() + half), abs=0.02
    )


def test_a_seed_repeats_the_bootstrap_and_another_does_not():
    values = np.random.default_rng(0).normal(size=50)
    assert intervals.bootstrap_mean(values, seed=1) == intervals.bootstrap_mean(values, seed=1)
    assert intervals.bootstrap_mean(values, seed=1) != intervals.bootstrap_mean(values, seed=2)


def test_portions_of_a_large_set_do_not_change_the_interval(monkeypatch):
    values = np.random.default_rng(0).normal(size=200)
    whole = intervals.bootstrap_mean(values, seed=3)
    monkeypatch.setattr(intervals, "_CELLS", 5000)
    assert intervals.bootstrap_mean(values, seed=3) == pytest.approx(whole)


def test_counts_give_the_bootstrap_of_examples():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, 120)
    predictions = np.where(rng.random(120) < 0.7, labels, rng.integers(0, 3, 120))

    def by_example(drawn):
        return np.array([metrics.macro_f1(labels[i], predictions[i]) for i in drawn])

    slow = intervals.bootstrap(by_example, 120, seed=0)
    fast = intervals.bootstrap_counts(labels, predictions, metrics.macro_f1_of, seed=0)
    assert fast == pytest.approx(slow, abs=0.012)


def test_the_bias_correction_follows_scipys_bca_on_a_skewed_metric():
    x = np.random.default_rng(0).lognormal(size=60)

    def spread(drawn):
        return x[drawn].std(axis=1)

    low, high = intervals.bootstrap(spread, len(x), seed=0, draws=5000)
    plain = np.quantile(spread(np.random.default_rng(1).integers(0, 60, (5000, 60))), [0.025, 0.975])
    bca = scipy.stats.bootstrap((x,), lambda v, axis=-1: v.std(axis=axis), method="BCa", rng=0).confidence_interval
    assert plain[0] < low <= bca.low * 1.05
    assert plain[1] < high <= bca.high * 1.05


def simulated_coverage(classes, n, right, trials):
    rng = np.random.default_rng(0)
    share = np.full((classes, classes), (1 - right) / (classes - 1) / classes)
    np.fill_diagonal(share, right / classes)
    hits = 0
    for trial in range(trials):
        matrix = rng.multinomial(n, share.ravel()).reshape(classes, classes)
        labels, predictions = (np.repeat(side, matrix[matrix > 0]) for side in np.nonzero(matrix))
        found = intervals.bootstrap_counts(labels, predictions, metrics.macro_f1_of, seed=trial, draws=400)
        hits += found[0] <= right <= found[1]  # balanced classes with balanced errors: macro-F1 is the accuracy
    return hits / trials


@pytest.mark.parametrize(("classes", "n", "right", "least"), [(3, 100, 0.8, 0.91), (40, 500, 0.7, 0.87)])
def test_the_bootstrap_of_macro_f1_covers_the_truth(classes, n, right, least):
    # With 300 trials the standard error is 0.013; a plain percentile bootstrap has about 0.75 in the second case.
    assert least <= simulated_coverage(classes, n, right, 300) <= 0.99


def test_a_resample_without_a_value_is_left_out():
    x, y = np.array([0.0, 0.0, 0.0, 1.0]), np.array([0.0, 1.0, 2.0, 5.0])
    found = intervals.bootstrap(lambda drawn: metrics.correlation(x[drawn], y[drawn]), 4, seed=0)
    assert found is not None
    assert -1 <= found[0] <= found[1] <= 1
    assert intervals.bootstrap(lambda drawn: np.full(len(drawn), np.nan), 4, seed=0) is None


@pytest.mark.parametrize(
    ("value", "low", "high", "expected"),
    [
        (1.0, 0.0, 1.0, (0.8389, 1.0)),
        (1.0, -1.0, 1.0, (0.6777, 1.0)),
        (0.0, 0.0, 1.0, (0.0, 0.1611)),
        (0.0, -1.0, 1.0, None),
        (0.3, 0.0, math.inf, None),
        (math.nan, 0.0, 1.0, None),
    ],
)
def test_equal_examples_get_wilsons_interval_at_an_end_of_the_scale_and_none_elsewhere(value, low, high, expected):
    found = intervals.settle((value, value), value, 20, low, high)
    assert found == (None if expected is None else pytest.approx(expected, abs=5e-5))
