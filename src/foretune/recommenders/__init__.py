"""FLOOR 3: what to run next; ours and the baselines behind one door. No torch."""

from __future__ import annotations

from foretune.recommenders.base import Observation, Recommender, Trial, blank
from foretune.recommenders.default import Default
from foretune.recommenders.published import BATCH_SIZE, published
from foretune.recommenders.situation import FAMILIES, Method, Situation
from foretune.records import Plan

RECOMMENDERS: dict[str, type[Recommender]] = {r.name: r for r in (Default,)}

__all__ = [
    "BATCH_SIZE",
    "FAMILIES",
    "RECOMMENDERS",
    "Default",
    "Method",
    "Observation",
    "Recommender",
    "Situation",
    "Trial",
    "blank",
    "plan",
    "published",
]


def plan(situation: Situation) -> Plan:
    """What to run in ``situation``, best first, with what that rests on.

    Raises:
        UsageError: an unknown tuner.
        ResourceError: nothing fits the budget.
    """
    best, evidence = published(situation)
    if best.schedule.steps:
        evidence = (*evidence, "No score is foretold: no earlier run was consulted.")
    return Plan((best,), Default.name, evidence)
