"""Thresholds: what the specification asks of rows of a replay, beside what was found.

Each is of one collection (empty: of all but those that have one of their own), of one kind of race and of one
recommender. The report prints those whose row was raced, met or not; a replay that raced no such row says nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from foretune.comparison.replay.entries import DEFAULT
from foretune.comparison.replay.standings import Standing
from foretune.comparison.replay.unraced import RANDOM

HELD = 0.95
"""Share of tasks on which a recommendation is not worse than the published default by more than noise (check 11)."""


@dataclass(frozen=True)
class Limit:
    """The largest mean regret of ``entry`` at ``budget`` full runs that a check allows."""

    check: int
    collection: str
    unseen: bool
    entry: str
    budget: float
    most: float


LIMITS = (
    Limit(3, "taskset", False, "portfolio", 1.0, 0.10),
    Limit(3, "taskset", False, "portfolio", 2.0, 0.03),
    Limit(3, "taskset", True, "transfer", 1.0, 0.20),
    Limit(3, "taskset", True, "transfer", 2.0, 0.13),
    Limit(6, "taskset", True, "transfer:mode=grey-box", 1.0, 0.30),
    Limit(6, "taskset", True, "transfer:mode=grey-box", 2.0, 0.25),
)

OURS = "transfer"
"""Of whom check 11 and the second half of check 3 speak, in any collection."""


@dataclass(frozen=True)
class Threshold:
    """One threshold and what was found.

    Attributes:
        asked, found: in words.
    """

    check: int
    entry: str
    budget: float
    asked: str
    found: str
    met: bool


def thresholds(
    settings: Mapping[str, object],
    standings: Sequence[Standing],
    regrets: Mapping[str, np.ndarray],
    noise: float,
) -> tuple[Threshold, ...]:
    """What the specification asks of these rows.

    Args:
        settings: of the replay.
        regrets: entry -> ``(tasks, seeds, budgets)``.
        noise: of a repetition, in normalised regret; 0 where it is not known.
    """
    rows = {(row.entry, row.budget): row for row in standings}
    if settings["protocol"] != "leave-one-task-out" or settings["unit"] != "runs":
        return ()
    here = str(settings["collection"])
    made = [
        Threshold(
            each.check, each.entry, each.budget, f"at most {each.most:.2f}", f"{row.mean:.3f}", row.mean <= each.most
        )
        for each in LIMITS
        if (each.collection, each.unseen) == (here, settings["unseen"])
        and (row := rows.get((each.entry, each.budget))) is not None
    ]
    ours, random = rows.get((OURS, 1.0)), rows.get((RANDOM, 1.0))
    if ours is not None and random is not None and here not in {each.collection for each in LIMITS}:
        asked = f"below random search, {random.mean:.3f}"
        made.append(Threshold(3, OURS, 1.0, asked, f"{ours.mean:.3f}", ours.mean < random.mean))
    if ours is not None and DEFAULT in regrets:
        at = sorted({row.budget for row in standings}).index(1.0)
        behind = (regrets[OURS] - regrets[DEFAULT])[..., at].mean(axis=1)
        share = float((behind <= noise).mean())
        asked = f"not worse than the default by more than noise on {HELD:.0%} of the tasks"
        made.append(Threshold(11, OURS, 1.0, asked, f"{share:.0%}", share >= HELD))
    return tuple(made)
