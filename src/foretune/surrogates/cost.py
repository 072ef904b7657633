"""CostModel: the training seconds and the peak memory ahead.

How much dearer one configuration is than another transfers from task to task and machine to machine; how many seconds
that is does not. So a forest learns the logarithm of the seconds of a full run, and what was measured on the task at
hand sets the scale: a probe of a few steps, and every run that got somewhere. A run that has seconds of its own goes
on at its own pace, for within a run extrapolation is easy. Seconds are loop seconds: loading, evaluation and
generation are not in.

All is predicted on a logarithmic scale, so seconds and bytes are positive whatever is asked.
"""

from __future__ import annotations

import copy
import math
from typing import Self

import numpy as np

from foretune.errors import DataError, UsageError
from foretune.store.metadataset import CELLS, MetaDataset
from foretune.surrogates.again import Again
from foretune.surrogates.encode import Encoder
from foretune.surrogates.zero_shot import TREES, forest


class CostModel:
    """Seconds and bytes of candidates; ``scaled`` fits it to a machine.

    Args:
        trees: of each of the two forests.
    """

    def __init__(self, trees: int = TREES) -> None:
        self._trees = trees

    def fit(self, past: MetaDataset, seed: int = 0) -> Self:
        """Learn from the runs of ``past`` that were timed.

        Raises:
            DataError: none was.
        """
        seconds = full_seconds(past)
        timed = np.isfinite(seconds)
        if not timed.any():
            raise DataError(f"None of {len(past)} runs has training seconds, so no cost can be learned.")
        self._encoder = Encoder.fit(past)
        columns = self._encoder.of(past)
        self._seconds = Again(forest(columns[timed], np.log(seconds[timed]), seed, self._trees).predict)
        peak = past.cost.get("peak_bytes", np.full(len(past), np.nan))
        weighed = np.isfinite(peak) & (peak > 0) & (past.status != "oom")
        self._bytes: Again | None = None
        if weighed.any():
            self._bytes = Again(forest(columns[weighed], np.log(peak[weighed]), seed, self._trees).predict)
        self._scale, self._scale_bytes = 0.0, 0.0
        return self

    def scaled(
        self, pool: MetaDataset, place: int, seconds_per_step: float, steps: int, peak_bytes: float | None = None
    ) -> CostModel:
        """The same model after a probe of the candidate ``place`` of ``pool`` on the user's machine.

        Args:
            seconds_per_step: median over the timed steps.
            steps: of the candidate's full run.
            peak_bytes: what the probe used at its peak.

        Raises:
            UsageError: a measurement that is not positive.
        """
        measured = {"seconds_per_step": seconds_per_step, "steps": steps, "peak_bytes": peak_bytes or 1.0}
        wrong = {name: value for name, value in measured.items() if not (math.isfinite(value) and value > 0)}
        if wrong:
            raise UsageError(f"a probe measures positive numbers, but got {wrong}.")
        probed = pool.take(np.array([place]))
        made = copy.copy(self)
        made._scale = math.log(seconds_per_step * steps) - self._log(self._seconds, probed)[0]
        if peak_bytes is not None and self._bytes is not None:
            made._scale_bytes = math.log(peak_bytes) - self._log(self._bytes, probed)[0]
        return made

    def seconds(self, pool: MetaDataset, seen: np.ndarray, until: np.ndarray) -> np.ndarray:
        """``(n,)`` further training seconds that bring each run from ``seen`` to ``until`` cells, ``(n,)`` each.

        What ``pool`` was timed at within ``seen`` sets the scale in the place of the probe: the median over its runs.
        """
        expected = self._log(self._seconds, pool)
        own = np.log(full_seconds(pool, seen))
        timed = np.isfinite(own)
        scale = float(np.median((own - expected)[timed])) if timed.any() else self._scale
        whole = np.exp(np.where(timed, own, expected + scale))
        return whole * np.maximum(until - seen, 0) / CELLS

    def bytes(self, pool: MetaDataset) -> np.ndarray:
        """``(n,)`` peak bytes; NaN where no past run was weighed."""
        if self._bytes is None:
            return np.full(len(pool), np.nan)
        return np.exp(self._log(self._bytes, pool) + self._scale_bytes)

    def _log(self, model: Again, pool: MetaDataset) -> np.ndarray:
        return model(self._encoder.of(pool))


def full_seconds(dataset: MetaDataset, seen: np.ndarray | None = None) -> np.ndarray:
    """``(n,)`` training seconds of the whole run at the pace of its measured cells; NaN where none is timed.

    A run that was cut, or that stopped by itself, tells its pace: its total is that of the steps it did.

    Args:
        dataset: ``n`` runs.
        seen: ``(n,)`` cells that may be read; where not given all of them, and the total in ``cost`` over the share of
            the steps that it is of.
    """
    within = np.arange(CELLS) < (np.full(len(dataset), CELLS) if seen is None else seen)[:, None]
    timed = within & np.isfinite(dataset.seconds) & (dataset.seconds > 0)
    last = CELLS - 1 - timed[:, ::-1].argmax(1)
    pace = dataset.seconds[np.arange(len(dataset)), last] * CELLS / (last + 1)
    found = np.where(timed.any(1), pace, np.nan)
    if seen is None:
        total = dataset.cost.get("train_seconds", np.full(len(dataset), np.nan))
        told = np.isfinite(total) & (total > 0) & (dataset.reached > 0) & ~dataset.failed
        found = np.where(told, total / np.where(told, dataset.reached, 1.0), found)
    return found


def extrapolated(seconds: float, share: float) -> float:
    """Loop seconds of a whole run after ``seconds`` for a ``share`` of its steps.

    >>> extrapolated(30.0, 0.05)
    600.0
    """
    return seconds / share
