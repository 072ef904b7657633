"""Greedy portfolio: the configurations that together would have served the past tasks best, run in full, in order.

The first has the best mean regret over past tasks; each further one is what lowers the mean of the *joint* best most,
so it is good where those before were not (the greedy construction of Feurer et al. 2022, arXiv 2007.04074, section 3).
A configuration that was not run on a task helps nothing there; so one that is known everywhere is preferred to one that
shone once. It re-uses what is known and foretells nothing of new configurations.
"""

from __future__ import annotations

from typing import ClassVar, final

import numpy as np

from foretune.recommenders.in_order import KnownFirst

WORST = 1.0
"""The regret of having run nothing."""


def greedy(regrets: np.ndarray, weights: np.ndarray) -> list[int]:
    """Columns in the order in which they lower the weighted mean of the joint best.

    When nothing lowers it any more, those that are left follow by their own mean. Ties go to the smaller column, and
    columns without any number are not in it.

    Args:
        regrets: ``(tasks, n)`` from 0 to 1, NaN where not known.
        weights: ``(tasks,)``.

    >>> greedy(np.array([[0.0, 0.3, 0.9], [0.9, 0.3, 0.0]]), np.ones(2))
    [1, 0, 2]
    """
    table = np.where(np.isnan(regrets), WORST, regrets)
    usable = ~np.isnan(regrets).all(axis=0) if len(regrets) else np.zeros(regrets.shape[1], bool)
    alone = weights @ table
    chosen: list[int] = []
    joint = np.full(len(table), WORST)
    left = usable.copy()
    while left.any():
        together = np.where(left, weights @ np.minimum(joint[:, None], table), np.inf)
        place = int(together.argmin())
        if together[place] >= weights @ joint - 1e-12:
            rest = np.flatnonzero(left)
            return chosen + rest[np.argsort(alone[rest], kind="stable")].tolist()
        chosen.append(place)
        joint, left[place] = np.minimum(joint, table[:, place]), False
    return chosen


@final
class Portfolio(KnownFirst):
    """The greedy portfolio; where no candidate is known, the published default and then a random order."""

    name: ClassVar[str] = "portfolio"

    def ranked(self, regrets: np.ndarray, weights: np.ndarray) -> list[int]:
        return greedy(regrets, weights)

    @property
    def ground(self) -> str:
        return (
            f"A greedy portfolio of {self.known:,} candidates that were run on {self.tasks} earlier tasks; of new ones "
            "nothing is foretold."
        )
