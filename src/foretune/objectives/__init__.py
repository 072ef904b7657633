"""FLOOR 2: what is minimised and how one predicts."""

from __future__ import annotations

from dataclasses import fields

from foretune.objectives.base import Encoded, Objective
from foretune.objectives.choice import MultipleChoice
from foretune.objectives.distillation import Distillation
from foretune.objectives.head import Head
from foretune.objectives.language import Language
from foretune.objectives.pattern import PatternObjective
from foretune.objectives.regression import Regression
from foretune.objectives.response import Response
from foretune.records import Part
from foretune.records.reading import require_known, typed
from foretune.registry import find

OBJECTIVES: dict[str, type[Objective]] = {
    o.name: o for o in (Head, Regression, MultipleChoice, Response, PatternObjective, Distillation, Language)
}

__all__ = ["OBJECTIVES", "Encoded", "Objective", "for_kind", "make"]


def make(part: Part) -> Objective:
    """Build the objective that ``part`` names; its options are validated against the class.

    Raises:
        UsageError: an unknown name or option, or an option of the wrong type.

    >>> make(Part("head", {"label_smoothing": 0.1}))
    Head(label_smoothing=0.1)
    >>> make(Part("head", {"label_smothing": 0.1}))
    Traceback (most recent call last):
    foretune.errors.UsageError: `label_smothing` is not a field of the objective `head`. Did you mean \
`label_smoothing`? Known: label_smoothing.
    """
    cls = find("objective", part.name, OBJECTIVES)
    what = f"the objective `{part.name}`"
    require_known(part.options, [field.name for field in fields(cls)], what)
    return typed(cls, part.options, what)


def for_kind(kind: str) -> str:
    """The name of the default objective for a kind of task.

    >>> for_kind("classification"), for_kind("generation")
    ('head', 'response')
    """
    return next(name for name, objective in OBJECTIVES.items() if kind in objective.kinds)
