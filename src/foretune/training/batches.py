"""Which examples make up which step: drawn once per epoch from a named seed, bucketed by length, split over processes.

Bucketing (sort within a shuffled window of several batches, then shuffle the batches) cuts padding while every example
is still seen once per epoch and the batches stay random. Everything is a pure function of (lengths, size, seed, step),
so a resumed run needs no state of the order.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache

import numpy as np

WINDOW = 8
"""Batches per bucketing window: large enough to remove most padding, small enough that neighbours keep changing."""


class Order:
    """The examples of every optimizer step.

    >>> order = Order(np.array([3, 1, 2, 9, 5]), size=2, seed=0)
    >>> order.per_epoch, sorted(int(i) for s in range(3) for i in order.step(s))
    (3, [0, 1, 2, 3, 4])
    """

    def __init__(self, lengths: np.ndarray, size: int, seed: int) -> None:
        self.lengths, self.size, self.seed = lengths, min(size, max(1, len(lengths))), seed
        self.per_epoch = max(1, -(-len(lengths) // self.size))
        self._epoch = lru_cache(maxsize=2)(self._draw)

    def step(self, index: int) -> np.ndarray:
        """The examples of optimizer step ``index``, counted from 0."""
        epoch, place = divmod(index, self.per_epoch)
        return self._epoch(epoch)[place]

    def _draw(self, epoch: int) -> list[np.ndarray]:
        rng = np.random.Generator(np.random.PCG64([self.seed, epoch]))
        order = rng.permutation(len(self.lengths))
        window = WINDOW * self.size
        batches: list[np.ndarray] = []
        for start in range(0, len(order), window):
            part = order[start : start + window]
            part = part[np.argsort(self.lengths[part], kind="stable")]
            batches += [part[i : i + self.size] for i in range(0, len(part), self.size)]
        return [batches[i] for i in rng.permutation(len(batches))]


def by_length(lengths: np.ndarray, rows: int = 64, tokens: int = 8192) -> Iterator[np.ndarray]:
    """Evaluation batches: similar lengths together, at most ``rows`` examples and about ``tokens`` padded tokens each.

    >>> [b.tolist() for b in by_length(np.array([5, 1, 4, 2]), rows=2)]
    [[1, 3], [2, 0]]
    """
    order = np.argsort(lengths, kind="stable")
    start = 0
    while start < len(order):
        end = start + 1
        while end < len(order) and end - start < rows and (end + 1 - start) * lengths[order[end]] <= tokens:
            end += 1
        yield order[start:end]
        start = end


def micro_batches(indices: np.ndarray, size: int | None) -> list[np.ndarray]:
    """Split one optimizer step into forward passes of at most ``size`` examples.

    >>> [m.tolist() for m in micro_batches(np.arange(5), 2)]
    [[0, 1], [2, 3], [4]]
    """
    if size is None or size >= len(indices):
        return [indices]
    return [indices[i : i + size] for i in range(0, len(indices), size)]


def share(indices: np.ndarray, rank: int, world: int) -> np.ndarray:
    """This process's part of a global batch. Shares may be empty; together they are the batch."""
    return indices if world == 1 else np.array_split(indices, world)[rank]
