"""Widths of intervals, measured on groups of tasks that a model has not seen: conformalised quantile regression.

With quantiles ``low`` and ``high`` of runs that were left out and what they scored, ``e = max(low - y, y - high)``
says by how much the interval missed (negative: had to spare). Both ends are moved outwards by the (1 + 1/n) * .8
quantile of these ``n`` misses, tasks weighted equally (Romano, Patterson, Candes 2019, arXiv 1905.03222). So of the
runs of a new task like the old ones 80 % are covered on average over tasks; a task unlike all others may have far
fewer, one like most of them more. Below ``FEWEST`` groups nothing is moved.

Every group of tasks is left out once, in at most ``FOLDS`` folds: leaving out one at a time would take as many fits as
there are groups, and these models learn nearly the same from five sixths of the tasks. They do not where few groups
teach most of what there is to learn: such groups are dealt to different folds (``weight``).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np

from foretune.store.metadataset import MetaDataset
from foretune.surrogates.base import LEVEL

FEWEST = 5
FOLDS = 6


def left_out(past: MetaDataset, seed: int, weight: Mapping[str, float] | None = None) -> Iterator[np.ndarray]:
    """``(n,)`` masks of the runs that a fold leaves out: whole groups, each once. None below ``FEWEST`` groups.

    Args:
        weight: group -> how much it teaches. The heaviest are dealt first, there and back, so that no fold hides
            several while another hides none; groups of equal weight in random order. None: all are alike.
    """
    groups = past.groups
    names = np.array(sorted(set(groups)), object)
    if len(names) < FEWEST:
        return
    names = np.random.default_rng(seed).permutation(names)
    if weight is not None:
        names = names[np.argsort([-weight[name] for name in names], kind="stable")]
    folds = min(FOLDS, len(names))
    row, column = np.divmod(np.arange(len(names)), folds)
    dealt = column if weight is None else np.where(row % 2, folds - 1 - column, column)
    for fold in range(folds):
        yield np.isin(groups, names[dealt == fold])


def equal_weights(tasks: np.ndarray) -> np.ndarray:
    """``(n,)`` weights of values that belong to ``tasks`` ``(n,)``: every task has the same sum.

    >>> equal_weights(np.array([0, 0, 1]))
    array([0.25, 0.25, 0.5 ])
    """
    kinds, of, count = np.unique(tasks, return_inverse=True, return_counts=True)
    return 1.0 / (len(kinds) * count[of])


def quantile(values: np.ndarray, weights: np.ndarray, share: float) -> float:
    """The smallest value at which ``share`` of the weight is reached; the largest where it never is.

    >>> quantile(np.array([3.0, 1.0, 2.0]), np.array([0.2, 0.4, 0.4]), 0.8)
    2.0
    """
    order = np.argsort(values, kind="stable")
    reached = np.cumsum(weights[order])
    place = np.searchsorted(reached, share * reached[-1] - 1e-9)
    return float(values[order][min(place, len(values) - 1)])


def width(low: np.ndarray, high: np.ndarray, truth: np.ndarray, tasks: np.ndarray) -> float:
    """By how much both ends move outwards: intervals, what was scored, and whose task, ``(n,)`` each."""
    missed = np.maximum(low - truth, truth - high)
    share = min((1 + 1 / len(missed)) * LEVEL, 1.0)
    return quantile(missed, equal_weights(tasks), share)
