"""Estimate: a number with its interval. Arithmetic makes it, a verdict keeps it."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Estimate:
    """A mean or a difference of means, with its interval.

    Attributes:
        value: the estimate.
        low, high: bounds of the interval; NaN where nothing was seen that could tell the spread.
        interval: how it was made: ``crossed``, ``t over seeds``, ``stratified bootstrap of runs``, ...
        level: its nominal coverage.
        standard_error, df: of Student's t; None for an interval made by resampling.
        p: two-sided, of the hypothesis that the true value is 0 (of use for differences); None without Student's t.
        n_seeds, n_items, n_tasks: what it rests on; None where that did not enter.
    """

    value: float
    low: float = math.nan
    high: float = math.nan
    interval: str = ""
    level: float = 0.95
    standard_error: float | None = None
    df: float | None = None
    p: float | None = None
    n_seeds: int | None = None
    n_items: int | None = None
    n_tasks: int | None = None
