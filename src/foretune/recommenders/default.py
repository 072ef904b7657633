"""Default: the published default, once; it learns nothing. Every other recommender is held against it."""

from __future__ import annotations

from typing import ClassVar, final

from foretune.recommenders.base import Recommender, Trial


@final
class Default(Recommender):
    """The published default, or the first candidate of a pool that has none."""

    name: ClassVar[str] = "default"
    reads_past: ClassVar[bool] = False

    @property
    def evidence(self) -> tuple[str, ...]:
        return ("No score is foretold: no earlier run was consulted.",)

    def ask(self) -> Trial | None:
        place = self.default or 0
        return None if self.over[place] else Trial(place)
