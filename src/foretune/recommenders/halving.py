"""Successive halving, in brackets and asynchronous: many short runs, of which the better ones go on.

Both climb the same rungs: ``CELLS / eta^j`` of a full run, 1, 3 and 10 tenths where ``eta`` is 3. Neither is told the
budget, so ``Halving`` plays bracket after bracket of ``eta^(rungs - 1)`` fresh candidates (Jamieson and Talwalkar 2016,
arXiv 1502.07943; a bracket is the first one of Hyperband, arXiv 1603.06560), and ``ASHA`` promotes whenever a rung has
``eta`` times as many runs as were promoted from it (Li et al. 2020, arXiv 1810.05934).

Both decide from what was told alone, so the same tells in the same order give the same trials, after a kill too.
"""

from __future__ import annotations

from typing import ClassVar, final

import numpy as np

from foretune.errors import UsageError
from foretune.recommenders.base import Recommender, Trial
from foretune.store.metadataset import CELLS, MetaDataset

ETA = 3


def rungs(eta: int) -> tuple[int, ...]:
    """Cells at which candidates are compared, the full run last.

    Raises:
        UsageError: ``eta`` is below 2.

    >>> rungs(3), rungs(4), rungs(2)
    ((1, 3, 10), (2, 10), (1, 2, 5, 10))
    """
    if type(eta) is not int or eta < 2:
        raise UsageError(f"halving keeps one in `eta` candidates, a whole number from 2 on, but got eta={eta}.")
    found, share = {CELLS}, eta
    while share <= CELLS:
        found.add(max(1, round(CELLS / share)))
        share *= eta
    return tuple(sorted(found))


class _Climbing(Recommender):
    """What both have in common: an order drawn once, rungs, and how good a candidate was at a rung; abstract."""

    reads_past: ClassVar[bool] = False

    def __init__(
        self,
        pool: MetaDataset,
        past: MetaDataset | None = None,
        *,
        default: int | None = None,
        seed: int = 0,
        eta: int = ETA,
    ) -> None:
        super().__init__(pool, past, default=default, seed=seed)
        self.eta, self.rungs = eta, rungs(eta)
        self.order = np.random.default_rng(seed).permutation(len(pool))

    def best_first(self, places: np.ndarray, rung: int) -> np.ndarray:
        """``places`` that did not fail, by their best score up to ``rung`` cells; those without a score last."""
        alive = places[~self.over[places] | np.isfinite(self.view.score[places])]
        curve = self.view.sign[alive, None] * self.view.curves["score"][alive, :rung]
        value = np.where(np.isfinite(curve), curve, -np.inf).max(axis=1, initial=-np.inf)
        return alive[np.argsort(-value, kind="stable")]

    def unfinished(self) -> Trial | None:
        """When all were touched: the rest in full, the best first."""
        open_ = self.order[~self.over[self.order]]
        return Trial(int(self.best_first(open_, CELLS)[0])) if len(open_) else None

    def climbed(self, places: np.ndarray, rung: int) -> np.ndarray:
        """``(n,)`` whether each has nothing left to do below ``rung``."""
        return (self.seen[places] >= rung) | self.over[places]


@final
class Halving(_Climbing):
    """Successive halving in brackets.

    Args:
        eta: one in so many goes on at each rung.
    """

    name: ClassVar[str] = "halving"

    def __init__(
        self,
        pool: MetaDataset,
        past: MetaDataset | None = None,
        *,
        default: int | None = None,
        seed: int = 0,
        eta: int = ETA,
    ) -> None:
        super().__init__(pool, past, default=default, seed=seed, eta=eta)
        self.size = eta ** (len(self.rungs) - 1)
        self._bracket = 0

    @property
    def evidence(self) -> tuple[str, ...]:
        steps = ", ".join(str(rung) for rung in self.rungs)
        return (
            f"Successive halving: brackets of {self.size} candidates, one in {self.eta} of which goes on after "
            f"{steps} of {CELLS} tenths; no earlier run was consulted.",
        )

    def ask(self) -> Trial | None:
        for start in range(self._bracket, len(self.order), self.size):
            trial = self._within(self.order[start : start + self.size])
            if trial is not None:
                return trial
            self._bracket = start + self.size  # a bracket that is over stays over
        return self.unfinished()

    def _within(self, places: np.ndarray) -> Trial | None:
        """The next trial of one bracket; None when it is over."""
        for rung in self.rungs:
            due = places[~self.climbed(places, rung)]
            if len(due):
                return Trial(int(due[0]), rung)
            places = self.best_first(places, rung)[: max(1, len(places) // self.eta)]
        return None


@final
class ASHA(_Climbing):
    """Successive halving without brackets: promote wherever one can, else begin a fresh candidate.

    Args:
        eta: one in so many goes on at each rung.
    """

    name: ClassVar[str] = "asha"

    @property
    def evidence(self) -> tuple[str, ...]:
        steps = ", ".join(str(rung) for rung in self.rungs)
        return (
            f"Asynchronous successive halving: one in {self.eta} goes on after {steps} of {CELLS} tenths; no earlier "
            "run was consulted.",
        )

    def ask(self) -> Trial | None:
        started = self.order[self.seen[self.order] > 0]
        for rung, above in reversed(list(zip(self.rungs, self.rungs[1:], strict=False))):
            here = started[self.seen[started] >= rung]
            best = self.best_first(here, rung)[: len(here) // self.eta]
            due = best[~self.climbed(best, above)]
            if len(due):
                return Trial(int(due[0]), above)
        fresh = self.order[(self.seen[self.order] == 0) & ~self.over[self.order]]
        return Trial(int(fresh[0]), self.rungs[0]) if len(fresh) else self.unfinished()
