"""Method: a name for a tuner and an objective with their options, the rates it may try, and what it trains on.

A rate is part of a method, for no rate serves two of them: each has a grid of its own, and what is equal between
methods is the number of trials. Where no grid is given, it is spread over the range that the tuner's ``Space`` offers,
evenly in the logarithm.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from foretune.errors import UsageError
from foretune.objectives import OBJECTIVES
from foretune.objectives import make as make_objective
from foretune.records import Part, Real, Schedule
from foretune.registry import did_you_mean, find
from foretune.tuners import TUNERS, Tuner
from foretune.tuners import make as make_tuner

COURSE = ("steps", "batch_size", "micro_batch", "head_lr", "weight_decay", "warmup", "decay", "clip")
"""What a method may set otherwise than the protocol; the first two are its budget."""

BUDGET = ("steps", "batch_size")


@dataclass(frozen=True)
class Pretrain:
    """Continued pretraining on unlabelled texts before the task, as ``foretune tune --pretrain`` does it.

    Attributes:
        source: a ``.txt`` file, what a task may be read from, or a name of the catalog; rows that judge are left out.
        steps, lr, seed: of the stage; None: its own defaults. One stage serves the runs of all seeds.
    """

    __pydantic_config__ = {"extra": "forbid"}  # noqa: RUF012

    source: str
    steps: int | None = None
    lr: float | None = None
    seed: int | None = None

    @property
    def given(self) -> dict[str, Any]:
        """What is asked otherwise than by default.

        >>> Pretrain("texts.txt", steps=50).given
        {'steps': 50}
        """
        asked = {"steps": self.steps, "lr": self.lr, "seed": self.seed}
        return {name: value for name, value in asked.items() if value is not None}


@dataclass(frozen=True)
class Method:
    """What is compared.

    Attributes:
        name: how tables call it.
        tuner: where the trainable numbers live.
        objective: what is minimised; None is the default of the task's kind.
        options, objective_options: of the two.
        lr: the rates it tries, the first one where nothing is tuned; none: the tuner's own.
        schedule: what it sets otherwise than the protocol.
        pretrain: what the model is trained on before, without labels; its seconds and tokens are counted.
    """

    __pydantic_config__ = {"extra": "forbid"}  # noqa: RUF012

    name: str
    tuner: str
    objective: str | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    objective_options: Mapping[str, Any] = field(default_factory=dict)
    lr: tuple[float, ...] = ()
    schedule: Mapping[str, Any] = field(default_factory=dict)
    pretrain: Pretrain | None = None

    @property
    def trained(self) -> bool:
        """Whether anything is trained."""
        return make_tuner(Part(self.tuner, self.options)).trains

    def rates(self, trials: int) -> tuple[float, ...]:
        """The rates that ``trials`` trials try; none where nothing is trained.

        >>> method("lora").rates(1), method("full").rates(3)
        ((0.0005,), (5e-06, 2.24e-05, 0.0001))
        """
        if not self.trained:
            return ()
        if self.lr:
            return self.lr if trials > 1 else self.lr[:1]
        kind: type[Tuner] = find("tuner", self.tuner, TUNERS)
        if trials == 1:
            return (kind.lr,)
        offered = kind.space.dimensions["lr"]
        assert isinstance(offered, Real)
        return tuple(float(f"{offered.at(i / (trials - 1)):.3g}") for i in range(trials))


KNOWN: dict[str, Method] = {
    method.name: method
    for method in (
        Method("pattern", "full", "pattern"),
        Method("zero-shot", "frozen", "pattern"),
        Method("icl", "frozen", "pattern", objective_options={"demonstrations": 16}),
        Method("distillation", "full", "distillation", objective_options={"demonstrations": 16}),
    )
}
"""Methods under names of their own; every tuner is one too, with the default objective of the task's kind."""


def method(given: Method | str | Mapping[str, Any]) -> Method:
    """The method that is meant: itself, a name, ``tuner+objective``, or its fields as a mapping.

    Raises:
        UsageError: no such method (with the nearest name), tuner, objective or option.

    >>> method("lora").tuner, method({"name": "lora-r2", "tuner": "lora", "options": {"rank": 2}}).options["rank"]
    ('lora', 2)
    """
    made = given if isinstance(given, Method) else _named(given) if isinstance(given, str) else _read(given)
    _check(made)
    return made


def names() -> list[str]:
    """Every name that stands for a method by itself."""
    return [*KNOWN, *TUNERS]


def _named(name: str) -> Method:
    if name in KNOWN:
        return KNOWN[name]
    tuner, plus, objective = name.partition("+")
    if plus:
        find("objective", objective, OBJECTIVES)
    try:
        find("tuner", tuner, TUNERS)
    except UsageError as error:
        known = names()
        raise UsageError(
            f"`{name}` is not a method.{did_you_mean(name, known)} Known: {', '.join(known)}; `tuner+objective`; or "
            "a mapping with `name`, `tuner`, `objective`, `options` and `lr`."
        ) from error
    return Method(name, tuner, objective or None)


def _read(given: Mapping[str, Any]) -> Method:
    known = [each.name for each in fields(Method)]
    for key in given:
        if key not in known:
            raise UsageError(
                f"`{key}` is not a field of a method.{did_you_mean(str(key), known)} Known: {', '.join(known)}."
            )
    if not isinstance(given.get("name"), str):
        raise UsageError(f"A method needs a name, but got {dict(given)!r}. Write `name: lora-r2`.")
    start = KNOWN.get(given["name"])
    if start is None and "tuner" not in given:
        start = _named(given["name"])
    before = {} if start is None else {each: getattr(start, each) for each in known}
    rates = given.get("lr", before.get("lr", ()))
    merged = {**before, **given, "lr": tuple(rates) if isinstance(rates, list | tuple) else (rates,)}
    from pydantic import TypeAdapter, ValidationError

    try:
        return TypeAdapter(Method).validate_python(merged)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise UsageError(
            f"`{where}` of the method `{given['name']}`: {first['msg'].lower()}, but got {first['input']!r}."
        ) from error


def _check(made: Method) -> None:
    tuner = make_tuner(Part(made.tuner, made.options))
    for name, value in (made.pretrain.given if made.pretrain else {}).items():
        if name != "seed" and not 0 < value < float("inf"):
            raise UsageError(f"`{name}` of `pretrain` of the method `{made.name}` must be above 0, but got {value}.")
    if made.objective is not None:
        make_objective(Part(made.objective, made.objective_options))
    elif made.objective_options:
        raise UsageError(f"The method `{made.name}` has options of an objective, but names none. Add `objective: ...`.")
    for name in made.schedule:
        if name not in COURSE:
            raise UsageError(
                f"A method may set {', '.join(COURSE)}, but `{made.name}` sets `{name}`."
                f"{did_you_mean(name, COURSE)} Everything else belongs to the protocol, for all methods alike."
            )
    from foretune.training.prepare import require_schedule

    for rate in made.rates(1):
        require_schedule(Schedule(**{"steps": 1, "lr": rate, **made.schedule}), tuner)
