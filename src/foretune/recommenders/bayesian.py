"""Bayesian: Bayesian optimisation from scratch on the task at hand; no memory of any other.

What a search costs that starts from nothing: the honest rival of every recommender that remembers. A Gaussian process
with a Matern 5/2 kernel and noise models the score of whole runs, and the next one has the largest expected improvement
(Jones, Schonlau and Welch 1998; Snoek, Larochelle and Adams 2012, arXiv 1206.2944). The first few are drawn at random.

Scores enter as normal scores of their ranks (Salinas, Shen and Perrone 2020, arXiv 1909.13595): losses of one task span
many powers of ten, and a few absurd ones would flatten all else. A failed run counts as one of the worst seen.

A next trial is a function of the pool, the seed and what was told, so a search that is resumed by telling goes on as it
would have.
"""

from __future__ import annotations

import warnings
from typing import ClassVar, final

import numpy as np

from foretune.errors import UsageError
from foretune.recommenders.base import Observation, Recommender, Trial
from foretune.store.metadataset import MetaDataset
from foretune.surrogates.encode import Encoder

N_INIT = 5


@final
class Bayesian(Recommender):
    """Full runs, each where improvement is most to be expected.

    Args:
        n_init: runs that are drawn at random before there is a model, at least 1.

    Raises:
        UsageError: ``n_init`` is below 1.
    """

    name: ClassVar[str] = "bayesian"
    reads_past: ClassVar[bool] = False

    def __init__(
        self,
        pool: MetaDataset,
        past: MetaDataset | None = None,
        *,
        default: int | None = None,
        seed: int = 0,
        n_init: int = N_INIT,
    ) -> None:
        super().__init__(pool, past, default=default, seed=seed)
        if n_init < 1:
            raise UsageError(f"`n_init >= 1` must hold, but got n_init={n_init}.")
        self.n_init = n_init
        self._inputs = _scaled(Encoder.fit(self.view).of(self.view))
        self._order = np.random.default_rng(seed).permutation(len(self.view))
        self._next: Trial | None = None

    @property
    def evidence(self) -> tuple[str, ...]:
        runs = int(self.over.sum())
        drawn = min(runs, self.n_init)
        return (
            f"Bayesian optimisation on this task alone: {runs} runs are over, {drawn} of them drawn at random, and no "
            "earlier task was consulted.",
        )

    def ask(self) -> Trial | None:
        if self._next is None and not self.over.all():
            self._next = Trial(self._choice())
        return self._next

    def tell(self, observation: Observation) -> None:
        super().tell(observation)
        self._next = None

    def _choice(self) -> int:
        left = self._order[~self.over[self._order]]
        targets = self._targets()
        if len(targets) < self.n_init or len(set(targets)) < 2 or not self._inputs.shape[1]:
            return int(left[0])
        mean, sd = _posterior(self._inputs[self.over], targets, self._inputs[left])
        return int(left[np.argmax(expected_improvement(mean, sd, targets.max()))])

    def _targets(self) -> np.ndarray:
        """Of the runs that are over, in the pool's order; none while all of them failed."""
        scores = (self.view.sign * self.view.score)[self.over]
        known = np.isfinite(scores)
        return normal_scores(np.where(known, scores, scores[known].min())) if known.any() else np.zeros(0)


def normal_scores(values: np.ndarray) -> np.ndarray:
    """What values of these ranks would be under a standard normal distribution; equal values stay equal.

    >>> normal_scores(np.array([1e34, 1.0, 2.0])).round(2).tolist()
    [0.97, -0.97, 0.0]
    """
    from scipy.stats import norm, rankdata

    scores: np.ndarray = norm.ppf((rankdata(values) - 0.5) / len(values))
    return scores


def expected_improvement(mean: np.ndarray, sd: np.ndarray, best: float) -> np.ndarray:
    """``E[max(y - best, 0)]`` of normal ``y``; all ``(n,)``.

    >>> expected_improvement(np.array([1.0, 0.0]), np.array([1e-9, 1.0]), 0.5).round(3).tolist()
    [0.5, 0.198]
    """
    from scipy.stats import norm

    sd = np.maximum(sd, 1e-12)
    z = (mean - best) / sd
    improvement: np.ndarray = (mean - best) * norm.cdf(z) + sd * norm.pdf(z)
    return improvement


def _scaled(matrix: np.ndarray) -> np.ndarray:
    """Columns between 0 and 1, those that do not vary left out; what is not known lies in the middle."""
    known = matrix[:, ~np.isnan(matrix).all(0)]
    low, high = np.nanmin(known, axis=0, initial=np.inf), np.nanmax(known, axis=0, initial=-np.inf)
    varies = low < high
    scaled = (known[:, varies] - low[varies]) / (high - low)[varies]
    return np.nan_to_num(scaled, nan=0.5)


def _posterior(inputs: np.ndarray, targets: np.ndarray, asked: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.gaussian_process import GaussianProcessRegressor
    from sklearn.gaussian_process.kernels import ConstantKernel, Matern, WhiteKernel

    kernel = ConstantKernel(1.0, (0.05, 20.0)) * Matern(np.ones(inputs.shape[1]), (0.05, 20.0), nu=2.5)
    model = GaussianProcessRegressor(kernel + WhiteKernel(0.1, (1e-4, 1.0)), normalize_y=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # a hyperparameter at its bound is an answer
        model.fit(inputs, targets)
    mean, sd = model.predict(asked, return_std=True)
    return mean, sd
