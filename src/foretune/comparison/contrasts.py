"""Contrasts: every declared difference in one family, corrected as a whole, with the reason where nothing is claimed.

The family is every declared pair on every task with every number of shots; each out-of-domain set has one of its own,
and so have the means over tasks (``overall``).
Whoever looks at twenty differences and tells of the largest has looked at twenty; and whoever looks when three of the
twenty are finished will look again, so the family has twenty members from the first look on.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

import numpy as np

from foretune.comparison.answers import Floats
from foretune.comparison.evidence import Evidence, beside, common, differences, interval, measured, paired
from foretune.comparison.flags import forbids
from foretune.evaluation import Claim, Estimate, at_level, claims
from foretune.records.verdict import ALL, SCORE, CellResult, Contrast, Measured


@dataclass(frozen=True)
class Side:
    """A cell as evidence and as a result."""

    evidence: Evidence
    cell: CellResult


Key = tuple[str, str, int]
"""method, task, shots"""


def compare(
    sides: Mapping[Key, Side],
    pairs: Sequence[tuple[str, str]],
    grid: Sequence[tuple[str, int]],
    *,
    margin: float | None,
    alpha: float,
    split: str = "test",
    declared: int = 0,
) -> list[Contrast]:
    """One family: every pair in every cell of ``grid`` where both have a score on ``split``; of the test rows also
    where runs have ended and left one of them without a score, which is then said.

    Args:
        declared: how many contrasts the family will have once everything has run.
    """
    held = {
        (first, second, task, shots): (sides[first, task, shots], sides[second, task, shots])
        for task, shots in grid
        for first, second in pairs
        if (first, task, shots) in sides and (second, task, shots) in sides
    }
    found = {key: paired(a.evidence, b.evidence, split) for key, (a, b) in held.items()}
    differences = {key: difference for key, difference in found.items() if difference is not None}
    named = {"|".join(map(str, key)): difference for key, difference in differences.items()}
    family = claims(named, margin=margin, alpha=alpha, declared=declared)
    size, made = max(declared, len(family)), []
    for key, (a, b) in held.items():
        if split != "test" and not (a.evidence.means(split) and b.evidence.means(split)):
            continue
        claim = family.get("|".join(map(str, key)))
        made.append(_contrast(key, a, b, found[key], claim, split, size, margin, alpha))
    return made


def overall(
    sides: Mapping[Key, Side],
    pairs: Sequence[tuple[str, str]],
    tasks: Sequence[str],
    budgets: Sequence[int],
    *,
    margin: float | None,
    alpha: float,
    declared: int = 0,
) -> list[Contrast]:
    """A family of its own: the mean difference over all tasks, which are fixed and count alike. Only of pairs that meet
    on every task, with one metric and the same seeds.

    Rows of all tasks stand side by side in one table of seeds, each with the weight that makes the mean over rows the
    mean over tasks; so what a seed does to all tasks at once stays in the interval.
    """
    held: dict[str, tuple[list[tuple[Side, Side]], int]] = {}
    means: dict[str, Estimate] = {}
    for shots in budgets if len(tasks) > 1 else ():
        for first, second in pairs:
            met = [(sides.get((first, task, shots)), sides.get((second, task, shots))) for task in tasks]
            both = [(a, b) for a, b in met if a is not None and b is not None]
            mean = mean_over_tasks([differences(a.evidence, b.evidence) for a, b in both])
            if len(both) < len(tasks) or mean is None or len({a.evidence.metric for a, _ in both}) > 1:
                continue
            name = f"{first}|{second}|{shots}"
            held[name], means[name] = (both, shots), mean
    family = claims(means, margin=margin, alpha=alpha, declared=declared)
    return [
        Contrast(
            first=both[0][0].cell.method,
            second=both[0][1].cell.method,
            task=ALL,
            shots=shots,
            **_claimed(claim, means[name], alpha),
            contrasts=claim.contrasts,
            metric=both[0][0].evidence.metric,
            alpha=alpha,
            margin=margin,
            ratios=_mean_ratios([ratios(a.cell, b.cell) for a, b in both]),
            flags=tuple(f"{s.cell.method}: {f} ({s.cell.task})" for pair in both for s in pair for f in s.cell.flags),
            refused=next((why for a, b in both if (why := _silenced(a, b, "test")) is not None), None),
        )
        for name, claim in family.items()
        for both, shots in [held[name]]
    ]


def mean_over_tasks(found: Sequence[Floats | None]) -> Estimate | None:
    """Of differences as ``evidence.differences`` has them, one table for each task; None where one has none, or other
    seeds."""
    known = [each for each in found if each is not None]
    if not known or len(known) < len(found) or len({len(each) for each in known}) > 1:
        return None
    if any(each.ndim < 2 for each in known):
        return interval(np.mean([each.reshape(len(each), -1).mean(axis=1) for each in known], axis=0))
    rows = sum(each.shape[1] for each in known)
    return interval(np.concatenate([each * (rows / (len(known) * each.shape[1])) for each in known], axis=1))


def _mean_ratios(found: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """The geometric mean over tasks of each cost that all have."""
    names = [name for name in found[0] if all(each.get(name, 0.0) > 0 for each in found)]
    return {name: math.exp(fmean(math.log(each[name]) for each in found)) for name in names}


def _claimed(claim: Claim, difference: Estimate, alpha: float) -> dict[str, Any]:
    return {
        "difference": measured(claim.difference),
        "p": math.nan if difference.p is None else difference.p,
        "adjusted_p": claim.p,
        "detectable": claim.detectable,
        "unadjusted": measured(at_level(difference, 1 - alpha)),
        "equivalence_p": claim.equivalence_p,
    }


def _silenced(first: Side, second: Side, split: str) -> str | None:
    """Why nothing is claimed, whatever the figures are."""
    _, absent = common(first.evidence, second.evidence, split)
    silent = next((side.cell.method for side in (first, second) if not side.evidence.means(split)), None)
    return absent or (f"{silent} has no score" if silent else _forbidden(first.cell, second.cell))


def _contrast(
    key: tuple[str, str, str, int],
    first: Side,
    second: Side,
    difference: Estimate | None,
    claim: Claim | None,
    split: str,
    family: int,
    margin: float | None,
    alpha: float,
) -> Contrast:
    names, task, shots = key[:2], key[2], key[3]
    fields: dict[str, Any] = {
        "first": names[0],
        "second": names[1],
        "task": task,
        "shots": shots,
        "contrasts": family,
        "metric": first.evidence.metric,
        "measure": SCORE if split == "test" else split,
        "alpha": alpha,
        "margin": margin,
        "ratios": ratios(first.cell, second.cell),
        "flags": tuple(f"{side.cell.method}: {flag}" for side in (first, second) for flag in side.cell.flags),
        "others": beside(first.evidence, second.evidence, split),
        "refused": _silenced(first, second, split),
    }
    if claim is None or difference is None:
        lone = _lone(first.evidence, second.evidence, split)
        return Contrast(**fields, difference=lone, p=math.nan, adjusted_p=math.nan, detectable=math.nan)
    return Contrast(**fields, **_claimed(claim, difference, alpha))


def ratios(first: CellResult, second: CellResult) -> dict[str, float]:
    """Cost -> first over second, of what both have and the second has more than nothing of."""
    sides = [
        {
            "seconds": cell.spent.learning_seconds,
            "peak_bytes": cell.spent.peak_bytes,
            "trainable_parameters": cell.spent.trainable_parameters,
        }
        for cell in (first, second)
    ]
    return {name: a / b for name, a in sides[0].items() if (b := sides[1][name]) and a is not None}


def _forbidden(first: CellResult, second: CellResult) -> str | None:
    for cell in (first, second):
        flag = forbids(cell.flags)
        if flag is not None:
            return f"{cell.method}: {flag}"
    return None


def _lone(first: Evidence, second: Evidence, split: str) -> Measured:
    """The difference of means where fewer than two seeds are common: a number, without an interval."""
    seeds, _ = common(first, second, split)
    a, b = first.means(split), second.means(split)
    sign = 1.0 if first.greater else -1.0
    value = math.nan
    if seeds and a and b:
        one, two = (side.get(seeds[0], next(iter(side.values()))) for side in (a, b))
        value = sign * (one - two)
    return Measured(value, n_seeds=len(seeds))
