"""What a reader must be told without asking: a name, a colon, and the figures behind it.

A flag never changes a score. The comparison with the majority class is made on the same items (McNemar's exact test,
one-sided, 5 %), against the most frequent label of the judged set itself: the strictest constant there is.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from foretune.evaluation.intervals import wilson

SIGNIFICANCE = 0.05


def constant_prediction(
    targets: Sequence[Hashable], predictions: Sequence[Any], names: Sequence[str] = ()
) -> str | None:
    """Every prediction is the same although the targets differ.

    >>> constant_prediction([0, 1, 1], [1, 1, 1], ("no", "yes"))
    'constant_prediction: all 3 predictions are `yes`'
    """
    first = predictions[0]
    if len(set(targets)) < 2 or any(prediction != first for prediction in predictions):
        return None
    shown = names[int(first)] if names else first
    return f"constant_prediction: all {len(predictions)} predictions are `{shown}`"


def against_majority(targets: ArrayLike, predictions: ArrayLike) -> str | None:
    """``at_or_below_majority``, or ``majority_not_excluded`` where accuracy is above it by no more than chance gives.

    >>> against_majority([0] * 7 + [1] * 3, [0] * 5 + [1] * 5)
    'majority_not_excluded: accuracy 0.800 is above 0.700 of the most frequent label, but not significantly (p = 0.500)'
    >>> against_majority([0] * 7 + [1] * 3, [1] * 10)
    'at_or_below_majority: accuracy 0.300, the most frequent label alone gives 0.700'
    """
    from scipy.stats import binomtest

    truth, guess = np.asarray(targets, dtype=np.int64), np.asarray(predictions, dtype=np.int64)
    right, usual = guess == truth, truth == np.bincount(truth).argmax()
    if right.mean() <= usual.mean():
        return (
            f"at_or_below_majority: accuracy {right.mean():.3f}, the most frequent label alone gives {usual.mean():.3f}"
        )
    wins, losses = int(np.sum(right & ~usual)), int(np.sum(~right & usual))
    p = binomtest(wins, wins + losses, alternative="greater").pvalue
    if p < SIGNIFICANCE:
        return None
    return (
        f"majority_not_excluded: accuracy {right.mean():.3f} is above {usual.mean():.3f} of the most frequent label, "
        f"but not significantly (p = {p:.3f})"
    )


def ood_at_chance(targets: ArrayLike, predictions: ArrayLike, chance: float) -> str | None:
    """The out-of-domain accuracy is not shown to be above blind guessing, which gives ``chance`` (Wilson, 95 %).

    >>> ood_at_chance([0, 1] * 50, [0] * 100, 0.5)
    'ood_at_chance: accuracy 0.500 with an interval from 0.404, blind guessing gives 0.500'
    """
    right = np.asarray(targets) == np.asarray(predictions)
    low, _ = wilson(int(right.sum()), len(right))
    if low > chance:
        return None
    return (
        f"ood_at_chance: accuracy {right.mean():.3f} with an interval from {low:.3f}, blind guessing gives {chance:.3f}"
    )


def not_finite(outputs: ArrayLike) -> str | None:
    """Some outputs are NaN or infinite: no score is given.

    >>> not_finite([[0.5, 0.5], [float("nan"), 0.5]])
    'nan: 1 of 2 outputs is not finite'
    """
    table = np.asarray(outputs, dtype=np.float64)
    bad = int(np.sum(~np.isfinite(table).reshape(len(table), -1).all(axis=1)))
    return f"nan: {bad} of {len(table)} outputs {'is' if bad == 1 else 'are'} not finite" if bad else None
