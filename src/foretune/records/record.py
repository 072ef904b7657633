"""RunRecord: what happened. A failed or stopped run is a record with a status, never a score of 0 and never dropped."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from foretune.records.card import ModelCard, TaskCard
from foretune.records.config import Part, RunConfig
from foretune.records.cost import Cost
from foretune.records.curve import LearningCurve
from foretune.records.displacement import Displacement
from foretune.records.forgetting import Forgetting
from foretune.records.landscape import Landscape
from foretune.records.plain import built, finite
from foretune.records.stage import Stage
from foretune.records.teaching import Teaching

FORMAT = 1
"""The version of the record's JSON. A change adds a function to ``store/upgrade.py`` and raises this by one; an
optional field, left out of the JSON where it has no value, is no change."""

OPTIONAL = frozenset(
    ("model", "landscape", "displacement", "stage", "teaching", "forgetting", "stock_refusal", "sample", "tuner")
)
"""The fields of a record that its JSON lacks where they have no value."""

HELD = frozenset(("curve", "cost", "evaluations", "floors", "gaps", "labels", "notes", "warnings"))
"""The fields that a record's JSON has even when they are empty: without one of them it is no whole record."""

STATUSES = ("running", "ok", "stopped", "failed", "diverged", "oom")


@dataclass(frozen=True)
class Evaluation:
    """One split judged once: ``n`` examples, metric -> value, metric -> 95 % interval over examples."""

    n: int
    scores: Mapping[str, float] = field(default_factory=dict)
    intervals: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    flags: tuple[str, ...] = ()


@dataclass(frozen=True)
class Gap:
    """In-domain minus out-of-domain score of one metric, with the 95 % interval of the difference."""

    name: str
    metric: str
    value: float
    low: float
    high: float


@dataclass(frozen=True)
class RunRecord:
    """What happened in one run.

    Attributes:
        config: what was asked; ``config.digest`` is the record's key.
        status: one of ``STATUSES``.
        metric: the task's own metric, by which the checkpoint was chosen on dev.
        card, model: what is known of the task and of the model; None where the run ended before.
        evaluations: split (``dev``, ``test``, ``ood:NAME``) -> evaluation at the chosen step. Test and ood entries are
            read by the report and the verdict alone.
        floors: floor name (``majority``, ``tfidf``, ``embedding``) -> split -> evaluation.
        gaps: one per out-of-domain set.
        landscape: dev scores over the space that the tuner trained, where it has one; read by the report alone.
        displacement: where and how far the tuner moved the base's own weights, where it can say; read by the report.
        stage: what training on unlabelled texts before the task took and did; None where there was none.
        teaching: what a teacher was asked and how it scores itself; None where there was none.
        forgetting: the language model's loss on held texts, before and after; None where it was not asked for.
        chosen_step: the step whose weights were kept; ``steps_done`` the last step that ran.
        temperature: fitted on dev; the logits are divided by it.
        stock_refusal: why stock PEFT would not compute what was evaluated from what the tuner saved; None where it
            does. Read by the model card.
        initial_hash: hash of the trainable weights before the first step.
        sample: hash of the rows that were drawn: train, dev and test.
        tuner: the tuner with every option, those that nobody gave included; None where the run ended before, and in
            records from before it was kept.
        labels: class names in the order of the logits; empty for other kinds.
        surroundings: versions, device, threads, host kind: what a rerun needs to know.
        notes: what a reader should know (rows cut, duplicates, budget), one sentence each.
        warnings: what a reader must know, one sentence each.
        error: type and message, when the status is not ``ok``.
    """

    config: RunConfig
    status: str
    metric: str = "accuracy"
    card: TaskCard | None = None
    curve: LearningCurve = field(default_factory=LearningCurve)
    cost: Cost = field(default_factory=Cost)
    evaluations: Mapping[str, Evaluation] = field(default_factory=dict)
    floors: Mapping[str, Mapping[str, Evaluation]] = field(default_factory=dict)
    gaps: tuple[Gap, ...] = ()
    model: ModelCard | None = None
    landscape: Landscape | None = None
    displacement: Displacement | None = None
    stage: Stage | None = None
    teaching: Teaching | None = None
    forgetting: Forgetting | None = None
    chosen_step: int | None = None
    steps_done: int = 0
    temperature: float | None = None
    stock_refusal: str | None = None
    initial_hash: str | None = None
    sample: str | None = None
    tuner: Part | None = None
    labels: tuple[str, ...] = ()
    surroundings: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    error: str | None = None
    started: str = ""
    finished: str = ""
    format: int = FORMAT

    @property
    def digest(self) -> str:
        """The identity of the run this record tells of."""
        return self.config.digest

    def to_json(self) -> dict[str, Any]:
        """Plain dicts and lists, ready for ``json.dumps``; NaN and infinity become None."""
        plain: dict[str, Any] = finite(asdict(self))
        plain["config"] = self.config.to_json()
        if plain["cost"]["prompt_tokens"] is None:
            del plain["cost"]["prompt_tokens"]
        for name in OPTIONAL:
            if plain[name] is None:
                del plain[name]
        if plain["card"] is not None and not plain["card"]["sketch"]:
            del plain["card"]["sketch"]
        return plain

    @classmethod
    def from_json(cls, plain: Mapping[str, Any]) -> RunRecord:
        """The inverse of ``to_json``, for the current ``FORMAT`` only (see ``store/upgrade.py`` for older ones)."""
        if lost := HELD - plain.keys():
            raise ValueError(f"RunRecord misses {', '.join(f'`{name}`' for name in sorted(lost))}")
        made: RunRecord = built(cls, plain)
        return made
