"""Rows: what a model is shown of a run after some of its cells, as numbers relative to the anchor.

The settings and the task come from the encoder, what was seen from ``prefix_features``; its scores are turned into
gains over the anchor, so that a curve near its task's start looks alike on every task.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from foretune.errors import DataError
from foretune.store.metadataset import CELLS, MetaDataset
from foretune.surrogates.anchor import Anchor
from foretune.surrogates.encode import Encoder
from foretune.surrogates.prefix import LIMIT, PREFIX_COLUMNS, prefix_features, prefixes

MOST = 20_000
"""Points that a model is fitted on, drawn by seed where there are more: three quarters of a minute on two cores."""

_SCORES = [PREFIX_COLUMNS.index(f"score.{part}") for part in ("last", "best", "first", "start")]


@dataclass(frozen=True)
class Rows:
    """``m`` points of some runs.

    Attributes:
        runs: the ``n`` runs that have a point here.
        run: ``(m,)`` indices into ``runs``.
        seen: ``(m,)`` cells seen.
        columns: ``(m, width)``.
    """

    runs: MetaDataset
    run: np.ndarray
    seen: np.ndarray
    columns: np.ndarray


def drawn(past: MetaDataset, encoder: Encoder, anchor: Anchor, seed: int, most: int = MOST) -> Rows:
    """At most ``most`` points of ``past``, every run at every cell before its last being equally likely."""
    run, seen = prefixes(past)
    if len(run) > most:
        chosen = np.sort(np.random.default_rng(seed).choice(len(run), most, replace=False))
        run, seen = run[chosen], seen[chosen]
    kept, run = np.unique(run, return_inverse=True)
    return rows(past.take(kept), run, seen, encoder, anchor.of(past)[kept])


def rows(runs: MetaDataset, run: np.ndarray, seen: np.ndarray, encoder: Encoder, zero: np.ndarray) -> Rows:
    """The points ``(run, seen)`` of ``runs``; ``zero`` ``(n,)`` are the runs' anchors."""
    shown = prefix_features(runs.take(run), seen)
    shown[:, _SCORES] = np.clip(shown[:, _SCORES] - (runs.sign * zero)[run, None], -LIMIT, LIMIT)
    return Rows(runs, run, seen, np.hstack([encoder.of(runs)[run], shown]))


def known_columns(columns: np.ndarray) -> np.ndarray:
    """``(m, width)`` for a fit: a column of NaN is one of 0, for scikit-learn bins no other; neither is split on."""
    return np.where(np.isnan(columns).all(0), 0.0, columns)


def best_seen(dataset: MetaDataset, seen: np.ndarray) -> np.ndarray:
    """``(n,)`` best score within the cells that were seen, times the sign of its task; NaN where none is."""
    sign = dataset.sign
    curve = np.where(np.arange(CELLS) < seen[:, None], dataset.curves["score"] * sign[:, None], np.nan)
    curve = np.column_stack([np.where(seen > 0, dataset.start["score"] * sign, np.nan), curve])
    best = np.where(np.isfinite(curve), curve, -np.inf).max(1)
    return np.where(np.isfinite(best), best, np.nan)


def scored(past: MetaDataset) -> MetaDataset:
    """The successes of ``past``.

    Raises:
        DataError: there is none.
    """
    if not past.succeeded.any():
        raise DataError(f"None of {len(past)} runs succeeded, so no score can be learned. Collect runs that do.")
    return past.take(past.succeeded)
