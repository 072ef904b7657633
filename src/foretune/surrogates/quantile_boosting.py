"""Quantile boosting: the score at the end of a run from its settings, its task and what was seen of its curve.

Three boosted ensembles of histogram trees, 200 iterations at a rate of .06, for the quantiles .1, .5 and .9. Each run
gives a point for every cell before its last, from 0 on, so one model serves untouched and half-trained candidates.
What is learned is the gain over the anchor; once something was seen, the gain over the best that was seen, below
which a run's best score cannot fall. The three outputs are sorted, so they never cross, and the ends are widened by
what they missed on groups of tasks left out (``conformal.py``), for every number of cells seen apart.

It foretells the end of the run and not its next cell: the best score of the whole run is what a user gets, an
improvement expected there divided by the cost of the next cell already prefers the cheap step, and a model of the
next cell sees no further than that.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Self, final

import numpy as np

from foretune.store.metadataset import CELLS, MetaDataset
from foretune.surrogates.again import Again
from foretune.surrogates.anchor import Anchor
from foretune.surrogates.base import Forecast, Surrogate
from foretune.surrogates.conformal import left_out, width
from foretune.surrogates.encode import Encoder
from foretune.surrogates.prefix import LIMIT
from foretune.surrogates.rows import Rows, best_seen, drawn, known_columns, rows, scored

QUANTILES = (0.1, 0.5, 0.9)
ITERATIONS, RATE = 200, 0.06
Answer = Callable[[np.ndarray], np.ndarray]
"""``(m, width)`` rows -> ``(m,)`` of one quantile."""


@final
class QuantileBoosting(Surrogate):
    """See the module. ``order`` is the gain over the anchor that is expected.

    Args:
        iterations: of boosting, for each quantile.
    """

    name = "quantile-boosting"

    def __init__(self, iterations: int = ITERATIONS) -> None:
        self._iterations = iterations

    def fit(self, past: MetaDataset, seed: int = 0) -> Self:
        known = scored(past)
        self._encoder, self._anchor = Encoder.fit(past), Anchor.fit(known)
        known = known.take(np.isfinite(self._anchor.of(known)))
        points = drawn(known, self._encoder, self._anchor, seed)
        base = _base(points.runs, points.run, points.seen, self._anchor.of(points.runs))
        gain = self._anchor.gain(points.runs, points.runs.score)[points.run]
        ahead = np.clip(gain - base, -LIMIT, LIMIT)
        self._models = [Again(each) for each in _fitted(points.columns, ahead, seed, self._iterations)]
        self._widths = _widths(points, self._anchor.of(points.runs), ahead, seed, self._iterations)
        return self

    def predict(self, pool: MetaDataset, seen: np.ndarray) -> Forecast:
        seen = np.asarray(seen, np.int64)
        zero = _zero(pool, seen, self._anchor.of(pool))
        everyone = np.arange(len(pool))
        points = rows(pool, everyone, seen, self._encoder, zero)
        low, middle, high = _quantiles(self._models, points.columns, seen)
        if self._widths is not None:
            wider = self._widths[np.minimum(seen, CELLS - 1)]
            low, high = np.minimum(low - wider, middle), np.maximum(high + wider, middle)
        least = np.where(np.isfinite(best_seen(pool, seen)), 0.0, -np.inf)
        over = (seen >= CELLS) & np.isfinite(least)
        base = _base(pool, everyone, seen, zero)
        low, middle, high = (base + np.where(over, 0.0, np.maximum(gain, least)) for gain in (low, middle, high))
        known = zero if np.isfinite(best_seen(pool, seen)).any() else None
        return self._anchor.forecast(pool, middle, (low, middle, high), self._widths is not None, known)


def _base(runs: MetaDataset, run: np.ndarray, seen: np.ndarray, zero: np.ndarray) -> np.ndarray:
    """``(m,)`` what the target is counted from: the gain that was seen already, or 0 where nothing was."""
    best = best_seen(runs.take(run), seen)
    return np.where(np.isfinite(best), best - (runs.sign * zero)[run], 0.0)


def _zero(pool: MetaDataset, seen: np.ndarray, anchor: np.ndarray) -> np.ndarray:
    """``(n,)`` anchors; where the task has none, the median of the best that was seen: it is in the right unit, and no
    worse a zero than another."""
    best = best_seen(pool, seen) * pool.sign
    known = best[np.isfinite(best)]
    return np.where(np.isfinite(anchor), anchor, np.median(known) if len(known) else 0.0)


def _fitted(columns: np.ndarray, target: np.ndarray, seed: int, iterations: int) -> list[Answer]:
    from sklearn.ensemble import HistGradientBoostingRegressor

    columns = known_columns(columns)
    return [
        HistGradientBoostingRegressor(
            loss="quantile",
            quantile=share,
            max_iter=iterations,
            learning_rate=RATE,
            early_stopping=False,
            random_state=seed,
        )
        .fit(columns, target)
        .predict
        for share in QUANTILES
    ]


def _quantiles(models: Sequence[Answer], columns: np.ndarray, seen: np.ndarray) -> np.ndarray:
    """``(3, m)`` sorted gains."""
    found: np.ndarray = np.sort([model(columns) for model in models], axis=0)
    return np.where(seen > 0, np.maximum(found, 0.0), found)


def _widths(points: Rows, zero: np.ndarray, ahead: np.ndarray, seed: int, iterations: int) -> np.ndarray | None:
    """``(CELLS,)`` by how much the ends move outwards after each number of cells; None below ``FEWEST`` groups.

    Nothing that is fitted has seen the groups that it is judged on, the encoder included. The kind of anchor is that of
    the whole fit: it is the unit in which a width is told.
    """
    parts = list(left_out(points.runs, seed))
    if not parts:
        return None
    found = np.full((3, len(ahead)), np.nan)
    for part in parts:
        held = part[points.run]
        columns = rows(points.runs, points.run, points.seen, Encoder.fit(points.runs.take(~part)), zero).columns
        models = _fitted(columns[~held], ahead[~held], seed, iterations)
        found[:, held] = _quantiles(models, columns[held], points.seen[held])
    task = points.runs.task[points.run]
    overall = width(found[0], found[2], ahead, task)
    made = np.full(CELLS, overall)
    for cells in range(CELLS):
        here = points.seen == cells
        if here.any():
            made[cells] = width(found[0, here], found[2, here], ahead[here], task[here])
    return made
