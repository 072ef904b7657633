"""Recommend, train, report as one job: where the wing that does and the wing that advises are joined for a user."""

from foretune.pipeline.comparison import Comparison, compare
from foretune.pipeline.draft import Draft, prepare_plan, recommend
from foretune.pipeline.options import TuneOptions, make_options
from foretune.pipeline.replay import replay
from foretune.pipeline.result import Result, load
from foretune.pipeline.tune import tune

__all__ = [
    "Comparison",
    "Draft",
    "Result",
    "TuneOptions",
    "compare",
    "load",
    "make_options",
    "prepare_plan",
    "recommend",
    "replay",
    "tune",
]
