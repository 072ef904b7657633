"""Teaching: what a teacher was asked before training, what it took, and how well it answers itself."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from foretune.records.plain import built


@dataclass(frozen=True)
class Teaching:
    """What happened before a student was trained; its seconds are no part of the run's own.

    Attributes:
        digest: identity of the questions: model, contexts, texts, temperature.
        texts: unlabelled texts that were answered.
        left_out: texts that were not used because they repeat a row of a split.
        shown: row numbers of the demonstrations of each context, in order.
        seconds, tokens: of the teacher's passes over the texts: what the student has to pay for, whenever it was.
        judged_seconds, judged_tokens: of the passes over the splits that are judged, for the two references.
        reused: the answers were there from an earlier run; nothing was computed.
        with_context: split -> metric -> score of the teacher with its demonstrations, the mean over contexts: the
            reference above.
        without_context: the same of the untrained model without any: the floor.
    """

    digest: str
    texts: int
    left_out: int
    shown: tuple[tuple[int, ...], ...]
    seconds: float
    tokens: int
    reused: bool = False
    with_context: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    without_context: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    judged_seconds: float = 0.0
    judged_tokens: int = 0

    @classmethod
    def from_json(cls, plain: Mapping[str, Any]) -> Teaching:
        """The inverse of ``dataclasses.asdict``; None for a number is NaN."""
        made: Teaching = built(cls, plain)
        return made
