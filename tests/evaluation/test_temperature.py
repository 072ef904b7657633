"""Temperature scaling and the mapping of one label set onto another."""

import numpy as np
import pytest
import scipy.special
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from foretune.errors import UsageError
from foretune.evaluation import collapse, fit_temperature, metrics, softmax, temperature_note
from foretune.evaluation.calibration import BOUNDS


@st.composite
def labelled_logits(draw):
    n, classes = draw(st.integers(1, 12)), draw(st.integers(2, 4))
    logits = draw(arrays(np.float64, (n, classes), elements=st.floats(-30, 30, width=32)))
    return logits, draw(arrays(np.int64, n, elements=st.integers(0, classes - 1)))


@given(labelled_logits())
def test_a_temperature_never_raises_the_loss_it_was_fitted_on_and_never_changes_the_prediction(drawn):
    logits, labels = drawn
    temperature = fit_temperature(logits, labels)
    assert BOUNDS[0] <= temperature <= BOUNDS[1]
    before, after = softmax(logits), softmax(logits, temperature)
    assert metrics.nll(labels, after) <= metrics.nll(labels, before) + 1e-9
    np.testing.assert_allclose(after[np.arange(len(logits)), logits.argmax(axis=1)], after.max(axis=1))


def test_the_temperature_of_calibrated_logits_that_were_stretched_is_the_stretch():
    rng = np.random.default_rng(0)
    logits = rng.normal(scale=2, size=(20_000, 3))
    labels = (softmax(logits).cumsum(axis=1) < rng.random((20_000, 1))).sum(axis=1)
    for stretch in (0.2, 1.0, 4.0):
        assert fit_temperature(stretch * logits, labels) == pytest.approx(stretch, rel=0.03)


def test_a_set_without_an_error_leaves_the_probabilities_as_they_are_and_says_so():
    logits = [[3.0, 0.0], [0.0, 5.0]]
    assert fit_temperature(logits, [0, 1]) == 1.0
    assert "(2 examples)" in temperature_note(logits, [0, 1])


def test_a_bound_that_was_met_is_reported():
    wrong = [[500.0, 0.0], [0.0, 500.0]]
    assert fit_temperature(wrong, [1, 0]) == pytest.approx(BOUNDS[1], rel=1e-3)
    assert "upper bound of 20" in temperature_note(wrong, [1, 0])
    faint = [[0.01, 0.0]] * 9 + [[0.0, 0.0001]]
    assert "lower bound of 0.05" in temperature_note(faint, [0] * 10)
    assert temperature_note([[4.0, 0.0]] * 4, [0, 0, 0, 1]) is None


def test_softmax_is_scipys_and_ignores_padding():
    logits = np.random.default_rng(0).normal(scale=100, size=(5, 4))
    np.testing.assert_allclose(softmax(logits, 2.0), scipy.special.softmax(logits / 2, axis=1), atol=1e-12)
    assert softmax([[0.0, -np.inf], [1000.0, 1000.0]]).tolist() == [[1.0, 0.0], [0.5, 0.5]]
    assert fit_temperature([[1.0, 0.0, -np.inf], [1.0, 0.0, 2.0], [0.0, 1.0, -np.inf]], [0, 0, 1]) > 0


def test_a_temperature_must_be_positive():
    with pytest.raises(UsageError, match="positive, but got 0"):
        softmax([[0.0, 1.0]], 0)


NLI, HANS = ("contradiction", "entailment", "neutral"), ("entailment", "non-entailment")


def test_three_way_probabilities_sum_onto_two():
    table = np.random.default_rng(0).dirichlet(np.ones(3), 10)
    onto = collapse(table, NLI, HANS, {"neutral": "non-entailment", "contradiction": "non-entailment"})
    np.testing.assert_allclose(onto[:, 0], table[:, 1])
    np.testing.assert_allclose(onto.sum(axis=1), 1)


def test_a_label_without_a_counterpart_is_named():
    with pytest.raises(UsageError, match="no counterpart for neutral"):
        collapse([[0.2, 0.3, 0.5]], NLI, HANS, {"contradiction": "non-entailment"})
    with pytest.raises(UsageError, match="2 columns"):
        collapse([[0.5, 0.5]], NLI, HANS, {"neutral": "non-entailment", "contradiction": "non-entailment"})
