"""What a recorded run costs, cell by cell: in tenths of a full run, and in seconds where somebody measured them.

A failed run costs what was spent until it broke, and its failure is known from then on and not before; a run that was
stopped early costs what was recorded of it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from foretune.store.metadataset import CELLS, ROLES, MetaDataset


@dataclass(frozen=True)
class Costs:
    """What it takes to bring each of ``n`` runs to a cell.

    Attributes:
        end: ``(n,)`` the cell from which on the recorded run is over.
        seconds: ``(n, CELLS + 1)`` training seconds until the end of each cell, starting at 0; NaN where not known.
    """

    end: np.ndarray
    seconds: np.ndarray

    @property
    def timed(self) -> bool:
        """Whether the seconds of every run are known."""
        return bool(np.isfinite(self.seconds).all())

    @property
    def full_run(self) -> float:
        """Median seconds of a run: what one full-run equivalent is in a race for seconds."""
        return float(np.median(self.seconds[:, -1]))

    def cells(self, place: int, seen: int, until: int) -> int:
        """Cells that are paid to bring a run from ``seen`` to ``until``."""
        return max(min(until, int(self.end[place])) - min(seen, int(self.end[place])), 0)

    def time(self, place: int, seen: int, until: int) -> float:
        """Seconds for the same."""
        return float(self.seconds[place, until] - self.seconds[place, seen])


def costs(pool: MetaDataset) -> Costs:
    """The costs of the runs of ``pool``."""
    measured = np.any([np.isfinite(pool.curves[role]) for role in ROLES], axis=0)
    last = np.where(measured.any(axis=1), CELLS - measured[:, ::-1].argmax(axis=1), 0)
    whole = np.where((pool.status == "ok") | (last == 0) & ~pool.failed, CELLS, last)
    end = np.where(pool.failed, np.minimum(last + 1, CELLS), whole)
    totals = pool.cost.get("train_seconds", np.full(len(pool), np.nan))
    seconds = np.stack([_seconds(*row) for row in zip(pool.seconds, end, totals, strict=True)])
    return Costs(end, seconds)


def _seconds(known: np.ndarray, end: int, total: float) -> np.ndarray:
    """``(CELLS + 1,)`` seconds: as measured, in between along straight lines, behind the last one at the same pace."""
    cells = np.arange(CELLS + 1)
    has = np.isfinite(known)
    if has.any():
        x, y = np.r_[0, np.flatnonzero(has) + 1], np.r_[0.0, known[has]]
        pace = y[-1] / x[-1]
        found = np.where(cells <= x[-1], np.interp(cells, x, y), y[-1] + (cells - x[-1]) * pace)
    else:
        found = total * cells / end
    return np.asarray(found[np.minimum(cells, end)])
