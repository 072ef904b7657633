"""Candidates: scrambled Sobol points over tuner, the tuner's own space, and the schedule.

One point of the unit cube is one pipeline. Its first coordinate chooses the tuner, the next ones are read on the
dimensions of that tuner's ``Space``, each with its own scale, and the last ones are the schedule. What a tuner has no
use for is not read, which is all there is to conditions. The sequence is that of its seed (Owen scrambling, Joe and Kuo
directions, as scipy has them), so that a collection may take a piece of it today and the next one tomorrow.

The ranges are those of fine-tuning studies, for 16 to 2,000 rows: batches of 4 to 64; between one pass and 40, but at
least 20 steps, for on few rows a pass is too short a unit; linear, cosine and constant decay; warm-up over 0, 3 or 10 %
of the steps; weight decay 0, 0.01 or 0.1, none for soft prompts, which it would pull to zero; gradients clipped at 1
or not at all. A fresh head has a rate of its own beside the tuner's.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from foretune.errors import UsageError
from foretune.recommenders.published import EVALUATIONS, SOFT_PROMPTS
from foretune.recommenders.situation import Method, Situation
from foretune.records import Choice, Part, Real, Recommendation, Schedule, Space
from foretune.registry import find

FEWEST_STEPS, MOST_STEPS = 20, 2_000
PASSES = 40
"""Most passes over the rows, where that is more than ``LONG`` steps."""

LONG = 200
"""Steps that every task may take, however few its rows."""

BATCHES = (4, 8, 16, 32, 64)
HEAD_LR = Real(2e-4, 1e-2, log=True)

COURSE = Space(
    {
        "length": Real(0.0, 1.0),
        "batch_size": Choice(BATCHES),
        "decay": Choice(("linear", "cosine", "constant")),
        "warmup": Choice((0.0, 0.03, 0.1)),
        "weight_decay": Choice((0.0, 0.01, 0.1)),
        "clip": Choice((None, 1.0)),
        "head_lr": HEAD_LR,
    }
)
"""What a schedule is made of; ``length`` is where the steps lie between the fewest and the most, by their logarithm."""


def sample(
    situation: Situation,
    n: int,
    seed: int = 0,
    first: int = 0,
    *,
    steps: tuple[int, int] = (FEWEST_STEPS, MOST_STEPS),
    examples: int | None = None,
) -> list[Recommendation]:
    """``n`` candidates: the points ``first`` to ``first + n`` of the sequence of ``seed``.

    Args:
        situation: its methods that train are tried, or the one that its user chose; its rows bound batch and steps.
        seed: of the sequence: equal seeds and situations give equal candidates.
        first: how many points of the sequence are left out.
        steps: the fewest and the most optimizer steps.
        examples: the most that all steps read together, repeats counted: it bounds batch and steps; None: no end.

    Raises:
        UsageError: a negative ``n`` or ``first``, an unknown tuner, or none that trains anything.

    >>> from types import SimpleNamespace
    >>> from foretune.records import TaskCard
    >>> lora = SimpleNamespace(name="lora", lr=5e-4, space=Space({"lr": Real(1e-5, 1e-3, log=True)}))
    >>> card = TaskCard("reviews", "classification", {"train": 96}, classes=2)
    >>> now = Situation(card, "encoder", 22_700_000, {"lora": lora}, Part("head"))
    >>> first, second = sample(now, 2)
    >>> first.tuner.name, 1e-5 <= first.schedule.lr <= 1e-3, [second] == sample(now, 1, first=1)
    ('lora', True, True)
    """
    if n < 0 or first < 0:
        raise UsageError(f"`n >= 0` and `first >= 0` must hold, but got n={n}, first={first}.")
    if not 1 <= steps[0] <= steps[1]:
        raise UsageError(f"`1 <= fewest <= most` steps must hold, but got {steps[0]} and {steps[1]}.")
    methods = _methods(situation)
    dimensions = 1 + max(len(method.space.dimensions) for method in methods) + len(COURSE.dimensions)
    limits = Limits(*steps, examples)
    return [_candidate(situation, methods, point, limits) for point in _points(dimensions, n, seed, first)]


@dataclass(frozen=True)
class Limits:
    """How long a run may be: optimizer steps, and examples where there is a bound."""

    fewest: int
    most: int
    examples: int | None

    @property
    def batch(self) -> int:
        """The largest batch with which the fewest steps do not read more than ``examples``."""
        return BATCHES[-1] if self.examples is None else max(BATCHES[0], self.examples // self.fewest)

    def steps(self, u: float, rows: int, batch: int) -> int:
        """Steps at the quantile ``u`` between one pass and ``PASSES`` of them, within the limits."""
        epoch = math.ceil(rows / batch)
        most = self.most if self.examples is None else min(self.most, max(self.fewest, self.examples // batch))
        low = min(max(self.fewest, epoch), most)
        high = max(low, min(most, max(PASSES * epoch, LONG)))
        return round(Real(low, high, log=True).at(u))


def _methods(situation: Situation) -> list[Method]:
    """What is tried, in an order that does not depend on how the methods were listed."""
    if situation.tuner is not None:
        chosen = [find("tuner", situation.tuner, situation.methods)]
    else:
        chosen = [situation.methods[name] for name in sorted(situation.methods)]
    training = [method for method in chosen if method.lr > 0]
    if not training:
        named = ", ".join(f"`{method.name}`" for method in chosen) or "none"
        raise UsageError(f"candidates are runs of a tuner that trains something, but got {named}. Name one that does.")
    return training


def _points(dimensions: int, n: int, seed: int, first: int) -> np.ndarray:
    """``(n, dimensions)`` in [0, 1)."""
    return _sequence(dimensions, seed, max(first + n - 1, 0).bit_length())[first : first + n]


@lru_cache(maxsize=4)
def _sequence(dimensions: int, seed: int, power: int) -> np.ndarray:
    """The first ``2 ** power`` points: the number for which the sequence is balanced."""
    from scipy.stats import qmc

    points: np.ndarray = qmc.Sobol(dimensions, scramble=True, rng=np.random.default_rng(seed)).random_base2(power)
    points.setflags(write=False)
    return points


def _candidate(situation: Situation, methods: Sequence[Method], point: np.ndarray, limits: Limits) -> Recommendation:
    u = [float(value) for value in point]
    method: Method = Choice(tuple(methods)).at(u[0])
    own = _read(method.space, u[1:])
    course = _read(_course(min(situation.rows, limits.batch)), u[-len(COURSE.dimensions) :])
    lr, batch = own.pop("lr", method.lr), course.pop("batch_size")
    steps = limits.steps(course.pop("length"), situation.rows, batch)
    if method.name in SOFT_PROMPTS:
        course["weight_decay"] = 0.0
    if not _has_head(situation, method):
        course["head_lr"] = None
    schedule = Schedule(steps=steps, batch_size=batch, lr=lr, evaluations=min(EVALUATIONS, steps), **course)
    return Recommendation(Part(method.name, own), situation.objective, schedule)


def _course(most: int) -> Space:
    """``COURSE`` with batches of at most so many rows."""
    return COURSE | Space({"batch_size": Choice(tuple(size for size in BATCHES if size <= most) or (most,))})


def _read(space: Space, u: Sequence[float]) -> dict[str, Any]:
    """Each dimension at its own coordinate."""
    return {name: _short(each, each.at(x)) for (name, each), x in zip(space.dimensions.items(), u, strict=False)}


def _short(dimension: Real | Choice, value: Any) -> Any:
    """A number with three digits, for candidates are read and typed by people; as it is where that leaves its range."""
    if not isinstance(dimension, Real):
        return value
    short = float(f"{value:.3g}")
    return short if short in dimension else value


def _has_head(situation: Situation, method: Method) -> bool:
    return situation.fresh_head and situation.card.kind != "generation" and method.name != "head"
