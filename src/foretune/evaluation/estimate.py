"""Student's t: an ``Estimate`` of a mean or of a difference over seeds.

An interval says for whom it speaks by its name (``interval``), its seeds and its items, because the same difference has
several: over seeds alone it speaks of new seeds on these test rows, crossed it speaks of new rows as well. Differences
are turned by the caller so that more is better.
"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
from numpy.typing import ArrayLike

from foretune.errors import UsageError
from foretune.evaluation.metrics import Floats
from foretune.records import Estimate

LEVEL = 0.95

OVER_SEEDS = "t over seeds"

_NO_SPREAD = 1e-12
"""A standard error below this part of the largest value is rounding, not spread."""

DECIMALS = 9


def student(
    value: float,
    standard_error: float,
    df: float,
    interval: str,
    *,
    scale: float,
    level: float = LEVEL,
    n_seeds: int | None = None,
    n_items: int | None = None,
) -> Estimate:
    """value ± t(df) * standard_error, and the p value that belongs to it.

    Args:
        scale: the largest value that entered. A standard error of rounding size beside it means that nothing varied:
            it, the bounds and p are then NaN, for "no spread was seen" does not say that there is none.
    """
    if not standard_error > _NO_SPREAD * scale:
        standard_error = math.nan
    from scipy.stats import t

    half, p = half_width(standard_error, df, level), float(2 * t.sf(abs(value) / standard_error, df))
    return Estimate(value, value - half, value + half, interval, level, standard_error, df, p, n_seeds, n_items)


def half_width(standard_error: float, df: float, level: float) -> float:
    """t(df, (1 + level) / 2) standard errors; NaN for a standard error of NaN.

    Raises:
        UsageError: a level outside (0, 1).
    """
    if not 0 < level < 1:
        raise UsageError(f"The level of an interval must lie between 0 and 1, but got {level:g}. Write 0.95 for 95 %.")
    from scipy.stats import t

    return float(t.ppf((1 + level) / 2, df)) * standard_error


def at_level(estimate: Estimate, level: float) -> Estimate:
    """The same estimate with the bounds of another level.

    Raises:
        UsageError: the interval was made by resampling, whose draws are gone; a level outside (0, 1).

    >>> wider = at_level(over_seeds([0.7, 0.8, 0.9]), 0.99)
    >>> round(wider.low, 3), round(wider.high, 3)
    (0.227, 1.373)
    """
    if estimate.standard_error is None or estimate.df is None:
        raise UsageError(
            f"Only an interval by Student's t can be given another level, but this one is `{estimate.interval}`. "
            "Compute it again at the level that is wanted."
        )
    half = half_width(estimate.standard_error, estimate.df, level)
    return replace(estimate, low=estimate.value - half, high=estimate.value + half, level=level)


def over_seeds(values: ArrayLike, level: float = LEVEL) -> Estimate:
    """Student's t interval of the mean over seeds: of new seeds on this test set, not of new examples.

    Given the differences of two methods seed by seed, it is the paired t test.

    Args:
        values: (seeds,) one score for each; a single seed has no interval (NaN).

    Raises:
        UsageError: no value, or one that is missing.

    >>> found = over_seeds([0.7, 0.8, 0.9])
    >>> round(found.low, 3), round(found.high, 3), found.df
    (0.552, 1.048, 2)
    """
    scores = scores_of(values)
    n, mean = len(scores), float(scores.mean())
    error = float(scores.std(ddof=1)) / math.sqrt(n) if n > 1 else math.nan
    return student(mean, error, n - 1, OVER_SEEDS, scale=float(abs(scores).max()), level=level, n_seeds=n)


def scores_of(values: ArrayLike, what: str = "seed") -> Floats:
    """(n,) finite scores, one for each seed (or trial).

    Raises:
        UsageError: no score, or one that is missing.
    """
    scores = np.asarray(values, dtype=np.float64)
    missing = np.flatnonzero(~np.isfinite(np.atleast_1d(scores)))
    if scores.ndim != 1 or not len(scores) or len(missing):
        found = (
            f"score {missing[0] + 1} of {len(scores)} is {scores[missing[0]]}"
            if scores.ndim == 1 and len(missing)
            else f"the shape is {scores.shape}"
        )
        raise UsageError(
            f"One finite score is needed for each {what}, but {found}. "
            f"Run what is missing, or leave that {what} out on every side."
        )
    return scores


def seed_pairs(first: ArrayLike, second: ArrayLike) -> Floats:
    """(seeds,) differences of two methods on the same seeds, first minus second, rounded to 1e-9.

    Unrounded, 0.81 - 0.80 and 0.80 - 0.79 are two numbers, and a tie is lost.

    Raises:
        UsageError: unequal numbers of seeds, or a score that is missing.
    """
    one, two = scores_of(first), scores_of(second)
    if len(one) != len(two):
        raise UsageError(
            f"A paired comparison needs both methods on the same seeds, but got {len(one)} and {len(two)} scores. "
            "Run the missing seeds, or leave them out on both sides."
        )
    return np.round(one - two, DECIMALS)
