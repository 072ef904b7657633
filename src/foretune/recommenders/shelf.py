"""Shelf: what was learned of one past, learned once for all who ask.

In a replay many recommenders learn from the same past with the same seed, and much of it is the same: whether the past
can rank a task that it has not seen, what a run costs, which runs fail. Within ``sharing`` each part is learned once.

Whoever takes a part from the shelf is charged what it took to learn it: on ``clock`` a recommender thinks as long as it
would have thought alone, so that a race for seconds does not depend on who raced before.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from time import perf_counter
from typing import Any

from foretune.store.metadataset import MetaDataset


@dataclass
class Shelf:
    """Parts of what was learned of ``past``, each with the seconds it took; ``spared`` is what was not learned anew."""

    past: MetaDataset
    parts: dict[Hashable, tuple[Any, float]] = field(default_factory=dict)
    spared: float = 0.0

    def take(self, key: Hashable, learn: Callable[[], Any]) -> Any:
        """The part ``key``; learned where it is not there yet."""
        if key in self.parts:
            part, seconds = self.parts[key]
            self.spared += seconds
            return part
        began = perf_counter()
        part = learn()
        self.parts[key] = part, perf_counter() - began
        return part


_SHELF: ContextVar[Shelf | None] = ContextVar("shelf", default=None)


@contextmanager
def sharing(past: MetaDataset) -> Iterator[None]:
    """Within it, what is learned of ``past``, this very object, is learned once; behind it, all is forgotten."""
    token = _SHELF.set(Shelf(past))
    try:
        yield
    finally:
        _SHELF.reset(token)


def shared(past: MetaDataset, key: Hashable, learn: Callable[[], Any]) -> Any:
    """What ``learn`` makes of ``past``; from the shelf where one is set up for it. ``key`` says all it depends on."""
    shelf = _SHELF.get()
    return learn() if shelf is None or shelf.past is not past else shelf.take(key, learn)


def clock() -> float:
    """``perf_counter``, with what was taken from the shelf counted as if it had been learned anew."""
    shelf = _SHELF.get()
    return perf_counter() + (0.0 if shelf is None else shelf.spared)
