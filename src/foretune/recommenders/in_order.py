"""InOrder: recommenders that settle an order before the first run and bring one candidate after another to its end."""

from __future__ import annotations

from typing import final

import numpy as np

from foretune.recommenders.base import Recommender, Trial
from foretune.store.metadataset import MetaDataset


class InOrder(Recommender):
    """Full runs in an order that no result changes; abstract.

    Attributes:
        order: ``(n,)`` places of the pool, the first to be run first; a subclass sets it.
    """

    order: np.ndarray

    def __init__(
        self, pool: MetaDataset, past: MetaDataset | None = None, *, default: int | None = None, seed: int = 0
    ) -> None:
        super().__init__(pool, past, default=default, seed=seed)

    @final
    def ask(self) -> Trial | None:
        waiting = self.order[~self.over[self.order]]
        return Trial(int(waiting[0])) if len(waiting) else None

    def after(self, known: list[int]) -> np.ndarray:
        """``known``, then the candidates that no past task tells of: the default first, then in random order."""
        drawn = np.random.default_rng(self.seed).permutation(len(self.view)).tolist()
        first = [] if self.default is None else [self.default]
        return np.array(list(dict.fromkeys([*known, *first, *drawn])), np.int64)

    def nothing_known(self, tasks: int) -> str:
        """Why there is no advice, and what stands in its place."""
        instead = "the order is random" if self.default is None else "the published default stands first"
        return f"No candidate was run on any of {tasks} earlier tasks, so {instead}."
