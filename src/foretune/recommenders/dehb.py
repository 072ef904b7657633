"""DEHB: differential evolution with Hyperband, through the authors' package; extra ``dehb``.

The multi-fidelity baseline of the paper that the recommender follows (Awad, Mallik and Hutter 2021, arXiv 2105.09821).
With eta 3 its fidelities are 10/9, 10/3 and 10 cells, rounded to 1, 3 and 10. It proposes points of a cube, and a
proposal stands for the nearest candidate that has not been seen that far (``axes.py``); a candidate that is promoted is
itself the nearest, and goes on from where it stopped. Once all candidates were seen to a fidelity, what is known of the
nearest is told without a run. The fitness is the best score so far; a failed run has the worst there is.

Of the package only the optimiser is used, as a plain function of its seed: its Dask cluster is never started, its log
and its state are never written (``_Quiet``).

Its state follows from what it asked before. So a resumed search is one that hears all earlier observations again, in
their order. What was seen of a candidate that it did not ask for makes it skip that one there.
"""

from __future__ import annotations

import importlib
import sys
import tempfile
from pathlib import Path
from typing import Any, ClassVar, final

import numpy as np

from foretune.errors import UsageError
from foretune.recommenders.axes import Axes
from foretune.recommenders.base import Observation, Recommender, Trial
from foretune.store.metadataset import CELLS, MetaDataset

ETA = 3
WORST = sys.float_info.max
"""Fitness of a failed run. Not infinite: that is how DEHB marks what it has not evaluated."""


@final
class DEHB(Recommender):
    """Candidates in brackets of 1, 3 and 10 cells, evolved across them.

    Raises:
        UsageError: the package is not installed.
    """

    name: ClassVar[str] = "dehb"
    reads_past: ClassVar[bool] = False

    def __init__(
        self, pool: MetaDataset, past: MetaDataset | None = None, *, default: int | None = None, seed: int = 0
    ) -> None:
        super().__init__(pool, past, default=default, seed=seed)
        self._axes = Axes.of(self.view, seed)
        self._optimiser = _optimiser(max(len(self._axes.axes), 1), seed)
        self._job: dict[str, Any] | None = None
        self._next = Trial(0)

    @property
    def evidence(self) -> tuple[str, ...]:
        begun, whole = int((self.seen > 0).sum()), int(self.over.sum())
        return (
            f"DEHB on this task alone: {begun} candidates were begun, {whole} of them are whole or failed, and no "
            "earlier task was consulted.",
        )

    def ask(self) -> Trial | None:
        while not self.over.all():
            if self._job is None:
                self._job = self._optimiser.ask()
                self._next = self._trial(self._job)
            place = self._next.place
            if not self.over[place] and self.seen[place] < self._next.until:
                return self._next
            self._settle(self._job)
        return None

    def tell(self, observation: Observation) -> None:
        self.ask()
        super().tell(observation)

    def _trial(self, job: dict[str, Any]) -> Trial:
        until = int(np.clip(round(float(job["fidelity"])), 1, CELLS))
        unseen = ~self.over & (self.seen < until)
        point = self._point(job["config"])
        return Trial(self._axes.nearest(point, unseen if unseen.any() else np.ones(len(self.seen), bool)), until)

    def _settle(self, job: dict[str, Any]) -> None:
        """Tell what is known of the candidate that the job stood for, with its own coordinates."""
        place = self._next.place
        score = self.view.sign[place] * self.view.score[place]
        fitness = -float(score) if np.isfinite(score) else WORST
        own = self._cube(self._axes.points[place])
        self._optimiser.tell({**job, "config": own}, {"fitness": fitness, "cost": float(self.seen[place])})
        self._job = None

    def _point(self, cube: np.ndarray) -> np.ndarray:
        """From DEHB's cube to the axes: levels share 0..1 in equal parts."""
        axes = self._axes.axes
        point = np.array(cube[: len(axes)], float)
        for place, axis in enumerate(axes):
            if axis.levels:
                point[place] = min(int(point[place] * axis.levels), axis.levels - 1)
            elif axis.needs is not None and not point[axis.needs]:
                point[place] = np.nan
        return point

    def _cube(self, point: np.ndarray) -> np.ndarray:
        """Back: the middle of a level's part, and of 0..1 for a number that is not given."""
        axes = self._axes.axes
        own = [(value + 0.5) / axis.levels if axis.levels else value for value, axis in zip(point, axes, strict=True)]
        return np.nan_to_num(np.array(own or [0.5], float), nan=0.5)


def _optimiser(dimensions: int, seed: int) -> Any:
    try:
        library, loguru = importlib.import_module("dehb"), importlib.import_module("loguru")
    except ModuleNotFoundError as error:
        raise UsageError(
            "the recommender `dehb` needs the package dehb, which is not installed. Install it with "
            "`pip install 'foretune[dehb]'`, or use `halving`."
        ) from error

    class _Quiet(library.DEHB):  # type: ignore[name-defined]
        """Without the log file and its thread, which the constructor would open in the working directory."""

        def _setup_logger(self, kwargs: dict[str, Any]) -> None:
            self.logger, self.output_path = loguru.logger, Path(kwargs["output_path"])

    loguru.logger.disable("dehb")
    return _Quiet(
        dimensions=dimensions,
        min_fidelity=1,
        max_fidelity=CELLS,
        eta=ETA,
        n_workers=1,
        seed=seed,
        save_freq="end",  # which is never: the search has no end of its own
        output_path=tempfile.gettempdir(),
    )
