"""Axes: the settings in which candidates differ, as coordinates that an optimiser over a box can move along.

Optimisers of other libraries propose points of a box; a pool is finite. So a proposal stands for the nearest candidate
that may still be run, and what the optimiser is told are that candidate's own coordinates: it then learns from what
ran, not from what it wished for. The alternative, one category per candidate, would hide that candidates resemble each
other.

A number lies in 0..1 on the scale of ``Encoder``, between the least and the largest of the pool. A setting of words or
truth values has the number of its level. A number that some candidates lack has an axis of two levels before it, for
whether it is given. The distance of two points is Gower's (1971): along a number their difference, along levels 1 where
they differ, nothing where a number is given in neither.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from foretune.store.metadataset import MetaDataset
from foretune.surrogates.encode import Encoder


@dataclass(frozen=True)
class Axis:
    """One coordinate.

    Attributes:
        name: of the setting; ``NAME given`` for whether it has a number.
        levels: how many levels it has; 0 for a number.
        needs: the place of the axis that says whether this number is given, if some candidates lack it.
    """

    name: str
    levels: int = 0
    needs: int | None = None


@dataclass(frozen=True)
class Axes:
    """The box around a pool.

    Attributes:
        axes: its ``d`` coordinates; none where all candidates are alike.
        points: ``(n, d)`` the candidates; NaN where a number is not given.
        order: ``(n,)`` which of two candidates goes first where both are equally near, the smaller first.
    """

    axes: tuple[Axis, ...]
    points: np.ndarray
    order: np.ndarray

    @classmethod
    def of(cls, pool: MetaDataset, seed: int = 0) -> Axes:
        """The box around ``pool``; ``seed`` draws the order among equals."""
        encoder = Encoder.fit(pool)
        matrix, names = encoder.of(pool), encoder.names
        axes: list[Axis] = []
        columns: list[np.ndarray] = []
        for number in encoder.numbers:
            if number.optional:
                axes.append(Axis(f"{number.name} given", 2))
                columns.append(matrix[:, names.index(f"{number.name} given")])
            low, high = number.scaled(number.low), number.scaled(number.high)
            axes.append(Axis(number.name, needs=len(axes) - 1 if number.optional else None))
            columns.append((matrix[:, names.index(number.name)] - min(low, high)) / (abs(high - low) or 1.0))
        for name, have in encoder.levels.items():
            first = names.index(f"{name}={'absent' if have[0] is None else have[0]}")
            axes.append(Axis(name, len(have)))
            columns.append(matrix[:, first : first + len(have)].argmax(1))
        points = np.stack(columns, axis=1).astype(float) if columns else np.zeros((len(pool), 0))
        return cls(tuple(axes), points, np.random.default_rng(seed).permutation(len(pool)))

    def nearest(self, point: np.ndarray, among: np.ndarray) -> int:
        """The place of the candidate nearest to ``point``, ``(d,)``.

        Args:
            among: ``(n,)`` which candidates come into question; at least one.

        >>> import numpy as np
        >>> axes = Axes((Axis("lr"), Axis("tuner", 2)), np.array([[0.1, 0], [0.9, 0], [0.4, 1]]), np.arange(3))
        >>> axes.nearest(np.array([0.6, 1.0]), np.array([True, True, True]))
        2
        >>> axes.nearest(np.array([0.6, 1.0]), np.array([True, True, False]))
        1
        """
        apart = np.zeros(len(self.points))
        for column, axis in enumerate(self.axes):
            difference = np.abs(self.points[:, column] - point[column])
            apart += difference != 0 if axis.levels else np.nan_to_num(difference, nan=0.0)
        places = np.flatnonzero(among)
        return int(places[np.lexsort((self.order[places], apart[places]))[0]])
