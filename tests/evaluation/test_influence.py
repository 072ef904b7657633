"""Influence values: their mean is the score, and crossed with seeds they cover what new rows would give."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from foretune.evaluation import crossed
from foretune.evaluation.influence import OF_COUNTS, influence
from foretune.evaluation.metrics import macro_f1, mcc

SCORES = {"mcc": mcc, "macro_f1": macro_f1}
answers = st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from("abc")), min_size=2, max_size=60)


@given(answers, st.sampled_from(sorted(OF_COUNTS)))
def test_the_mean_is_the_score(pairs, metric):
    labels, given_ = zip(*pairs, strict=True)
    codes = [["abc".index(name) for name in side] for side in (labels, given_)]
    values = influence(metric, labels, given_)
    assert np.isfinite(values).all()
    assert values.mean() == pytest.approx(SCORES[metric](*codes), abs=1e-9)


@pytest.mark.parametrize("metric", sorted(OF_COUNTS))
def test_many_rows_move_the_score_as_their_influence_says(metric):
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, 2000)
    guesses = np.where(rng.random(2000) < 0.7, labels, rng.integers(0, 3, 2000))
    names = ["abc"[i] for i in labels], ["abc"[i] for i in guesses]
    values, score = influence(metric, *names), SCORES[metric](labels, guesses)
    for row in range(5):
        without = SCORES[metric](np.delete(labels, row), np.delete(guesses, row))
        assert 1999 * (score - without) == pytest.approx(values[row] - score, abs=0.01)


def test_one_answer_to_every_row_has_no_influence():
    assert influence("mcc", ["a", "b", "b"], ["a", "a", "a"]).tolist() == [0.0, 0.0, 0.0]


def test_crossed_with_seeds_they_cover_new_rows_where_seeds_alone_do_not():
    """Matthews' correlation of 5 seeds on 200 shared rows; the truth is that of 100,000 rows and 40 seeds."""
    rng = np.random.default_rng(0)

    def drawn(items, seeds):
        truth, hard = (rng.random(items) < 0.35).astype(int), rng.standard_normal(items)
        skill = 1 + 0.1 * rng.standard_normal(seeds)
        noise = 0.4 * rng.standard_normal((seeds, items))
        return truth, (skill[:, None] * (2 * truth - 1) * 0.7 + hard + noise > 0).astype(int)

    truth, all_of_them = drawn(100_000, 40)
    goal = np.mean([mcc(truth, each) for each in all_of_them])
    held = {"crossed": 0, "seeds": 0}
    trials = 300
    for _ in range(trials):
        labels, found = drawn(200, 5)
        both = crossed([influence("mcc", labels.tolist(), each.tolist()) for each in found])
        each = np.array([mcc(labels, one) for one in found])
        half = 2.776 * each.std(ddof=1) / 5**0.5
        held["crossed"] += both.low <= goal <= both.high
        held["seeds"] += abs(each.mean() - goal) <= half
    assert 0.92 <= held["crossed"] / trials <= 0.98
    assert held["seeds"] / trials < 0.9
