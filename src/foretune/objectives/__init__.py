"""FLOOR 2: what is minimised and how one predicts."""

from __future__ import annotations

from foretune.errors import UsageError
from foretune.objectives.base import Encoded, Objective
from foretune.objectives.choice import MultipleChoice
from foretune.objectives.distillation import Distillation
from foretune.objectives.head import Head
from foretune.objectives.language import Language
from foretune.objectives.pattern import PatternObjective
from foretune.objectives.regression import Regression
from foretune.objectives.response import Response
from foretune.records import Part
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
    """
    from pydantic import TypeAdapter, ValidationError

    cls = find("objective", part.name, OBJECTIVES)
    try:
        return TypeAdapter(cls).validate_python(dict(part.options))
    except ValidationError as error:
        first = error.errors()[0]
        if "error" in first.get("ctx", {}):
            raise UsageError(str(first["ctx"]["error"])) from error
        where = ".".join(str(place) for place in first["loc"])
        raise UsageError(
            f"`{where}` of the objective `{part.name}`: {first['msg']}, but got {first['input']!r}."
        ) from error


def for_kind(kind: str) -> str:
    """The name of the default objective for a kind of task.

    >>> for_kind("classification"), for_kind("generation")
    ('head', 'response')
    """
    return next(name for name, objective in OBJECTIVES.items() if kind in objective.kinds)
