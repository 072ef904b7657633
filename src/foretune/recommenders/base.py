"""Recommender: what to run next. Ours and the baselines stand behind one door.

A recommender chooses among the candidates of a *pool*: a ``MetaDataset`` on the one task at hand. In a plan the pool
was made from what the tuners offer (``pool.py``), in a replay it is what was recorded; a recommender cannot tell the
two apart, which is what lets replays speak about plans. It asks for a candidate to be brought to a cell (a tenth of its
full run) and is told what was seen: more of the same candidate later continues it.

Which rows, checkpoint and seeds is for the user to say: a recommender that could change them could also cheat with
them. Test scores are not in what it is told.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from foretune.errors import UsageError
from foretune.records import SUCCESSES
from foretune.store.metadataset import CELLS, ROLES, MetaDataset


@dataclass(frozen=True)
class Trial:
    """Bring a candidate to a cell.

    Attributes:
        place: of the candidate in the pool.
        until: cells of its full run that are to be done then, from 1 to ``CELLS``.
    """

    place: int
    until: int = CELLS


@dataclass(frozen=True)
class Observation:
    """What came of a trial.

    Attributes:
        trial: what was asked for.
        status: one of ``records.OUTCOMES``; ``ok`` and ``stopped`` alike mean that it may go on, or is complete.
        curves: role -> ``(CELLS,)`` values of the cells that were reached, NaN behind them.
        seconds: ``(CELLS,)`` training seconds until the measurement in each cell, NaN where not known.
    """

    trial: Trial
    status: str
    curves: Mapping[str, np.ndarray]
    seconds: np.ndarray


class Recommender(ABC):
    """Says what to run next, and hears what came of it; the class is abstract or final.

    Args:
        pool: ``n`` candidates on one task, none of them started.
        past: runs on other tasks, copies of this one left out; None where there are none.
        default: the place in ``pool`` of the published default; None where the pool has none.
        seed: of every draw.

    Attributes:
        name: what plans, the command line and the registry call it.
        reads_past: whether anything it asks for depends on ``past`` or on what is known of the task; where not, a
            replay does not race it again when these are shuffled.
    """

    name: ClassVar[str]
    reads_past: ClassVar[bool] = True

    def __init__(
        self, pool: MetaDataset, past: MetaDataset | None = None, *, default: int | None = None, seed: int = 0
    ) -> None:
        if not len(pool):
            raise UsageError("a recommender chooses among at least 1 candidate, but got none.")
        if len(pool.tasks) != 1:
            raise UsageError(f"the candidates of a pool are on 1 task, but got {len(pool.tasks)}.")
        self.view, self.past, self.default, self.seed = blank(pool), past, default, seed
        self.seen = np.zeros(len(pool), np.int64)
        self.over = np.zeros(len(pool), bool)

    @abstractmethod
    def ask(self) -> Trial | None:
        """The next trial; None when there is nothing further to say. Asking again without telling gives the same
        trial again, or another one that may run beside it."""

    @property
    @abstractmethod
    def evidence(self) -> tuple[str, ...]:
        """What the answers so far rest on, one sentence each."""

    @property
    def abstains(self) -> bool:
        """Whether it leaves it to the published default, or to the first candidate, for want of ground."""
        return False

    def tell(self, observation: Observation) -> None:
        """Hear what came of a trial."""
        place = observation.trial.place
        self.seen[place] = max(self.seen[place], observation.trial.until)
        for role in ROLES:
            self.view.curves[role][place] = observation.curves[role]
        self.view.seconds[place] = observation.seconds
        self.view.status[place] = observation.status
        failed = observation.status not in SUCCESSES
        self.over[place] = failed or self.seen[place] >= CELLS
        self.view.whole[place], self.view.reached[place] = self.over[place], self.seen[place] / CELLS
        curve = self.view.sign[place] * observation.curves["score"]
        known = np.isfinite(curve)
        self.view.score[place] = np.nan if failed or not known.any() else self.view.sign[place] * curve[known].max()

    def incumbent(self) -> int | None:
        """The place of the candidate with the best score seen so far; None before there is one."""
        scores = self.view.sign * self.view.score
        return int(np.nanargmax(scores)) if np.isfinite(scores).any() else None


def blank(pool: MetaDataset) -> MetaDataset:
    """The candidates of ``pool`` with nothing known of any but what an untrained model scores, in arrays of its own."""
    n = len(pool)
    return replace(
        pool,
        status=np.full(n, "stopped", object),
        curves={role: np.full((n, CELLS), np.nan) for role in ROLES},
        start={role: np.array(pool.start[role], float) for role in ROLES},
        seconds=np.full((n, CELLS), np.nan),
        whole=np.zeros(n, bool),
        reached=np.zeros(n),
        score=np.full(n, np.nan),
        test=np.full(n, np.nan),
        cost={name: np.full(n, np.nan) for name in pool.cost},
    )
