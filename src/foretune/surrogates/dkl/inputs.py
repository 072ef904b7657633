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

PRIORS = ("best", "constant")

PER_COLUMN = 10
"""Groups of tasks that each column of the task takes: with fewer the network learns tasks by heart, by columns in which
the next task lies elsewhere. Held-out tasks then like the untrained network best, and training ends as it begins."""

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
class Prior:
    """Where the process's zero and its unit lie, for a prefix of so many cells.

    One constant mean and one noise, as published, serve scores that move alike at every cell. But most runs stand
    still and few go far, the less the more was seen; a unit that fits whole runs is then many times what still moves
    late in them, and what is foretold of those swims in the noise. ``best`` therefore takes the best score seen for
    the mean, plus a constant per number of cells seen, and the spread of what is left for the unit (compare the
    explicit mean functions of Rasmussen and Williams 2006, section 2.7). ``constant`` is that of Quick-Tune (Arango et
    al. 2024).

    Attributes:
        best: whether the mean goes along with what was seen.
        mean, sd: ``(CELLS,)`` after so many cells; the first where nothing of a prefix was measured.
    """

    best: bool
    mean: np.ndarray
    sd: np.ndarray

    @classmethod
    def fit(cls, points: Points, kind: str) -> Prior:
        """Learn means and spreads; the spread of all points where there are none or do not differ."""
        best = kind == "best"
        rest, cell = points.target - _best(points.curve) * best, _cell(points.curve, points.progress) * best
        overall = float(rest.std()) or 1.0
        parts = [rest[cell == each] if best and (cell == each).any() else rest for each in range(CELLS)]
        return cls(best, np.array([part.mean() for part in parts]), np.array([part.std() or overall for part in parts]))

    def of(self, curve: np.ndarray, progress: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Mean and unit ``(m,)`` of scaled scores, for curves ``(m, CELLS)`` at ``progress`` ``(m,)``."""
        cell = _cell(curve, progress)
        return self.mean[cell] + _best(curve) * self.best, self.sd[cell]

    def walk(self, seen: np.ndarray) -> np.ndarray:
        """``(m,)`` the spread of the end over that of the last cell, where each cell from ``seen`` on is foretold from
        the one before: their errors are steps of a random walk. With a constant mean, which every cell returns to, 1.
        """
        left = np.sqrt(np.cumsum(self.sd[::-1] ** 2)[::-1]) / self.sd[-1]
        found: np.ndarray = left[seen] if self.best else np.ones(len(seen))
        return found


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
    def fit(
        cls, past: MetaDataset, known: MetaDataset, variant: str, faithful: bool, told: bool | None = True
    ) -> Inputs:
        """Learn columns from all runs of ``past``, and scales from ``known``, its successes.

        Args:
            told: whether to read the columns of the task; None for where there are ``PER_COLUMN`` groups for each.
        """
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
        task = _of_task(encoder)
        if told is None:
            told = len(set(known.groups)) >= PER_COLUMN * task.sum()
        return cls(
            encoder, anchor, _parts(encoder, variant, faithful, task, told), mean, np.where(sd > 0, sd, 1.0), low, high
        )

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
        return self._scale(self.anchor.gain(dataset, values) / _unit(self.anchor, dataset))

    def gain(self, dataset: MetaDataset, scaled: np.ndarray) -> np.ndarray:
        """Back from scaled scores of the runs to gains over the anchor."""
        return (self.low + scaled * self._span) * _unit(self.anchor, dataset)

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
    """``(n, CELLS)`` best scores so far as gains over the anchor in its ``_unit``; NaN where nothing was measured."""
    measured = dataset.sign[:, None] * np.column_stack([dataset.start["score"], dataset.curves["score"]])
    best = np.fmax.accumulate(measured, axis=1)[:, 1:]
    gains = np.where(np.isnan(measured[:, 1:]), np.nan, best) - (dataset.sign * anchor.of(dataset))[:, None]
    return gains / _unit(anchor, dataset)[:, None]


def _unit(anchor: Anchor, dataset: MetaDataset) -> np.ndarray:
    """``(n,)`` what gains are counted in: of a loss its anchor, for where it starts at 2.4 it has more to lose than
    where it starts at .7, and the few such tasks would take the range from all others; else 1."""
    worst = anchor.of(dataset)
    return np.where((dataset.sign < 0) & (worst > 0), worst, 1.0)


def _best(curve: np.ndarray) -> np.ndarray:
    """``(m,)`` best scaled score that a curve shows; 0 where it shows none."""
    found: np.ndarray = np.maximum(curve.max(axis=1) - 1.0, 0.0)
    return found


def _cell(curve: np.ndarray, progress: np.ndarray) -> np.ndarray:
    """``(m,)`` cells seen, 0 where nothing was measured in them."""
    return np.where(curve.any(axis=1), np.minimum(np.rint(progress * CELLS).astype(int), CELLS - 1), 0)


def _of_task(encoder: Encoder) -> np.ndarray:
    """``(width,)`` which columns are features of the task and not of its model."""
    return np.array([name.startswith("task.") and not name.startswith("task.model_") for name in encoder.names], bool)


def _parts(encoder: Encoder, variant: str, faithful: bool, task: np.ndarray, told: bool) -> tuple[np.ndarray, ...]:
    """Which column goes where. The fault of ``qtt``: no more columns of levels than there are settings, the first."""
    names = encoder.names
    levels = np.array(["=" in name for name in names], bool)
    model = np.array([name.startswith(("model=", "family=", "task.model_")) for name in names], bool)
    if variant == "qt":
        return tuple(np.flatnonzero(mask) for mask in (model, ~model & ~task, task & told))
    categorical = np.flatnonzero(levels)
    if faithful:
        categorical = categorical[: len(encoder.levels) + bool(encoder.families)]
    return np.flatnonzero(~levels & (told | ~task)), categorical
