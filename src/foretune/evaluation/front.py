"""Who lies on the front of score against cost, and how sure is that?

A method is on the front when no other is at least as good and at least as cheap, and one of the two strictly. Drawn
from point estimates the front is the winner of a lottery of seeds; drawn from resampled seeds each method has a
probability.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from foretune.errors import UsageError
from foretune.evaluation.metrics import Floats

DRAWS = 4000


def on_front(scores: Floats, costs: Floats) -> NDArray[np.bool_]:
    """Which methods are on the front; both (..., methods), scores more and costs less is better.

    >>> on_front(np.array([0.9, 0.8, 0.7]), np.array([10.0, 1.0, 5.0])).tolist()
    [True, True, False]
    """
    better, cheaper = scores[..., :, None] - scores[..., None, :], costs[..., None, :] - costs[..., :, None]
    beaten = (better >= 0) & (cheaper >= 0) & ((better > 0) | (cheaper > 0))
    return np.asarray(~beaten.any(axis=-2))


def front_probability(scores: ArrayLike, costs: ArrayLike, *, seed: int, draws: int = DRAWS) -> tuple[float, ...]:
    """The probability of each method of being on the front, by resampling seeds.

    The same seeds are drawn for all methods and for score and cost, so what seeds share cancels out. Of S seeds S - 1
    are drawn: the mean of a draw then varies as the mean of S seeds does, where S of S would vary too little (Rao and
    Wu 1988).

    Args:
        scores: (methods, seeds), more is better.
        costs: (methods, seeds) or (methods,), less is better: seconds, bytes, parameters.

    Returns:
        (methods,) shares of the draws.

    Raises:
        UsageError: fewer than 2 seeds, a missing cell, or shapes that do not fit.

    >>> front_probability([[0.90, 0.92], [0.80, 0.95], [0.60, 0.65]], [10, 1, 2], seed=0)[1:]
    (1.0, 0.0)
    """
    table = np.asarray(scores, dtype=np.float64)
    spent = np.asarray(costs, dtype=np.float64)
    if table.ndim != 2 or table.shape[1] < 2 or spent.shape not in (table.shape, table.shape[:1]):
        raise UsageError(
            f"A front needs scores of shape (methods, seeds) with at least 2 seeds, and costs of that shape or one for "
            f"each method, but got {table.shape} and {spent.shape}."
        )
    spent = np.broadcast_to(spent.reshape(len(spent), -1), table.shape)
    gaps = np.argwhere(~(np.isfinite(table) & np.isfinite(spent)))
    if len(gaps):
        raise UsageError(
            f"A front needs score and cost of every run, but method {gaps[0][0] + 1} lacks one at seed "
            f"{gaps[0][1] + 1}. Run it, or leave that seed out for every method."
        )
    n = table.shape[1]
    weights = np.random.default_rng(seed).multinomial(n - 1, np.full(n, 1 / n), draws) / (n - 1)
    return tuple(on_front(_means(weights, table), _means(weights, spent)).mean(axis=0).tolist())


def _means(weights: Floats, table: Floats) -> Floats:
    """(draws, methods) weighted means over seeds; equal values give an exactly equal mean, so that ties stay ties."""
    first = table[:, :1]
    return first[:, 0] + weights @ (table - first).T
