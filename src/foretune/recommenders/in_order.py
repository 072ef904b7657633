"""InOrder: recommenders that settle an order before the first run and bring one candidate after another to its end."""

from __future__ import annotations

from abc import abstractmethod
from typing import final

import numpy as np

from foretune.recommenders.base import Recommender, Trial
from foretune.recommenders.known import known_regrets
from foretune.store.metadataset import MetaDataset


class InOrder(Recommender):
    """Full runs in an order that no result changes; abstract.

    Attributes:
        order: ``(n,)`` places of the pool, the first to be run first; a subclass sets it.
    """

    order: np.ndarray

    @final
    def ask(self) -> Trial | None:
        waiting = self.order[~self.over[self.order]]
        return Trial(int(waiting[0])) if len(waiting) else None

    def after(self, known: list[int]) -> np.ndarray:
        """``known``, then the candidates that no past task tells of: the default first, then in random order."""
        drawn = np.random.default_rng(self.seed).permutation(len(self.view)).tolist()
        first = [] if self.default is None else [self.default]
        return np.array(list(dict.fromkeys([*known, *first, *drawn])), np.int64)


class KnownFirst(InOrder):
    """Candidates that past tasks know, in an order of the subclass's own, before all others; abstract.

    Attributes:
        known: how many they are.
        tasks: how many past tasks were asked.
    """

    def __init__(
        self, pool: MetaDataset, past: MetaDataset | None = None, *, default: int | None = None, seed: int = 0
    ) -> None:
        super().__init__(pool, past, default=default, seed=seed)
        regrets, weights = known_regrets(self.view, past)
        chosen = self.ranked(regrets, weights)
        self.known, self.tasks = len(chosen), len(regrets)
        self.order = self.after(chosen)

    @abstractmethod
    def ranked(self, regrets: np.ndarray, weights: np.ndarray) -> list[int]:
        """Known places, the first to be run first.

        Args:
            regrets: ``(tasks, n)``, NaN where not known.
            weights: ``(tasks,)``.
        """

    @property
    @abstractmethod
    def ground(self) -> str:
        """What the order rests on, in a sentence, where anything is known."""

    @final
    @property
    def evidence(self) -> tuple[str, ...]:
        if self.known:
            return (self.ground,)
        instead = "the order is random" if self.default is None else "the published default stands first"
        return (f"No candidate was run on any of {self.tasks} earlier tasks, so {instead}.",)
