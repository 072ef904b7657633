"""What is seen of a run after ``t`` of its ``CELLS`` cells, as numbers.

Of every stored curve: its last, best and first value, the last step, the mean slope, and the value before training; and
how far the run is. What was not measured is NaN and not 0: a score of 0 is a score. Nothing behind cell ``t`` is read.

The score enters with the task's sign, so that more is better everywhere; losses enter as they are, the best being the
smallest. Finite losses of a diverging run reach 1e34, so that all values are cut at ``LIMIT``: trees lose nothing by it
but an order among absurdities.
"""

from __future__ import annotations

import numpy as np

from foretune.store.metadataset import CELLS, ROLES, MetaDataset

LIMIT = 1e6
_PARTS = ("last", "best", "first", "step", "slope", "start")

PREFIX_COLUMNS = ("progress", *(f"{role}.{part}" for role in ROLES for part in _PARTS))
"""Names of the columns of ``prefix_features``, in order."""


def prefix_features(dataset: MetaDataset, t: np.ndarray) -> np.ndarray:
    """Columns ``PREFIX_COLUMNS`` for every run after ``t`` cells.

    Args:
        dataset: ``n`` runs.
        t: ``(n,)`` whole numbers from 0 (nothing seen, not even what the model scores untrained) to ``CELLS``.

    Returns:
        ``(n, len(PREFIX_COLUMNS))``, NaN where not known.
    """
    t = np.asarray(t, np.int64)
    columns = [t / CELLS]
    for role in ROLES:
        sign = dataset.sign if role == "score" else -np.ones(len(dataset), np.int64)
        flip = 1 if role == "score" else -1
        curve, start = (np.clip(v, -LIMIT, LIMIT) for v in (dataset.curves[role], dataset.start[role]))
        parts = _parts(curve * sign[:, None], np.where(t > 0, start * sign, np.nan), t)
        columns += [flip * part for part in parts]
    return np.stack(columns, axis=1)


def _parts(curve: np.ndarray, start: np.ndarray, t: np.ndarray) -> list[np.ndarray]:
    """``_PARTS`` of curves ``(n, CELLS)`` of which more is better, each ``(n,)``."""
    rows, cells = np.arange(len(curve)), np.arange(CELLS)
    seen = ~np.isnan(curve) & (cells < t[:, None])
    any_seen, two_seen = seen.any(1), seen.sum(1) > 1
    first = seen.argmax(1)
    last = CELLS - 1 - seen[:, ::-1].argmax(1)
    before_last = seen & (cells < last[:, None])
    before = CELLS - 1 - before_last[:, ::-1].argmax(1)
    value = {"last": curve[rows, last], "first": curve[rows, first], "before": curve[rows, before]}
    best = np.where(seen, curve, -np.inf).max(1)
    with np.errstate(divide="ignore", invalid="ignore"):
        slope = (value["last"] - value["first"]) / (last - first)
    return [
        np.where(any_seen, value["last"], np.nan),
        np.where(any_seen, best, np.nan),
        np.where(any_seen, value["first"], np.nan),
        np.where(two_seen, value["last"] - value["before"], np.nan),
        np.where(two_seen, slope, np.nan),
        start,
    ]


def prefixes(dataset: MetaDataset) -> tuple[np.ndarray, np.ndarray]:
    """Every run at every point at which something of it is still to come: run indices and cells seen, ``(m,)`` each.

    A run counts from 0 up to the cell before its last measured one. Expand after a split, never before: all prefixes of
    a run are then on one side.
    """
    known = ~np.isnan(dataset.curves["score"])
    length = np.where(known.any(1), CELLS - known[:, ::-1].argmax(1), 1)
    run = np.repeat(np.arange(len(dataset)), length)
    starts = np.cumsum(length) - length
    return run, np.arange(len(run)) - np.repeat(starts, length)
