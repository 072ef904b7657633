"""Extra trees: which candidates to prefer before any of them is started.

Five forests of 300 extremely randomised trees (Geurts et al. 2006), leaves of at least two runs, learn the rank of a
run's score within its task, 1 being the best; their mean is the order. A rank has the same scale on every task,
whatever its metric. One forest's favourite depends on its seed, hence five. Another forest learns the score itself,
relative to the anchor; its interval has the width of the misses on groups of tasks that were left out.

A failure has no score, and its rank is the worst: what a candidate is chosen by has to know of failures.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any, Self, final

import numpy as np

from foretune.errors import DataError
from foretune.store.metadataset import MetaDataset
from foretune.surrogates import conformal
from foretune.surrogates.again import Again
from foretune.surrogates.anchor import Anchor
from foretune.surrogates.base import Forecast, Surrogate
from foretune.surrogates.encode import Encoder
from foretune.surrogates.rows import scored

FORESTS, TREES, LEAF = 5, 300, 2
MOST = 6_000
"""Runs that one forest is fitted on, drawn by seed where there are more: five forests then stay below 600 MB."""


@dataclass(frozen=True)
class Ranker:
    """The five forests alone.

    Attributes:
        encoder: columns of the fold.
        forests: fitted; predictions are averaged.
    """

    encoder: Encoder
    forests: list[Any]

    @classmethod
    def fit(cls, past: MetaDataset, seed: int = 0, forests: int = FORESTS, trees: int = TREES) -> Ranker:
        """Learn ranks within tasks from the whole runs of ``past``, failures included.

        Raises:
            DataError: nothing that is known of them varies.
        """
        past = past.take(past.whole)
        encoder = Encoder.fit(past)
        columns, ranks = encoder.of(past), rank_within(past)
        return cls(encoder, [forest(columns, ranks, seed + number, trees) for number in range(forests)])

    def order(self, pool: MetaDataset) -> np.ndarray:
        """``(n,)`` expected ranks, 1 for the best of a task and 0 for its worst."""
        return self._ranks(self.encoder.of(pool))

    @cached_property
    def _ranks(self) -> Again:
        return Again(lambda columns: np.mean([each.predict(columns) for each in self.forests], axis=0))


@final
class ZeroShot(Surrogate):
    """See the module. Curves are not read.

    Args:
        forests: that are averaged into the order.
        trees: of each.
    """

    name = "extra-trees"

    def __init__(self, forests: int = FORESTS, trees: int = TREES) -> None:
        self._forests, self._trees = forests, trees

    def fit(self, past: MetaDataset, seed: int = 0) -> Self:
        known = scored(past)
        self._ranker, self._anchor = Ranker.fit(past, seed, self._forests, self._trees), Anchor.fit(known)
        gain = self._anchor.gain(known, known.score)
        known, gain = known.take(np.isfinite(gain)), gain[np.isfinite(gain)]
        columns = self._ranker.encoder.of(known)
        self._forest = forest(columns, gain, seed, self._trees)
        self._mean = Again(self._forest.predict)
        guess, left_out = np.full(len(known), np.nan), list(conformal.left_out(known, seed))
        for held in left_out:
            inner = Encoder.fit(known.take(~held))  # what it scales by is not learned from those it is judged on
            guess[held] = gain[~held].mean()
            if inner.names:
                learned = forest(inner.of(known.take(~held)), gain[~held], seed, -(-self._trees // 3))
                guess[held] = learned.predict(inner.of(known.take(held)))
        self._width = conformal.width(guess, guess, gain, known.task) if left_out else None
        return self

    def predict(self, pool: MetaDataset, seen: np.ndarray) -> Forecast:
        columns = self._ranker.encoder.of(pool)
        mean = self._mean(columns)
        if self._width is None:
            trees = np.sort([tree.predict(columns.astype(np.float32)) for tree in self._forest.estimators_], axis=0)
            low, high = (np.quantile(trees, share, axis=0) for share in (0.1, 0.9))
            low, high = np.minimum(low, mean), np.maximum(high, mean)
        else:
            low, high = mean - self._width, mean + self._width
        return self._anchor.forecast(pool, self._ranker.order(pool), (low, mean, high), self._width is not None)


def rank_within(past: MetaDataset) -> np.ndarray:
    """``(n,)`` share of the other runs of its task that a run beats, ties counted half; a failure beats none.

    A run that is not whole has no rank, which is NaN, and nobody's rank depends on it.
    """
    from scipy.stats import rankdata

    value = np.where(past.succeeded, past.sign * np.nan_to_num(past.score), -np.inf)
    ranks = np.where(past.whole, 0.5, np.nan)
    for place in range(len(past.tasks)):
        mine = (past.task == place) & past.whole
        if (number := mine.sum()) > 1:
            ranks[mine] = (rankdata(value[mine]) - 1) / (number - 1)
    return ranks


def forest(columns: np.ndarray, target: np.ndarray, seed: int, trees: int) -> Any:
    """A fitted forest on ``columns`` ``(n, width)``; it predicts on one thread, for the sum of trees would otherwise
    depend on which thread ends first.

    Raises:
        DataError: there is no column: nothing that is known of the runs varies.
    """
    if not columns.shape[1]:
        raise DataError(
            f"A forest learns from settings or features that vary, but all {len(target):,} runs are alike in both. "
            "Keep runs of other pipelines, or runs on other tasks."
        )
    from sklearn.ensemble import ExtraTreesRegressor

    if len(target) > MOST:
        chosen = np.random.default_rng(seed).choice(len(target), MOST, replace=False)
        columns, target = columns[chosen], target[chosen]
    made = ExtraTreesRegressor(trees, min_samples_leaf=min(LEAF, len(target)), random_state=seed, n_jobs=-1)
    return made.fit(columns, target).set_params(n_jobs=1)
