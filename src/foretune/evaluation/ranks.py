"""Ranks of several methods over many tasks: Friedman's test, and Nemenyi's for the pairs.

After Demšar, *Statistical comparisons of classifiers over multiple data sets* (2006, JMLR 7). Ranks ask nothing of the
scale of a score, and say nothing of the size of a difference. Here tasks are the sample: the tests speak of new tasks.
Below about ten tasks the chi-squared of Friedman's test is rough, and Nemenyi's needs large differences.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from foretune.errors import UsageError


@dataclass(frozen=True)
class Ranks:
    """Mean ranks of k methods over n tasks; 1 is the best.

    Attributes:
        mean: (k,) mean ranks; equal scores share the mean of their places.
        statistic, p: Friedman's chi-squared and its p: are all methods alike?
        critical_difference: Nemenyi's: mean ranks further apart than this differ, all pairs considered at once.
        pairwise: (k, k) Nemenyi's p values, already adjusted for all pairs; 1 on the diagonal.
        n_tasks: n.
    """

    mean: tuple[float, ...]
    statistic: float
    p: float
    critical_difference: float
    pairwise: tuple[tuple[float, ...], ...]
    n_tasks: int


def rank_tasks(scores: ArrayLike, level: float = 0.95) -> Ranks:
    """Rank methods on each task and compare their mean ranks.

    The critical difference is q(level, k) sqrt(k (k + 1) / (6 n)), with q the quantile of the studentised range for k
    groups and infinite degrees of freedom over sqrt(2).

    Args:
        scores: (methods, tasks), the mean score of each; more is better.

    Raises:
        UsageError: fewer than 3 methods or 2 tasks, or a missing score.

    >>> found = rank_tasks([[0.9, 0.8, 0.7, 0.9], [0.8, 0.7, 0.6, 0.7], [0.5, 0.6, 0.5, 0.6]])
    >>> found.mean, round(found.p, 3), round(found.critical_difference, 2)
    ((1.0, 2.0, 3.0), 0.018, 1.66)
    """
    from scipy.stats import friedmanchisquare, rankdata, studentized_range

    table = np.asarray(scores, dtype=np.float64)
    if table.ndim != 2 or table.shape[0] < 3 or table.shape[1] < 2:
        raise UsageError(
            f"Ranks need at least 3 methods on 2 tasks, but got the shape {table.shape}. "
            "Compare two methods with a paired test."
        )
    gaps = np.argwhere(~np.isfinite(table))
    if len(gaps):
        raise UsageError(
            f"Ranks need every method on every task, but method {gaps[0][0] + 1} has no score on task "
            f"{gaps[0][1] + 1}. Run it, or leave that task out."
        )
    k, n = table.shape
    mean = rankdata(-table, axis=0).mean(axis=1)
    alike = bool((table == table[0]).all())
    statistic, p = (0.0, 1.0) if alike else friedmanchisquare(*table)
    error = math.sqrt(k * (k + 1) / (6 * n))
    apart = np.abs(mean[:, None] - mean[None]) / error * math.sqrt(2)
    pairwise = studentized_range.sf(apart, k, np.inf)
    critical = float(studentized_range.ppf(level, k, np.inf)) / math.sqrt(2) * error
    return Ranks(tuple(mean.tolist()), float(statistic), float(p), critical, tuple(map(tuple, pairwise.tolist())), n)
