"""Surrogate: foretells a run before it is run, or after a part of it.

What is to be foretold is a *pool*: a ``MetaDataset`` whose runs are on one task, with as much of each curve as is known
and nothing of the end. A candidate that nobody has started has curves of NaN; a stopped one has its first cells. So one
method serves one-shot recommendation, the grey-box loop and replays, and what is seen has one form everywhere.

A surrogate reads the past's dev curves and nothing of its test scores, and of the pool only the cells that it is told
were seen.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar, Self

import numpy as np

from foretune.store.metadataset import MetaDataset

LEVEL = 0.8
"""What an interval of a forecast covers, nominally."""


@dataclass(frozen=True)
class Forecast:
    """What is expected of ``n`` candidates at the end of their full run, in the raw unit of the task's metric.

    Attributes:
        order: ``(n,)`` larger is preferred, whatever the direction of the metric: what a candidate is chosen by. Never
            NaN.
        mean: ``(n,)`` best dev score of the run; NaN where there is no ground to say a number.
        low, high: ``(n,)`` ends of the interval of ``LEVEL``; NaN with ``mean``. ``low <= mean <= high`` in raw units.
            All three may lie beyond the ends of the metric, by which candidates remain comparable; a plan cuts them.
        calibrated: whether the interval's width was checked on tasks that the fit had not seen.
    """

    order: np.ndarray
    mean: np.ndarray
    low: np.ndarray
    high: np.ndarray
    calibrated: bool = False


class Surrogate(ABC):
    """Learns from past runs; the class is abstract or final.

    Attributes:
        name: what tables, options and the registry call it.
    """

    name: ClassVar[str]

    @abstractmethod
    def fit(self, past: MetaDataset, seed: int = 0) -> Self:
        """Learn from ``past``; scores are modelled on successes alone. Everything that is learned (levels, scales,
        widths of intervals) is learned here, so a fold that fits on its training side leaks nothing.

        Raises:
            DataError: there is too little to learn from, in words.
        """

    @abstractmethod
    def predict(self, pool: MetaDataset, seen: np.ndarray) -> Forecast:
        """Foretell the runs of ``pool``.

        Args:
            pool: ``n`` candidates on one task.
            seen: ``(n,)`` whole cells of each run's curves that may be read, from 0 to ``CELLS``. Nothing behind them
                changes the answer.
        """
