"""Contrasts: every declared difference in one family, corrected as a whole, with the reason where nothing is claimed.

The family is every declared pair on every task with every number of shots; each out-of-domain set has one of its own.
Whoever looks at twenty differences and tells of the largest has looked at twenty; and whoever looks when three of the
twenty are finished will look again, so the family has twenty members from the first look on.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from foretune.comparison.evidence import Evidence, beside, common, measured, paired
from foretune.comparison.flags import forbids
from foretune.evaluation import Claim, Estimate, at_level, claims
from foretune.records.verdict import SCORE, CellResult, Contrast, Measured


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
    _, absent = common(first.evidence, second.evidence, split)
    silent = next((side.cell.method for side in (first, second) if not side.evidence.means(split)), None)
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
        "refused": absent or (f"{silent} has no score" if silent else _forbidden(first.cell, second.cell)),
    }
    if claim is None or difference is None:
        lone = _lone(first.evidence, second.evidence, split)
        return Contrast(**fields, difference=lone, p=math.nan, adjusted_p=math.nan, detectable=math.nan)
    return Contrast(
        **fields,
        difference=measured(claim.difference),
        p=math.nan if difference.p is None else difference.p,
        adjusted_p=claim.p,
        detectable=claim.detectable,
        unadjusted=measured(at_level(difference, 1 - alpha)),
        equivalence_p=claim.equivalence_p,
    )


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
