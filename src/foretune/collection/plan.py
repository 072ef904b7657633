"""CollectionPlan: which configurations are to be run on which tasks. Names and numbers only; no file is opened.

What surrogates can learn from a collection is decided here. Part of the configurations is shared by all tasks, so that
one knows what serves everywhere, and the rest is new on each, so that the space is covered; both are scrambled Sobol
points. The published default is always among the shared ones, for everything is held against it. A few shared ones are
repeated with other seeds: a gain below their spread is none.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from foretune.errors import UsageError
from foretune.objectives import OBJECTIVES
from foretune.records import ModelRef, digest, reading
from foretune.registry import find
from foretune.training.prepare import PRECISIONS
from foretune.tuners import TUNERS

FORMAT = 1
REPEATED_SEEDS = 3
"""Runs of a configuration that is repeated, the first one counted."""


@dataclass(frozen=True)
class CollectedTask:
    """What is to be learned, with its budgets.

    Attributes:
        source: a name of the catalog, a Hub id, or a file or folder, here or where the data of the catalog lie.
        name: how records call it; by default the file's or the catalog's name.
        shots: numbers of labelled rows, dev included: per class where there are classes, in total otherwise.
        options: further options of ``Task.from_source`` (``text``, ``label``, ``metric``, ``test``, ...).
    """

    __pydantic_config__ = {"extra": "forbid"}  # noqa: RUF012

    source: str
    name: str = ""
    shots: tuple[int, ...] = ()
    options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def called(self) -> str:
        """The name in records.

        >>> CollectedTask("data/reviews.csv").called
        'reviews'
        """
        return self.name or os.path.splitext(os.path.basename(self.source.rstrip("/")))[0]


@dataclass(frozen=True)
class CollectionPlan:
    """What is collected. Names are turned into ``CollectedTask`` and ``ModelRef``.

    Attributes:
        tasks, models: by name, or with options; every model meets every task.
        shots: of tasks that name none of their own.
        tuners: names; none: every tuner that trains.
        objective: what is minimised; None is the default of each task's kind.
        configs: configurations of each task, budget and model.
        shared: the share of them that all have in common.
        repeats: the share of them that is run with ``REPEATED_SEEDS`` seeds of initial weights, order and dropout.
        seed: of the configurations, and of the rows that are drawn: every run of one task sees the same ones.
        steps: the fewest and the most optimizer steps; the published default alone keeps its own.
        examples: the most that all steps of a run read together; it bounds batch and steps.
        evaluations: how often dev is measured.
        precision: of the multiplications in training, as of ``Schedule``; written down, since a plan is the same on
            every machine.
        dev_fraction, test_fraction: as of ``TaskRef``.
        test_rows: judge at most so many test rows, the same ones in every run. Out-of-domain sets are not judged.

    Raises:
        UsageError: a rule is broken; the message has the rule, the values and the way out.

    >>> plan = CollectionPlan(tasks=["cola", {"source": "cb", "shots": [8]}], shots=[16, 64], configs=40)
    >>> plan.tasks[1].shots, plan.models[0].name, plan.counts, plan == CollectionPlan.from_json(plan.to_json())
    ((8,), 'demo', (20, 20, 4), True)
    """

    __pydantic_config__ = {"extra": "forbid"}  # noqa: RUF012

    tasks: tuple[CollectedTask, ...]
    models: tuple[ModelRef, ...] = (ModelRef("demo"),)
    shots: tuple[int, ...] = (16, 64)
    tuners: tuple[str, ...] = ()
    objective: str | None = None
    configs: int = 64
    shared: float = 0.5
    repeats: float = 0.05
    seed: int = 0
    steps: tuple[int, int] = (20, 2_000)
    examples: int | None = None
    evaluations: int = 10
    precision: str = "fp32"
    dev_fraction: float = 0.25
    test_fraction: float = 0.2
    test_rows: int | None = None

    def __post_init__(self) -> None:
        plain: dict[str, Any] = {
            "tasks": tuple(map(_task, _several("tasks", self.tasks))),
            "models": tuple(map(_model, _several("models", self.models))),
            **{name: tuple(_several(name, getattr(self, name))) for name in ("shots", "tuners", "steps")},
        }
        for name, value in plain.items():
            object.__setattr__(self, name, value)
        _check(self)

    @property
    def counts(self) -> tuple[int, int, int]:
        """Shared configurations, those of each task alone, and further runs of those that are repeated."""
        shared = max(1, round(self.configs * self.shared))
        again = min(shared, round(self.configs * self.repeats))
        return shared, self.configs - shared, again * (REPEATED_SEEDS - 1)

    @property
    def trained(self) -> tuple[str, ...]:
        """The tuners that are tried."""
        return self.tuners or tuple(name for name, tuner in TUNERS.items() if tuner.lr > 0)

    @property
    def digest(self) -> str:
        """16 hexadecimal digits over everything that is declared."""
        return digest(self.to_json())

    def to_json(self) -> dict[str, Any]:
        """Plain dicts and lists."""
        plain: dict[str, Any] = json.loads(json.dumps(asdict(self), allow_nan=False))
        return {"format": FORMAT, **plain}

    @classmethod
    def from_json(cls, plain: Mapping[str, Any]) -> CollectionPlan:
        """From what YAML or JSON holds; a task or a model may be a name.

        Raises:
            UsageError: an unknown field (with the nearest known one), a value of another type, a broken rule.
        """
        given = {name.replace("-", "_"): value for name, value in plain.items()}
        if (version := given.pop("format", FORMAT)) != FORMAT:
            raise UsageError(
                f"A plan of a collection must have the format {FORMAT}, but has {version!r}. Use a newer foretune."
            )
        reading.require_known(given, [each.name for each in fields(cls)], "a plan of a collection")
        for name, read in (("tasks", _task), ("models", _model)):
            if name in given:
                given[name] = tuple(map(read, _several(name, given[name])))
        return reading.typed(cls, given, "the plan of a collection")

    @classmethod
    def from_yaml(cls, path: Path) -> CollectionPlan:
        """The plan in a YAML file.

        Raises:
            UsageError: it cannot be read, or breaks a rule.
        """
        return cls.from_json(reading.parse(reading.read_text(path, "plan"), f"`{path}`"))

    def to_yaml(self) -> str:
        """YAML with every field written out."""
        import yaml

        return yaml.safe_dump(self.to_json(), sort_keys=False, allow_unicode=True, width=120)


def _check(plan: CollectionPlan) -> None:
    """Raise ``UsageError`` for the first rule that ``plan`` breaks."""
    for name in ("tasks", "models"):
        if not getattr(plan, name):
            raise UsageError(f"`{name}` must have at least one entry, but is empty. Name what is to be run.")
    named = {
        "tasks": [task.called for task in plan.tasks],
        "models": [model.name for model in plan.models],
        "tuners": plan.tuners,
    }
    for name, values in named.items():
        twice = [value for value, count in Counter(values).items() if count > 1]
        if twice:
            raise UsageError(f"`{name}` must differ, but `{twice[0]}` is there twice. Name each once.")
    for shots in (plan.shots, *(task.shots for task in plan.tasks)):
        _check_shots(shots)
    for task in plan.tasks:
        if not (task.shots or plan.shots):
            raise UsageError(f"`{task.called}` has no `shots`, nor has the plan. Write `shots: [16, 64]`.")
    rules = {
        "configs >= 2": plan.configs >= 2,
        "0 < shared <= 1": 0 < plan.shared <= 1,
        "0 <= repeats <= 1": 0 <= plan.repeats <= 1,
        "seed >= 0": plan.seed >= 0,
        "steps of two numbers, 1 <= fewest <= most": len(plan.steps) == 2 and 1 <= plan.steps[0] <= plan.steps[1],
        "examples >= 1": plan.examples is None or plan.examples >= 1,
        "evaluations >= 1": plan.evaluations >= 1,
        f"precision one of {', '.join(PRECISIONS)}": plan.precision in PRECISIONS,
        "0 <= dev_fraction < 1": 0 <= plan.dev_fraction < 1,
        "0 < test_fraction < 1": 0 < plan.test_fraction < 1,
        "test_rows >= 1": plan.test_rows is None or plan.test_rows >= 1,
    }
    for rule, kept in rules.items():
        if not kept:
            name = next(word for word in rule.split() if word in vars(plan))
            raise UsageError(f"`{rule}` must hold for a collection, but got {name}={getattr(plan, name)!r}.")
    for tuner in plan.tuners:
        if not find("tuner", tuner, TUNERS).lr > 0:
            raise UsageError(f"`{tuner}` trains nothing, so there is nothing to collect. Leave it out of `tuners`.")
    if plan.objective is not None:
        find("objective", plan.objective, OBJECTIVES)


def _check_shots(shots: Sequence[int]) -> None:
    for value in shots:
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise UsageError(f"`shots` must be whole numbers of 1 or more, but one is {value!r}. Correct it.")
    if len(set(shots)) < len(shots):
        raise UsageError(f"`shots` must differ, but got {', '.join(map(str, shots))}. Name each once.")


def _several(name: str, values: Any) -> list[Any]:
    if isinstance(values, str) or not isinstance(values, Sequence):
        raise UsageError(f"`{name}` must be a list, but got {values!r}. Write `{name}: [{values}]`.")
    return list(values)


def _task(given: CollectedTask | str | Mapping[str, Any]) -> CollectedTask:
    if isinstance(given, CollectedTask):
        return given
    if not isinstance(given, Mapping):
        return CollectedTask(str(given))
    reading.require_known(given, [each.name for each in fields(CollectedTask)], "a task")
    plain = {**given, **({"shots": tuple(_several("shots", given["shots"]))} if "shots" in given else {})}
    return reading.typed(CollectedTask, plain, "a task")


def _model(given: ModelRef | str | Mapping[str, Any]) -> ModelRef:
    if isinstance(given, ModelRef):
        return given
    if not isinstance(given, Mapping):
        return ModelRef(str(given))
    reading.require_known(given, [each.name for each in fields(ModelRef)], "a model")
    return reading.typed(ModelRef, given, "a model")
