"""Around: the seconds of a run beside its optimizer steps, as earlier runs took them.

What is foretold is a whole run. Where steps were timed here the same is known of this machine (``Measured``).
"""

from __future__ import annotations

import numpy as np

from foretune.records import MetaTask
from foretune.store.metadataset import CELLS, MetaDataset

FLOORS = 2.0
"""Seconds that floors take beside embedding every row once."""


def around(past: MetaDataset, task: MetaTask, tuner: str) -> float:
    """Seconds to set up a run of ``tuner`` on ``task``, to judge its rows and to measure floors; 0 where no earlier
    run says.

    Of the runs of ``tuner``, or of all where it has none: the median seconds for one row, dev judged in each tenth of
    a run and test once, times the rows here.
    """
    taken, setup = (past.cost.get(name, np.full(len(past), np.nan)) for name in ("eval_seconds", "setup_seconds"))
    rows = np.array([_judged(past.tasks[place]) for place in past.task])
    timed = np.isfinite(taken) & np.isfinite(setup) & (rows > 0)
    same = timed & np.array([config.get("tuner") == tuner for config in past.configs])
    chosen = same if same.any() else timed
    if not chosen.any():
        return 0.0
    a_row = float(np.median(taken[chosen] / rows[chosen]))
    return float(np.median(setup[chosen])) + a_row * (_judged(task) + sum(task.rows.values())) + FLOORS


def _judged(task: MetaTask) -> int:
    return CELLS * task.rows.get("dev", 0) + task.rows.get("test", 0)
