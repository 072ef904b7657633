"""Standings: what may be said of recommenders that raced on the same tasks. Arithmetic on regrets, no words.

Tasks of one group (label budgets of one source, copies) are no independent witnesses: they are averaged first, and
the ``n`` of every mean, interval and p counts groups. Randomness of the recommender is averaged over its seeds before
tasks are compared, and shown apart as the spread of the seeds' means.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from foretune.evaluation import holm, mcnemar, wilcoxon
from foretune.evaluation.resampling import seed_bootstrap

DRAWS = 10_000


@dataclass(frozen=True)
class Standing:
    """One recommender at one budget, in normalised regret: 0 is the best of the pool, 1 among its worst twentieth.

    Attributes:
        entry: the recommender, and the control it ran under.
        budget: full-run equivalents.
        mean: over groups of tasks and seeds.
        spread: standard deviation of the mean over the recommender's seeds; NaN with one seed.
        worst_task, worst: where the mean over seeds is largest.
        behind_task, behind: where it is farthest above the default's regret, and by how much; empty and NaN where no
            default is known.
        hindsight: the mean had the best of what was run been chosen on test.
        missing: share of races without an incumbent at this budget; they count as 1.
    """

    entry: str
    budget: float
    mean: float
    spread: float
    worst_task: str
    worst: float
    behind_task: str
    behind: float
    hindsight: float
    missing: float


@dataclass(frozen=True)
class Pairing:
    """First minus second in normalised regret at one budget: below 0 the first is better.

    Attributes:
        n: groups of tasks.
        difference, low, high: the mean, and the 95 % percentile bootstrap over groups; NaN ends with one group.
        wins, losses: groups on which the first is better, or worse.
        sign_p, wilcoxon_p: two-sided, each for itself.
        holm_p: Wilcoxon's, adjusted for all pairings of the replay.
        below_noise: whether the difference is smaller than what a seed alone does; None where that is not known.
    """

    first: str
    second: str
    budget: float
    n: int
    difference: float
    low: float
    high: float
    wins: int
    losses: int
    sign_p: float
    wilcoxon_p: float
    below_noise: bool | None
    holm_p: float = math.nan


def by_group(values: np.ndarray, groups: Sequence[str]) -> np.ndarray:
    """``(tasks, ...)`` averaged within each group, ``(groups, ...)``, in the order of first appearance.

    >>> by_group(np.array([1.0, 3.0, 5.0]), ["a", "a", "b"]).tolist()
    [2.0, 5.0]
    """
    names = np.array(groups, object)
    return np.stack([values[names == name].mean(axis=0) for name in dict.fromkeys(groups)])


def standing(
    entry: str,
    budget: float,
    regrets: np.ndarray,
    *,
    hindsight: np.ndarray,
    missing: float,
    tasks: Sequence[str],
    groups: Sequence[str],
    default: np.ndarray | None,
) -> Standing:
    """The standing of an entry.

    Args:
        regrets, hindsight: ``(tasks, seeds)``.
        default: ``(tasks,)`` regrets of the default.
    """
    means, over_seeds = regrets.mean(axis=1), by_group(regrets, groups).mean(axis=0)
    worst = int(means.argmax())
    behind = None if default is None else int((means - default).argmax())
    return Standing(
        entry,
        budget,
        mean=float(over_seeds.mean()),
        spread=float(over_seeds.std(ddof=1)) if len(over_seeds) > 1 else math.nan,
        worst_task=tasks[worst],
        worst=float(means[worst]),
        behind_task="" if behind is None else tasks[behind],
        behind=math.nan if behind is None or default is None else float(means[behind] - default[behind]),
        hindsight=float(by_group(hindsight, groups).mean()),
        missing=missing,
    )


def pairing(
    names: tuple[str, str],
    budget: float,
    first: np.ndarray,
    second: np.ndarray,
    groups: Sequence[str],
    noise: float | None,
) -> Pairing:
    """Compare two entries, ``(tasks,)`` regrets each."""
    one, two = by_group(first, groups), by_group(second, groups)
    differences = np.round(one - two, 9)
    low, high = math.nan, math.nan
    if len(differences) > 1:
        drawn = seed_bootstrap(differences, seed=0, draws=DRAWS)
        low, high = drawn.low, drawn.high
    wins, losses = int((differences < 0).sum()), int((differences > 0).sum())
    return Pairing(
        *names,
        budget,
        n=len(differences),
        difference=float(differences.mean()),
        low=low,
        high=high,
        wins=wins,
        losses=losses,
        sign_p=mcnemar(differences < 0, differences > 0).p,
        wilcoxon_p=wilcoxon(one, two).p,
        below_noise=None if noise is None else abs(float(differences.mean())) < noise,
    )


def adjusted(pairings: Sequence[Pairing]) -> tuple[Pairing, ...]:
    """The same, each with what its p is worth among so many."""
    found = holm([each.wilcoxon_p for each in pairings])
    return tuple(replace(each, holm_p=value.p) for each, value in zip(pairings, found, strict=True))
