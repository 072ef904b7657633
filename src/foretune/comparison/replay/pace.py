"""Pace: how many laps are still to be run, and how long that will take at the pace of those that were."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import final


@dataclass(frozen=True)
class Ahead:
    """A lap that is about to be run.

    Attributes:
        entry, task: who races where.
        number, of: which lap it is, counted from 1, of how many.
        seconds: until the last is over, this one included; None before any was run.
    """

    entry: str
    task: str
    number: int
    of: int
    seconds: float | None


@final
class Pace:
    """Every entry has a pace of its own, for one thinks a thousand times as long as another.

    Args:
        laps: the entry of each lap that is to be run.

    >>> pace = Pace(["slow", "slow", "quick"])
    >>> pace.ahead("slow", "rte").seconds
    >>> pace.ran("slow", 6.0)
    >>> pace.ahead("slow", "cb")  # the quick one is taken for an average one until it has run
    Ahead(entry='slow', task='cb', number=2, of=3, seconds=12.0)
    """

    def __init__(self, laps: Sequence[str]) -> None:
        self._left, self._of = Counter(laps), len(laps)
        self._took: defaultdict[str, list[float]] = defaultdict(list)

    def ahead(self, entry: str, task: str) -> Ahead:
        """What is to be said of the next lap."""
        took = [seconds for each in self._took.values() for seconds in each]
        left = None
        if took:
            pace = {name: sum(each) / len(each) for name, each in self._took.items()}
            left = sum(number * pace.get(name, sum(took) / len(took)) for name, number in self._left.items())
        return Ahead(entry, task, len(took) + 1, self._of, left)

    def ran(self, entry: str, seconds: float) -> None:
        """A lap is over."""
        self._took[entry].append(seconds)
        self._left[entry] -= 1
