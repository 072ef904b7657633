"""The dummies, shown beside every surrogate: the past's mean, the last value, and the table of known configurations.

What a model that looks at nothing, at one number or at no setting foretells is the bar. After a fifth of a curve its
last value is hard to beat; and where tasks share a grid, configurations known to be good beat guesses about new ones.
"""

from __future__ import annotations

from typing import Self, final

import numpy as np

from foretune.evaluation.regret import filled, normalised_regret
from foretune.store.metadataset import CELLS, MetaDataset
from foretune.surrogates.anchor import Anchor
from foretune.surrogates.base import LEVEL, Forecast, Surrogate
from foretune.surrogates.conformal import equal_weights, quantile
from foretune.surrogates.rows import best_seen, scored

SHARES = ((1 - LEVEL) / 2, 0.5, (1 + LEVEL) / 2)


@final
class Constant(Surrogate):
    """The median of past gains for every candidate, tasks weighted equally; it prefers none."""

    name = "constant"

    def fit(self, past: MetaDataset, seed: int = 0) -> Self:
        known = scored(past)
        self._anchor = Anchor.fit(known)
        gain = self._anchor.gain(known, known.score)
        self._gains = _spread(gain[np.isfinite(gain)], known.task[np.isfinite(gain)])
        return self

    def predict(self, pool: MetaDataset, seen: np.ndarray) -> Forecast:
        low, middle, high = (np.full(len(pool), gain) for gain in self._gains)
        return self._anchor.forecast(pool, np.zeros(len(pool)), (low, middle, high), False)


@final
class LastValue(Surrogate):
    """The best score seen so far, and from there the quantiles of what past runs still gained; else as ``Constant``."""

    name = "last-value"

    def fit(self, past: MetaDataset, seed: int = 0) -> Self:
        known = scored(past)
        self._constant = Constant().fit(past)
        self._ahead = np.zeros((CELLS + 1, 2))
        for cells in range(1, CELLS):
            ahead = known.sign * known.score - best_seen(known, np.full(len(known), cells))
            usable = np.isfinite(ahead)
            if usable.any():
                low, _, high = _spread(ahead[usable], known.task[usable])
                self._ahead[cells] = max(low, 0.0), max(high, 0.0)
        return self

    def predict(self, pool: MetaDataset, seen: np.ndarray) -> Forecast:
        fallback, best = self._constant.predict(pool, seen), best_seen(pool, seen)
        known, sign = np.isfinite(best), pool.sign
        last = np.where(known, sign * best, fallback.mean)
        ends = sign * (best + self._ahead[seen].T)
        low = np.where(known, np.minimum(last, ends.min(0)), fallback.low)
        high = np.where(known, np.maximum(last, ends.max(0)), fallback.high)
        order = np.where(known, best, np.nan_to_num(sign * fallback.mean))
        return Forecast(order, last, low, high)


@final
class MeanTable(Surrogate):
    """Known configurations by their mean regret over past tasks; unknown ones come last and get no number.

    Regrets are those of ``evaluation/regret.py``, on dev scores; on a task whose runs all failed they are 1.
    """

    name = "mean-table"

    def fit(self, past: MetaDataset, seed: int = 0) -> Self:
        known = scored(past)
        past = past.take(past.whole)
        self._anchor = Anchor.fit(known)
        regret = regret_within(past)
        gain = np.where(past.succeeded, self._anchor.gain(past, past.score), np.nan)
        self._table: dict[str, tuple[float, float, float, float]] = {}
        places: dict[str, list[int]] = {}
        for place, config in enumerate(past.config_ids):
            places.setdefault(config, []).append(place)
        for config, having in places.items():
            mine, tasks = gain[having], past.task[having]
            usable = np.isfinite(mine)
            spread = _spread(mine[usable], tasks[usable]) if usable.any() else (np.nan,) * 3
            self._table[config] = (float(regret[having] @ equal_weights(tasks)), *spread)
        return self

    def predict(self, pool: MetaDataset, seen: np.ndarray) -> Forecast:
        unknown = (2.0, np.nan, np.nan, np.nan)
        rows = np.array([self._table.get(config, unknown) for config in pool.config_ids], float).reshape(-1, 4)
        return self._anchor.forecast(pool, -rows[:, 0], (rows[:, 1], rows[:, 2], rows[:, 3]), False)


def regret_within(past: MetaDataset) -> np.ndarray:
    """``(n,)`` normalised regret of every run's dev score within its task; a failure is worth its task's worst."""
    regret = np.ones(len(past))
    for place in range(len(past.tasks)):
        mine = (past.task == place) & past.whole
        if past.succeeded[mine].any():
            score = np.where(past.succeeded[mine], past.score[mine], np.nan)
            regret[mine] = normalised_regret(filled(score, past.tasks[place].sign))
    return regret


def _spread(values: np.ndarray, tasks: np.ndarray) -> tuple[float, float, float]:
    """The quantiles ``SHARES`` of ``values``, tasks weighted equally."""
    weights = equal_weights(tasks)
    low, middle, high = (quantile(values, weights, share) for share in SHARES)
    return low, middle, high
