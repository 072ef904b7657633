"""Forecasts: what is expected of the candidates of a pool."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

TAIL = 1.2815515655446004
"""Standard deviations from the middle to either end of an interval of 80 %."""


@dataclass(frozen=True)
class Forecasts:
    """What is expected of ``n`` candidates, ``(n,)`` each; the first five as in ``Forecast``.

    Attributes:
        p_fail: chance to diverge or to run out of memory.
        next_seconds: of the next cell, at the pace of what was timed on this task, else of the past's machines; NaN
            where not known.
    """

    order: np.ndarray
    mean: np.ndarray
    low: np.ndarray
    high: np.ndarray
    calibrated: bool
    p_fail: np.ndarray
    next_seconds: np.ndarray

    @property
    def spread(self) -> np.ndarray:
        """Standard deviations of normal distributions with these intervals."""
        return (self.high - self.low) / (2 * TAIL)
