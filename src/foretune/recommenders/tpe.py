"""TPE: Optuna's tree-structured Parzen estimator, asked and told about the candidates of the pool; extra ``optuna``.

The search that most people would run instead (Bergstra et al. 2011; Akiba et al. 2019, arXiv 1907.10902), with Optuna's
own settings: 10 draws at random, then the estimator. Every varying setting is an axis of its own (``axes.py``), and a
suggestion stands for the nearest candidate that has not run. Full runs only: Optuna's pruners stop runs of one search,
and ``halving`` and ``dehb`` are here for that. A failed run is told as pruned without a value, which Optuna ranks
behind all that have one.

Each suggestion has a sampler of its own seed, drawn from the recommender's and the number of runs that are over: the
next trial is a function of the pool, the seed and what was told.
"""

from __future__ import annotations

import importlib
from typing import Any, ClassVar, final

import numpy as np

from foretune.errors import UsageError
from foretune.recommenders.axes import Axes
from foretune.recommenders.base import Observation, Recommender, Trial
from foretune.store.metadataset import MetaDataset


@final
class TPE(Recommender):
    """Full runs, as Optuna suggests them.

    Raises:
        UsageError: Optuna is not installed.
    """

    name: ClassVar[str] = "tpe"
    reads_past: ClassVar[bool] = False

    def __init__(
        self, pool: MetaDataset, past: MetaDataset | None = None, *, default: int | None = None, seed: int = 0
    ) -> None:
        super().__init__(pool, past, default=default, seed=seed)
        self._optuna = _optuna()
        self._axes = Axes.of(self.view, seed)
        self._study = _quiet_study(self._optuna)
        self._next: Trial | None = None

    @property
    def evidence(self) -> tuple[str, ...]:
        return (
            f"Optuna {self._optuna.__version__}, TPE on this task alone: {int(self.over.sum())} runs are over, and no "
            "earlier task was consulted.",
        )

    def ask(self) -> Trial | None:
        if self._next is None and not self.over.all():
            self._next = Trial(self._axes.nearest(self._suggestion(), ~self.over))
        return self._next

    def tell(self, observation: Observation) -> None:
        place = observation.trial.place
        known = bool(self.over[place])
        super().tell(observation)
        self._next = None
        if not self.over[place] or known:
            return
        score, states = self.view.score[place], self._optuna.trial.TrialState
        self._study.add_trial(
            self._optuna.trial.create_trial(
                params=self._params(place),
                distributions={name: self._distribution(name) for name in self._params(place)},
                state=states.COMPLETE if np.isfinite(score) else states.PRUNED,
                value=float(self.view.sign[place] * score) if np.isfinite(score) else None,
            )
        )

    def _suggestion(self) -> np.ndarray:
        """A point of the box, ``(d,)``. The trial that carried it ends as failed, which TPE does not read: what counts
        is added when it was told."""
        number = np.random.SeedSequence([self.seed, int(self.over.sum())]).generate_state(1)[0]
        self._study.sampler = self._optuna.samplers.TPESampler(seed=int(number))
        trial = self._study.ask()
        point = np.full(len(self._axes.axes), np.nan)
        for place, axis in enumerate(self._axes.axes):
            if axis.levels:
                point[place] = trial.suggest_categorical(axis.name, range(axis.levels))
            elif axis.needs is None or point[axis.needs]:
                point[place] = trial.suggest_float(axis.name, 0.0, 1.0)
        self._study.tell(trial, state=self._optuna.trial.TrialState.FAIL)
        return point

    def _params(self, place: int) -> dict[str, float | int]:
        point = self._axes.points[place]
        return {
            axis.name: int(value) if axis.levels else float(value)
            for axis, value in zip(self._axes.axes, point, strict=True)
            if not np.isnan(value)
        }

    def _distribution(self, name: str) -> Any:
        levels = next(axis.levels for axis in self._axes.axes if axis.name == name)
        distributions = self._optuna.distributions
        if levels:
            return distributions.CategoricalDistribution(range(levels))
        return distributions.FloatDistribution(0.0, 1.0)


def _optuna() -> Any:
    try:
        return importlib.import_module("optuna")
    except ModuleNotFoundError as error:
        raise UsageError(
            "the recommender `tpe` needs Optuna, which is not installed. Install it with "
            "`pip install 'foretune[optuna]'`, or use `bayesian`."
        ) from error


def _quiet_study(optuna: Any) -> Any:
    """A study in memory, without the line that Optuna would print about it."""
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        return optuna.create_study(direction="maximize")
    finally:
        optuna.logging.set_verbosity(before)
