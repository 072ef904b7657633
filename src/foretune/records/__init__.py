"""GROUND: the words that both wings of the house use. Standard library only, no torch."""

from foretune.records.card import TaskCard
from foretune.records.config import KINDS, ModelRef, Part, RunConfig, Schedule, Seeds, TaskRef, digest
from foretune.records.cost import Cost
from foretune.records.curve import LearningCurve, Point
from foretune.records.landscape import Landscape, Place
from foretune.records.plan import Plan, Recommendation
from foretune.records.record import FORMAT, STATUSES, Evaluation, Gap, RunRecord
from foretune.records.space import Choice, Real, Space

__all__ = [
    "FORMAT",
    "KINDS",
    "STATUSES",
    "Choice",
    "Cost",
    "Evaluation",
    "Gap",
    "Landscape",
    "LearningCurve",
    "ModelRef",
    "Part",
    "Place",
    "Plan",
    "Point",
    "Real",
    "Recommendation",
    "RunConfig",
    "RunRecord",
    "Schedule",
    "Seeds",
    "Space",
    "TaskCard",
    "TaskRef",
    "digest",
]
