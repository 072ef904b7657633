"""Influence: what each test row adds to a score that is no mean over rows, so that rows can be crossed with seeds.

Matthews' correlation and macro-F1 are smooth functions T of the confusion matrix M, unchanged when all counts grow
alike. To first order T varies over new rows as the mean of T + n dT/dM(y_i, p_i) does, the influence values of its rows
(the infinitesimal jackknife, Jaeckel 1972; Efron 1982, chapter 6), whose mean is T itself. The derivative is taken in
place of leaving a row out, for a class of one row would vanish with it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from foretune.evaluation.metrics import Counts, Floats, confusion, counts, macro_f1_of, mcc_of

OF_COUNTS: dict[str, Callable[[Counts], Floats]] = {"mcc": mcc_of, "macro_f1": macro_f1_of}
"""Metrics that are functions of a confusion matrix and no means over rows."""

NUDGE = 0.01
"""Of a row: central differences this wide are exact to 1e-4 of a row, and no count falls below 0."""


def influence(metric: str, labels: Sequence[str], predictions: Sequence[str]) -> Floats:
    """(n,) one value for each row, with the score as their mean.

    Args:
        metric: one of ``OF_COUNTS``.
        labels, predictions: class names, row by row.

    >>> values = influence("mcc", ["a", "a", "b", "b"], ["a", "b", "b", "b"])
    >>> round(float(values.mean()), 4), values.round(2).tolist()
    (0.5774, [1.15, -0.38, 0.77, 0.77])
    """
    of = OF_COUNTS[metric]
    names = sorted({*labels, *predictions})
    place = {name: i for i, name in enumerate(names)}
    truth, guess = (np.array([place[name] for name in side]) for side in (labels, predictions))
    matrix = confusion(truth, guess, len(names)).astype(np.float64)
    score, slopes = float(of(counts(matrix))), np.zeros_like(matrix)
    for pair in zip(*np.nonzero(matrix), strict=True):
        ends = []
        for nudge in (NUDGE, -NUDGE):
            moved = matrix.copy()
            moved[pair] += nudge
            ends.append(float(of(counts(moved))))
        slopes[pair] = (ends[0] - ends[1]) / (2 * NUDGE)
    moves = len(truth) * slopes[truth, guess]
    return score + moves - moves.mean()
