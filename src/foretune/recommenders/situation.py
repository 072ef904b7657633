"""Situation: what is known before anything is trained, as a recommender is told of it.

The memory wing loads no torch, so no recommender imports the tuners. It is handed their names, default rates and spaces
(``Method``), which also lets it recommend a tuner of another package.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

from foretune.errors import UsageError
from foretune.records import MetaTask, ModelRef, Part, Recommendation, Space, TaskCard

FAMILIES = ("encoder", "decoder", "encoder-decoder")


class Method(Protocol):
    """What a recommender knows of a tuner; the classes in ``foretune.tuners.TUNERS`` have it."""

    @property
    def name(self) -> str:
        """What records and the command line call it."""

    @property
    def lr(self) -> float:
        """Its default peak learning rate; 0 where it trains nothing."""

    @property
    def space(self) -> Space:
        """The hyperparameters it offers, learning rate included."""


def _as_it_is(pipeline: Recommendation) -> Recommendation:
    return pipeline


@dataclass(frozen=True)
class Measured:
    """What a few steps of a pipeline took on this machine: the scale of every other pipeline's seconds.

    Attributes:
        of: the pipeline that was timed.
        step_seconds: of one of its optimizer steps.
        around_seconds: of a run beside its steps: loading, evaluation, floors.
        bytes: its peak memory.
    """

    of: Recommendation
    step_seconds: float
    around_seconds: float = 0.0
    bytes: int | None = None


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
        task: the task and its model as past runs describe theirs; None where no past run is to be consulted.
        settle: lays what the user has fixed over a pipeline, so that every candidate is what would be run.
        pooling, max_length, pretrained_further: as in the plain settings of past runs.
        measured: None until steps were timed here.
        memory_bytes: what this machine can give; None = not known, so nothing is ruled out.
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
    task: MetaTask | None = None
    settle: Callable[[Recommendation], Recommendation] = _as_it_is
    pooling: str = ModelRef("").pooling
    max_length: int = ModelRef("").max_length
    pretrained_further: bool = False
    measured: Measured | None = None
    memory_bytes: int | None = None

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
