"""Transfer: what the recommender uses. Extra trees order what is untouched, quantile boosting the rest, and it alone
gives numbers.

Forests find the better first pick, boosting reads curves and has the narrower interval (``docs/surrogates.md`` has the
measurements). To stand in one order with candidates that were started, the untouched ones share out among themselves
what boosting expects of them: the largest of these gains goes to the one that the forests put first, and so on. So
the order within either kind is its own model's, and between them counts what is expected in the unit of the score.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Self, final

import numpy as np

from foretune.store.metadataset import MetaDataset
from foretune.surrogates.base import Forecast, Surrogate
from foretune.surrogates.quantile_boosting import ITERATIONS, QuantileBoosting
from foretune.surrogates.zero_shot import FORESTS, TREES, Ranker

_TIE = 1e-9
"""Share of the spread by which equal expectations are told apart: the forests order what boosting does not."""


@final
class Transfer(Surrogate):
    """See the module. Arguments as of the two models."""

    name = "transfer"

    def __init__(self, forests: int = FORESTS, trees: int = TREES, iterations: int = ITERATIONS) -> None:
        self._forests, self._trees, self._iterations = forests, trees, iterations

    def fit(self, past: MetaDataset, seed: int = 0) -> Self:
        self._ahead = QuantileBoosting(self._iterations).fit(past, seed)
        self._ranker = Ranker.fit(past, seed, self._forests, self._trees)
        return self

    def predict(self, pool: MetaDataset, seen: np.ndarray) -> Forecast:
        ahead = self._ahead.predict(pool, seen)
        order, untouched = ahead.order.copy(), np.flatnonzero(np.asarray(seen) == 0)
        if len(untouched):
            ranked = untouched[np.argsort(self._ranker.order(pool.take(untouched)), kind="stable")]
            shared = np.sort(order[untouched])
            order[ranked] = shared + _TIE * (1 + np.ptp(shared)) * np.linspace(0, 1, len(shared))
        return replace(ahead, order=order)
