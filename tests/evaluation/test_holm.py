"""Holm's correction: known values, what it must always satisfy, and how often a family is wrong."""

import math

import numpy as np
import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st

from foretune.errors import UsageError
from foretune.evaluation import holm

p_values = st.lists(st.floats(0, 1), min_size=1, max_size=12)


def adjusted(values, alpha=0.05):
    return [found.p for found in holm(values, alpha)]


def test_four_hypotheses_come_out_as_holms_steps_say():
    # .005 <= .05/4, .01 <= .05/3, .03 > .05/2: two are rejected, and the last one falls with the third.
    assert adjusted([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert [found.share for found in holm([0.01, 0.04, 0.03, 0.005])] == [3, 2, 2, 4]


@given(p_values)
def test_the_adjusted_values_lie_between_the_raw_and_bonferronis_and_keep_their_order(values):
    found = adjusted(values)
    for raw, p in zip(values, found, strict=True):
        assert raw <= p <= min(1, len(values) * raw) + 1e-12
    assert np.argsort(found, kind="stable").tolist() == sorted(range(len(values)), key=lambda i: (found[i], i))
    assert all(found[i] <= found[j] for i in range(len(found)) for j in range(len(found)) if values[i] < values[j])


@given(p_values, st.sampled_from([0.01, 0.05, 0.2]))
def test_a_share_of_alpha_decides_as_the_adjusted_value_does(values, alpha):
    for raw, found in zip(values, holm(values, alpha), strict=True):
        assert 1 <= found.share <= len(values)
        if abs(found.p - alpha) > 1e-9:
            assert (found.p <= alpha) == (raw <= alpha / found.share)


@given(p_values, st.randoms(use_true_random=False))
def test_the_order_of_a_family_does_not_matter(values, random):
    order = list(range(len(values)))
    random.shuffle(order)
    assert adjusted([values[i] for i in order]) == [adjusted(values)[i] for i in order]


def test_a_contrast_without_spread_is_a_member_that_claims_nothing():
    assert adjusted([math.nan, 0.02]) == pytest.approx([1, 0.04])
    assert holm([]) == ()


@pytest.mark.parametrize("wrong", [-0.1, 1.5])
def test_what_is_no_p_value_is_refused(wrong):
    with pytest.raises(UsageError, match=rf"in \[0, 1\], but number 2 is {wrong}"):
        holm([0.5, wrong])


def test_check_12_a_family_of_equal_methods_is_wrong_in_at_most_5_percent():
    # Six contrasts that share a method and so are correlated; uncorrected, a family errs far more often than 5 %.
    # 4,000 families: standard error 0.003.
    generator = np.random.default_rng(0)
    scores = generator.normal(size=(4000, 7, 10))
    p = scipy.stats.ttest_1samp(scores[:, 1:] - scores[:, :1], 0, axis=-1).pvalue
    wrong = np.mean([min(adjusted(family)) <= 0.05 for family in p])
    assert wrong <= 0.05 + 3 * 0.0035
    assert np.mean(p.min(axis=1) <= 0.05) > 0.15


def test_check_12_where_some_methods_differ_the_others_are_still_protected_and_holm_sees_more_than_bonferroni():
    generator = np.random.default_rng(1)
    values = generator.normal(size=(3000, 6, 10))
    values[:, :4] += 1.3  # four true differences, two false ones
    p = scipy.stats.ttest_1samp(values, 0, axis=-1).pvalue
    claimed = np.array([adjusted(family) for family in p]) <= 0.05
    assert claimed[:, 4:].any(axis=1).mean() <= 0.05 + 3 * 0.004
    assert claimed[:, :4].mean() > (p[:, :4] <= 0.05 / 6).mean() + 0.02
