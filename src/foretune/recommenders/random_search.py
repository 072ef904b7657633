"""Random search: full runs in an order drawn once. The baseline that is hard to beat where nothing is remembered."""

from __future__ import annotations

from typing import ClassVar, final

from foretune.recommenders.in_order import InOrder
from foretune.store.metadataset import MetaDataset


@final
class RandomSearch(InOrder):
    """Every candidate in full, in the order of ``numpy.random.default_rng(seed).permutation``."""

    name: ClassVar[str] = "random"
    reads_past: ClassVar[bool] = False

    def __init__(
        self, pool: MetaDataset, past: MetaDataset | None = None, *, default: int | None = None, seed: int = 0
    ) -> None:
        super().__init__(pool, past, seed=seed)  # without a default, which would otherwise stand first
        self.order = self.after([])

    @property
    def evidence(self) -> tuple[str, ...]:
        return (f"{len(self.order):,} candidates in random order (seed {self.seed}); no earlier run was consulted.",)
