"""FLOOR 3: what to run next; ours and the baselines behind one door. No torch."""

from __future__ import annotations

from foretune.recommenders.base import FAMILIES, Method, Recommender, Situation, make_plan
from foretune.recommenders.default import BATCH_SIZE, PublishedDefault
from foretune.records import Plan
from foretune.registry import find

RECOMMENDERS: dict[str, type[Recommender]] = {r.name: r for r in (PublishedDefault,)}

__all__ = [
    "BATCH_SIZE",
    "FAMILIES",
    "RECOMMENDERS",
    "Method",
    "PublishedDefault",
    "Recommender",
    "Situation",
    "make_plan",
    "plan",
]


def plan(situation: Situation, recommender: str = PublishedDefault.name) -> Plan:
    """What to run in ``situation``, best first, with what that rests on.

    Raises:
        UsageError: an unknown recommender or tuner.
        ResourceError: nothing fits the budget.
    """
    return make_plan(find("recommender", recommender, RECOMMENDERS)(situation))
