"""Evidence: what the runs of one cell have shown, as tables of seeds by test rows.

Runs are grouped before anything is estimated. With several draws a row of the table is a draw, the mean over its
initial weights: the draws are what is independent. With one draw and several initial weights it is an init seed, and
the interval speaks of new initial weights only.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace

import numpy as np

from foretune.comparison.answers import Answers, Floats, item_scores, read_answers, row_values
from foretune.comparison.cells import Cells
from foretune.comparison.flags import RunFacts
from foretune.comparison.plan import Cell
from foretune.errors import UsageError
from foretune.evaluation import METRICS, Estimate, crossed, mcnemar, over_seeds, paired_t, sign_flip
from foretune.records import RunRecord
from foretune.records.verdict import Measured, OtherTests
from foretune.tasks import Schema, Task
from foretune.tasks.keys import row_keys

Seed = tuple[int, int]
ROWS = "over test rows"


@dataclass(frozen=True)
class Run:
    """One run of a cell: the one it is judged by, all its trials, and its answers."""

    cell: Cell
    record: RunRecord | None
    trials: Sequence[RunRecord] = ()
    answers: Mapping[str, Answers] = field(default_factory=dict)

    @property
    def seed(self) -> Seed:
        return self.cell.data_seed, self.cell.init_seed

    @property
    def ok(self) -> bool:
        return self.record is not None and self.record.status == "ok"

    def score(self, metric: str, split: str = "test") -> float:
        """The recorded score; NaN where there is none."""
        if self.record is None or split not in self.record.evaluations:
            return math.nan
        return self.record.evaluations[split].scores.get(metric, math.nan)


@dataclass(frozen=True)
class Evidence:
    """All runs of a method on a task with a number of shots.

    Attributes:
        seeded: whether seeds have a say; otherwise one run stands for all of them.
        metric: by which the cell is judged.
    """

    method: str
    task: str
    shots: int
    seeded: bool
    metric: str
    schema: Schema
    runs: tuple[Run, ...]

    @property
    def greater(self) -> bool:
        return METRICS[self.metric].greater_is_better

    @property
    def complete(self) -> bool:
        """Whether every run that was asked for ended well."""
        return bool(self.runs) and all(run.ok for run in self.runs)

    @property
    def labels(self) -> int:
        """Labels that the runs used: train and dev."""
        cards = [run.record.card for run in self.runs if run.record is not None and run.record.card is not None]
        return max((card.rows.get("train", 0) + card.rows.get("dev", 0) for card in cards), default=0)

    def means(self, split: str = "test") -> dict[Seed, float]:
        """Seed -> score, of the runs that have one."""
        found = {run.seed: run.score(self.metric, split) for run in self.runs if run.ok}
        return {seed: value for seed, value in found.items() if math.isfinite(value)}

    def items(self, split: str = "test") -> dict[Seed, Floats] | None:
        """Seed -> (items,) what each row has to do with the score, which is their mean (``row_values``); None where
        the metric has no such values, or a run's answers are gone."""
        return self._by_row(split, row_values)

    def item_scores(self, split: str = "test") -> dict[Seed, Floats] | None:
        """The same where each row has a score of its own, so that the mean over some rows is their score."""
        return self._by_row(split, item_scores)

    def _by_row(self, split: str, valued: Callable[[str, Answers, Schema], Floats | None]) -> dict[Seed, Floats] | None:
        found: dict[Seed, Floats] = {}
        for run in self.runs:
            if not run.ok:
                continue
            scores = valued(self.metric, run.answers[split], self.schema) if split in run.answers else None
            if scores is None:
                return None
            found[run.seed] = scores
        lengths = {len(scores) for scores in found.values()}
        return found if len(lengths) == 1 and lengths != {1} else None

    def facts(self, leaks: Mapping[int, tuple[int, int]]) -> list[RunFacts]:
        """What the flags look at; ``leaks``: data seed -> (test texts in train, rows of dev that are test rows)."""
        made = []
        for run in self.runs:
            if run.record is None:
                continue
            leaked, chose = leaks.get(run.cell.data_seed, (0, 0))
            made.append(
                RunFacts.of(
                    run.record, run.answers, run.seed, trials=len(run.trials), leaked=leaked, chosen_on_test=chose
                )
            )
        return made


def gather(cells: Cells, method: str, task: str, shots: int) -> Evidence:
    """Read the runs of one cell from the store."""
    opened = cells.plan.task(task)
    runs = []
    for cell in cells.plan.cells(method, task, shots):
        record, trials = cells.outcome(cell)
        answers = {}
        if record is not None and record.status == "ok":
            answers = read_answers(cells.folder(record.digest) / "predictions.parquet", opened.schema)
        runs.append(Run(cell, record, trials, answers))
    seeded = cells.plan.seeded(method, task)
    return Evidence(method, task, shots, seeded, opened.schema.metric, opened.schema, tuple(runs))


def grouped(values: Mapping[Seed, Floats] | Mapping[Seed, float]) -> Floats:
    """(seeds,) or (seeds, items): means over init seeds within each draw, or the init seeds of a single draw."""
    draws = sorted({data for data, _ in values})
    if len(draws) < 2:
        return np.array([values[seed] for seed in sorted(values)], dtype=np.float64)
    by_draw = [np.array([v for (data, _), v in values.items() if data == draw], dtype=np.float64) for draw in draws]
    return np.array([found.mean(axis=0) for found in by_draw])


def estimate(means: Mapping[Seed, float], items: Mapping[Seed, Floats] | None) -> Estimate:
    """The crossed interval where there are rows to cross with, else Student's t over seeds."""
    if items is not None and len(grouped(items)) > 1:
        return crossed(grouped(items))
    return over_seeds(grouped(means))


def measured(found: Estimate) -> Measured:
    """An estimate as a verdict keeps it."""
    plain = asdict(found)
    return Measured(**{**plain, "df": None if found.df is None else float(found.df)})


def on_scale(found: Measured, metric: str) -> Measured:
    """A score with its interval cut to the scale of the metric, and without the p of "the score is 0"."""
    low, high = METRICS[metric].low, METRICS[metric].high
    if math.isnan(found.low):
        return replace(found, p=None)
    return replace(found, p=None, low=max(low, found.low), high=min(high, found.high))


def measure(evidence: Evidence, split: str = "test") -> tuple[Measured | None, Measured | None]:
    """The score of a cell with the crossed interval, and with the t interval over seeds."""
    means = evidence.means(split)
    if not means:
        return None, None
    if len(grouped(means)) > 1:
        both = estimate(means, evidence.items(split)), over_seeds(grouped(means))
        crossing, over = (on_scale(measured(each), evidence.metric) for each in both)
        return crossing, over
    run = next(run for run in evidence.runs if run.seed in means)
    assert run.record is not None
    return single(run.record.evaluations[split].n, run.score(evidence.metric, split), run, split), None


def single(n: int, value: float, run: Run, split: str) -> Measured:
    """A score of one run: its interval speaks of new test rows only."""
    assert run.record is not None
    low, high = run.record.evaluations[split].intervals.get(run.record.metric, (math.nan, math.nan))
    return Measured(value, low, high, ROWS, n_seeds=1, n_items=n)


def common(first: Evidence, second: Evidence, split: str = "test") -> tuple[list[Seed], str | None]:
    """The seeds on which both have a score, and why nothing may be claimed from them; a run without seeds counts for
    every seed."""
    a, b = set(first.means(split)), set(second.means(split))
    seeds = b if not first.seeded else a if not second.seeded else a & b
    for side in (first, second):
        absent = sum(not run.ok for run in side.runs)
        if absent:
            return sorted(seeds), (
                f"{absent} of {len(side.runs)} runs of {side.method} have no score: the rest are not a fair sample"
            )
    return sorted(seeds), None


def paired(first: Evidence, second: Evidence, split: str = "test") -> Estimate | None:
    """First minus second on the common seeds, turned so that more is better; None without two seeds."""
    found = differences(first, second, split)
    return None if found is None else interval(found)


def interval(found: Floats) -> Estimate:
    """The crossed interval of differences ``(seeds, items)``, Student's t of ``(seeds,)``."""
    return crossed(found) if found.ndim > 1 else over_seeds(np.round(found, 9))


def differences(first: Evidence, second: Evidence, split: str = "test") -> Floats | None:
    """First minus second on the common seeds, turned so that more is better: ``(seeds, items)``, or ``(seeds,)`` where
    rows have no values of their own; None without two seeds."""
    seeds, _ = common(first, second, split)
    sides = [_on(side, seeds, split) for side in (first, second)]
    sign = 1.0 if first.greater else -1.0
    one, two = (grouped(means) for means, _ in sides) if seeds else (np.zeros(0), np.zeros(0))
    if len(one) < 2:
        return None
    items = [found for _, found in sides]
    if items[0] is not None and items[1] is not None:
        tables = grouped(items[0]), grouped(items[1])
        if tables[0].shape != tables[1].shape:
            raise UsageError(
                f"`{first.method}` and `{second.method}` were judged on {tables[0].shape[1]} and {tables[1].shape[1]} "
                f"rows of `{first.task}`. Delete their folders in the store's `cells` and run again."
            )
        return sign * (tables[0] - tables[1])
    return sign * (one - two)


def beside(first: Evidence, second: Evidence, split: str = "test") -> OtherTests | None:
    """The same difference by the tests that no claim rests on; None without two seeds."""
    seeds, _ = common(first, second, split)
    sign = 1.0 if first.greater else -1.0
    one, two = (sign * grouped(_on(side, seeds, split)[0]) if seeds else np.zeros(0) for side in (first, second))
    if len(one) < 2:
        return None
    right = [_right(side, seeds, split) for side in (first, second)]
    return OtherTests(
        measured(paired_t(one, two)),
        sign_flip(one, two).p,
        tuple(mcnemar(a, b).p for a, b in zip(*right, strict=True) if a.shape == b.shape),
    )


def _right(side: Evidence, seeds: Sequence[Seed], split: str) -> list[Floats]:
    """For each of ``seeds`` which rows were answered rightly; none where a row has no label to be right about."""
    if side.schema.kind not in ("classification", "choice"):
        return []
    held = {run.seed: run.answers[split].correct for run in side.runs if run.ok and split in run.answers}
    if not side.seeded and held:
        return [next(iter(held.values()))] * len(seeds)
    return [held[seed] for seed in seeds] if set(seeds) <= set(held) else []


def _on(side: Evidence, seeds: Sequence[Seed], split: str) -> tuple[dict[Seed, float], dict[Seed, Floats] | None]:
    means, items = side.means(split), side.items(split)
    if not side.seeded and means:
        value, rows = next(iter(means.values())), next(iter(items.values())) if items else None
        return dict.fromkeys(seeds, value), None if rows is None else dict.fromkeys(seeds, rows)
    return {s: means[s] for s in seeds}, None if items is None else {s: items[s] for s in seeds}


def leaks(cells: Cells, task: Task, shots: int) -> dict[int, tuple[int, int]]:
    """Data seed -> (test and out-of-domain texts among the training rows, test rows among the dev rows)."""
    from foretune.comparison.plan import draw_rows

    plan, found = cells.plan, {}
    for seed in plan.protocol.data_seeds:
        drawn = draw_rows(task, plan.drawn(task, shots), seed)
        held = {*row_keys(drawn.test), *(key for table in task.ood.values() for key in row_keys(table))}
        test = set(row_keys(drawn.test))
        found[seed] = (
            sum(key in held for key in row_keys(drawn.train)),
            sum(key in test for key in row_keys(drawn.dev)) if plan.protocol.dev_share else 0,
        )
    return found
