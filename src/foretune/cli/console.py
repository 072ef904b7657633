"""What ``tune`` prints: schema lines, a progress bar, the plan, the result. Nothing at all while JSON is asked for.

Texts and labels are a user's: none is taken for markup, for an emoji's name or for a terminal's command.
"""

from __future__ import annotations

import shlex
import sys
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn
from rich.progress import Progress as Bars
from rich.table import Table
from rich.text import Text

from foretune.cli.output import UNSEEN_WIDTH, clean
from foretune.report import units
from foretune.report.page import PAGE
from foretune.report.units import floor_title, scored, seconds, size, split_title
from foretune.training.progress import Progress

if TYPE_CHECKING:
    from rich.progress import TaskID

    from foretune.pipeline import Draft, Result
    from foretune.records import Evaluation


class Shown(Progress):
    """Progress as a reader at a terminal sees it; without one, a line per evaluation. ``quiet`` says nothing at all."""

    def __init__(self, quiet: bool = False) -> None:
        width = None if sys.stdout.isatty() else UNSEEN_WIDTH
        self.console = Console(stderr=quiet, width=width, highlight=False, emoji=False, soft_wrap=True)
        self.quiet = quiet
        self._bars: Bars | None = None
        self._task: TaskID | None = None
        self._last = ""

    def say(self, *lines: str) -> None:
        """Lines about the data, the plan or the run."""
        for line in () if self.quiet else lines:
            self.console.print(clean(line), markup=False)

    def phase(self, text: str) -> None:
        if self.console.is_terminal:
            self.say(f"({text})")

    def start(self, total: int, done: int) -> None:
        if done:
            self.say(f"Going on from step {done} of {total}.")
        if self.quiet or not self.console.is_terminal:
            return
        columns = (BarColumn(), MofNCompleteColumn(), TextColumn("{task.description}"))
        self._bars = Bars(*columns, console=self.console, transient=True)
        self._task = self._bars.add_task("", total=total, completed=done)
        self._bars.start()

    def step(self, step: int, loss: float, seconds_left: float) -> None:
        if self._bars and self._task is not None:
            text = f"loss {loss:.3f}{self._last}, {seconds(seconds_left)} left"
            self._bars.update(self._task, completed=step, description=text)

    def evaluated(self, step: int, metric: str, value: float, loss: float, best: bool) -> None:
        self._last = f", dev {metric} {value:.3f}"
        mark = "  best so far" if best else ""
        beside = "" if metric == "loss" else f", dev loss {loss:.3f}"
        self.say(f"step {step}: dev {metric} {value:.3f}{beside}{mark}")

    def finish(self) -> None:
        if self._bars:
            self._bars.stop()
            self._bars = None


def show_plan(shown: Shown, draft: Draft, explain: bool = False) -> None:
    """The plan of ``--dry-run`` and of ``recommend``; what it rests on in full where ``explain`` is asked for."""
    foretold = any(item.origin not in ("", "default") for item in draft.plan.ranked)
    failing = any(item.p_fail is not None for item in draft.plan.ranked)
    table = Table(title="Plan, best first", title_justify="left", show_header=True)
    columns = ("", "tuner", "lr", "steps", "batch", "expected score", *(["may fail"] if failing else []))
    for column in (*columns, "time", "memory", *(["from"] if foretold else [])):
        table.add_column(column)
    for rank, item in enumerate(draft.plan.ranked, 1):
        schedule = item.schedule
        table.add_row(
            str(rank),
            Text(clean(item.tuner.name)),
            f"{schedule.lr:g}",
            str(schedule.steps),
            str(schedule.batch_size),
            Text("unknown" if item.score is None else scored(draft.task.schema.metric, item.score, item.interval)),
            *([f"{item.p_fail or 0:.0%}"] if failing else []),
            "unknown" if item.seconds is None else seconds(item.seconds),
            "unknown" if item.bytes is None else size(item.bytes),
            *([ORIGINS[item.origin]] if foretold else []),
        )
    shown.console.print(table)
    for line in (*draft.plan.evidence, *draft.notes, *(draft.plan.details if explain else ())):
        shown.say(f"- {line}")
    if draft.plan.details and not explain:
        shown.say(f"({len(draft.plan.details)} more lines with --explain.)")


ORIGINS = {"default": "published", "portfolio": "earlier runs", "sampled": "new", "": ""}
"""How a reader is told where a pipeline comes from."""


def show_result(shown: Shown, result: Result, explain: bool = False) -> None:
    """The outcome on one screen: score and floors with intervals, what may be said of them, cost, where things lie."""
    record = result.record
    metric = units.metric(record.metric).title
    table = Table(title=f"{metric[:1].upper()}{metric[1:]} with 95 % interval", title_justify="left")
    names = list(record.evaluations)
    for column in ("", *(split_title(name) for name in names)):
        table.add_column(Text(clean(column)))
    lines = {record.config.tuner.name: record.evaluations, **{floor_title(k): v for k, v in record.floors.items()}}
    for name, evaluations in lines.items():
        table.add_row(Text(clean(name)), *(_cell(record.metric, evaluations.get(column)) for column in names))
    shown.console.print(table)
    for sentence in (*result.verdict, *(f"Warning: {warning}" for warning in record.warnings)):
        shown.say(sentence)
    expected = result.expected
    if expected is not None:
        shown.say(expected)
    for line in (*result.plan.evidence, *result.plan.details) if explain and result.plan else ():
        shown.say(f"- {line}")
    for note in record.notes:
        if note.startswith("Training stopped"):
            shown.say(note)
    cost = record.cost
    shown.say(
        f"Training took {seconds(cost.train_seconds)}, evaluation {seconds(cost.eval_seconds)}, floors "
        f"{seconds(cost.floor_seconds)}; {size(cost.peak_bytes)} of memory; {cost.trainable_parameters:,} of "
        f"{cost.total_parameters:,} weights trained; adapter {size(cost.adapter_bytes)}."
    )
    shown.say(f"Run folder: {result.folder}", f"Report: {result.folder / PAGE}")
    shown.say(f"Use it: foretune predict {shlex.quote(str(result.folder))} new.csv")


def _cell(metric: str, found: Evaluation | None) -> Text:
    """A score with its interval, or nothing."""
    value = found.scores.get(metric) if found else None
    return Text("" if found is None or value is None else scored(metric, value, found.intervals.get(metric)))
