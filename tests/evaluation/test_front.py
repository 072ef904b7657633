"""The front of score against cost: dominance, and its probability over seeds."""

import math

import numpy as np
import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from foretune.errors import UsageError
from foretune.evaluation import front_probability
from foretune.evaluation.front import on_front

few = st.integers(0, 4).map(float)
cells = st.tuples(st.integers(1, 5), st.integers(2, 5)).flatmap(
    lambda shape: st.tuples(arrays(float, shape, elements=few), arrays(float, shape, elements=few))
)


@given(cells)
def test_a_method_is_on_the_front_unless_another_beats_it(drawn):
    scores, costs = (side.mean(axis=1) for side in drawn)
    for method, kept in enumerate(on_front(scores, costs)):
        beaten = any(
            scores[other] >= scores[method]
            and costs[other] <= costs[method]
            and (scores[other], costs[other]) != (scores[method], costs[method])
            for other in range(len(scores))
        )
        assert kept == (not beaten)


@given(cells, st.randoms(use_true_random=False))
def test_somebody_is_always_on_the_front_and_the_order_of_methods_does_not_matter(drawn, random):
    scores, costs = drawn
    found = front_probability(scores, costs, seed=0, draws=200)
    assert all(0 <= share <= 1 for share in found)
    assert sum(found) >= 1 - 1e-12
    order = list(range(len(scores)))
    random.shuffle(order)
    assert front_probability(scores[order], costs[order], seed=0, draws=200) == tuple(found[i] for i in order)


def test_a_method_beaten_at_every_seed_is_never_on_it_and_a_tie_stays_a_tie():
    scores = [[0.9, 0.8, 0.85], [0.8, 0.7, 0.75], [0.9, 0.8, 0.85]]
    assert front_probability(scores, [1.0, 2.0, 1.0], seed=0) == (1.0, 0.0, 1.0)


def test_the_probability_of_a_dearer_method_is_that_of_being_better():
    # Means of S - 1 of S differences vary as the mean of S does, so for ten seeds the share is near the normal one.
    generator = np.random.default_rng(0)
    seeds = generator.normal(0, 0.05, 10)  # shared by both, and of no account
    difference = generator.normal(0.006, 0.02, 10)
    found = front_probability([0.8 + seeds, 0.8 + seeds + difference], [1, 2], seed=0, draws=20_000)
    assert found[0] == 1
    ratio = difference.mean() / (difference.std(ddof=1) / math.sqrt(10))
    assert found[1] == pytest.approx(scipy.stats.norm.cdf(ratio), abs=0.02)


def test_costs_that_vary_are_drawn_with_their_seeds():
    scores = [[0.7, 0.7, 0.7], [0.7, 0.7, 0.7]]
    first, second = front_probability(scores, [[1, 1, 1], [0.5, 1.2, 1.1]], seed=0)
    assert 0 < first < 1
    assert first + second == pytest.approx(1)
    assert front_probability(scores, [[2, 2, 2], [0.5, 1.2, 1.1]], seed=0) == (0.0, 1.0)


@pytest.mark.parametrize(
    ("scores", "costs", "message"),
    [
        ([[0.1], [0.2]], [1, 2], "at least 2 seeds"),
        ([[0.1, 0.2], [0.2, 0.3]], [1, 2, 3], r"\(2, 2\) and \(3,\)"),
        ([[0.1, 0.2], [0.2, math.nan]], [1, 2], "method 2 lacks one at seed 2"),
    ],
)
def test_fronts_with_gaps_are_refused(scores, costs, message):
    with pytest.raises(UsageError, match=message):
        front_probability(scores, costs, seed=0)
