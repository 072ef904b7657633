"""FailureModel: the probability that a candidate fails, diverges or runs out of memory.

Failures are common and cluster in corners of the settings, so they have a model of their own; the score is modelled on
successes alone. A boosted classifier reads what the score's model reads: a curve about to diverge shows it.

Such a classifier ranks well and is far too sure of itself on a task that it has not seen. So it is only believed as far
as it was right on groups of tasks that were left out: a logistic curve from its log odds there to what became of those
runs (Platt 1999), tasks weighted equally. Where too few groups are there to leave any out, or one outcome alone is
known, the answer is the rate of failures after adding one run of each outcome (Laplace), so that nothing is called
impossible for never having been seen.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Self

import numpy as np

from foretune.store.metadataset import MetaDataset
from foretune.surrogates import conformal
from foretune.surrogates.again import Again
from foretune.surrogates.anchor import Anchor
from foretune.surrogates.encode import Encoder
from foretune.surrogates.rows import Rows, drawn, known_columns, rows

ITERATIONS, RATE = 100, 0.06
MOST = 6_000
"""Points of one fit: seven fits are made, and a probability needs fewer than a quantile."""


class FailureModel:
    """P(failed, diverged or out of memory).

    Args:
        curves: also learn what partial curves say; False knows runs before their start alone.
    """

    def __init__(self, curves: bool = True) -> None:
        self._curves = curves

    def fit(self, past: MetaDataset, seed: int = 0) -> Self:
        """Learn from all runs of ``past``, whatever became of them.

        Raises:
            DataError: there is none.
        """
        self._rate = (past.failed.sum() + 1) / (len(past) + 2)
        self._fitted = self._fit(past, seed)
        self._slope, self._shift = self._calibrated(past, seed)
        return self

    def _fit(self, past: MetaDataset, seed: int) -> tuple[Encoder, Anchor, Again | None]:
        """Encoder, anchor and the classifier's log odds; None in its place where one outcome alone is known."""
        from sklearn.ensemble import HistGradientBoostingClassifier

        encoder, anchor = Encoder.fit(past), Anchor.fit(past)
        points = self._points(past, encoder, anchor, seed)
        failed = points.runs.failed[points.run]
        if failed.all() or not failed.any():
            return encoder, anchor, None
        made = HistGradientBoostingClassifier(
            max_iter=ITERATIONS, learning_rate=RATE, early_stopping=False, random_state=seed
        )
        made.fit(known_columns(points.columns), failed)
        return encoder, anchor, Again(lambda columns: _log_odds(made.predict_proba(columns)[:, 1]))

    def _points(self, past: MetaDataset, encoder: Encoder, anchor: Anchor, seed: int) -> Rows:
        if self._curves:
            return drawn(past, encoder, anchor, seed, MOST)
        every = np.arange(len(past))
        return rows(past, every, np.zeros(len(past), np.int64), encoder, anchor.of(past))

    def _calibrated(self, past: MetaDataset, seed: int) -> tuple[float, float]:
        """Slope and shift from the classifier's log odds to honest ones; both 0 where it was no better than the rate or
        nothing could be left out."""
        from sklearn.linear_model import LogisticRegression

        odds, failed, task = (np.concatenate(part) for part in zip(*self._left_out(past, seed), strict=True))
        if failed.all() or not failed.any():
            return 0.0, 0.0
        made = LogisticRegression().fit(odds[:, None], failed, len(odds) * conformal.equal_weights(task))
        slope, shift = float(made.coef_[0, 0]), float(made.intercept_[0])
        return (slope, shift) if slope > 0 else (0.0, 0.0)

    def _left_out(self, past: MetaDataset, seed: int) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
        """Log odds, outcome and task of points of runs that a classifier had not seen."""
        yield np.zeros(0), np.zeros(0, bool), np.zeros(0, object)
        for held in conformal.left_out(past, seed):
            encoder, anchor, model = self._fit(past.take(~held), seed)
            if model is not None:
                test = past.take(held)
                points = self._points(test, encoder, anchor, seed)
                odds = model(points.columns)
                names = np.array([task.task_id for task in points.runs.tasks], object)
                yield odds, points.runs.failed[points.run], names[points.runs.task[points.run]]

    def predict(self, pool: MetaDataset, seen: np.ndarray) -> np.ndarray:
        """``(n,)`` probabilities.

        Args:
            pool: ``n`` candidates on one task.
            seen: ``(n,)`` whole cells of each run's curves that may be read.
        """
        encoder, anchor, model = self._fitted
        if model is None or self._slope == 0:
            return np.full(len(pool), self._rate)
        points = rows(pool, np.arange(len(pool)), seen, encoder, anchor.of(pool))
        odds = self._slope * model(points.columns) + self._shift
        found: np.ndarray = 1 / (1 + np.exp(-odds))
        return found


def _log_odds(chance: np.ndarray | float) -> Any:
    """log(p / (1 - p)), of chances kept off 0 and 1."""
    kept = np.clip(chance, 1e-6, 1 - 1e-6)
    return np.log(kept / (1 - kept))
