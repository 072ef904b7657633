"""Foresight: everything that is learned from past runs, as one thing that is fitted once and asked often.

Score and order, chance of failing, seconds and bytes each have a model of their own. Beside them stands how well runs
of a task that a fit had not seen could be ranked: the mean Spearman correlation over tasks, on the folds by which the
intervals are widened as well (``left_out.py``). A task counts by how far its scores differ beyond the chance of its dev
rows (``resolution.py``). Below ``TRUST`` the ranking is no ground for a recommendation.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import final

import numpy as np

from foretune.errors import DataError
from foretune.recommenders.forecasts import Forecasts
from foretune.recommenders.left_out import Against, agreement, first_ranked, raced, ranks_left_out
from foretune.recommenders.shelf import shared
from foretune.registry import find
from foretune.store.metadataset import CELLS, MetaDataset
from foretune.surrogates import SURROGATES
from foretune.surrogates.base import Surrogate
from foretune.surrogates.cost import CostModel
from foretune.surrogates.failure import FailureModel
from foretune.surrogates.transfer import Transfer as Combined
from foretune.surrogates.zero_shot import ZeroShot

TRUST = 0.3
"""Rank correlation on tasks left out below which a surrogate does not decide."""

FORESTS, TREES = 5, 100
"""A third of what a replay affords, for this is learned anew whenever a plan is asked for and there is no safe way to
keep a fitted forest on disk."""


@final
@dataclass(frozen=True, eq=False)
class Foresight:
    """What can be learned of ``past``, each part when it is first asked for.

    Whether its ranking may decide is the cheapest part, and where it may not, most others are never needed.

    Attributes:
        past: that is learned from; runs of one task and its copies are one task.
        seed: of every draw.
        curves: whether what partial curves say is learned too.
        name: of the surrogate; empty is what the moment needs.
    """

    past: MetaDataset
    seed: int = 0
    curves: bool = False
    name: str = ""

    @cached_property
    def surrogate(self) -> Surrogate:
        """What foretells scores.

        Raises:
            DataError: there is too little to learn from.
        """
        made: Surrogate = shared(self.past, ("score", self.name or self.curves, self.seed), self._surrogate)
        return made

    def _surrogate(self) -> Surrogate:
        if self.name:
            made: Surrogate = find("surrogate", self.name, SURROGATES)()
        else:
            made = Combined() if self.curves else ZeroShot(FORESTS, TREES)
        return made.fit(self.past, self.seed)

    @cached_property
    def failure(self) -> FailureModel:
        """What foretells failures."""
        made: FailureModel = shared(
            self.past,
            ("failure", self.curves, self.seed),
            lambda: FailureModel(self.curves).fit(self.past, self.seed),
        )
        return made

    @cached_property
    def cost(self) -> CostModel | None:
        """What foretells seconds and bytes; None where no past run was timed."""
        made: CostModel | None = shared(self.past, ("cost", self.seed), lambda: _cost(self.past, self.seed))
        return made

    @cached_property
    def ranks(self) -> np.ndarray:
        """``(n,)`` the expected rank of each past run within its task, from runs on other tasks."""
        found: np.ndarray = shared(self.past, ("ranking", self.seed), lambda: ranks_left_out(self.past, self.seed))
        return found

    @cached_property
    def _checked(self) -> tuple[float, int]:
        return agreement(self.past, self.ranks)

    def against_default(self, tuner: str = "") -> Against:
        """How its first choices did against the published default on tasks left out; those of one tuner where only that
        may be chosen."""
        return raced(self.past, first_ranked(self.past, self.ranks, tuner), tuner)

    @property
    def spearman(self) -> float:
        """Weighted mean of rank correlations over tasks left out, NaN where no task could be judged."""
        return self._checked[0]

    @property
    def judged(self) -> int:
        """How many tasks could be; copies are one."""
        return self._checked[1]

    def learn(self) -> None:
        """Learn what a forecast needs now, and not when the first is asked for.

        Raises:
            DataError: there is too little to learn from.
        """
        _ = self.surrogate, self.failure, self.cost

    @property
    def trusted(self) -> bool:
        """Whether its ranking may decide."""
        return self.spearman >= TRUST

    @property
    def doubt(self) -> str:
        """Why it may not decide, in a sentence."""
        if not self.judged:
            return (
                "No earlier task has scores that differ by more than the chance of its dev rows, so no ranking could "
                "be checked."
            )
        return (
            f"Left out in turn, on {_tasks(self.judged)} the ranking agrees with what the runs scored by a "
            f"Spearman correlation of {self.spearman:.2f} only, and {TRUST:g} is asked for."
        )

    @property
    def ground(self) -> str:
        """What it was learned from and how well it ranks, in a sentence; copies are one task."""
        tasks = len(set(self.past.groups[self.past.succeeded]))
        judged, runs = "one" if self.judged == 1 else self.judged, int(self.past.whole.sum())
        return (
            f"Learned from {runs:,} earlier runs on {tasks} tasks; left out in turn, on the {judged} of "
            "them whose scores differ by more than the chance of their dev rows, its ranking agrees with what the runs "
            f"scored by a Spearman correlation of {self.spearman:.2f}."
        )

    def of(self, pool: MetaDataset, seen: np.ndarray) -> Forecasts:
        """Foretell ``pool`` after ``seen`` cells of each candidate."""
        told = self.surrogate.predict(pool, seen)
        until = np.minimum(seen + 1, CELLS)
        return Forecasts(
            told.order,
            told.mean,
            told.low,
            told.high,
            told.calibrated,
            self.failure.predict(pool, seen),
            np.full(len(pool), np.nan) if self.cost is None else self.cost.seconds(pool, seen, until),
        )


def _tasks(number: int) -> str:
    return "1 earlier task" if number == 1 else f"{number} earlier tasks"


def foresee(past: MetaDataset, seed: int = 0, *, curves: bool = False, surrogate: str = "") -> Foresight:
    """Learn from ``past``, as far as is asked.

    Args:
        curves: also learn what partial curves say; for one decision before any run that is not needed.
        surrogate: name of what foretells scores; empty is what the moment needs.

    Raises:
        UsageError: no such surrogate.
    """
    if surrogate:
        find("surrogate", surrogate, SURROGATES)
    return Foresight(past, seed, curves, surrogate)


def _cost(past: MetaDataset, seed: int) -> CostModel | None:
    try:
        return CostModel(TREES).fit(past, seed)
    except DataError:
        return None
