"""Is it as good? Two one-sided tests, and what a comparison could have seen.

"No difference found" is not "equal". Two methods are called equivalent only when a difference of the margin, declared
before the first run, is ruled out on both sides (Schuirmann 1987). And beside a difference that was not found stands
the least one that would have been.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from foretune.errors import UsageError
from foretune.evaluation.estimate import Estimate, at_level

POWER = 0.8


@dataclass(frozen=True)
class Equivalence:
    """The outcome of two one-sided tests.

    Attributes:
        margin: the largest difference that does not matter, in the units of the score.
        p: the greater of the two one-sided p values: of "at least the margin better" and "at least the margin worse".
        low, high: the interval of level 1 - 2 alpha, which lies within the margin just where p is at most alpha.
        alpha: the level of the test.
    """

    margin: float
    p: float
    low: float
    high: float
    alpha: float = 0.05


def tost(difference: Estimate, margin: float, alpha: float = 0.05) -> Equivalence:
    """Two one-sided t tests of |difference| >= margin.

    Args:
        difference: with a standard error: ``crossed``, ``over_seeds``, ``paired_t``.
        margin: above 0, and chosen before the runs.

    Raises:
        UsageError: a margin that is not above 0, an interval by resampling.

    >>> from foretune.evaluation import over_seeds
    >>> found = tost(over_seeds([0.001, -0.002, 0.003, 0.000, -0.001]), margin=0.01)
    >>> found.p < 0.05, round(found.low, 4), round(found.high, 4)
    (True, -0.0016, 0.002)
    """
    if not margin > 0:
        raise UsageError(
            f"The margin must be above 0, but got {margin}: no data show that two methods are exactly equal. "
            "Give the largest difference that does not matter, 0.01 for a point of accuracy."
        )
    narrow = at_level(difference, 1 - 2 * alpha)
    error, df = narrow.standard_error, narrow.df
    if error is None or df is None or not math.isfinite(error):
        return Equivalence(margin, math.nan, math.nan, math.nan, alpha)
    from scipy.stats import t

    p = float(t.sf((margin - abs(difference.value)) / error, df))
    return Equivalence(margin, p, narrow.low, narrow.high, alpha)


def detectable_difference(difference: Estimate, power: float = POWER, level: float | None = None) -> float:
    """The least true difference that such a comparison would call, with probability ``power`` and the right sign.

    By the noncentral t: the d with P(T(df, d / se) > t(df, (1 + level) / 2)) = power. It uses the standard error that
    was seen, so it says what this many seeds and items can show, not what another method's noise would be.

    Args:
        level: of the interval that has to leave out 0; by default the estimate's own.

    Returns:
        NaN where no spread was seen.

    Raises:
        UsageError: an interval by resampling, a power outside (0.5, 1).

    >>> from foretune.evaluation import over_seeds
    >>> round(detectable_difference(over_seeds([0.03, 0.01, 0.02, 0.04, 0.00])), 3)
    0.027
    """
    if not 0.5 < power < 1:
        raise UsageError(f"`0.5 < power < 1` must hold, but got {power=}.")
    checked = at_level(difference, difference.level if level is None else level)
    error, df = checked.standard_error, checked.df
    if error is None or df is None or not math.isfinite(error):
        return math.nan
    from scipy.optimize import brentq
    from scipy.stats import nct, t

    critical = float(t.ppf((1 + checked.level) / 2, df))

    def lacking(ratio: float) -> float:
        return float(nct.sf(critical, df, ratio)) - power

    high = critical
    while lacking(high) < 0:
        high *= 2
    return error * float(brentq(lacking, 0.0, high, xtol=1e-9))
