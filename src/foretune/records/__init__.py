"""GROUND: the words that both wings of the house use. Standard library only, no torch."""

from foretune.records.card import ModelCard, TaskCard
from foretune.records.config import (
    KINDS,
    UNLABELLED,
    HeldTexts,
    ModelRef,
    Part,
    RunConfig,
    Schedule,
    Seeds,
    TaskRef,
    digest,
)
from foretune.records.cost import Cost
from foretune.records.curve import LearningCurve, Point
from foretune.records.displacement import OUTSIDE, Displacement, Share, Spread
from foretune.records.estimate import Estimate
from foretune.records.forgetting import Forgetting
from foretune.records.landscape import Flatness, Landscape, Place
from foretune.records.meta import DIRECTIONS, OUTCOMES, SUCCESSES, Line, MetaRun, MetaTask, RunCollection, Value
from foretune.records.paper import PaperReference
from foretune.records.plan import Plan, Recommendation
from foretune.records.record import FORMAT, STATUSES, Evaluation, Gap, RunRecord
from foretune.records.space import Choice, Real, Space
from foretune.records.stage import Stage
from foretune.records.teaching import Teaching
from foretune.records.verdict import (
    ALL,
    SCORE,
    CellResult,
    CellRun,
    Contrast,
    Front,
    FrontPoint,
    Measured,
    MissingCell,
    OtherTests,
    Outside,
    OutsidePart,
    Ranking,
    Spent,
    Summary,
    Tuning,
    Verdict,
)

__all__ = [
    "ALL",
    "DIRECTIONS",
    "FORMAT",
    "KINDS",
    "OUTCOMES",
    "OUTSIDE",
    "SCORE",
    "STATUSES",
    "SUCCESSES",
    "UNLABELLED",
    "CellResult",
    "CellRun",
    "Choice",
    "Contrast",
    "Cost",
    "Displacement",
    "Estimate",
    "Evaluation",
    "Flatness",
    "Forgetting",
    "Front",
    "FrontPoint",
    "Gap",
    "HeldTexts",
    "Landscape",
    "LearningCurve",
    "Line",
    "Measured",
    "MetaRun",
    "MetaTask",
    "MissingCell",
    "ModelCard",
    "ModelRef",
    "OtherTests",
    "Outside",
    "OutsidePart",
    "PaperReference",
    "Part",
    "Place",
    "Plan",
    "Point",
    "Ranking",
    "Real",
    "Recommendation",
    "RunCollection",
    "RunConfig",
    "RunRecord",
    "Schedule",
    "Seeds",
    "Share",
    "Space",
    "Spent",
    "Spread",
    "Stage",
    "Summary",
    "TaskCard",
    "TaskRef",
    "Teaching",
    "Tuning",
    "Value",
    "Verdict",
    "digest",
]
