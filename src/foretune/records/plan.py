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
        score, interval: of the task's metric on dev.
        seconds: of the whole run: set-up, training, evaluation and floors.
        bytes: peak memory above the idle process.
        p_fail: chance that the run diverges or runs out of memory; None also where no earlier run did.
        measured: whether ``seconds`` rest on steps that were timed on this machine, and not on other machines' runs.
        origin: ``default`` (published), ``portfolio`` (ran before, elsewhere) or ``sampled``; empty where not said.
    """

    tuner: Part
    objective: Part
    schedule: Schedule
    score: float | None = None
    interval: tuple[float, float] | None = None
    seconds: float | None = None
    bytes: int | None = None
    p_fail: float | None = None
    measured: bool = False
    origin: str = ""

    @property
    def bare(self) -> Recommendation:
        """The pipeline without its expectation."""
        return Recommendation(self.tuner, self.objective, self.schedule)

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
        evidence: sentences: which rule decided, and what that rests on.
        details: further sentences, for whoever asks: the nearest earlier tasks, where published numbers are from.
        mode: how the recommender was asked to choose; empty where it knows one way only.
        tied: so many of the first are expected to differ by less than a repetition with another seed does.
    """

    ranked: tuple[Recommendation, ...]
    recommender: str
    evidence: tuple[str, ...] = field(default=())
    details: tuple[str, ...] = field(default=())
    mode: str = ""
    tied: int = 1

    @property
    def best(self) -> Recommendation:
        """The first of the ranking."""
        return self.ranked[0]

    @property
    def default(self) -> Recommendation | None:
        """The published default among the ranked, with its own expectation."""
        return next((r for r in self.ranked if r.origin == "default"), None)

    def to_json(self) -> dict[str, Any]:
        """Plain dicts and lists, ready for ``json.dumps``."""
        return asdict(self)

    @classmethod
    def from_json(cls, plain: Mapping[str, Any]) -> Plan:
        """The inverse of ``to_json``; plans from before a field existed have its default."""
        ranked = tuple(
            Recommendation(
                tuner=Part(**r["tuner"]),
                objective=Part(**r["objective"]),
                schedule=Schedule(**r["schedule"]),
                score=r["score"],
                interval=tuple(r["interval"]) if r["interval"] else None,
                seconds=r["seconds"],
                bytes=r["bytes"],
                p_fail=r.get("p_fail"),
                measured=r.get("measured", False),
                origin=r.get("origin", ""),
            )
            for r in plain["ranked"]
        )
        return cls(
            ranked,
            plain["recommender"],
            tuple(plain["evidence"]),
            tuple(plain.get("details", ())),
            plain.get("mode", ""),
            plain.get("tied", 1),
        )
