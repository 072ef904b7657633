"""Anchor: what a score is relative to, known before anything is trained.

Scores of different tasks share no scale: .7 is a triumph on one task and chance on another. Models therefore learn the
gain over an anchor and add it back for the task at hand. A fit uses one kind of anchor, the one that most of its tasks
have; on a tie the earlier of ``KINDS``. Tasks without it teach no score, though they still teach an order.

- ``landmark_probe``: the accuracy (of numbers, the correlation) of a linear model on the frozen base model.
- ``zero_shot_loss``: the loss of the untrained model.
- ``untrained``: a feature that importers write, the median loss before the first step.
- ``start``: the median score before the first step, over the runs of the task at hand.
- ``none``: the score itself, where no task of the fit has an anchor.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from foretune.records import MetaTask
from foretune.store.metadataset import MetaDataset
from foretune.surrogates.base import Forecast

KINDS = ("landmark_probe", "zero_shot_loss", "untrained", "start")
NONE = "none"

_OF = {"landmark_probe": ("accuracy", "pearson", "spearman"), "zero_shot_loss": ("loss", "nll")}
"""The metrics in whose unit an anchor is: .8 of accuracy says little of .3 of a correlation with the labels."""


@dataclass(frozen=True)
class Anchor:
    """The kind of anchor that a fit uses: one of ``KINDS``, or ``NONE``."""

    kind: str

    @classmethod
    def fit(cls, past: MetaDataset) -> Anchor:
        """The kind that most tasks of ``past`` have."""
        having = [(len(set(past.task[np.isfinite(cls(kind).of(past))])), kind) for kind in KINDS]
        most = max(number for number, _ in having)
        return cls(next(kind for number, kind in having if number == most) if most else NONE)

    def of(self, dataset: MetaDataset) -> np.ndarray:
        """``(n,)`` anchors of the runs' tasks in raw units; NaN where the task has none, 0 where no fit has."""
        if self.kind == NONE:
            return np.zeros(len(dataset))
        if self.kind == "start":
            by_task = [_median(dataset.start["score"][dataset.task == place]) for place in range(len(dataset.tasks))]
        else:
            by_task = [_feature(task, self.kind) for task in dataset.tasks]
        return np.array(by_task, float)[dataset.task]

    def gain(self, dataset: MetaDataset, values: np.ndarray) -> np.ndarray:
        """Raw ``values`` ``(n,)`` as gains over the anchor, of which more is better."""
        return dataset.sign * (values - self.of(dataset))

    def forecast(
        self,
        pool: MetaDataset,
        order: np.ndarray,
        gains: tuple[np.ndarray, np.ndarray, np.ndarray],
        calibrated: bool,
        zero: np.ndarray | None = None,
    ) -> Forecast:
        """A forecast in raw units.

        Args:
            order: ``(n,)`` larger is preferred.
            gains: low, middle and high gain over the anchor, ``(n,)`` each.
            zero: ``(n,)`` what they are gains over instead.
        """
        worst, mean, best = ((self.of(pool) if zero is None else zero) + pool.sign * gain for gain in gains)
        return Forecast(order, mean, np.minimum(worst, best), np.maximum(worst, best), calibrated)


def _feature(task: MetaTask, name: str) -> float:
    value = task.features.get(name, np.nan)
    fits = task.metric in _OF[name] if name in _OF else task.sign < 0
    return value if fits and np.isfinite(value) else np.nan


def _median(values: np.ndarray) -> float:
    known = values[np.isfinite(values)]
    return float(np.median(known)) if len(known) else np.nan
