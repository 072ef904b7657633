"""Two one-sided tests and the least difference that could be seen: against simulation and scipy."""

import math

import numpy as np
import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st

from foretune.errors import UsageError
from foretune.evaluation import detectable_difference, iqm, over_seeds, tost
from foretune.evaluation.estimate import student

estimates = st.builds(
    lambda value, error, df: student(value, error, df, "drawn", scale=1.0, n_seeds=df + 1),
    st.floats(-0.1, 0.1),
    st.floats(0.001, 0.1),
    st.integers(1, 40),
)


@given(estimates, st.floats(0.001, 0.2), st.sampled_from([0.01, 0.05]))
def test_p_is_below_alpha_just_where_the_narrow_interval_lies_within_the_margin(estimate, margin, alpha):
    found = tost(estimate, margin, alpha)
    if abs(found.p - alpha) > 1e-9:
        assert (found.p < alpha) == (-margin < found.low and found.high < margin)
    assert tost(estimate, 2 * margin, alpha).p <= found.p


def test_both_sides_are_scipys_one_sided_tests():
    values = np.random.default_rng(0).normal(0.002, 0.01, 10)
    above = scipy.stats.ttest_1samp(values, 0.01, alternative="less").pvalue
    below = scipy.stats.ttest_1samp(values, -0.01, alternative="greater").pvalue
    assert tost(over_seeds(values), 0.01).p == pytest.approx(max(above, below))


def test_methods_that_differ_by_the_margin_are_called_equivalent_in_5_percent():
    # The worst case of the hypothesis. Vectorised in the same formula; 20,000 trials: standard error 0.0015.
    values = np.random.default_rng(0).normal(0.01, 0.004, (20_000, 10))
    error = values.std(axis=1, ddof=1) / math.sqrt(10)
    p = scipy.stats.t.sf((0.01 - abs(values.mean(axis=1))) / error, 9)
    assert p[:50] == pytest.approx([tost(over_seeds(row), 0.01).p for row in values[:50]])
    assert 0.045 <= np.mean(p < 0.05) <= 0.055


@given(estimates, st.sampled_from([0.6, 0.8, 0.95]), st.sampled_from([0.9, 0.95, 0.995]))
def test_the_detectable_difference_has_the_power_that_it_names(estimate, power, level):
    found = detectable_difference(estimate, power, level)
    critical = scipy.stats.t.ppf((1 + level) / 2, estimate.df)
    assert scipy.stats.nct.sf(critical, estimate.df, found / estimate.standard_error) == pytest.approx(power, abs=1e-4)
    assert found < detectable_difference(estimate, (1 + power) / 2, level)


def test_the_detectable_difference_is_detected_as_often_as_it_says():
    # Ten seeds of standard deviation 0.03: 20,000 trials, standard error 0.003.
    known = student(0.0, 0.03 / math.sqrt(10), 9, "known", scale=1.0, n_seeds=10)
    difference = detectable_difference(known, power=0.8)
    values = np.random.default_rng(0).normal(difference, 0.03, (20_000, 10))
    assert np.mean(scipy.stats.ttest_1samp(values, 0, axis=1).pvalue < 0.05) == pytest.approx(0.8, abs=0.01)
    assert difference == pytest.approx(0.0301, abs=5e-4)  # a textbook's d of 1.00 for n = 10


def test_no_spread_shows_nothing():
    for same in (over_seeds([0.5, 0.5, 0.5]), over_seeds([0.5])):
        assert math.isnan(tost(same, 0.01).p)
        assert math.isnan(detectable_difference(same))


@pytest.mark.parametrize("margin", [0, -0.01, math.nan])
def test_a_margin_must_be_above_zero(margin):
    with pytest.raises(UsageError, match=f"above 0, but got {margin}.*largest difference that does not matter"):
        tost(over_seeds([0.1, 0.2]), margin)


def test_a_power_and_an_interval_that_cannot_be_are_refused():
    with pytest.raises(UsageError, match="power=80"):
        detectable_difference(over_seeds([0.1, 0.2]), power=80)
    with pytest.raises(UsageError, match="Only an interval by Student's t"):
        tost(iqm([[0.1, 0.2], [0.3, 0.5]], seed=0, draws=50), 0.01)
