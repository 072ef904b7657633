"""Numbers across tasks: interquartile mean, probability of improvement, ranks."""

import math

import numpy as np
import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from foretune.errors import UsageError
from foretune.evaluation import iqm, probability_of_improvement, rank_tasks

scores = st.integers(0, 20).map(lambda n: n / 20)
tables = st.tuples(st.integers(2, 6), st.integers(1, 5)).flatmap(lambda shape: arrays(float, shape, elements=scores))


def test_the_interquartile_mean_is_that_of_the_middle_half():
    found = iqm(np.array([[1.0, 8.0], [7.0, 2.0], [3.0, 6.0], [5.0, 4.0]]), seed=0)
    assert found.value == (3 + 4 + 5 + 6) / 4
    assert iqm(np.array([[1.0, 800.0], [7.0, 2.0], [3.0, 6.0], [5.0, 4.0]]), seed=0).value == found.value
    assert (found.n_seeds, found.n_tasks, found.interval) == (4, 2, "stratified bootstrap of runs")


@given(tables, tables)
def test_the_probability_of_improvement_is_the_share_of_pairs_that_are_won(first, second):
    tasks = min(first.shape[1], second.shape[1])
    first, second = first[:, :tasks], second[:, :tasks]
    pairs = [
        1.0 if x > y else 0.5 if x == y else 0.0
        for task in range(tasks)
        for x in first[:, task]
        for y in second[:, task]
    ]
    found = probability_of_improvement(first, second, seed=0, draws=50)
    assert found.value == pytest.approx(np.mean(pairs))
    assert probability_of_improvement(second, first, seed=0, draws=50).value == pytest.approx(1 - found.value)
    statistics = [scipy.stats.mannwhitneyu(first[:, task], second[:, task]).statistic for task in range(tasks)]
    assert found.value == pytest.approx(np.mean(statistics) / len(first) / len(second))


@given(tables)
def test_the_interval_moves_with_the_scale_and_not_with_the_order_of_tasks(table):
    found, moved = (iqm(scores, seed=0, draws=50) for scores in (table, 2 * table + 1))
    assert (moved.value, moved.low, moved.high) == pytest.approx(
        tuple(2 * bound + 1 for bound in (found.value, found.low, found.high)), nan_ok=True
    )
    assert iqm(table[:, ::-1], seed=0, draws=50).value == pytest.approx(found.value)


def test_runs_are_redrawn_within_their_task():
    # Tasks differ and runs do not: only draws that mix tasks would vary.
    found = iqm(np.tile([0.1, 0.4, 0.5, 0.9], (3, 1)), seed=0)
    assert found.value == pytest.approx(0.45)
    assert math.isnan(found.low)


def test_pooling_the_tasks_would_make_the_interval_much_wider():
    generator = np.random.default_rng(0)
    table = np.array([0.2, 0.5, 0.9]) + 0.01 * generator.standard_normal((10, 3))
    found = iqm(table, seed=0)
    pooled = scipy.stats.bootstrap((table.ravel(),), lambda x, axis: scipy.stats.trim_mean(x, 0.25, axis=axis), rng=0)
    assert found.high - found.low < 0.1 * np.ptp(pooled.confidence_interval)


def test_both_intervals_cover_the_truth_almost_as_often_as_they_say():
    # Ten runs on eight tasks; 300 trials: standard error 0.014. Percentiles are a little narrow.
    generator = np.random.default_rng(1)
    centres = np.linspace(0.5, 0.9, 8)
    middle = scipy.stats.trim_mean((centres + 0.04 * generator.standard_normal((50_000, 8))).ravel(), 0.25)
    ahead = scipy.stats.norm.cdf(0.02 / (0.04 * math.sqrt(2)))
    means, wins = [], []
    for trial in range(300):
        first, second = centres + 0.04 * generator.standard_normal((2, 10, 8)) - np.array([0, 0.02])[:, None, None]
        found = iqm(first, seed=trial, draws=300)
        means.append(found.low <= middle <= found.high)
        found = probability_of_improvement(first, second, seed=trial, draws=300)
        wins.append(found.low <= ahead <= found.high)
    assert 0.89 <= np.mean(means) <= 0.98
    assert 0.89 <= np.mean(wins) <= 0.98


def test_a_seed_repeats_both():
    table = np.random.default_rng(0).random((5, 4))
    assert iqm(table, seed=1) == iqm(table, seed=1) != iqm(table, seed=2)
    other = table - 0.1
    found = probability_of_improvement(table, other, seed=1)
    assert found == probability_of_improvement(table, other, seed=1) != probability_of_improvement(table, other, seed=2)


def test_a_method_above_in_every_run_gets_no_interval_rather_than_certainty():
    found = probability_of_improvement([[0.8], [0.9]], [[0.1], [0.2]], seed=0)
    assert found.value == 1
    assert math.isnan(found.low)
    assert math.isnan(iqm([[0.5, 0.5], [0.5, 0.5]], seed=0).high)


DEMSAR = """
    .763 .768 .771 .798   .599 .591 .590 .569   .954 .971 .968 .967   .628 .661 .654 .657   .882 .888 .886 .898
    .936 .931 .916 .931   .661 .668 .609 .685   .583 .583 .563 .625   .775 .838 .866 .875   1    1    1    1
    .940 .962 .965 .962   .619 .666 .614 .669   .972 .981 .97501 .975 .957 .978 .946 .970
"""
"""AUC of four variants of C4.5 on 14 data sets: Demšar (2006), table 6. The .97501 is printed as .975; his ranks
show that it was not tied."""


def test_the_ranks_of_demsar_come_out_as_printed():
    table = np.array(DEMSAR.split(), dtype=float).reshape(14, 4).T
    found = rank_tasks(table)
    assert [round(rank, 3) for rank in found.mean] == [3.143, 2.0, 2.893, 1.964]
    assert round(found.critical_difference, 2) == 1.25
    assert round(rank_tasks(table, 0.9).critical_difference, 2) == 1.12
    # He prints 9.28, without the correction for ties that scipy makes: three pairs and a four, 78 of 14 * (4^3 - 4).
    plain = 12 * 14 / (4 * 5) * (sum(rank**2 for rank in found.mean) - 4 * 25 / 4)
    assert round(plain, 2) == 9.28
    assert found.statistic == pytest.approx(plain / (1 - 78 / 840))
    assert found.p == pytest.approx(scipy.stats.chi2.sf(found.statistic, 3))


def test_the_quantiles_of_nemenyi_are_those_of_demsars_table():
    printed = {3: 2.343, 4: 2.569, 5: 2.728, 6: 2.850, 7: 2.949, 8: 3.031, 9: 3.102, 10: 3.164}
    for k, quantile in printed.items():
        table = np.random.default_rng(k).random((k, 6))
        unit = math.sqrt(k * (k + 1) / 36)
        assert rank_tasks(table).critical_difference / unit == pytest.approx(quantile, abs=1e-3)


@given(st.tuples(st.integers(3, 5), st.integers(2, 8)).flatmap(lambda shape: arrays(float, shape, elements=scores)))
def test_pairs_differ_just_where_their_ranks_are_further_apart_than_the_critical_difference(table):
    found = rank_tasks(table)
    mean, pairwise = np.array(found.mean), np.array(found.pairwise)
    assert mean.sum() == pytest.approx(len(table) * (len(table) + 1) / 2)
    assert np.allclose(pairwise, pairwise.T)
    assert np.allclose(np.diag(pairwise), 1)
    apart = np.abs(mean[:, None] - mean)
    clear = np.abs(apart - found.critical_difference) > 1e-6
    assert np.array_equal((pairwise < 0.05)[clear], (apart > found.critical_difference)[clear])
    assert rank_tasks(np.exp(table)).mean == found.mean


def test_equal_methods_have_equal_ranks():
    found = rank_tasks(np.ones((3, 4)))
    assert (found.mean, found.p, found.pairwise[0][1]) == ((2.0, 2.0, 2.0), 1.0, pytest.approx(1.0))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: iqm([0.1, 0.2], seed=0), r"at least 2 runs by 1 task, but got the shape \(2,\)"),
        (lambda: iqm([[0.1, math.nan], [0.2, 0.3]], seed=0), "1 of 4 are missing, the first at run 1, task 2"),
        (lambda: probability_of_improvement([[1], [2]], [[1, 2], [3, 4]], seed=0), "but got 1 and 2 of them"),
        (lambda: rank_tasks([[1, 2], [2, 3]]), "at least 3 methods.*Compare two methods with a paired test"),
        (lambda: rank_tasks([[1, 2], [2, 3], [4, math.nan]]), "method 3 has no score on task 2"),
    ],
)
def test_tables_with_gaps_are_refused(call, message):
    with pytest.raises(UsageError, match=message):
        call()
