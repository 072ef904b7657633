"""Plan: what is recommended, what it should give, and what that rests on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from foretune.records.config import Part, Schedule


@dataclass(frozen=True)
class Recommendation:
    """One pipeline with its expectation; None where there is no ground to say a number.

    Attributes:
        score, interval: of the task's metric.
        seconds: of the whole run: set-up, training, evaluation and floors.
        bytes: peak memory above the idle process.
    """

    tuner: Part
    objective: Part
    schedule: Schedule
    score: float | None = None
    interval: tuple[float, float] | None = None
    seconds: float | None = None
    bytes: int | None = None

    @property
    def config(self) -> dict[str, Any]:
        """Tuner, objective and schedule as plain data, for printing or YAML."""
        return {"tuner": asdict(self.tuner), "objective": asdict(self.objective), "schedule": asdict(self.schedule)}


@dataclass(frozen=True)
class Plan:
    """The ranked recommendations, best first.

    Attributes:
        ranked: at least one.
        recommender: the name of the rule that ranked them.
        evidence: sentences and, where there are any, the earlier runs this rests on.
    """

    ranked: tuple[Recommendation, ...]
    recommender: str
    evidence: tuple[str, ...] = field(default=())

    @property
    def best(self) -> Recommendation:
        """The first of the ranking."""
        return self.ranked[0]

    def to_json(self) -> dict[str, Any]:
        """Plain dicts and lists, ready for ``json.dumps``."""
        return asdict(self)

    @classmethod
    def from_json(cls, plain: Mapping[str, Any]) -> Plan:
        """The inverse of ``to_json``."""
        ranked = tuple(
            Recommendation(
                tuner=Part(**r["tuner"]),
                objective=Part(**r["objective"]),
                schedule=Schedule(**r["schedule"]),
                score=r["score"],
                interval=tuple(r["interval"]) if r["interval"] else None,
                seconds=r["seconds"],
                bytes=r["bytes"],
            )
            for r in plain["ranked"]
        )
        return cls(ranked, plain["recommender"], tuple(plain["evidence"]))
