"""What past tasks say of the candidates of a pool, as a table: the ground of all advice without a surrogate.

A cell is the normalised regret (``evaluation/regret.py``) of a configuration on a past task, on dev. The same
configuration is told by its id. A run that failed counts as a bad one, a configuration run more than once with its
mean; one that was never run there to its end is NaN, and each reader says what it takes that for.
"""

from __future__ import annotations

import numpy as np

from foretune.evaluation.regret import filled, normalised_regret
from foretune.store.metadataset import MetaDataset


def known_regrets(pool: MetaDataset, past: MetaDataset | None) -> tuple[np.ndarray, np.ndarray]:
    """Regrets of the pool's candidates on past tasks.

    Returns:
        ``(tasks, n)`` regrets, NaN where not run, and ``(tasks,)`` weights: tasks of one group share the weight of one.
        Tasks on which every run failed tell nothing and are left out.
    """
    rows, groups = [np.zeros((0, len(pool)))], []
    if past is None:
        return rows[0], np.zeros(0)
    number = {name: at for at, name in enumerate(dict.fromkeys(pool.config_ids))}
    of_pool = np.array([number[name] for name in pool.config_ids])
    done = past.succeeded
    for at, task in enumerate(past.tasks):
        runs = np.flatnonzero((past.task == at) & past.whole)
        succeeded = done[runs]
        if not succeeded.any():
            continue
        start = past.start["score"][runs]
        untrained = float(start[np.isfinite(start)].mean()) if np.isfinite(start).any() else None
        scores = np.where(succeeded, past.score[runs], np.nan)
        regrets = normalised_regret(filled(scores, task.sign, untrained))
        places = np.array([number.get(name, -1) for name in past.config_ids[runs]])
        known = places >= 0
        times = np.bincount(places[known], minlength=len(number))
        sums = np.bincount(places[known], regrets[known], minlength=len(number))
        rows.append(np.where(times > 0, sums / np.maximum(times, 1), np.nan)[None, of_pool])
        groups.append(task.group_key)
    return np.concatenate(rows), np.array([1 / groups.count(group) for group in groups])
