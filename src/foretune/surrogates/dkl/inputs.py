"""Inputs: what the network of a deep kernel reads, as arrays; numpy only.

Columns of the encoder are standardised within the fit, what is not known becoming the mean, and go to the part of the
network that is theirs. A curve is of the best score so far, for a run is judged by its best; it has ``CELLS`` entries:
1 plus the scaled score where a cell was seen, 0 where it was not. So a score of 0 differs from a cell that was not run.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from foretune.store.metadataset import CELLS, MetaDataset
from foretune.surrogates.anchor import Anchor
from foretune.surrogates.encode import Encoder
from foretune.surrogates.prefix import prefixes

VARIANTS = {"qt": ("model", "settings", "task"), "qtt": ("numbers", "levels")}
"""Variant -> the parts of its network that read columns, in their order."""

AHEAD = ("end", "next")

FLOOR = 0.05
"""Quantile of the gains in fitting below which they are cut in any case."""


@dataclass(frozen=True)
class Points:
    """``m`` prefixes of runs and what came of them.

    Attributes:
        columns: ``(m, width)``.
        curve: ``(m, CELLS)`` as described above.
        progress: ``(m,)`` share of the run that was seen.
        target: ``(m,)`` scaled score of the next cell, or of the run.
        task: ``(m,)`` number of the task.
        group: ``(m,)`` number of the group of tasks, which no split may part.
    """

    columns: np.ndarray
    curve: np.ndarray
    progress: np.ndarray
    target: np.ndarray
    task: np.ndarray
    group: np.ndarray

    def take(self, places: np.ndarray) -> Points:
        """The points at ``places``, indices or a mask."""
        return Points(*(values[places] for values in vars(self).values()))


@dataclass(frozen=True)
class Inputs:
    """Columns and scales of one fit.

    Attributes:
        encoder, anchor: of the fit.
        parts: for each part of the network, in order, the places of its columns in the encoder's matrix.
        mean, sd: ``(width,)`` of the encoder's columns in fitting.
        low, high: gains that are scaled to 0 and to 1.
    """

    encoder: Encoder
    anchor: Anchor
    parts: tuple[np.ndarray, ...]
    mean: np.ndarray
    sd: np.ndarray
    low: float
    high: float

    @classmethod
    def fit(cls, past: MetaDataset, known: MetaDataset, variant: str, faithful: bool) -> Inputs:
        """Learn columns from all runs of ``past``, and scales from ``known``, its successes."""
        encoder, anchor = Encoder.fit(past), Anchor.fit(known)
        matrix = encoder.of(known)
        with np.errstate(invalid="ignore"):
            count = np.maximum((~np.isnan(matrix)).sum(0), 1)
            mean = np.nansum(matrix, 0) / count
            sd = np.sqrt(np.nansum((matrix - mean) ** 2, 0) / count)
        gains = _gains(anchor, known)
        gains = gains[np.isfinite(gains)]
        low, high = (0.0, 1.0)
        if len(gains):
            high = float(gains.max())
            low = float(max(np.quantile(gains, FLOOR), 2 * np.median(gains) - high))
        return cls(encoder, anchor, _parts(encoder, variant, faithful), mean, np.where(sd > 0, sd, 1.0), low, high)

    @property
    def widths(self) -> dict[str, int]:
        """Part of the network -> the number of its columns; parts without any are absent."""
        names = next(names for names in VARIANTS.values() if len(names) == len(self.parts))
        return {name: len(places) for name, places in zip(names, self.parts, strict=True) if len(places)}

    def columns(self, dataset: MetaDataset) -> np.ndarray:
        """``(n, width)`` standardised columns, part after part."""
        standard = np.nan_to_num((self.encoder.of(dataset) - self.mean) / self.sd, nan=0.0)
        chosen: np.ndarray = standard[:, np.concatenate(self.parts).astype(int)]
        return chosen

    def scaled(self, dataset: MetaDataset, values: np.ndarray) -> np.ndarray:
        """Raw scores ``(n,)`` between 0 and 1 over the range of the fit, from 0 up to 2 beyond it; NaN stays."""
        return self._scale(self.anchor.gain(dataset, values))

    def gain(self, scaled: np.ndarray) -> np.ndarray:
        """Back from scaled scores to gains over the anchor."""
        return self.low + scaled * self._span

    def curve(self, dataset: MetaDataset, seen: np.ndarray) -> np.ndarray:
        """``(n, CELLS)`` what the network is shown after ``seen`` ``(n,)`` cells."""
        shown = np.where(np.arange(CELLS) < seen[:, None], self._scale(_gains(self.anchor, dataset)), np.nan)
        return np.nan_to_num(self.as_input(shown), nan=0.0)

    def as_input(self, scaled: np.ndarray) -> np.ndarray:
        """Scaled scores as the entries of a curve."""
        return 1.0 + np.clip(scaled, 0.0, 2.0)

    def points(self, dataset: MetaDataset, ahead: str, seen: np.ndarray | None = None) -> Points:
        """Every prefix of a run with what is to be foretold from it, as far as that is known after ``seen`` cells.

        Args:
            ahead: ``next`` for the cell after the prefix, ``end`` for the best of the run.
            seen: ``(n,)`` cells that may be read; None for all.
        """
        run, at = prefixes(dataset)
        cells = self._scale(_gains(self.anchor, dataset))
        target = cells[run, at] if ahead == "next" else np.fmax.reduce(cells, axis=1)[run]
        read = np.full(len(run), CELLS) if seen is None else seen[run]
        usable = np.isfinite(target) & ((at < read) if ahead == "next" else (read == CELLS))
        run, at, target = run[usable], at[usable], target[usable]
        _, group = np.unique(dataset.groups, return_inverse=True)
        curve = np.where(np.arange(CELLS) < at[:, None], self.curve(dataset, np.full(len(dataset), CELLS))[run], 0.0)
        return Points(self.columns(dataset)[run], curve, at / CELLS, target, dataset.task[run], group[run])

    @property
    def _span(self) -> float:
        return self.high - self.low or 1.0

    def _scale(self, gains: np.ndarray) -> np.ndarray:
        return np.clip((gains - self.low) / self._span, 0.0, 2.0)


def _gains(anchor: Anchor, dataset: MetaDataset) -> np.ndarray:
    """``(n, CELLS)`` best scores so far as gains over the anchor; NaN where nothing was measured."""
    measured = dataset.sign[:, None] * np.column_stack([dataset.start["score"], dataset.curves["score"]])
    best = np.fmax.accumulate(measured, axis=1)[:, 1:]
    gains = np.where(np.isnan(measured[:, 1:]), np.nan, best) - (dataset.sign * anchor.of(dataset))[:, None]
    return gains


def _parts(encoder: Encoder, variant: str, faithful: bool) -> tuple[np.ndarray, ...]:
    """Which column goes where. The fault of ``qtt``: no more columns of levels than there are settings, the first."""
    names = encoder.names
    levels = np.array(["=" in name for name in names], bool)
    model = np.array([name.startswith(("model=", "family=", "task.model_")) for name in names], bool)
    task = np.array([name.startswith("task.") for name in names], bool) & ~model
    if variant == "qt":
        return tuple(np.flatnonzero(mask) for mask in (model, ~model & ~task, task))
    categorical = np.flatnonzero(levels)
    if faithful:
        categorical = categorical[: len(encoder.levels) + bool(encoder.families)]
    return np.flatnonzero(~levels), categorical
