"""What the commands print: schema lines, a progress bar, the plan, the result. Text goes to stderr while JSON is asked for."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn
from rich.progress import Progress as Bars
from rich.table import Table
from rich.text import Text

from foretune.report.units import floor_title, scored, seconds, size, split_title
from foretune.training.progress import Progress

if TYPE_CHECKING:
    from rich.progress import TaskID

    from foretune.pipeline import Draft, Result


class Shown(Progress):
    """Progress as a reader at a terminal sees it; without one, a line per evaluation. ``quiet`` says nothing at all."""

    def __init__(self, quiet: bool = False) -> None:
        self.console = Console(stderr=quiet, highlight=False, soft_wrap=True)
        self.quiet = quiet
        self._bars: Bars | None = None
        self._task: TaskID | None = None
        self._last = ""

    def say(self, line: str) -> None:
        """One line about the data, the plan or the run."""
        if not self.quiet:
            self.console.print(line, markup=False)

    def phase(self, text: str) -> None:
        if self.console.is_terminal:
            self.say(f"… {text}")

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
        self.say(f"step {step}: dev {metric} {value:.3f}, dev loss {loss:.3f}{mark}")

    def finish(self) -> None:
        if self._bars:
            self._bars.stop()
            self._bars = None


def show_plan(shown: Shown, draft: Draft) -> None:
    """The plan of ``--dry-run`` and of ``recommend``."""
    table = Table(title="Plan", title_justify="left", show_header=True)
    for column in ("", "tuner", "lr", "steps", "batch", "expected", "seconds", "memory"):
        table.add_column(column)
    for rank, item in enumerate(draft.plan.ranked, 1):
        schedule = item.schedule
        table.add_row(
            str(rank),
            Text(item.tuner.name),
            f"{schedule.lr:g}",
            str(schedule.steps),
            str(schedule.batch_size),
            "unknown" if item.score is None else f"{item.score:.3f}",
            "unknown" if item.seconds is None else seconds(item.seconds),
            "unknown" if item.bytes is None else size(item.bytes),
        )
    shown.console.print(table)
    for line in draft.plan.evidence:
        shown.say(f"- {line}")


def show_result(shown: Shown, result: Result) -> None:
    """The outcome on one screen: score and floors with intervals, gaps, cost, where things lie."""
    record = result.record
    split = "test" if "test" in record.evaluations else "dev"
    table = Table(title=f"{record.metric} with 95 % interval", title_justify="left")
    names = list(record.evaluations)
    for column in ("", *(split_title(name) for name in names)):
        table.add_column(column)
    lines = {record.config.tuner.name: record.evaluations, **{floor_title(k): v for k, v in record.floors.items()}}
    for name, evaluations in lines.items():
        cells = []
        for column in names:
            found = evaluations.get(column)
            value = found.scores.get(record.metric) if found else None
            bounds = found.intervals.get(record.metric) if found else None
            cells.append(scored(record.metric, value, bounds) if found and value is not None else "")
        table.add_row(Text(name), *(Text(cell) for cell in cells))
    shown.console.print(table)
    for sentence in result.verdict:
        shown.say(sentence)
    for warning in record.warnings:
        shown.say(f"Warning: {warning}")
    cost = record.cost
    shown.say(
        f"{seconds(cost.seconds)} in all ({seconds(cost.train_seconds)} training), {size(cost.peak_bytes)} of memory, "
        f"{cost.trainable_parameters:,} of {cost.total_parameters:,} weights trained, adapter {size(cost.adapter_bytes)}."
    )
    if result.folder:
        shown.say(f"Run folder: {result.folder}")
        shown.say(f"Report: {result.folder / 'report.html'}  ({split} is judged once)")
