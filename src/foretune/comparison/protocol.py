"""Protocol: all that is decided before the first run of a comparison. Frozen; its digest is printed with every result.

A comparison is decided by what is fixed before its results are seen: which tasks, methods and seeds, how many labels,
how much tuning, which checkpoint counts, which differences are asked about, and how large a difference must be to
matter. Everything here is a name or a number; no file is read and no model is opened (``plan`` does that).

Labels are a budget: ``shots`` counts what is paid for, dev rows included. Trials are a budget: every method that is
trained tries as many rates. Seeds are crossed: every method meets the same draws, initial weights and test rows.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any

from foretune.comparison.methods import Method, method
from foretune.comparison.rules import check
from foretune.errors import UsageError
from foretune.records import HeldTexts, ModelRef, digest, reading

FORMAT = 1
ALL_ROWS, ALL = 0, "all"
"""As a number of shots: every row there is; and how YAML may write it."""


@dataclass(frozen=True)
class TaskSpec:
    """What is to be learned, by name.

    Attributes:
        source: a name of the catalog, a file, a folder or a Hub id, as ``Task.from_source`` takes it.
        name: how tables call it; by default the file's or the catalog's name.
        ood: name -> source of an out-of-domain set, beside those of the catalog.
        options: further options of ``Task.from_source`` (``text``, ``label``, ``metric``, ``test``, ``group``, ...).
    """

    __pydantic_config__ = {"extra": "forbid"}  # noqa: RUF012

    source: str
    name: str = ""
    ood: Mapping[str, str] = field(default_factory=dict)
    options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def called(self) -> str:
        """The name in tables.

        >>> TaskSpec("data/reviews.csv").called
        'reviews'
        """
        return self.name or os.path.splitext(os.path.basename(self.source.rstrip("/")))[0]


@dataclass(frozen=True)
class Protocol:
    """What is compared, and how. Names and plain numbers are turned into ``TaskSpec`` and ``Method``.

    Attributes:
        tasks, methods: by name, or with options.
        model: the pretrained model of all runs.
        shots: numbers of labelled rows, dev included; 0 (``all`` in YAML) is every row.
        shots_are: what ``shots`` counts: rows ``per_class``, or in ``total``, shared out equally.
        data_seeds: which rows are drawn, one number for each draw.
        init_seeds: of initial weights, batches and dropout, so many for every draw, and others for each; none: one,
            of the draw's own number.
        selection: which checkpoint is judged: the ``last``, or the best on ``dev`` rows that are paid for out of the
            shots. There is no other choice: neither test nor out-of-domain rows select anything.
        dev_fraction: the share of the shots that goes to dev, where something is chosen on dev.
        test_fraction: held out where a source has no test rows.
        test_rows: judge at most so many rows of each test set, the same ones for every run; None is all.
        compute: what is equal for all methods: ``steps``. Tokens and seconds are measured and reported.
        steps: optimizer steps; None is ``epochs`` passes, at least ``fewest_steps`` and at most ``most_steps``.
        batch_size, micro_batch, weight_decay, warmup, decay, clip, precision, evaluations: as in ``Schedule``.
        tuning_trials: rates that every trained method tries; 1 is its default rate, untuned.
        tuning_seconds: of all trials of one run together, shared out equally: a trial is judged as it stands when its
            share is spent, whatever its steps; None is unlimited.
        tuning_tasks: where rates are chosen, for all tasks of the comparison; none: on each run's own dev rows.
        tuning_seeds: draws of the tuning tasks; none of them is among ``data_seeds``.
        contrasts: pairs of methods about which something is claimed: ``all``, ``first`` (the first method with every
            other), ``none``, or a list of pairs.
        margin: the largest difference that does not matter, in the units of the score; None asks for no equivalence.
        alpha: the chance of any false claim among all contrasts.
        forgetting: texts on which the rise of the language model's loss is measured, for all that is trained with its
            own head; None measures nothing.
        allow_unequal: let methods differ in trials, steps or batches; every table then says so.

    Raises:
        UsageError: a rule is broken; the message has the rule, the values and the way out.

    >>> made = Protocol(tasks=["cola"], methods=["lora", "full"], shots=[16], data_seeds=range(5))
    >>> made.methods[0].tuner, made.seeds[:2], made == Protocol.from_json(made.to_json())
    ('lora', ((0, 0), (1, 1)), True)
    """

    __pydantic_config__ = {"extra": "forbid"}  # noqa: RUF012

    tasks: tuple[TaskSpec, ...]
    methods: tuple[Method, ...]
    model: ModelRef = field(default_factory=lambda: ModelRef("demo"))
    shots: tuple[int, ...] = (ALL_ROWS,)
    shots_are: str = "per_class"
    data_seeds: tuple[int, ...] = (0, 1, 2, 3, 4)
    init_seeds: tuple[int, ...] = ()
    selection: str = "last"
    dev_fraction: float = 0.25
    test_fraction: float = 0.2
    test_rows: int | None = None
    compute: str = "steps"
    steps: int | None = None
    epochs: int = 40
    fewest_steps: int = 200
    most_steps: int = 2_000
    batch_size: int = 16
    micro_batch: int | None = None
    weight_decay: float = 0.01
    warmup: float = 0.1
    decay: str = "linear"
    clip: float | None = 1.0
    precision: str = "fp32"
    evaluations: int = 10
    tuning_trials: int = 1
    tuning_seconds: float | None = None
    tuning_tasks: tuple[TaskSpec, ...] = ()
    tuning_seeds: tuple[int, ...] = (100, 101)
    contrasts: str | tuple[tuple[str, str], ...] = "all"
    margin: float | None = 0.01
    alpha: float = 0.05
    forgetting: HeldTexts | None = None
    allow_unequal: bool = False

    def __post_init__(self) -> None:
        plain: dict[str, Any] = {
            "tasks": tuple(_task(each) for each in _several("tasks", self.tasks)),
            "tuning_tasks": tuple(_task(each) for each in self.tuning_tasks),
            "methods": tuple(method(each) for each in _several("methods", self.methods)),
            "model": self.model if isinstance(self.model, ModelRef) else ModelRef(str(self.model)),
            "contrasts": _pairs(self.contrasts),
            **{name: tuple(_several(name, getattr(self, name))) for name in ("shots", "data_seeds")},
            **{name: tuple(getattr(self, name)) for name in ("init_seeds", "tuning_seeds")},
        }
        for name, value in plain.items():
            object.__setattr__(self, name, value)
        check(self)

    @property
    def seeds(self) -> tuple[tuple[int, int], ...]:
        """(data seed, init seed) of every run of a cell."""
        return tuple((data, init) for data in self.data_seeds for init in (self.init_seeds or (data,)))

    @property
    def tunes_on_dev(self) -> bool:
        """Whether rates are chosen on each run's own dev rows."""
        return self.tuning_trials > 1 and not self.tuning_tasks

    @property
    def dev_share(self) -> float:
        """The share of the shots that goes to dev: none where nothing is chosen there."""
        return self.dev_fraction if self.selection == "dev" or self.tunes_on_dev else 0.0

    @property
    def pairs(self) -> tuple[tuple[str, str], ...]:
        """The contrasts, as names."""
        names = [each.name for each in self.methods]
        if self.contrasts == "all":
            return tuple((a, b) for i, a in enumerate(names) for b in names[i + 1 :])
        if self.contrasts == "first":
            return tuple((names[0], other) for other in names[1:])
        return () if isinstance(self.contrasts, str) else self.contrasts

    @property
    def digest(self) -> str:
        """16 hexadecimal digits over everything that is declared."""
        return digest(self.to_json())

    def method(self, name: str) -> Method:
        """The method of that name."""
        return next(each for each in self.methods if each.name == name)

    def trials(self, each: Method) -> tuple[float, ...]:
        """The rates that a method tries, the default alone where nothing is tuned; none where nothing is trained."""
        return each.rates(self.tuning_trials)

    def to_json(self) -> dict[str, Any]:
        """Plain dicts and lists, without what later versions know and nobody asked for: digests stay."""
        plain: dict[str, Any] = json.loads(json.dumps(asdict(self), allow_nan=False))
        if plain["forgetting"] is None:
            del plain["forgetting"]
        for each in plain["methods"]:
            if each["pretrain"] is None:
                del each["pretrain"]
        return {"format": FORMAT, **plain}

    @classmethod
    def from_json(cls, plain: Mapping[str, Any]) -> Protocol:
        """From what YAML or JSON holds; a task, a method or the model may be a name.

        Raises:
            UsageError: an unknown field (with the nearest known one), a value of another type, a broken rule.
        """
        given = {name.replace("-", "_"): value for name, value in plain.items()}
        if (version := given.pop("format", FORMAT)) != FORMAT:
            raise UsageError(f"The protocol must have the format {FORMAT}, but has {version!r}. Use a newer foretune.")
        reading.require_known(given, [each.name for each in fields(cls)], "a protocol")
        for name, read in (("tasks", _task), ("tuning_tasks", _task), ("methods", method)):
            if name in given:
                given[name] = tuple(read(each) for each in _several(name, given[name]))
        if isinstance(given.get("model"), str):
            given["model"] = ModelRef(given["model"])
        if "shots" in given:
            shots = given["shots"] if isinstance(given["shots"], list | tuple) else [given["shots"]]
            given["shots"] = tuple(ALL_ROWS if each == ALL else each for each in shots)
        return reading.typed(cls, given, "the protocol")

    @classmethod
    def from_yaml(cls, text: str, where: str = "The protocol") -> Protocol:
        """From YAML text; ``where`` is what an error names."""
        return cls.from_json(reading.parse(text, where))

    def to_yaml(self) -> str:
        """YAML with every field written out: what is printed with a result and can be run again."""
        import yaml

        return yaml.safe_dump(self.to_json(), sort_keys=False, allow_unicode=True, width=120)


def shorter(
    protocol: Protocol, *, steps: int, tasks: int, methods: int, seeds: int, test_rows: int, shots: int = 1
) -> Protocol:
    """The first few of everything, for a first look: a protocol of its own, with a digest of its own. Of the methods
    those that train come first, each with one rate: the others mostly judge, with long prompts."""
    trained = [each for each in protocol.methods if each.trained]
    chosen = [*trained, *(each for each in protocol.methods if not each.trained)][:methods]
    kept, pairs = {each.name for each in chosen}, protocol.contrasts
    return replace(
        protocol,
        tasks=protocol.tasks[:tasks],
        methods=tuple(each for each in protocol.methods if each.name in kept),
        shots=protocol.shots[:shots],
        tuning_trials=1,
        tuning_tasks=(),
        tuning_seconds=None,
        data_seeds=protocol.data_seeds[:seeds],
        init_seeds=protocol.init_seeds[:1],
        steps=min(steps, protocol.steps or steps),
        test_rows=min(test_rows, protocol.test_rows or test_rows),
        contrasts=_of(pairs, kept) if seeds > 1 else "none",
    )


def _of(pairs: Any, kept: set[str]) -> Any:
    return pairs if isinstance(pairs, str) else tuple(pair for pair in pairs if set(pair) <= kept)


def _several(name: str, values: Any) -> list[Any]:
    if isinstance(values, str) or not isinstance(values, Sequence):
        raise UsageError(f"`{name}` must be a list, but got {values!r}. Write `{name}: [{values}]`.")
    return list(values)


def _task(given: TaskSpec | str | Mapping[str, Any]) -> TaskSpec:
    if isinstance(given, TaskSpec):
        return given
    if isinstance(given, Mapping):
        reading.require_known(given, [each.name for each in fields(TaskSpec)], "a task")
        return reading.typed(TaskSpec, given, "a task")
    return TaskSpec(str(given))


def _pairs(given: Any) -> Any:
    return given if isinstance(given, str) else tuple((str(a), str(b)) for a, b in given)
