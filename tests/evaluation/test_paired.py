"""Paired tests: against brute force and scipy, how often they are wrong, and what they refuse."""

import itertools
import math

import numpy as np
import pytest
import scipy.stats
from hypothesis import example, given
from hypothesis import strategies as st

from foretune.errors import UsageError
from foretune.evaluation import at_level, mcnemar, newcombe, over_seeds, paired_t, sign_flip, welch, wilcoxon
from foretune.evaluation.paired import DRAWS, EXACT
from foretune.evaluation.resampling import seed_bootstrap

hundredths = st.integers(-60, 60).map(lambda n: n / 100)
differences = st.lists(hundredths, min_size=2, max_size=9)


@given(differences)
@example([0.0, 0.0, 0.0, 0.0, 0.0, 0.01, 0.35, -0.36])
def test_tossed_signs_are_counted_exactly(values):
    signs = np.array(list(itertools.product((1, -1), repeat=len(values))))
    sums = signs @ np.array(values)
    found = sign_flip(values, np.zeros(len(values)))
    assert found.p == pytest.approx(np.mean(abs(sums) >= abs(sum(values)) - 1e-9))
    assert found.exact


@given(differences)
def test_wilcoxons_distribution_is_that_of_all_signs(values):
    kept = np.array([value for value in values if value])
    found = wilcoxon(values, np.zeros(len(values)))
    assert found.n == len(kept)
    if not len(kept):
        assert found.p == 1
        return
    ranks = scipy.stats.rankdata(abs(kept))
    signs = np.array(list(itertools.product((1, -1), repeat=len(kept))))
    assert found.p == pytest.approx(np.mean(abs(signs @ ranks) >= abs(np.sign(kept) @ ranks) - 1e-9))


def test_without_ties_wilcoxon_is_scipys_exact_test_for_any_number_of_seeds():
    values = np.random.default_rng(0).normal(0.3, 1, 45)
    expected = scipy.stats.wilcoxon(values, method="exact")
    assert wilcoxon(values, np.zeros(45)).p == pytest.approx(expected.pvalue)


@given(differences, st.floats(-1, 1))
def test_a_paired_test_sees_differences_only_and_turns_with_the_sides(values, shift):
    second = np.round(np.linspace(0, 1, len(values)) + shift, 2)
    first = second + values
    for test in (sign_flip, wilcoxon):
        assert test(first, second).p == pytest.approx(test(values, np.zeros(len(values))).p)
        assert test(first, second).p == pytest.approx(test(second, first).p)
    found, turned = paired_t(first, second), paired_t(second, first)
    assert (found.low, found.high) == pytest.approx((-turned.high, -turned.low), nan_ok=True)


@given(st.lists(st.floats(0, 1), min_size=2, max_size=12), st.sampled_from([0.8, 0.95, 0.99]))
def test_p_is_below_alpha_just_where_the_interval_leaves_out_zero(values, level):
    found = over_seeds(np.round(values, 3), level)
    if not math.isnan(found.p) and abs(found.p - (1 - level)) > 1e-9:
        assert (found.p < 1 - level) == (found.low > 0 or found.high < 0)


def test_the_paired_t_and_welchs_are_scipys():
    generator = np.random.default_rng(0)
    one, two = generator.normal(0.8, 0.02, 7), generator.normal(0.79, 0.04, 7)
    found, expected = paired_t(one, two), scipy.stats.ttest_rel(one, two)
    assert found.p == pytest.approx(expected.pvalue, rel=1e-6)
    assert (found.low, found.high) == pytest.approx(expected.confidence_interval(), abs=1e-8)
    found, expected = welch(one, two[:5]), scipy.stats.ttest_ind(one, two[:5], equal_var=False)
    assert (found.p, found.df) == pytest.approx((expected.pvalue, expected.df))
    assert (found.low, found.high) == pytest.approx(expected.confidence_interval())


def test_many_seeds_are_tossed_at_random_by_a_seed_and_that_is_said():
    values = np.random.default_rng(0).normal(0.35, 1, EXACT + 4)
    found = sign_flip(values, np.zeros(len(values)), seed=1)
    assert (found.exact, found.draws) == (False, DRAWS)
    assert found == sign_flip(values, np.zeros(len(values)), seed=1)
    assert found.p != sign_flip(values, np.zeros(len(values)), seed=2).p
    # With 20 seeds the permutation and the t distribution are close; the Monte Carlo error is 0.001.
    assert found.p == pytest.approx(scipy.stats.ttest_1samp(values, 0).pvalue, abs=0.02)
    assert sign_flip(np.ones(EXACT + 4), np.zeros(EXACT + 4)).p > 0


def test_check_12_the_paired_tests_are_wrong_in_4_to_6_percent():
    # Equal methods whose scores share a seed effect. 20,000 trials of the t test: standard error 0.0015. Exact tests of
    # ten seeds can only be at most that often wrong: 50 of their 1,024 signs are 4.9 %.
    generator = np.random.default_rng(0)
    shared = generator.normal(0, 0.05, (20_000, 10))
    one, two = (shared + generator.normal(0, 0.02, shared.shape) for _ in range(2))
    wrong = [paired_t(x, y).p < 0.05 for x, y in zip(one[:200], two[:200], strict=True)]
    vectorised = scipy.stats.ttest_rel(one, two, axis=1).pvalue < 0.05
    assert wrong == vectorised[:200].tolist()
    assert 0.045 <= vectorised.mean() <= 0.055
    unpaired = scipy.stats.ttest_ind(one, two, axis=1, equal_var=False).pvalue < 0.05
    assert unpaired.mean() < 0.01  # what pairing is worth: Welch's test sees nothing at all here
    for test in (sign_flip, wilcoxon):
        rejected = np.mean([test(x, y).p <= 0.05 for x, y in zip(one[:400], two[:400], strict=True)])
        assert 0.02 <= rejected <= 0.08  # standard error 0.011


def test_the_t_interval_of_ten_seeds_covers_and_their_bootstraps_do_not():
    # Specification 4.6: t .95, percentile .90, BCa .88. 600 trials: standard error 0.012.
    values = np.random.default_rng(0).normal(size=(600, 10))

    def coverage(interval):
        return np.mean([(found := interval(row)).low <= 0 <= found.high for row in values])

    assert coverage(over_seeds) >= 0.93
    assert coverage(lambda row: seed_bootstrap(row, seed=0, draws=500)) <= 0.93
    assert coverage(lambda row: seed_bootstrap(row, seed=0, draws=500, method="BCa")) <= 0.93


@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=40))
def test_mcnemar_counts_the_items_that_one_alone_has_right(pairs):
    one, two = np.array(pairs).T
    wins, losses = int(np.sum(one & ~two)), int(np.sum(~one & two))
    found = mcnemar(one, two)
    tail = scipy.stats.binom.cdf(min(wins, losses), wins + losses, 0.5) if wins + losses else 1
    assert found.p == pytest.approx(min(1, 2 * tail))
    assert (found.statistic, found.n) == (wins, wins + losses)
    assert mcnemar(two, one).p == pytest.approx(found.p)


def test_mcnemar_equals_the_printed_value_of_a_textbook():
    # Agresti, Categorical Data Analysis, table 11.1: 86 and 150 of 1,600 changed their mind; far beyond chance.
    one = np.array([True] * 794 + [True] * 150 + [False] * 86 + [False] * 570)
    two = np.array([True] * 794 + [False] * 150 + [True] * 86 + [False] * 570)
    found = mcnemar(one, two)
    assert (found.statistic, found.n) == (150, 236)
    assert found.p == pytest.approx(3.7e-5, rel=0.02)


def test_newcombe_agrees_with_mcnemar_on_a_clear_difference():
    one, two = np.array([True] * 40 + [False] * 10), np.array([True] * 25 + [False] * 25)
    low, high = newcombe(one, two)
    assert 0 < low < 0.3 < high
    assert mcnemar(one, two).p < 0.05


def test_equal_scores_leave_no_interval_and_no_claim():
    for values in ([0.7, 0.7, 0.7], [0.1 + 0.2, 0.3, 0.3]):
        found = over_seeds(values)
        assert math.isnan(found.low)
        assert math.isnan(found.p)
    found = paired_t([63.001, 64.001, 65.001], [63.0, 64.0, 65.0])  # rounding alone makes these differ
    assert math.isnan(found.low)
    assert math.isnan(welch([0.7, 0.7], [0.6, 0.6]).p)
    assert sign_flip([0.7, 0.7], [0.7, 0.7]).p == wilcoxon([0.7, 0.7], [0.7, 0.7]).p == 1


def test_one_seed_says_nothing_of_another():
    found = over_seeds([0.7])
    assert (found.value, found.n_seeds) == (0.7, 1)
    assert math.isnan(found.low)
    assert sign_flip([0.7], [0.6]).p == wilcoxon([0.7], [0.6]).p == 1
    with pytest.raises(UsageError, match="at least 2 seeds a side, but got 1 and 3"):
        welch([0.7], [0.1, 0.2, 0.3])


@pytest.mark.parametrize("test", [paired_t, sign_flip, wilcoxon])
def test_scores_that_do_not_pair_are_refused(test):
    with pytest.raises(UsageError, match="same seeds, but got 3 and 2 scores"):
        test([0.1, 0.2, 0.3], [0.1, 0.2])
    with pytest.raises(UsageError, match=r"score 2 of 3 is nan.*leave that seed out"):
        test([0.1, math.nan, 0.3], [0.1, 0.2, 0.3])
    with pytest.raises(UsageError, match=r"the shape is \(0,\)"):
        test([], [])


def test_answers_to_different_items_are_refused():
    with pytest.raises(UsageError, match=r"same items, but got \(2,\) and \(3,\)"):
        mcnemar([True, False], [True, False, True])


def test_another_level_needs_a_t_interval():
    values = [0.7, 0.8, 0.9]
    assert at_level(over_seeds(values), 0.8) == over_seeds(values, 0.8)
    with pytest.raises(UsageError, match="this one is `BCa bootstrap of seeds`"):
        at_level(seed_bootstrap(values, seed=0, method="BCa", draws=100), 0.9)
