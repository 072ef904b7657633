"""Replay: recommenders race on recorded curves. No model is trained and no GPU is needed.

Every recommender meets every held-out task with every seed, from the same pool, with the same past and the same
budget. Its incumbent is chosen on dev and judged on test. Beside them stand what needs no race: random search in exact
expectation, and the published default (``unraced``).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from foretune.comparison.replay.controls import one_per_group
from foretune.comparison.replay.entries import DEFAULT, Entry, parsed
from foretune.comparison.replay.kept import Kept, digest
from foretune.comparison.replay.laps import run_laps
from foretune.comparison.replay.pace import Ahead
from foretune.comparison.replay.pools import Held, Published, held_out, noise_floor
from foretune.comparison.replay.race import UNITS, Lap
from foretune.comparison.replay.standings import Pairing, Standing, adjusted, by_group, pairing, standing
from foretune.comparison.replay.thresholds import Threshold, thresholds
from foretune.comparison.replay.unraced import RANDOM, unraced
from foretune.errors import DataError, UsageError
from foretune.registry import did_you_mean
from foretune.store.metadataset import CELLS, MetaDataset

BUDGETS = (1.0, 2.0, 5.0, 10.0)
SEEDS, FULL_SEEDS = 1, 5
"""Of a first look, and of the full protocol."""

BASELINES = ("random", "halving", "mean-table", "portfolio")
RACED = ("transfer", *BASELINES)
"""Who races where nobody is named."""

RIVALS = ("portfolio", "mean-table", "halving")
"""Baselines that every other recommender is held against where both raced."""

NO_RANDOM = (
    "Random search in expectation counts whole runs, whatever they took, so it has no row in a race for seconds: let "
    "`random` race."
)
PUBLISHED = "published"
"""What settings say of a default that is told task by task."""


@dataclass(frozen=True)
class Field:
    """What a reader should know of one held-out task.

    Attributes:
        candidates, past_runs, past_tasks: how many of each.
        left_out: copies that were neither judged on nor learned from.
        on_test: whether regret is on test, else on dev.
        best, default: raw scores of the best candidate and of the published default; NaN where there is none.
    """

    task: str
    group: str
    fold: str
    metric: str
    direction: str
    candidates: int
    past_runs: int
    past_tasks: int
    left_out: tuple[str, ...]
    on_test: bool
    best: float
    default: float


@dataclass(frozen=True)
class Replay:
    """A finished replay.

    Attributes:
        settings: everything that was asked for, as plain values.
        fields: the held-out tasks.
        entries: names of all that is compared, baselines without a race among them.
        regrets, raw: entry -> ``(tasks, seeds, budgets)`` normalised regret, and in the unit of each task's metric.
        laps: entry -> task -> seed -> lap, for those that raced.
        standings, pairings: what may be said.
        thresholds: what the specification asks of these rows, and what was found.
        noise: deviation of repeated runs in normalised regret and how many configurations tell of it, or None.
        unchanged: control -> recommenders whose every lap it left as it was: they read nothing of what was shuffled.
        notes: sentences about what was left out and why.
    """

    settings: Mapping[str, Any]
    fields: tuple[Field, ...]
    entries: tuple[str, ...]
    regrets: Mapping[str, np.ndarray]
    raw: Mapping[str, np.ndarray]
    laps: Mapping[str, tuple[tuple[Lap, ...], ...]]
    standings: tuple[Standing, ...]
    pairings: tuple[Pairing, ...]
    thresholds: tuple[Threshold, ...]
    noise: tuple[float, int] | None
    unchanged: Mapping[str, tuple[str, ...]]
    notes: tuple[str, ...]

    @property
    def budgets(self) -> tuple[float, ...]:
        """Full-run equivalents at which regret was read."""
        return tuple(self.settings["budgets"])

    def standing(self, entry: str, budget: float) -> Standing:
        """One cell of the table.

        Raises:
            KeyError: nothing of this name raced with this budget.
        """
        return {(row.entry, row.budget): row for row in self.standings}[entry, budget]

    def to_json(self) -> dict[str, Any]:
        """Plain values without NaN: settings, tasks, standings, pairings, and the regrets task by task."""
        plain = {
            "settings": dict(self.settings),
            "tasks": [asdict(field) for field in self.fields],
            "standings": [asdict(row) for row in self.standings],
            "pairings": [asdict(row) for row in self.pairings],
            "regrets": {name: values.mean(axis=1).tolist() for name, values in self.regrets.items()},
            "raw": {name: values.mean(axis=1).tolist() for name, values in self.raw.items()},
            "thinking_seconds": {name: self.thinking(name) for name in self.laps},
            "thresholds": [asdict(row) for row in self.thresholds],
            "noise": None if self.noise is None else {"deviation": self.noise[0], "configurations": self.noise[1]},
            "unchanged": {name: list(names) for name, names in self.unchanged.items()},
            "notes": list(self.notes),
        }
        return _without_nan(plain)

    def thinking(self, entry: str) -> float:
        """Mean seconds that an entry thought in one race."""
        return float(np.mean([lap.thinking for row in self.laps[entry] for lap in row]))


def run_replay(
    dataset: MetaDataset,
    *,
    collection: str = "",
    protocol: str = "leave-one-task-out",
    recommenders: Sequence[str] = RACED,
    budgets: Sequence[float] = BUDGETS,
    unit: str = "runs",
    seeds: int = SEEDS,
    unseen: bool = False,
    split: int = 0,
    default: Published | None = None,
    learn_from: str = "dev",
    controls: Sequence[str] = (),
    duplicates: bool = True,
    keep: Path | None = None,
    watch: Callable[[Ahead], None] = lambda ahead: None,
) -> Replay:
    """Race ``recommenders`` on the runs of ``dataset``.

    Args:
        collection: its name, for the report.
        recommenders: as ``Entry.parse`` takes them.
        budgets: full-run equivalents at which regret is read.
        unit: ``runs``, or ``seconds`` with the recommender's own time included.
        seeds: how many of each recommender; each group of tasks has its own, see ``drawn_for``.
        unseen, split, default, learn_from: see ``held_out``.
        controls: names in ``CONTROLS``.
        duplicates: False keeps one task of each group, the first.
        keep: a file of finished laps, see ``Kept``: those that are there are not run again.
        watch: told of every lap before it is run.

    Raises:
        UsageError: an option that cannot be.
        DataError: nothing to race on.
        StoreError: ``keep`` cannot be read or written.
    """
    wanted = _budgets(budgets)
    told = dict(default) if isinstance(default, Mapping) else None if default is None else PUBLISHED
    entries = parsed(recommenders, controls, default is not None)
    if type(seeds) is not int or seeds < 1:
        raise UsageError(f"`seeds` must be a whole number from 1 on, but got {seeds}.")
    notes: tuple[str, ...] = ()
    noise = noise_floor(dataset)
    if not duplicates:
        dataset, removed = one_per_group(dataset)
        notes = (f"{len(removed)} tasks were removed as copies: {', '.join(removed)}.",) if removed else ()
    held, left = held_out(dataset, protocol, unseen=unseen, split=split, default=default, learn_from=learn_from)
    _require_seconds(held, unit)
    groups, tasks = [h.task.group_key for h in held], [h.task.name for h in held]
    about = {
        "version": version("foretune"), "runs": digest(dataset), "protocol": protocol, "budgets": wanted, "unit": unit,
        "unseen": unseen, "split": split, "learn_from": learn_from,
        "default": told,
    }  # fmt: skip
    laps = run_laps(held, entries, wanted, unit, seeds, Kept(keep, about), watch)
    unchanged = _unchanged(entries, laps)
    shown = [e.name for e in entries if replace(e, control="").name not in unchanged.get(e.control, ())]
    laps = {name: laps[name] for name in shown}
    regrets, raw = unraced(held, wanted, unit)
    best = dict(regrets)
    for name, rows_ in laps.items():
        regrets[name], raw[name], best[name] = _judged(held, rows_)
    standings = tuple(
        standing(
            name,
            budget,
            regrets[name][..., at],
            hindsight=best[name][..., at],
            missing=_missing(laps.get(name), at),
            tasks=tasks,
            groups=groups,
            default=regrets[DEFAULT][:, 0, at] if DEFAULT in regrets else None,
        )
        for name in regrets
        for at, budget in enumerate(wanted)
    )
    pairings = _pairings(laps, regrets, wanted, groups, noise[0] if noise else None)
    settings = {
        "collection": collection, "protocol": protocol, "recommenders": list(recommenders), "budgets": list(wanted),
        "unit": unit, "seeds": seeds, "unseen": unseen, "split": split, "learn_from": learn_from,
        "default": told, "controls": list(controls), "duplicates": duplicates,
        "groups": len(by_group(np.zeros(len(groups)), groups)),
    }  # fmt: skip
    return Replay(
        settings,
        tuple(_field(h) for h in held),
        tuple(regrets),
        regrets,
        raw,
        laps,
        standings,
        pairings,
        thresholds(settings, standings, regrets, noise[0] if noise else 0.0),
        noise,
        unchanged,
        (*notes, *left, *_abstained(held, laps), *_judged_on_dev(held), *((NO_RANDOM,) if unit == "seconds" else ())),
    )


def _budgets(budgets: Sequence[float]) -> tuple[float, ...]:
    wanted = tuple(sorted({float(budget) for budget in budgets}))
    if not wanted or not all(math.isfinite(budget) and budget > 0 for budget in wanted):
        raise UsageError(f"budgets are full-run equivalents above 0, but got {list(budgets)}. Write `1,2,5,10`.")
    if wanted[-1] * CELLS < 1:
        raise UsageError(
            f"a budget of {wanted[-1]:g} full runs pays for no trial: the smallest is 1/{CELLS} of a run. Give more."
        )
    return wanted


def _require_seconds(held: Sequence[Held], unit: str) -> None:
    if unit not in UNITS:
        raise UsageError(f"budgets are in {' or '.join(UNITS)}, but not in `{unit}`.{did_you_mean(unit, UNITS)}")
    untimed = [h.task.name for h in held if not h.costs.timed]
    if unit == "seconds" and untimed:
        raise DataError(
            f"A race for seconds needs the time of every run, but {len(untimed)} of {len(held)} tasks lack some, the "
            f"first is `{untimed[0]}`. Race for `runs`."
        )


def _pairings(
    laps: Mapping[str, Any],
    regrets: Mapping[str, np.ndarray],
    budgets: Sequence[float],
    groups: Sequence[str],
    noise: float | None,
) -> tuple[Pairing, ...]:
    """Every entry that raced against those that did not, and everyone's own recommender against the baselines too."""
    pairs = [(name, other) for name in laps for other in (DEFAULT, RANDOM) if other in regrets]
    pairs += [
        (name, other) for name in laps if not _is(name, BASELINES) and "shuffled" not in name for other in _rivals(laps)
    ]
    return adjusted(
        [
            pairing(
                (name, other),
                budget,
                regrets[name][..., at].mean(axis=1),
                regrets[other][..., at].mean(axis=1),
                groups,
                noise,
            )
            for name, other in pairs
            for at, budget in enumerate(budgets)
        ]
    )


def _is(name: str, recommenders: Sequence[str]) -> bool:
    """Whether an entry, whatever its options and its control, is one of these."""
    return name.partition(",")[0].partition(":")[0] in recommenders


def _rivals(laps: Mapping[str, Any]) -> list[str]:
    return [name for rival in RIVALS for name in laps if _is(name, (rival,)) and "shuffled" not in name]


def _abstained(held: Sequence[Held], laps: Mapping[str, Sequence[Sequence[Lap]]]) -> tuple[str, ...]:
    """A sentence on every recommender that left it to the default in each of its laps."""
    default = "the published default" if all(h.default is not None for h in held) else "the first candidate"
    return tuple(
        f"{name} ran nothing but {default} in any of its laps, so its rows say nothing of what it learns. On "
        f"`{held[0].task.name}` it said: {' '.join(rows[0][0].evidence)}"
        for name, rows in laps.items()
        if all(lap.abstained for row in rows for lap in row) and "shuffled" not in name
    )


def _judged(held: Sequence[Held], laps: Sequence[Sequence[Lap]]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Normalised regret, raw regret and regret in hindsight, ``(tasks, seeds, budgets)`` each."""
    places = np.array([[lap.incumbents for lap in row] for row in laps])
    best = np.array([[lap.best for lap in row] for row in laps])
    none = places < 0
    regrets = np.stack([h.regrets[row] for h, row in zip(held, places, strict=True)])
    raw = np.stack([h.raw[row] for h, row in zip(held, places, strict=True)])
    worst = np.array([h.raw.max() for h in held])[:, None, None]
    return np.where(none, 1.0, regrets), np.where(none, worst, raw), best


def _missing(laps: Sequence[Sequence[Lap]] | None, at: int) -> float:
    if laps is None:
        return 0.0
    return float(np.mean([lap.incumbents[at] < 0 for row in laps for lap in row]))


def _unchanged(entries: Sequence[Entry], laps: Mapping[str, Any]) -> dict[str, tuple[str, ...]]:
    """Control -> recommenders whose incumbents and costs it did not change anywhere."""

    def course(name: str) -> list[Any]:
        return [(lap.incumbents, lap.trials, lap.cells) for row in laps[name] for lap in row]

    found: dict[str, list[str]] = {}
    for entry in entries:
        if entry.control and course(entry.name) == course(replace(entry, control="").name):
            found.setdefault(entry.control, []).append(replace(entry, control="").name)
    return {control: tuple(names) for control, names in found.items()}


def _field(h: Held) -> Field:
    def score(place: int) -> float:
        value = (h.pool.test if h.on_test else h.pool.score)[place]
        return float(value)

    return Field(
        h.task.name,
        h.task.group_key,
        h.fold,
        h.task.metric,
        h.task.direction,
        candidates=len(h.pool),
        past_runs=len(h.past),
        past_tasks=len(h.past.tasks),
        left_out=h.left_out,
        on_test=h.on_test,
        best=score(int(h.scores.argmax())),
        default=math.nan if h.default is None else score(h.default),
    )


def _judged_on_dev(held: Sequence[Held]) -> tuple[str, ...]:
    names = [h.task.name for h in held if not h.on_test]
    if not names:
        return ()
    return (
        f"{len(names)} of {len(held)} tasks have no test scores, so that regret on them is on dev and optimistic: "
        f"{', '.join(names)}.",
    )


def _without_nan(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_nan(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_without_nan(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
