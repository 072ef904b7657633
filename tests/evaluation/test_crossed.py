"""The crossed interval: its formula, its coverage beside that of the others, and what it refuses."""

import math

import numpy as np
import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from foretune.errors import UsageError
from foretune.evaluation import crossed, over_seeds
from foretune.evaluation.crossed import components
from foretune.evaluation.resampling import nested_bootstrap

ITEMS_SD, NOISE_SD, LIMIT = 1.0, 0.6, 0.6


def answers(generator, trials, seeds, items, seed_sd, effects=1):
    """(trials, seeds, items) right answers: limit + item + seed + noise > 0; several effects, items of their own."""
    made = []
    shared = generator.standard_normal((trials, 1, items), dtype=np.float32)
    for _ in range(effects):
        score = NOISE_SD * generator.standard_normal((trials, seeds, items), dtype=np.float32) + shared
        score += seed_sd * generator.standard_normal((trials, seeds, 1), dtype=np.float32)
        if effects > 1:
            score += 0.5 * generator.standard_normal((trials, 1, items), dtype=np.float32)
        made.append((score > -LIMIT).astype(np.float64))
    return made


def truth(seed_sd):
    return scipy.stats.norm.cdf(LIMIT / math.sqrt(ITEMS_SD**2 + seed_sd**2 + NOISE_SD**2))


@pytest.mark.parametrize(
    ("seeds", "items", "seed_sd", "trials"),
    [(10, 500, 0.12, 2000), (10, 500, 0.3, 2000), (5, 300, 0.12, 2000), (5, 300, 0.3, 2000), (10, 6000, 0.2, 800)],
)
def test_check_12_the_crossed_interval_covers_the_truth_in_93_to_97_percent(seeds, items, seed_sd, trials):
    # The standard error of a share of 0.95 is 0.005 with 2,000 trials and 0.008 with 800.
    generator = np.random.default_rng(0)
    hits = []
    for _ in range(trials // 100):
        parts = components(answers(generator, 100, seeds, items, seed_sd)[0])
        hits.append(np.abs(parts.mean - truth(seed_sd)) <= scipy.stats.t.ppf(0.975, parts.df) * np.sqrt(parts.variance))
    assert 0.93 <= np.mean(hits) <= 0.97


def test_the_other_intervals_cover_new_test_rows_too_seldom():
    # Specification 4.6: t over seeds .82 to .94, nested bootstrap .80 to .89. 200 trials: standard error 0.025.
    matrices = answers(np.random.default_rng(0), 200, 10, 500, 0.12)[0]
    target = truth(0.12)
    over, nested = [], []
    for matrix in matrices:
        found = over_seeds(matrix.mean(axis=1))
        over.append(found.low <= target <= found.high)
        narrow = nested_bootstrap(matrix, seed=0, draws=120)
        nested.append(narrow.low <= target <= narrow.high)
    assert 0.74 <= np.mean(over) <= 0.9
    assert 0.72 <= np.mean(nested) <= 0.92


def test_check_12_equal_methods_differ_in_4_to_6_percent_and_to_the_naive_in_half_of_all_comparisons():
    # Two methods of one expected score, each with items that it finds hard. 3,000 trials: standard error 0.004.
    generator = np.random.default_rng(1)
    claimed, naive = [], []
    for _ in range(30):
        one, two = answers(generator, 100, 10, 500, 0.2, effects=2)
        parts = components(one - two)
        claimed.append(np.abs(parts.mean) > scipy.stats.t.ppf(0.975, parts.df) * np.sqrt(parts.variance))
        error = (one - two).reshape(100, -1).std(axis=1) / math.sqrt(5000)
        naive.append(np.abs(parts.mean) > 1.96 * error)
    assert 0.04 <= np.mean(claimed) <= 0.06
    assert np.mean(naive) > 0.4


def test_the_interval_is_the_formula_computed_by_hand():
    matrix = np.array([[1.0, 0.0, 1.0, 1.0], [1.0, 0.0, 0.0, 1.0], [0.0, 0.0, 1.0, 1.0]])
    # Row means 3/4, 1/2, 1/2: variance 1/48. Column means 2/3, 0, 2/3, 1: variance 19/108 over n - 1 = 3.
    a, b = (1 / 48) / 3, (19 / 108) / 4
    residuals = matrix - matrix.mean(axis=1)[:, None] - matrix.mean(axis=0) + 7 / 12
    e = (residuals**2).sum() / 6 / 12
    variance = max(a + b - e, a, b)
    df = max(2, variance**2 / (a**2 / 2 + b**2 / 3 + e**2 / 6))
    half = scipy.stats.t.ppf(0.975, df) * math.sqrt(variance)
    found = crossed(matrix)
    assert (found.value, found.df) == (pytest.approx(7 / 12), pytest.approx(df))
    assert (found.low, found.high) == (pytest.approx(7 / 12 - half), pytest.approx(7 / 12 + half))
    assert (found.interval, found.n_seeds, found.n_items) == ("crossed seeds and items", 3, 4)


def test_many_matrices_at_once_are_each_by_itself():
    matrices = np.random.default_rng(0).random((4, 5, 30))
    together = components(matrices)
    for place, matrix in enumerate(matrices):
        alone = components(matrix)
        assert (together.variance[place], together.df[place]) == (
            pytest.approx(alone.variance),
            pytest.approx(alone.df),
        )


tables = st.tuples(st.integers(2, 6), st.integers(2, 12)).flatmap(
    lambda shape: arrays(np.float64, shape, elements=st.sampled_from([0.0, 1.0]))
)


@given(tables)
def test_the_interval_holds_its_estimate_and_turns_with_the_sign(matrix):
    found, turned = crossed(matrix), crossed(1 - matrix)
    if math.isnan(found.low):
        assert np.ptp(matrix.mean(axis=0)) == np.ptp(matrix.mean(axis=1)) == 0
        return
    assert found.low < found.value < found.high
    assert (turned.low, turned.high) == pytest.approx((1 - found.high, 1 - found.low))
    assert found.df >= len(matrix) - 1
    assert found.standard_error**2 >= matrix.mean(axis=1).var(ddof=1) / len(matrix) - 1e-15


@given(tables, st.randoms(use_true_random=False))
def test_neither_the_order_of_seeds_nor_of_items_matters(matrix, random):
    rows, columns = list(range(matrix.shape[0])), list(range(matrix.shape[1]))
    random.shuffle(rows)
    random.shuffle(columns)
    found, shuffled = crossed(matrix), crossed(matrix[rows][:, columns])
    assert (shuffled.low, shuffled.high) == pytest.approx((found.low, found.high), nan_ok=True)


def test_what_two_methods_share_cancels_out():
    generator = np.random.default_rng(0)
    one, two = answers(generator, 40, 5, 300, 0.05, effects=2)
    difference = crossed(one[0], two[0])
    assert difference.value == pytest.approx(crossed(one[0]).value - crossed(two[0]).value)
    apart = components(one).variance + components(two).variance
    assert components(one - two).variance.mean() < 0.6 * apart.mean()


def test_equal_answers_everywhere_give_no_interval_rather_than_certainty():
    found = crossed(np.ones((3, 5)))
    assert found.value == 1
    assert math.isnan(found.low)
    assert math.isnan(found.p)
    same = np.random.default_rng(0).random((3, 50)) < 0.5
    assert math.isnan(crossed(same, same).high)


@pytest.mark.parametrize(
    ("first", "second", "message"),
    [
        (
            [[1, 0, 1], [1, np.nan, np.nan]],
            None,
            r"2 of 6 are missing, the first at seed 2 \(of 2\), test row 2 \(of 3\)",
        ),
        ([[1, 0, 1], [1, 0]], None, "seed 1 has 3 of them and seed 2 has 2"),
        ([[1, 0, 1]], None, "at least 2 seeds and 2 test rows, but got 1 and 3.*Run more seeds"),
        ([], None, "but got 0 and 0"),
        ([[1], [0]], None, "but got 2 and 1"),
        (np.zeros((2, 2, 2)), None, "seeds by test rows, but got 3 axes"),
        ([[1, 0], [0, 1]], [[1, 0], [0, 1], [1, 1]], r"\(2, 2\) and \(3, 2\)"),
    ],
)
def test_a_table_with_a_gap_is_refused_with_its_place(first, second, message):
    with pytest.raises(UsageError, match=message):
        crossed(first, second)
