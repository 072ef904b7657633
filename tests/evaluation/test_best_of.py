"""The expected best of k trials: against all draws that there are."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from foretune.errors import UsageError
from foretune.evaluation import best_of

trials = st.lists(st.integers(0, 5).map(lambda n: n / 5), min_size=1, max_size=5)


@given(trials, st.data())
def test_the_expectation_is_the_mean_over_all_draws_with_replacement(dev, data):
    shown = data.draw(st.lists(st.floats(0, 1), min_size=len(dev), max_size=len(dev)))
    found = best_of(dev, shown)
    for k in range(1, len(dev) + 1):
        each, weights = [], []
        for draw in itertools.product(range(len(dev)), repeat=k):
            best = max(dev[i] for i in draw)
            ties = [i for i in range(len(dev)) if dev[i] == best]  # a level is drawn; who of it was, is symmetric
            each += [shown[i] for i in ties]
            weights += [1 / len(ties)] * len(ties)
        mean = np.average(each, weights=weights)
        assert found.expected[k - 1] == pytest.approx(mean)
        assert found.deviation[k - 1] == pytest.approx(
            np.sqrt(np.average((each - mean) ** 2, weights=weights)), abs=1e-7
        )


@given(trials)
def test_more_trials_never_look_worse_on_dev_and_stay_below_the_best(dev):
    curve = best_of(dev).expected
    assert curve[0] == pytest.approx(np.mean(dev))
    assert all(later >= earlier - 1e-12 for earlier, later in itertools.pairwise(curve))
    assert curve[-1] <= max(dev) + 1e-12


def test_what_dev_chooses_may_fall_on_test():
    found = best_of([0.6, 0.7, 0.8], shown=[0.70, 0.65, 0.60])
    assert list(found.expected) == sorted(found.expected, reverse=True)


def test_trials_without_a_score_are_refused():
    with pytest.raises(UsageError, match=r"score 2 of 2 is nan.*leave that trial out"):
        best_of([0.5, math.nan])
    with pytest.raises(UsageError, match="2 have one on dev and 1 one to show"):
        best_of([0.5, 0.6], [0.5])
