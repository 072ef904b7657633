"""Scores of labels, probabilities and numbers: pure functions on numpy arrays.

Truth comes first, prediction second, as in scikit-learn, and on ordinary input the values are scikit-learn's and
scipy's. What they leave undefined is decided here once: a constant classifier has an MCC of 0, a constant side has no
correlation (NaN), and one example is enough for everything else. Everything that depends on class counts goes through
``Counts``, whose leading axes may be resamples: a bootstrap evaluates thousands of confusion matrices in one call.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from foretune.errors import UsageError

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

BINS = 15
"""Bins of the calibration error, equally wide on [0, 1]: the number of Guo et al. (2017)."""

SMALLEST = float(np.finfo(np.float64).eps)
"""Probabilities below this are raised to it before the logarithm, as in scikit-learn: a certain error costs 36 nats."""


class Counts(NamedTuple):
    """What the class scores need of a confusion matrix; every array is (..., C).

    Attributes:
        hits: examples of the class that were predicted as such.
        truth: examples of the class.
        predicted: predictions of the class.
    """

    hits: Floats
    truth: Floats
    predicted: Floats


class Reliability(NamedTuple):
    """The reliability diagram; empty bins hold NaN.

    Attributes:
        edges: (bins + 1,) borders; a bin is open on the left and closed on the right.
        confidence: (bins,) mean probability of the predicted class.
        accuracy: (bins,) share of right predictions.
        counts: (bins,) number of examples.
    """

    edges: Floats
    confidence: Floats
    accuracy: Floats
    counts: Ints


def confusion(labels: ArrayLike, predictions: ArrayLike, classes: int | None = None) -> Ints:
    """Count (true class, predicted class) pairs: (C, C), a row per true class.

    >>> confusion([0, 0, 1], [0, 1, 1]).tolist()
    [[1, 1], [0, 1]]
    """
    truth, guess = _pair(labels, predictions, np.int64)
    size = classes or int(max(truth.max(), guess.max())) + 1
    return np.bincount(truth * size + guess, minlength=size * size).reshape(size, size)


def counts(matrix: ArrayLike) -> Counts:
    """The margins and the diagonal of a confusion matrix."""
    square = np.asarray(matrix, dtype=np.float64)
    return Counts(square.diagonal(), square.sum(axis=1), square.sum(axis=0))


def accuracy(labels: ArrayLike, predictions: ArrayLike) -> float:
    """The share of right predictions.

    >>> accuracy([0, 1, 1, 1], [0, 1, 1, 0])
    0.75
    """
    truth, guess = _pair(labels, predictions, np.int64)
    return float(np.mean(truth == guess))


def macro_f1(labels: ArrayLike, predictions: ArrayLike) -> float:
    """The unweighted mean of the classes' F1, over the classes that occur among labels or predictions.

    A class that occurs in neither does not count, so an evaluation set without it loses nothing; a class that is only
    ever predicted counts as 0.

    >>> round(macro_f1([0, 0, 1, 1], [0, 0, 1, 0]), 4)
    0.7333
    """
    return float(macro_f1_of(counts(confusion(labels, predictions))))


def macro_f1_of(given: Counts) -> Floats:
    """``macro_f1`` of counts, over the last axis."""
    size = given.truth + given.predicted
    present = size > 0
    f1 = np.divide(2 * given.hits, size, out=np.zeros_like(size), where=present)
    return f1.sum(axis=-1) / np.maximum(present.sum(axis=-1), 1)


def mcc(labels: ArrayLike, predictions: ArrayLike) -> float:
    """Matthews' correlation for any number of classes (Gorodkin 2004, R_K); 0 when either side is constant.

    >>> mcc([0, 0, 1, 1], [0, 0, 1, 1]), mcc([0, 0, 1, 1], [1, 1, 1, 1])
    (1.0, 0.0)
    """
    return float(mcc_of(counts(confusion(labels, predictions))))


def mcc_of(given: Counts) -> Floats:
    """``mcc`` of counts, over the last axis."""
    n = given.truth.sum(axis=-1)
    covariance = given.hits.sum(axis=-1) * n - (given.truth * given.predicted).sum(axis=-1)
    spread = (n**2 - (given.truth**2).sum(axis=-1)) * (n**2 - (given.predicted**2).sum(axis=-1))
    return np.divide(covariance, np.sqrt(spread), out=np.zeros_like(covariance), where=spread > 0)


def nll_each(labels: ArrayLike, probabilities: ArrayLike) -> Floats:
    """(n,) minus the log of the true class's probability, in nats; probabilities are (n, C)."""
    table, truth = _table(labels, probabilities)
    return -np.log(np.maximum(table[np.arange(len(truth)), truth], SMALLEST))


def nll(labels: ArrayLike, probabilities: ArrayLike) -> float:
    """The mean negative log-likelihood, in nats.

    >>> round(nll([0, 1], [[0.5, 0.5], [0.5, 0.5]]), 4)
    0.6931
    """
    return float(np.mean(nll_each(labels, probabilities)))


def brier_each(labels: ArrayLike, probabilities: ArrayLike) -> Floats:
    """(n,) squared distances between the probabilities and the one-hot truth, summed over classes: in [0, 2]."""
    table, truth = _table(labels, probabilities)
    chosen = table[np.arange(len(truth)), truth]
    return (table**2).sum(axis=1) - 2 * chosen + 1


def brier(labels: ArrayLike, probabilities: ArrayLike) -> float:
    """The multi-class Brier score of Brier (1950): the mean of ``brier_each``; 0 is perfect, 2 the worst.

    With two classes it is twice the score that looks at the positive class alone.

    >>> brier([0, 1], [[1.0, 0.0], [1.0, 0.0]])
    1.0
    """
    return float(np.mean(brier_each(labels, probabilities)))


def reliability(probabilities: ArrayLike, labels: ArrayLike, bins: int = BINS) -> Reliability:
    """Confidence against accuracy of the predicted class in equally wide bins of confidence.

    >>> diagram = reliability([[0.9, 0.1], [0.8, 0.2], [0.3, 0.7]], [0, 1, 1], bins=2)
    >>> diagram.counts.tolist(), diagram.accuracy.round(3).tolist()
    ([0, 3], [nan, 0.667])
    """
    table, truth = _table(labels, probabilities)
    confidence = table.max(axis=1)
    edges = np.linspace(0.0, 1.0, bins + 1)
    where = np.clip(np.digitize(confidence, edges, right=True) - 1, 0, bins - 1)
    number = np.bincount(where, minlength=bins)
    filled = np.where(number > 0, number, np.nan)
    right = (table.argmax(axis=1) == truth).astype(np.float64)
    return Reliability(
        edges,
        np.bincount(where, confidence, minlength=bins) / filled,
        np.bincount(where, right, minlength=bins) / filled,
        number,
    )


def ece(labels: ArrayLike, probabilities: ArrayLike, bins: int = BINS) -> float:
    """Expected calibration error of the predicted class: mean |accuracy - confidence| over bins, weighted by size.

    Top label, 15 equally wide bins (Guo et al. 2017). In small samples the value is biased upward: even a perfectly
    calibrated model has about 0.1 on 100 examples, so compare it only between sets of the same size.

    >>> round(ece([0, 0], [[0.8, 0.2], [0.8, 0.2]]), 3)
    0.2
    """
    diagram = reliability(probabilities, labels, bins)
    difference = np.abs(diagram.accuracy - diagram.confidence)
    return float(np.nansum(difference * diagram.counts) / diagram.counts.sum())


def pearson(targets: ArrayLike, values: ArrayLike) -> float:
    """Pearson's correlation; NaN when either side is constant (a single example included).

    >>> pearson([1, 2, 3], [2, 4, 6]), pearson([1, 1], [1, 2])
    (1.0, nan)
    """
    x, y = _pair(targets, values, np.float64)
    return float(correlation(x, y))


def correlation(x: Floats, y: Floats) -> Floats:
    """Pearson's correlation over the last axis of two arrays of one shape; NaN where a side is constant."""
    varies = (np.ptp(x, axis=-1) > 0) & (np.ptp(y, axis=-1) > 0)
    x, y = _standard(x), _standard(y)
    spread = (x * x).sum(axis=-1) * (y * y).sum(axis=-1)
    r = np.divide((x * y).sum(axis=-1), np.sqrt(spread), out=np.full_like(spread, np.nan), where=varies)
    return np.clip(r, -1.0, 1.0)


def spearman(targets: ArrayLike, values: ArrayLike) -> float:
    """Spearman's rank correlation, ties at their mean rank; NaN when either side is constant.

    >>> spearman([1, 2, 3], [1, 10, 100])
    1.0
    """
    x, y = _pair(targets, values, np.float64)
    return float(rank_correlation(x, y))


def rank_correlation(x: Floats, y: Floats) -> Floats:
    """``spearman`` over the last axis of two arrays of one shape."""
    from scipy.stats import rankdata

    return correlation(rankdata(x, axis=-1), rankdata(y, axis=-1))


def rmse(targets: ArrayLike, values: ArrayLike) -> float:
    """The root of the mean squared error, in the targets' unit.

    >>> rmse([0, 0], [3, 3])
    3.0
    """
    x, y = _pair(targets, values, np.float64)
    return float(np.sqrt(np.mean((x - y) ** 2)))


def mae(targets: ArrayLike, values: ArrayLike) -> float:
    """The mean absolute error, in the targets' unit.

    >>> mae([0, 0], [1, 3])
    2.0
    """
    x, y = _pair(targets, values, np.float64)
    return float(np.mean(np.abs(x - y)))


def _standard(x: Floats) -> Floats:
    """Centred, with a largest absolute value of 1, so that squares neither over- nor underflow."""
    x = x - x.mean(axis=-1, keepdims=True)
    largest = np.abs(x).max(axis=-1, keepdims=True)
    return np.divide(x, largest, out=np.zeros_like(x), where=largest > 0)


def _pair(truth: ArrayLike, guess: ArrayLike, kind: type) -> tuple[NDArray, NDArray]:
    """Both sides as one-dimensional arrays of one length, at least 1."""
    first: NDArray = np.asarray(truth, dtype=kind)
    second: NDArray = np.asarray(guess, dtype=kind)
    if first.ndim != 1 or first.shape != second.shape or not len(first):
        raise UsageError(
            f"Targets and predictions must be two lists of one length, at least 1, but got the shapes {first.shape} "
            f"and {second.shape}."
        )
    return first, second


def _table(labels: ArrayLike, probabilities: ArrayLike) -> tuple[Floats, Ints]:
    """Probabilities as (n, C) and labels as (n,), in range."""
    table, truth = np.asarray(probabilities, dtype=np.float64), np.asarray(labels, dtype=np.int64)
    if table.ndim != 2 or truth.shape != table.shape[:1] or not len(truth):
        raise UsageError(
            f"Probabilities must be (examples, classes) and labels (examples,), at least one, but got the shapes "
            f"{table.shape} and {truth.shape}."
        )
    outside = np.flatnonzero((truth < 0) | (truth >= table.shape[1]))
    if len(outside):
        raise UsageError(
            f"Labels must be 0 to {table.shape[1] - 1}, one for each column of probabilities, but example {outside[0]} "
            f"has {truth[outside[0]]}."
        )
    return table, truth
