"""Every score against scikit-learn, scipy or a value worked out by hand; edge cases as documented."""

import math

import numpy as np
import pytest
import scipy.stats
import sklearn.metrics
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from foretune.errors import UsageError
from foretune.evaluation import metrics


@st.composite
def classified(draw, most=40, classes=4):
    """Labels, predictions and probabilities of one set."""
    n = draw(st.integers(1, most))
    labels = draw(arrays(np.int64, n, elements=st.integers(0, classes - 1)))
    raw = draw(arrays(np.float64, (n, classes), elements=st.floats(0.01, 1)))
    probabilities = raw / raw.sum(axis=1, keepdims=True)
    return labels, probabilities.argmax(axis=1), probabilities


def sample(seed=0, n=200, classes=5):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, n)
    probabilities = rng.dirichlet(np.ones(classes), n) + 0.5 * np.eye(classes)[labels]
    probabilities /= probabilities.sum(axis=1, keepdims=True)
    return labels, probabilities.argmax(axis=1), probabilities


@given(classified())
def test_class_scores_equal_those_of_scikit_learn(drawn):
    labels, predictions, _ = drawn
    assert metrics.accuracy(labels, predictions) == pytest.approx(sklearn.metrics.accuracy_score(labels, predictions))
    assert metrics.macro_f1(labels, predictions) == pytest.approx(
        sklearn.metrics.f1_score(labels, predictions, average="macro", zero_division=0)
    )
    if len(set(labels)) > 1 and len(set(predictions)) > 1:
        assert metrics.mcc(labels, predictions) == pytest.approx(
            sklearn.metrics.matthews_corrcoef(labels, predictions), abs=1e-12
        )


def test_probability_scores_equal_those_of_scikit_learn():
    labels, _, probabilities = sample()
    assert metrics.nll(labels, probabilities) == pytest.approx(sklearn.metrics.log_loss(labels, probabilities))
    assert metrics.brier(labels, probabilities) == pytest.approx(
        sklearn.metrics.brier_score_loss(labels, probabilities, scale_by_half=False)
    )


def test_confusion_has_a_row_per_true_class():
    labels, predictions, _ = sample()
    expected = sklearn.metrics.confusion_matrix(labels, predictions)
    np.testing.assert_array_equal(metrics.confusion(labels, predictions), expected)
    assert metrics.confusion([0], [1], classes=3).tolist() == [[0, 1, 0], [0, 0, 0], [0, 0, 0]]


def test_a_constant_side_has_an_mcc_of_zero():
    assert metrics.mcc([0, 1, 2], [1, 1, 1]) == 0.0
    assert metrics.mcc([1, 1, 1], [0, 1, 2]) == 0.0


def test_a_single_example_has_every_score_but_a_correlation():
    assert metrics.accuracy([1], [1]) == metrics.macro_f1([1], [1]) == 1.0
    assert metrics.mcc([1], [1]) == 0.0
    assert metrics.ece([0], [[0.75, 0.25]]) == pytest.approx(0.25)
    assert metrics.brier([0], [[0.75, 0.25]]) == pytest.approx(0.125)
    assert math.isnan(metrics.pearson([1.0], [2.0]))
    assert math.isnan(metrics.spearman([1.0], [2.0]))
    assert metrics.rmse([1.0], [3.0]) == metrics.mae([1.0], [3.0]) == 2.0


def test_a_certain_error_costs_a_finite_number_of_nats():
    assert metrics.nll([0], [[0.0, 1.0]]) == pytest.approx(36.0437, abs=1e-4)


def test_ece_weighs_the_bins_by_their_size():
    # Confidence 0.9: two of three right; confidence 0.6: right. |2/3 - 0.9| * 3/4 + |1 - 0.6| * 1/4
    table = [[0.9, 0.1], [0.9, 0.1], [0.1, 0.9], [0.6, 0.4]]
    assert metrics.ece([0, 0, 0, 0], table) == pytest.approx(abs(2 / 3 - 0.9) * 0.75 + 0.4 * 0.25)


def test_bins_are_closed_on_the_right_and_empty_ones_hold_nan():
    diagram = metrics.reliability([[0.5, 0.5], [1.0, 0.0], [0.51, 0.49]], [0, 0, 1], bins=2)
    assert diagram.edges.tolist() == [0.0, 0.5, 1.0]
    assert diagram.counts.tolist() == [1, 2]
    assert diagram.accuracy.tolist() == [1.0, 0.5]
    assert diagram.confidence.tolist() == [0.5, 0.755]
    empty = metrics.reliability([[1.0, 0.0]], [0], bins=4)
    assert empty.counts.tolist() == [0, 0, 0, 1]
    assert np.isnan(empty.accuracy[:3]).all()


@given(classified(), st.randoms(use_true_random=False))
def test_scores_do_not_depend_on_the_order_and_stay_on_their_scale(drawn, random):
    labels, predictions, probabilities = drawn
    order = list(range(len(labels)))
    random.shuffle(order)
    for score, low, high in ((metrics.accuracy, 0, 1), (metrics.macro_f1, 0, 1), (metrics.mcc, -1, 1)):
        value = score(labels, predictions)
        assert low - 1e-12 <= value <= high + 1e-12
        assert score(labels[order], predictions[order]) == pytest.approx(value)
    for score, high in ((metrics.nll, np.inf), (metrics.brier, 2), (metrics.ece, 1)):
        value = score(labels, probabilities)
        assert -1e-12 <= value <= high + 1e-12
        assert score(labels[order], probabilities[order]) == pytest.approx(value)


numbers = st.lists(st.tuples(st.integers(-50, 50), st.integers(-50, 50)), min_size=2, max_size=30)


@given(numbers)
def test_correlations_equal_those_of_scipy(pairs):
    x, y = np.array(pairs, dtype=float).T
    if len(set(x)) == 1 or len(set(y)) == 1:
        assert math.isnan(metrics.pearson(x, y))
        assert math.isnan(metrics.spearman(x, y))
    else:
        assert metrics.pearson(x, y) == pytest.approx(scipy.stats.pearsonr(x, y)[0], abs=1e-9)
        assert metrics.spearman(x, y) == pytest.approx(scipy.stats.spearmanr(x, y)[0], abs=1e-9)


@pytest.mark.parametrize("scale", [1e-200, 1e-3, 1e200])
def test_a_correlation_survives_tiny_and_huge_numbers(scale):
    x = np.array([1.0, 2.0, 4.0])
    assert metrics.pearson(scale * x, x) == pytest.approx(1.0)


def test_a_constant_that_floating_point_cannot_centre_is_still_constant():
    assert math.isnan(metrics.pearson([0.1] * 3, [1.0, 2.0, 3.0]))


def test_errors_of_numbers_equal_those_of_scikit_learn():
    x, y = np.random.default_rng(0).normal(size=(2, 50))
    assert metrics.rmse(x, y) == pytest.approx(sklearn.metrics.root_mean_squared_error(x, y))
    assert metrics.mae(x, y) == pytest.approx(sklearn.metrics.mean_absolute_error(x, y))


def test_shapes_and_labels_that_do_not_fit_are_named():
    with pytest.raises(UsageError, match=r"\(2,\) and \(1,\)"):
        metrics.accuracy([0, 1], [0])
    with pytest.raises(UsageError, match="at least 1"):
        metrics.mae([], [])
    with pytest.raises(UsageError, match="example 1 has 2"):
        metrics.nll([0, 2], [[0.5, 0.5], [0.5, 0.5]])
