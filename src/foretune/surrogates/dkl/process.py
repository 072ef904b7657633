"""The Gaussian process over a network's numbers, and how both are trained. torch and gpytorch.

Everything is exact, by Cholesky factors, on the CPU: same points and seed, same bits on one machine.
"""

from __future__ import annotations

import copy
import math
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

with warnings.catch_warnings():  # what gpytorch's own dependency still uses of torch
    warnings.simplefilter("ignore", DeprecationWarning)
    import gpytorch
    from linear_operator.utils.warnings import NumericalWarning

from foretune.store.metadataset import CELLS
from foretune.surrogates.dkl.inputs import Points, Prior
from foretune.surrogates.dkl.network import QTFeatures, QTTFeatures

FEATURES: dict[str, type[QTFeatures] | type[QTTFeatures]] = {"qt": QTFeatures, "qtt": QTTFeatures}

HELD_OUT = 4
"""One group of tasks of so many decides when training ends."""

QT_ITERATIONS, QT_BATCH, QT_EVERY, QT_LAST_RATE = 1_000, 32, 20, 1e-7
QTT_EPOCHS, QTT_BATCH, QTT_PATIENCE = 100, 2_048, 5
JUDGED = 1_024
"""Points of held-out tasks that are foretold at each look, and points that this is from."""


class DeepKernelGP(gpytorch.models.ExactGP):
    """Constant mean and a scaled RBF kernel of one length scale over ``features``; inputs are the joined arrays."""

    def __init__(self, features: nn.Module, width: int) -> None:
        super().__init__(None, None, gpytorch.likelihoods.GaussianLikelihood())
        self.features, self.width = features, width
        self.mean = gpytorch.means.ConstantMean()
        self.kernel = gpytorch.kernels.ScaleKernel(gpytorch.kernels.RBFKernel())

    def forward(self, x: Tensor) -> Any:
        columns, curve, progress = torch.split(x, [self.width, CELLS, 1], dim=1)
        told = self.features(columns, curve, progress)
        return gpytorch.distributions.MultivariateNormal(self.mean(told), self.kernel(told))


class Process:
    """A deep kernel, which is trained from outside.

    Attributes:
        model: with the points that it last observed.
        prior: by which targets are standardised. The process's own scales start near 1 and hardly move at the
            published rates.
    """

    def __init__(self, variant: str, widths: Mapping[str, int], prior: Prior) -> None:
        self.model = DeepKernelGP(FEATURES[variant](widths, CELLS), sum(widths.values()))
        self.prior = prior

    def observe(self, points: Points) -> None:
        """Compare with ``points`` from now on."""
        self.model.eval()
        self.model.set_train_data(*self.tensors(points), strict=False)

    def tensors(self, points: Points) -> tuple[Tensor, Tensor]:
        """Inputs and standardised targets."""
        mean, unit = self.prior.of(points.curve, points.progress)
        target = (points.target - mean) / unit
        return _inputs(points.columns, points.curve, points.progress), _tensor(target)

    def posterior(self, columns: np.ndarray, curve: np.ndarray, progress: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Mean and standard deviation of the next measured score, noise included; ``(m,)`` each."""
        with _exact(), torch.no_grad():
            told = self.model.likelihood(self.model(_inputs(columns, curve, progress)))
            mean, sd = told.mean.double().numpy(), told.variance.clamp_min(0).sqrt().double().numpy()
        zero, unit = self.prior.of(curve, progress)
        return zero + unit * mean, unit * sd

    def expected(self, columns: np.ndarray, curve: np.ndarray, progress: np.ndarray) -> np.ndarray:
        """The mean alone, in a fraction of the time."""
        with _exact(), torch.no_grad(), gpytorch.settings.skip_posterior_variances():
            told: np.ndarray = self.model(_inputs(columns, curve, progress)).mean.double().numpy()
        zero, unit = self.prior.of(curve, progress)
        expected: np.ndarray = zero + unit * told
        return expected


def held_out(group: np.ndarray, draw: np.random.Generator) -> np.ndarray:
    """``(m,)`` which points decide when training ends: those of whole groups, none where there is but one."""
    groups = draw.permutation(np.unique(group))
    return np.isin(group, groups[: math.ceil(len(groups) / HELD_OUT)] if len(groups) > 1 else groups[:0])


def trained(
    variant: str, widths: Mapping[str, int], points: Points, prior: str, rate: float, rounds: int | None, seed: int
) -> Process:
    """A process with such a ``prior`` trained on ``points``, as ``variant`` trains, with steps of size ``rate``."""
    draw = np.random.default_rng(seed)
    held = held_out(points.group, draw)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        process = Process(variant, widths, Prior.fit(points.take(~held), prior))
        train = _train_qt if variant == "qt" else _train_qtt
        train(process, points.take(~held), points.take(held), rate, rounds, draw)
    process.model.eval()
    return process


def _train_qt(
    process: Process, learned: Points, held: Points, rate: float, rounds: int | None, draw: np.random.Generator
) -> None:
    """Batches of one random task each; every so often, held-out tasks are foretold from 32 of their own points."""
    iterations = rounds or QT_ITERATIONS
    optimiser = torch.optim.Adam(process.model.parameters(), rate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, iterations, QT_LAST_RATE)
    tasks = [np.flatnonzero(learned.task == task) for task in np.unique(learned.task)]
    judges = [_halves(held.take(held.task == task), QT_BATCH, draw) for task in np.unique(held.task)]

    def judged() -> float:
        return float(np.mean([np.mean(_off(process, *judge) ** 2) for judge in judges]))

    best = _Best(process)
    for iteration in range(iterations):
        some = tasks[draw.integers(len(tasks))]
        _step(process, learned.take(draw.choice(some, min(QT_BATCH, len(some)), replace=False)), optimiser)
        schedule.step()
        if judges and ((iteration + 1) % QT_EVERY == 0 or iteration + 1 == iterations):
            best.see(judged)
    best.restore()


def _train_qtt(
    process: Process, learned: Points, held: Points, rate: float, rounds: int | None, draw: np.random.Generator
) -> None:
    """Large batches over all tasks, until held-out tasks are foretold no better for 5 epochs."""
    optimiser = torch.optim.AdamW(process.model.parameters(), rate)
    judge = (_few(learned, JUDGED, draw), _few(held, JUDGED, draw))
    best = _Best(process)
    for _ in range(rounds or QTT_EPOCHS):
        order = draw.permutation(len(learned.target))
        for batch in np.array_split(order, math.ceil(len(order) / QTT_BATCH)):
            _step(process, learned.take(batch), optimiser)
        if len(held.target):
            best.see(lambda: float(np.mean(np.abs(_off(process, *judge)))))
            if best.stale >= QTT_PATIENCE:
                break
    best.restore()


class _Best:
    """The weights that held-out tasks liked most so far."""

    def __init__(self, process: Process) -> None:
        self.model, self.value, self.stale = process.model, math.inf, 0
        self.weights: dict[str, Tensor] | None = None

    def see(self, judged: Callable[[], float]) -> None:
        value = judged()
        self.stale += 1
        if value < self.value:
            self.value, self.stale, self.weights = value, 0, copy.deepcopy(self.model.state_dict())

    def restore(self) -> None:
        if self.weights is not None:
            self.model.load_state_dict(self.weights)


def _step(process: Process, batch: Points, optimiser: torch.optim.Optimizer) -> None:
    model, (x, target) = process.model, process.tensors(batch)
    model.train()
    model.set_train_data(x, target, strict=False)
    optimiser.zero_grad()
    with _exact():
        loss = -gpytorch.mlls.ExactMarginalLogLikelihood(model.likelihood, model)(model(x), target)
        loss.backward()
    optimiser.step()


def _off(process: Process, known: Points, asked: Points) -> np.ndarray:
    """Errors in the unit of each point: small ones late in a run count like large ones early."""
    process.observe(known)
    off = process.expected(asked.columns, asked.curve, asked.progress) - asked.target
    errors: np.ndarray = off / process.prior.of(asked.curve, asked.progress)[1]
    return errors


def _halves(points: Points, first: int, draw: np.random.Generator) -> tuple[Points, Points]:
    """``first`` points to observe (half of them where they are few) and at most ``JUDGED`` others."""
    order = draw.permutation(len(points.target))
    first = min(first, (len(order) + 1) // 2)
    return points.take(order[:first]), points.take(order[first : first + JUDGED] if len(order) > 1 else order)


def _few(points: Points, most: int, draw: np.random.Generator) -> Points:
    return points.take(draw.permutation(len(points.target))[:most])


def _inputs(columns: np.ndarray, curve: np.ndarray, progress: np.ndarray) -> Tensor:
    return _tensor(np.column_stack([columns, curve, progress]))


def _tensor(values: np.ndarray) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(values, np.float32))


@contextmanager
def _exact() -> Iterator[None]:
    """Cholesky factors at every size, and no word about the jitter that they need."""
    settings = gpytorch.settings
    with (
        warnings.catch_warnings(),
        settings.fast_computations(covar_root_decomposition=False, log_prob=False, solves=False),
        settings.max_cholesky_size(1_000_000),
    ):
        warnings.simplefilter("ignore", NumericalWarning)
        warnings.simplefilter("ignore", gpytorch.utils.warnings.GPInputWarning)
        yield
