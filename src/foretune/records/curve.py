"""LearningCurve: what was measured on the way, as (step, split, metric, value) points."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Point:
    """One measurement. ``seconds`` is the training time spent when it was taken (evaluation excluded)."""

    step: int
    split: str
    metric: str
    value: float
    seconds: float = 0.0


@dataclass(frozen=True)
class LearningCurve:
    """All points of one run, in the order they were measured; never padded, never sorted by value.

    >>> curve = LearningCurve().add(Point(10, "dev", "accuracy", 0.5)).add(Point(20, "dev", "accuracy", 0.75))
    >>> curve.of("dev", "accuracy")
    ([10, 20], [0.5, 0.75])
    """

    points: tuple[Point, ...] = field(default=())

    def add(self, *points: Point) -> LearningCurve:
        """A new curve with ``points`` at its end."""
        return LearningCurve((*self.points, *points))

    def of(self, split: str, metric: str) -> tuple[list[int], list[float]]:
        """The steps and values of one line."""
        chosen = [p for p in self.points if (p.split, p.metric) == (split, metric)]
        return [p.step for p in chosen], [p.value for p in chosen]

    def lines(self) -> list[tuple[str, str]]:
        """The (split, metric) pairs that occur, in order of first appearance."""
        return list(dict.fromkeys((p.split, p.metric) for p in self.points))

    def __iter__(self) -> Iterator[Point]:
        return iter(self.points)

    def __len__(self) -> int:
        return len(self.points)
