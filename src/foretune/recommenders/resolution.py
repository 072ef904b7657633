"""Resolution: how much of what the runs of a task differ by is more than the chance of its dev rows.

On a dozen dev rows, or where a model is at chance whatever is done with it, the order of a task's runs is drawn like
lots. No ranking can agree with it, and one that does not has not failed.
"""

from __future__ import annotations

import numpy as np

from foretune.store.metadataset import MetaDataset

SURE = 0.05
"""An accuracy is taken to be at least so far from 0 and 1, where a proportion would have no spread."""

PROPORTIONS = ("accuracy", "macro_f1")
"""Metrics that chance moves by as much as a proportion of the dev rows, or more."""


def chance_variance(score: np.ndarray, rows: float) -> np.ndarray:
    """The variance of proportions near ``score`` on so many rows."""
    sure = np.clip(score, SURE, 1 - SURE)
    variance: np.ndarray = sure * (1 - sure) / rows
    return variance


def resolved(past: MetaDataset) -> np.ndarray:
    """``(tasks,)`` the share of the variance of a task's scores, from 0 to 1, that is not the chance of its dev rows.

    This is the reliability of classical test theory (Lord and Novick 1968), and a cautious one: runs of a task share
    their dev rows, so part of that chance is common to all of them. A task of which the chance is not known, or
    with a single run, is taken as it is: 1.
    """
    shares = np.ones(len(past.tasks))
    for place, task in enumerate(past.tasks):
        scores = past.score[(past.task == place) & past.succeeded]
        rows = task.rows.get("dev", 0)
        if task.metric in PROPORTIONS and rows and len(scores) > 1:
            spread, chance = float(np.var(scores, ddof=1)), float(chance_variance(scores, rows).mean())
            shares[place] = max(0.0, 1 - chance / spread) if spread > 0 else 0.0
    return shares
