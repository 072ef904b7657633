"""Displacement: which of the base's own weights a method moved, and how far, at the weights that were kept.

Counts and sums per layer and kind of matrix, and one histogram: a few kilobytes whatever the size of the model.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

OUTSIDE = "outside the layers"
"""The name of the layer of what lies in none, such as the embeddings."""


@dataclass(frozen=True)
class Spread:
    """How a subset lies over the lines (all rows, or all columns) of the matrices that it is in.

    Attributes:
        lines: how many there are.
        half: the fewest that hold half of the subset.
        by_chance: what ``half`` would be about for as many weights of each matrix, drawn at random.
    """

    lines: int
    half: int
    by_chance: int


@dataclass(frozen=True)
class Share:
    """What one layer, or one kind of matrix, has of the whole.

    Attributes:
        name: as in ``Displacement.layers`` or ``Displacement.kinds``.
        weights: how many are tuned.
        chosen: how many of them are in the subset.
        moved: the sum of |W - W0| over the subset.

    >>> Share("query", 1000, 10, 0.5).density, Share("query", 1000, 10, 0.5).mean
    (0.01, 0.05)
    """

    name: str
    weights: int
    chosen: int
    moved: float

    @property
    def density(self) -> float:
        """The share of its weights that is in the subset; NaN where it has none."""
        return self.chosen / self.weights if self.weights else math.nan

    @property
    def mean(self) -> float:
        """The mean of |W - W0| over its part of the subset; NaN where it has none."""
        return self.moved / self.chosen if self.chosen else math.nan


@dataclass(frozen=True)
class Displacement:
    """Where the weights are that may be away from the base, and how far away they are.

    Attributes:
        layers: qualified names (``bert.encoder.layer.3``) or ``OUTSIDE``, in the model's order.
        kinds: what stands below a layer (``attention.self.query``), in the model's order.
        weights: ``(layers, kinds)``: how many are tuned; 0 where a layer has no such matrix.
        chosen: ``(layers, kinds)``: how many of them are in the subset.
        moved: ``(layers, kinds)``: the sum of |W - W0| over these.
        tensors: how many are tuned in part.
        silos: budgets among which the tensors are shared out; as many as ``tensors`` where each has its own.
        first_bin: the histogram's first bin begins at ``10 ** (first_bin / per_decade)``.
        counts: weights of the subset by |W - W0|, in bins that are equally wide in its logarithm.
        lost: how many of ``counts`` equal the base again once both are rounded to bf16.
        at_base: weights of the subset that did not move at all; in no bin.
        rows, columns: of the linear maps (a row makes one output, a column takes one input); None without such.
        per_decade: bins per power of ten.

    >>> grid = {"weights": ((100,), (100,)), "chosen": ((3,), (1,)), "moved": ((0.3,), (0.2,))}
    >>> found = Displacement(("h.0", "h.1"), ("q",), **grid, tensors=2, silos=1, first_bin=-4, counts=(4,), lost=(1,))
    >>> [(share.name, share.chosen) for share in found.by_layer], found.total.density, found.same_in_bf16
    ([('h.0', 3), ('h.1', 1)], 0.02, 1)
    """

    layers: tuple[str, ...]
    kinds: tuple[str, ...]
    weights: tuple[tuple[int, ...], ...]
    chosen: tuple[tuple[int, ...], ...]
    moved: tuple[tuple[float, ...], ...]
    tensors: int
    silos: int
    first_bin: int
    counts: tuple[int, ...]
    lost: tuple[int, ...]
    at_base: int = 0
    rows: Spread | None = None
    columns: Spread | None = None
    per_decade: int = 4

    def at(self, layer: int, kind: int) -> Share:
        """One cell of the grid."""
        cell = self.weights[layer][kind], self.chosen[layer][kind], self.moved[layer][kind]
        return Share(f"{self.layers[layer]}.{self.kinds[kind]}", *cell)

    @property
    def by_layer(self) -> tuple[Share, ...]:
        """One share per layer."""
        kinds = range(len(self.kinds))
        return tuple(_together(name, [self.at(i, j) for j in kinds]) for i, name in enumerate(self.layers))

    @property
    def by_kind(self) -> tuple[Share, ...]:
        """One share per kind of matrix."""
        layers = range(len(self.layers))
        return tuple(_together(name, [self.at(i, j) for i in layers]) for j, name in enumerate(self.kinds))

    @property
    def total(self) -> Share:
        """All of it."""
        return _together("all", self.by_layer)

    @property
    def same_in_bf16(self) -> int:
        """Weights of the subset that equal the base again once both are rounded to bf16."""
        return sum(self.lost) + self.at_base


def _together(name: str, shares: Sequence[Share]) -> Share:
    return Share(name, sum(s.weights for s in shares), sum(s.chosen for s in shares), sum(s.moved for s in shares))
