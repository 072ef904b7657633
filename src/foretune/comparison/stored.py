"""Stored: the flags of a comparison, raised on runs that nobody compared.

Runs that differ by their seeds alone are a group, as they would be a cell. What the flags look at is in the record
(samples, starts, losses, labels) and in the answers, where the run's folder is still there. Two flags need the data
themselves, which a record does not hold: whether test texts were learned from, and whether test rows chose.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from foretune.comparison.answers import Answers, read_answers
from foretune.comparison.cells import folder_in
from foretune.comparison.flags import RunFacts, raised
from foretune.comparison.plan import FLOORS
from foretune.errors import UsageError
from foretune.objectives import make
from foretune.records import RunConfig, RunRecord, Seeds
from foretune.tuners import TUNERS

NOT_SEEN = ("eval_text_in_train", "selected_on_test")
"""The flags that a record alone cannot raise."""


@dataclass(frozen=True)
class Group:
    """Runs of one configuration.

    Attributes:
        records: one for each choice of seeds.
        answered: of how many of them the answers to the test rows were found.
        flags: as ``flags.raised`` has them.
    """

    records: tuple[RunRecord, ...]
    answered: int
    flags: tuple[str, ...]


def checked(records: Iterable[RunRecord], store: Path, given: Mapping[str, Path] | None = None) -> list[Group]:
    """The flags of every group of ``records``, groups in the order of their first run.

    Args:
        records: the latest of each run.
        store: in which the answers of compared runs lie.
        given: digest -> run folder, of those that lie elsewhere.
    """
    groups: dict[str, list[RunRecord]] = {}
    for record in records:
        if record.config.tuner.name == FLOORS:  # what others are held against, not a method
            continue
        groups.setdefault(_without_seeds(record.config).digest, []).append(record)
    trials = _trials([runs[0].config for runs in groups.values()])
    folders = given or {}
    return [
        _group(
            runs,
            [_answers(run, folders.get(run.digest, folder_in(store, run.digest))) for run in runs],
            trials[digest],
        )
        for digest, runs in groups.items()
    ]


def _group(runs: Sequence[RunRecord], answers: Sequence[Mapping[str, Answers]], trials: _Trials) -> Group:
    config = runs[0].config
    tuner = TUNERS.get(config.tuner.name)
    trained = tuner is None or tuner.lr > 0
    flags = raised(
        [
            RunFacts.of(record, found, (record.config.seeds.data, record.config.seeds.init), trials=trials.own)
            for record, found in zip(runs, answers, strict=True)
        ],
        budget=_budget(runs),
        draws_start=trained and _with_head(config),
        trials=trials.others if trained else None,
        trained=trained,
    )
    return Group(tuple(runs), sum("test" in found for found in answers), flags)


def _with_head(config: RunConfig) -> bool:
    """Whether a head of the task's own begins at random; False of an objective that this foretune does not know."""
    try:
        return not make(config.objective).language
    except UsageError:
        return False


def _answers(record: RunRecord, folder: Path) -> Mapping[str, Answers]:
    """Those in ``folder``; none of a run without a score, nor of an out-of-domain set whose classes are not the task's
    own, for how they are merged is in the data."""
    if record.status != "ok":
        return {}
    own = set(record.labels)
    every = read_answers(folder / "predictions.parquet")
    return {s: told for s, told in every.items() if not s.startswith("ood:") or not own or set(told.label) <= own}


def _budget(runs: Sequence[RunRecord]) -> int | None:
    """The labels that were declared; None where all rows were to be used, or where it is not known how many classes."""
    shots = runs[0].config.task.shots
    classes = next((len(record.labels) for record in runs if record.labels), 0)
    if shots is None or (runs[0].config.task.kind == "classification" and not classes):
        return None
    return shots * max(classes, 1)


@dataclass(frozen=True)
class _Trials:
    """Learning rates that were tried with a method, and the most that any other was given; None without others."""

    own: int
    others: int | None


def _trials(configs: Sequence[RunConfig]) -> dict[str, _Trials]:
    """Configuration without its seeds -> how often rates were tried, on the same task with the same model."""
    rates: dict[str, dict[str, set[float]]] = {}
    for config in configs:
        tried = rates.setdefault(_place(config), {}).setdefault(_method(config), set())
        if config.schedule.steps:
            tried.add(config.schedule.lr)
    made = {}
    for config in configs:
        here = rates[_place(config)]
        others = [len(tried) for method, tried in here.items() if method != _method(config) and tried]
        own = len(here[_method(config)])
        made[_without_seeds(config).digest] = _Trials(own, max(others, default=None))
    return made


def _without_seeds(config: RunConfig) -> RunConfig:
    return replace(config, seeds=Seeds())


def _place(config: RunConfig) -> str:
    return repr((config.model, config.task))


def _method(config: RunConfig) -> str:
    return repr((config.tuner.name, config.objective.name))
