"""Recommender: what to run next. The published default and, later, learned ones stand behind one door.

``ask`` gives a ``Recommendation`` rather than a whole ``RunConfig``: which rows, checkpoint and seeds is for
the user to say, and a recommender that could change them could also cheat with them. What is left, tuner, objective and
schedule, is what ``Plan`` ranks, prints and stores; with the user's part it becomes the ``RunConfig``.

The memory wing loads no torch, so a recommender never imports the tuners. It is handed their names and default rates
(``Method``), which also lets it recommend a tuner of another package.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Protocol

from foretune.errors import UsageError
from foretune.records import Part, Plan, Recommendation, RunRecord, TaskCard

FAMILIES = ("encoder", "decoder", "encoder-decoder")


class Method(Protocol):
    """What a recommender knows of a tuner; the classes in ``foretune.tuners.TUNERS`` have it."""

    @property
    def name(self) -> str:
        """What records and the command line call it."""

    @property
    def lr(self) -> float:
        """Its default peak learning rate; 0 where it trains nothing."""


@dataclass(frozen=True)
class Situation:
    """What is known before anything is trained.

    Attributes:
        card: the task, without its data; ``card.rows["train"]`` is what the optimizer will see (dev is taken off).
        family: one of ``FAMILIES``.
        parameters: of the checkpoint.
        methods: tuner name -> tuner class: what may be recommended.
        objective: what is minimised; the task's kind decides it.
        tuner: the user's own choice; None leaves it to the recommender.
        budget_seconds: for optimizer steps alone, loading, floors and evaluation taken off. None = no limit.
        fresh_head: whether a head of the task's own starts at random.
        seconds_per_step: of one optimizer step of the recommended batch, measured or estimated. None = not known yet:
            plan once without it, measure that plan's batch, plan again.
    """

    card: TaskCard
    family: str
    parameters: int
    methods: Mapping[str, Method]
    objective: Part
    tuner: str | None = None
    budget_seconds: float | None = None
    seconds_per_step: float | None = None
    fresh_head: bool = True

    def __post_init__(self) -> None:
        if self.family not in FAMILIES:
            raise UsageError(f"a model's family must be one of {', '.join(FAMILIES)}, but got `{self.family}`.")
        if self.rows < 1:
            raise UsageError(f"a task needs at least 1 training row, but `{self.card.name}` has {self.rows}.")
        for name in ("budget_seconds", "seconds_per_step"):
            value = vars(self)[name]
            if value is not None and not value > 0:
                raise UsageError(f"`{name} > 0` must hold, but got {name}={value}.")

    @property
    def rows(self) -> int:
        """Training rows."""
        return self.card.rows.get("train", 0)


class Recommender(ABC):
    """Says what to run next in one situation, and may learn from what came of it.

    Attributes:
        name: what plans, the command line and the registry call it.
    """

    name: ClassVar[str]

    def __init__(self, situation: Situation) -> None:
        self.situation = situation

    @abstractmethod
    def ask(self) -> Recommendation | None:
        """The next pipeline to run; None when there is nothing further to say.

        Raises:
            UsageError: the user's own choice cannot be.
            ResourceError: nothing fits the budget.
        """

    @abstractmethod
    def tell(self, record: RunRecord) -> None:
        """Hear of a finished run of any status. Test and out-of-domain scores in it are not to be read."""

    @property
    @abstractmethod
    def evidence(self) -> tuple[str, ...]:
        """What the answers so far rest on, one sentence each."""


def make_plan(recommender: Recommender, limit: int = 10) -> Plan:
    """What ``recommender`` would run, best first, before anything is run: at most ``limit`` pipelines.

    Raises:
        UsageError: it has nothing to recommend.
    """
    ranked: list[Recommendation] = []
    while len(ranked) < limit and (recommendation := recommender.ask()) is not None:
        ranked.append(recommendation)
    if not ranked:
        raise UsageError(f"the recommender `{recommender.name}` has nothing to say here. Name a method with --tuner.")
    return Plan(tuple(ranked), recommender.name, recommender.evidence)
