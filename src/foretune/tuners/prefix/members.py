"""The members of a simplex that judge or answer a split: weights keyed by example and member, not by batch."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
import torch

from foretune.tuners.base import Ensemble, FixedPoints
from foretune.tuners.prefix.mixture import Mixture

if TYPE_CHECKING:
    from foretune.tuners.prefix.model import PrefixModel

SIDE = 6
"""Steps along a side of the triangle: a multiple of three, so that the midpoint lies on the grid."""


class SimplexEnsemble(Ensemble):
    """``count`` members for each of ``size`` examples; common random numbers, so that checkpoints compare."""

    def __init__(self, mixture: Mixture, size: int, count: int, seed: int) -> None:
        self.mixture, self.size, self.count, self.seed = mixture, size, count, seed
        self._weights = lru_cache(maxsize=count)(self._drawn)

    def at(self, members: Sequence[int], examples: np.ndarray) -> AbstractContextManager[None]:
        rows = torch.from_numpy(np.asarray(examples))
        return self.mixture.at(torch.cat([self._weights(member)[rows] for member in members]))

    def _drawn(self, member: int) -> torch.Tensor:
        """The weights of one member, ``(size, slots, n)``: from a generator of its own, so that more members leave the
        first ones as they are."""
        seed = int(np.random.SeedSequence([self.seed, member]).generate_state(1)[0])
        return self.mixture.law.draw(self.size, torch.Generator().manual_seed(seed))


class SimplexPoints(FixedPoints):
    """The model at each of ``grid(n)``: all layers and the head at the same point."""

    def __init__(self, model: PrefixModel) -> None:
        self.model = model
        self.weights = grid(model.mixture.law.n)
        self.count = len(self.weights)

    def at(self, members: Sequence[int], examples: np.ndarray) -> AbstractContextManager[None]:
        return self.model.at(torch.tensor([[self.weights[member]] for member in members]))


def grid(n: int) -> tuple[tuple[float, ...], ...]:
    """Points of the simplex with ``n`` vertices, none twice: vertices in order, the midpoint, and what lies between.

    Between are, for three vertices, a triangular grid with ``SIDE`` steps along a side; otherwise the quarters of the
    edge from vertex 0 to vertex 1, for a picture of more sizes cannot be drawn.

    >>> grid(2)
    ((1.0, 0.0), (0.0, 1.0), (0.5, 0.5), (0.75, 0.25), (0.25, 0.75))
    >>> len(grid(3)), len(grid(6))
    (28, 10)
    """
    corners = [tuple(float(i == j) for j in range(n)) for i in range(n)]
    if n == 3:
        rows = [(i, j, SIDE - i - j) for i in range(SIDE, -1, -1) for j in range(SIDE - i, -1, -1)]
        between = [tuple(part / SIDE for part in row) for row in rows]
    else:
        between = [(1 - part, part, *(0.0,) * (n - 2)) for part in (0.25, 0.5, 0.75)]
    return tuple(dict.fromkeys([*corners, (1 / n,) * n, *between]))
