"""Regret: how far below the best known one a configuration ends, on a scale that tasks share.

Raw scores of two tasks cannot be averaged. The normalised regret of a task is 0 for its best configuration and 1 for
one among its worst twentieth::

    regret = clip((max y - y) / (max y - P5(y)), 0, 1)

The percentile in the place of the minimum keeps one absurd run (losses of diverging networks reach 1e34) from making
all others look alike. A failed run is worth the worst finite score of its task, and nothing is worth less than not
training at all, where that is known.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from foretune.evaluation.metrics import Floats

PERCENTILE = 5.0


def filled(values: ArrayLike, sign: int = 1, untrained: float | None = None) -> Floats:
    """Scores of which more is better, without a gap.

    Args:
        values: ``(n,)`` raw scores of one task, NaN where a run failed.
        sign: 1 where more is better, -1 where less is.
        untrained: the raw score without training; None or NaN where it is not known.

    >>> filled([0.5, float("nan"), 0.2, 9.0], sign=-1, untrained=0.7).tolist()
    [-0.5, -0.7, -0.2, -0.7]
    """
    scores = sign * np.asarray(values, np.float64)
    known = np.isfinite(scores)
    if not known.any():
        return np.zeros(len(scores))
    scores = np.where(known, scores, scores[known].min())
    if untrained is not None and np.isfinite(untrained) and sign * untrained <= scores.max():
        scores = np.maximum(scores, sign * untrained)
    return scores


def normalised_regret(scores: ArrayLike) -> Floats:
    """``(n,)`` regrets from 0 to 1 of scores without a gap, more being better. Where all are equal, all are 0.

    >>> normalised_regret([0.0, 0.5, 1.0]).round(2).tolist()
    [1.0, 0.53, 0.0]
    """
    scores = np.asarray(scores, np.float64)
    lost = scores.max() - scores
    span = scores.max() - np.percentile(scores, PERCENTILE)
    return np.clip(lost / span, 0, 1) if span > 0 else (lost > 0).astype(np.float64)


def expected_at_random(regrets: ArrayLike, preference: ArrayLike, k: int) -> float:
    """The exact mean regret of random search: ``k`` configurations drawn without replacement, the preferred one kept.

    The one in place ``i`` of the preference is the best of the draw in ``C(n-1-i, k-1)`` of ``C(n, k)`` draws.

    Args:
        regrets: ``(n,)`` what each configuration costs.
        preference: ``(n,)`` more is preferred; NaN is a run that failed, preferred by nobody.
        k: how many are drawn; ``n`` where it is more.

    >>> [round(expected_at_random([0.0, 0.4, 1.0], [3, 2, 1], k), 3) for k in (1, 2, 3)]
    [0.467, 0.133, 0.0]
    """
    wanted = np.asarray(preference, np.float64)
    order = np.argsort(-np.where(np.isfinite(wanted), wanted, -np.inf), kind="stable")
    n = len(order)
    chances, left = np.zeros(n), 1.0
    for place in range(n - min(k, n) + 1):
        # the chance that none of the places before is drawn, times that this one is, given that
        here = left * min(k, n) / (n - place)
        chances[place], left = here, left - here
    return float(chances @ np.asarray(regrets, np.float64)[order])
