"""Space: the hyperparameters that a tuner or objective offers, with their ranges."""

from __future__ import annotations

import math
import random
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Real:
    """A number in ``[low, high]``; ``log`` says that ratios, not differences, matter."""

    low: float
    high: float
    log: bool = False

    def __post_init__(self) -> None:
        if not (self.low <= self.high and (self.low > 0 or not self.log)):
            raise ValueError(f"`low <= high` (and `low > 0` on a log scale) must hold, but got {self}.")

    def __contains__(self, value: Any) -> bool:
        return isinstance(value, int | float) and self.low <= value <= self.high

    def at(self, u: float) -> float:
        """The value at the quantile ``u`` in [0, 1].

        >>> round(Real(1e-4, 1e-2, log=True).at(0.5), 6)
        0.001
        """
        if self.log:
            return math.exp(math.log(self.low) + u * (math.log(self.high) - math.log(self.low)))
        return self.low + u * (self.high - self.low)


@dataclass(frozen=True)
class Choice:
    """One of several values, in the order given."""

    options: tuple[Any, ...]

    def __post_init__(self) -> None:
        if not self.options:
            raise ValueError("a Choice must offer at least one option, but got none.")

    def __contains__(self, value: Any) -> bool:
        return value in self.options

    def at(self, u: float) -> Any:
        """The value at the quantile ``u`` in [0, 1]."""
        return self.options[min(int(u * len(self.options)), len(self.options) - 1)]


@dataclass(frozen=True)
class Space:
    """Named dimensions.

    >>> space = Space({"rank": Choice((4, 8)), "lr": Real(1e-4, 1e-2, log=True)})
    >>> sorted(space.sample(random.Random(0))) == ["lr", "rank"] and space.sample(random.Random(0)) in space
    True
    """

    dimensions: Mapping[str, Real | Choice] = field(default_factory=dict)

    def sample(self, rng: random.Random) -> dict[str, Any]:
        """One point, uniform on each dimension's own scale."""
        return {name: dimension.at(rng.random()) for name, dimension in self.dimensions.items()}

    def __contains__(self, values: Mapping[str, Any]) -> bool:
        return all(name in self.dimensions and value in self.dimensions[name] for name, value in values.items())

    def __or__(self, other: Space) -> Space:
        return Space({**self.dimensions, **other.dimensions})
