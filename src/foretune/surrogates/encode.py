"""Encoder: configurations and tasks as numbers, learned from the runs of one fold and of no other.

- A setting whose values are words or truth values becomes one column per level; being absent is a level too. A level
  that was not there in fitting has none of them set, and ``unseen`` names it.
- A number keeps its own scale, or the logarithm of it where ratios matter: learning rates (10), ranks and batches
  (2), momenta near 1 (the logarithm of what is missing to 1), and whatever spans two powers of ten. Where it does not
  apply it is NaN, and a further column says so.
- Settings and features that do not vary are dropped, for nothing can be learned of them; ``constant`` has their
  value.
- Of the task: its features, rows and classes; of the model: size, experts, family. And the tokens that the run will
  read.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from foretune.errors import DataError
from foretune.records import MetaTask, Value
from foretune.store.metadataset import MetaDataset

LOG10 = {"lr", "learning_rate", "head_lr", "epsilon", "eps"}
LOG2 = {"rank", "r", "batch_size", "alpha", "lora_alpha"}
SPAN = 100.0
"""The largest value over the smallest from which on a positive setting is taken by its logarithm."""

_TINY = 1e-12
_COUNTS = ("_mean", "_p50", "_p95", "_max")


@dataclass(frozen=True)
class Number:
    """A numeric setting: how it is scaled, its range in fitting, and whether it was absent in some runs."""

    name: str
    scale: str
    low: float
    high: float
    optional: bool

    def scaled(self, value: float) -> float:
        """The value on the column's scale; what a logarithm does not take is taken at its smallest."""
        if self.scale == "log10":
            return math.log10(max(value, _TINY))
        if self.scale == "log2":
            return math.log2(max(value, _TINY))
        return math.log10(max(1 - value, _TINY)) if self.scale == "log10(1-x)" else value


@dataclass(frozen=True)
class Encoder:
    """What was learned from the runs of one fold.

    Attributes:
        numbers: numeric settings.
        levels: setting -> its levels in fitting; ``None`` among them is being absent.
        features: name -> smallest and largest value in fitting, on the column's scale.
        families: model families in fitting, where there was more than one.
        version: of the task features; those of another version are not compared and count as unknown.
        constant: setting -> the value that all runs had.
        counts_tokens: whether ``volume`` is known of runs in fitting, and not the same for all.
    """

    numbers: tuple[Number, ...]
    levels: Mapping[str, tuple[str | None, ...]]
    features: Mapping[str, tuple[float, float]]
    families: tuple[str, ...]
    version: int
    constant: Mapping[str, Value | None]
    counts_tokens: bool

    @classmethod
    def fit(cls, dataset: MetaDataset) -> Encoder:
        """Learn columns, levels and scales from ``dataset``.

        Raises:
            DataError: it has no run.
        """
        if not len(dataset):
            raise DataError("An encoder learns from at least 1 run, but got none.")
        numbers, levels, constant = [], {}, {}
        for name in dict.fromkeys(name for config in dataset.configs for name in config):
            values = [config.get(name) for config in dataset.configs]
            given = [value for value in values if value is not None]
            if len({_level(value) for value in values}) == 1:
                constant[name] = values[0]
            elif all(type(value) in (int, float) for value in given):
                optional = len(given) < len(values)
                numbers.append(_number(name, [float(value) for value in given], optional))
            else:
                levels[name] = tuple(sorted({_level(value) for value in values}, key=lambda x: (x is None, x or "")))
        version = max(task.features_version for task in dataset.tasks)
        families = tuple(sorted({task.family for task in dataset.tasks}))
        rows = [_features(task, version) for task in dataset.tasks]
        volumes = {volume(c, dataset.tasks[place]) for c, place in zip(dataset.configs, dataset.task, strict=True)}
        return cls(
            tuple(numbers),
            levels,
            _ranges(rows),
            families if len(families) > 1 else (),
            version,
            constant,
            counts_tokens=len({value for value in volumes if not math.isnan(value)}) > 1,
        )

    @property
    def names(self) -> tuple[str, ...]:
        """The columns of ``matrix``, in order."""
        named = [name for n in self.numbers for name in (n.name, *([f"{n.name} given"] if n.optional else []))]
        named += [
            f"{name}={'absent' if level is None else level}" for name, have in self.levels.items() for level in have
        ]
        named += ["volume"] if self.counts_tokens else []
        return (*named, *(f"task.{name}" for name in self.features), *(f"family={f}" for f in self.families))

    def matrix(self, configs: Sequence[Mapping[str, Value]], tasks: Sequence[MetaTask]) -> np.ndarray:
        """``(n, len(names))`` numbers, NaN where not known, for configurations and the task of each."""
        columns = self._settings(configs)
        if self.counts_tokens:
            columns.append([volume(config, task) for config, task in zip(configs, tasks, strict=True)])
        about = {task.task_id: self._task(task) for task in {t.task_id: t for t in tasks}.values()}
        rows = [about[task.task_id] for task in tasks]
        columns += [[row[place] for row in rows] for place in range(len(self.features) + len(self.families))]
        return np.array(columns, np.float64).reshape(len(columns), len(configs)).T.copy()

    def of(self, dataset: MetaDataset) -> np.ndarray:
        """The matrix of the runs of ``dataset``, ``(n, len(names))``."""
        return self.matrix(dataset.configs, [dataset.tasks[place] for place in dataset.task])

    def unseen(self, config: Mapping[str, Value]) -> tuple[str, ...]:
        """The settings of ``config``, as ``name=value``, of which nothing was learned: new ones, new levels, and
        numbers outside the range of fitting."""
        found = []
        known = {number.name: number for number in self.numbers}
        for name, value in config.items():
            if name in known:
                number = known[name]
                fits = type(value) in (int, float) and number.low <= float(value) <= number.high
            elif name in self.levels:
                fits = _level(value) in self.levels[name]
            else:
                fits = name in self.constant and _level(self.constant[name]) == _level(value)
            if not fits:
                found.append(f"{name}={value}")
        return tuple(found)

    def outside(self, task: MetaTask) -> tuple[str, ...]:
        """The features of ``task`` that lie outside the range of the tasks in fitting, or whose family is new."""
        known = _features(task, self.version)
        out = [name for name, (low, high) in self.features.items() if name in known and not low <= known[name] <= high]
        return (*out, *([f"family={task.family}"] if self.families and task.family not in self.families else []))

    def _settings(self, configs: Sequence[Mapping[str, Value]]) -> list[list[float]]:
        """The columns of the settings: one pass over all configurations for each, as there are few and they many."""
        columns: list[list[float]] = []
        for number in self.numbers:
            values = [_number_of(config.get(number.name)) for config in configs]
            columns.append([math.nan if value is None else number.scaled(value) for value in values])
            if number.optional:
                columns.append([float(value is not None) for value in values])
        for name, have in self.levels.items():
            levels = [_level(config.get(name)) for config in configs]
            columns += [[float(level == each) for level in levels] for each in have]
        return columns

    def _task(self, task: MetaTask) -> list[float]:
        known = _features(task, self.version)
        return [
            *(known.get(name, math.nan) for name in self.features),
            *(float(task.family == f) for f in self.families),
        ]


def volume(config: Mapping[str, Value], task: MetaTask) -> float:
    """log10 of the tokens that the run will read: examples times tokens (else words) of one; NaN where not known.

    >>> task = MetaTask("a", "a", "a", "accuracy", features={"words_mean": 10.0}, rows={"train": 100})
    >>> volume({"steps": 100, "batch_size": 1}, task), volume({"epochs": 1}, task), volume({}, task)
    (3.0, 3.0, nan)
    """
    length = task.features.get("tokens_mean", task.features.get("words_mean"))
    steps, batch, epochs = (config.get(name) for name in ("steps", "batch_size", "epochs"))
    examples = math.nan
    if isinstance(steps, int | float) and isinstance(batch, int | float):
        examples = float(steps) * float(batch)
    elif isinstance(epochs, int | float) and "train" in task.rows:
        examples = float(epochs) * task.rows["train"]
    return math.log10(max(examples * length, 1.0)) if length is not None and not math.isnan(examples) else math.nan


def _level(value: Value | None) -> str | None:
    """A value as a level; equal numbers are one level."""
    return None if value is None else str(float(value)) if type(value) in (int, float) else str(value)


def _number_of(value: Value | None) -> float | None:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def _number(name: str, values: list[float], optional: bool) -> Number:
    low, high, short = min(values), max(values), name.rpartition(".")[2]
    scale = "linear"
    if low > 0 and (short in LOG10 or (short not in LOG2 and high / low >= SPAN)):
        scale = "log10"
    elif low > 0 and short in LOG2:
        scale = "log2"
    if short.startswith("beta") and 0 <= low <= high < 1:
        scale = "log10(1-x)"
    return Number(name, scale, low, high, optional)


def _features(task: MetaTask, version: int) -> dict[str, float]:
    """What is known of the task and its model, on the scale of the columns; counts and lengths by their logarithm."""
    out: dict[str, float] = {}
    if task.features_version in (0, version):
        for name, value in task.features.items():
            out[name] = math.log10(1 + value) if name.endswith(_COUNTS) or name == "classes" else value
    out |= {f"rows_{split}": math.log10(1 + n) for split, n in task.rows.items() if split in ("train", "dev")}
    model = task.model
    if model is not None:
        out |= {f"model_{name}": math.log10(1 + value) for name, value in model.features.items()}
        if model.parameters:
            out["model_parameters"] = math.log10(model.parameters)
        if model.experts is not None:
            out["model_experts"] = float(model.experts > 0)
    return {name: value for name, value in out.items() if math.isfinite(value)}


def _ranges(rows: Sequence[Mapping[str, float]]) -> dict[str, tuple[float, float]]:
    """Feature -> its range; without those that are the same for every task that has them, and had by all."""
    counts = Counter(name for row in rows for name in row)
    ranges = {n: (min(r[n] for r in rows if n in r), max(r[n] for r in rows if n in r)) for n in counts}
    return {n: (low, high) for n, (low, high) in ranges.items() if low < high or counts[n] < len(rows)}
