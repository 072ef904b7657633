"""RunRecord: what happened. A failed or stopped run is a record with a status, never a score of 0 and never dropped."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from foretune.records.card import ModelCard, TaskCard
from foretune.records.config import RunConfig
from foretune.records.cost import Cost
from foretune.records.curve import LearningCurve, Point
from foretune.records.displacement import Displacement
from foretune.records.landscape import Landscape
from foretune.records.stage import Stage
from foretune.records.teaching import Teaching

FORMAT = 1
"""The version of the record's JSON. A change adds a function to ``store/upgrade.py`` and raises this by one; an
optional field, left out of the JSON where it has no value, is no change."""

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
        chosen_step: the step whose weights were kept; ``steps_done`` the last step that ran.
        temperature: fitted on dev; the logits are divided by it.
        stock_refusal: why stock PEFT would not compute what was evaluated from what the tuner saved; None where it
            does. Read by the model card.
        initial_hash: hash of the trainable weights before the first step.
        sample: hash of the rows that were drawn: train, dev and test.
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
    chosen_step: int | None = None
    steps_done: int = 0
    temperature: float | None = None
    stock_refusal: str | None = None
    initial_hash: str | None = None
    sample: str | None = None
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
        plain: dict[str, Any] = _finite(asdict(self))
        plain["config"] = self.config.to_json()
        if plain["cost"]["prompt_tokens"] is None:
            del plain["cost"]["prompt_tokens"]
        for name in ("model", "landscape", "displacement", "stage", "teaching", "stock_refusal", "sample"):
            if plain[name] is None:
                del plain[name]
        if plain["card"] is not None and not plain["card"]["sketch"]:
            del plain["card"]["sketch"]
        return plain

    @classmethod
    def from_json(cls, plain: Mapping[str, Any]) -> RunRecord:
        """The inverse of ``to_json``, for the current ``FORMAT`` only (see ``store/upgrade.py`` for older ones)."""
        values = dict(plain)
        values["config"] = RunConfig.from_json(plain["config"])
        if plain.get("card") is not None:
            values["card"] = TaskCard(**{**plain["card"], "sketch": tuple(plain["card"].get("sketch", ()))})
        if plain.get("model") is not None:
            values["model"] = ModelCard(**plain["model"])
        nan = float("nan")
        points = plain["curve"]["points"]
        values["curve"] = LearningCurve(
            tuple(Point(**{**p, "value": nan if p["value"] is None else p["value"]}) for p in points)
        )
        values["cost"] = Cost(**plain["cost"])
        values["evaluations"] = {split: _evaluation(e) for split, e in plain["evaluations"].items()}
        values["floors"] = {
            name: {split: _evaluation(e) for split, e in splits.items()} for name, splits in plain["floors"].items()
        }
        values["gaps"] = tuple(
            Gap(**{**g, **{key: nan for key in ("value", "low", "high") if g[key] is None}}) for g in plain["gaps"]
        )
        if plain.get("landscape") is not None:
            values["landscape"] = Landscape.from_json(plain["landscape"])
        if plain.get("displacement") is not None:
            values["displacement"] = Displacement.from_json(plain["displacement"])
        if plain.get("stage") is not None:
            values["stage"] = Stage.from_json(plain["stage"])
        if plain.get("teaching") is not None:
            values["teaching"] = Teaching.from_json(plain["teaching"])
        for name in ("labels", "notes", "warnings"):
            values[name] = tuple(plain[name])
        return cls(**values)


def _evaluation(plain: Mapping[str, Any]) -> Evaluation:
    nan = float("nan")
    return Evaluation(
        n=plain["n"],
        scores={m: nan if v is None else v for m, v in plain["scores"].items()},
        intervals={
            m: (nan if v[0] is None else v[0], nan if v[1] is None else v[1]) for m, v in plain["intervals"].items()
        },
        flags=tuple(plain["flags"]),
    )


def _finite(value: Any) -> Any:
    """Replace NaN and infinities by None, for strict JSON has neither."""
    if isinstance(value, float):
        return value if value - value == 0 else None
    if isinstance(value, Mapping):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return value
