"""Runs: a plan with its tasks and models opened: every run that it asks for, and which of them the store has not.

A run is a ``RunConfig``, and its digest is its identity: what any command has put into the store is not run again. The
order is by configuration first, so that a collection that is stopped anywhere has about as many runs of every task, and
shared configurations come before the others. Several seeds have the last of the shared ones: the first is the published
default, which the bounds of a plan do not shorten. Before all of them stand the floors of each draw, whose record also
has what the frozen model makes of its rows.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from statistics import median_low

from foretune.collection.plan import REPEATED_SEEDS, CollectedTask, CollectionPlan
from foretune.errors import UsageError
from foretune.models import Checkpoint, open_checkpoint
from foretune.objectives import Objective, for_kind
from foretune.objectives import make as make_objective
from foretune.recommenders import Situation, published
from foretune.recommenders.sample import sample
from foretune.records import ModelRef, Part, Recommendation, RunConfig, RunRecord, Schedule, Seeds, TaskCard, TaskRef
from foretune.store.journal import JournalStore
from foretune.tasks import Task, draw
from foretune.tasks.cut import cut
from foretune.tasks.load import is_catalog_name
from foretune.tasks.splits import dev_count
from foretune.training.floor_record import FLOORS
from foretune.tuners import TUNERS

ENDED = ("ok", "failed", "diverged", "oom")
"""What is not run again; a run that was stopped goes on."""

FOLDER = "collecting"
"""Where in a store the runs under way have their folders; nothing is left there of one that has ended."""


@dataclass(frozen=True)
class Cell:
    """One task with one budget and one model: what every configuration is run on."""

    model: ModelRef
    task: str
    shots: int


@dataclass(frozen=True)
class Job:
    """One run.

    Attributes:
        config: with every fingerprint filled in, so that its digest is final.
    """

    cell: Cell
    config: RunConfig

    @cached_property
    def digest(self) -> str:
        """The identity of the run."""
        return self.config.digest


@dataclass(eq=False)
class Runs:
    """See the module.

    Attributes:
        plan: what is asked for.
        root: folder of the store.
        data_dir: where the files of catalog tasks lie.
    """

    plan: CollectionPlan
    root: Path
    data_dir: str | None = None
    _tasks: dict[str, Task] = field(default_factory=dict)
    _models: dict[tuple[ModelRef, str, bool], Checkpoint] = field(default_factory=dict)

    @cached_property
    def store(self) -> JournalStore:
        """Where the records go."""
        return JournalStore(self.root)

    def folder(self, job: Job) -> Path:
        """Where a run is while it is under way."""
        return self.root / FOLDER / job.digest

    def finished(self, job: Job) -> bool:
        """Whether the store has the record of a run that has ended."""
        found = self.store.find(job.digest)
        return found is not None and found.status in ENDED

    def missing(self) -> list[Job]:
        """What is to be run, in the order in which it is tried."""
        return [job for job in self.jobs if not self.finished(job)]

    def records(self) -> list[RunRecord]:
        """The records of this plan's runs that have ended."""
        found = (self.store.find(job.digest) for job in self.jobs)
        return [record for record in found if record is not None and record.status in ENDED]

    def tidy(self) -> None:
        """Remove the folders of runs that ended in the moment in which their worker was killed."""
        for job in self.jobs:
            if self.folder(job).exists() and self.finished(job):
                shutil.rmtree(self.folder(job), ignore_errors=True)

    def check(self) -> None:
        """Refuse what cannot be run, before anything is.

        Raises:
            ForetuneError: a task or a model cannot be opened, too few rows for the shots, an objective that does not
                serve a kind, no dev row to learn a curve from.
        """
        for cell in self.cells:
            task = self.task(cell.task)
            self.objective(task)
            self.checkpoint(cell)
            ref = self._ref(cell)
            drawn = draw(
                task,
                shots=ref.shots,
                dev_fraction=ref.dev_fraction,
                test_fraction=ref.test_fraction,
                seed=self.plan.seed,
            )
            if not len(drawn.dev):
                raise UsageError(
                    f"What is learned from is the score on dev, but {cell.shots} shots of `{cell.task}` leave no row "
                    "for it beside training. Use more shots, or a larger `dev_fraction`."
                )

    def task(self, name: str) -> Task:
        """The opened task, its test set cut to ``test_rows``, without out-of-domain sets.

        Raises:
            DataError: it cannot be read, or breaks a rule.
        """
        if name not in self._tasks:
            asked = next(each for each in self.plan.tasks if each.called == name)
            source = located(asked.source, self.data_dir)
            whole = Task.from_source(source, name=name, data_dir=self.data_dir, **asked.options)
            self._tasks[name] = cut(whole, self.plan.test_rows, tuple(whole.ood))
        return self._tasks[name]

    def objective(self, task: Task) -> Objective:
        """What is minimised on a task.

        Raises:
            UsageError: the objective does not serve the kind of the task.
        """
        kind = task.schema.kind
        made = make_objective(self._part(task))
        if kind not in made.kinds:
            raise UsageError(
                f"The objective `{made.name}` serves {', '.join(made.kinds)} tasks, but `{task.name}` is a {kind} "
                "task. Leave one of them out of the plan."
            )
        return made

    def checkpoint(self, cell: Cell, language: bool | None = None) -> Checkpoint:
        """The model as the objective of the cell's task reads it."""
        task = self.task(cell.task)
        kind, language = task.schema.kind, self.objective(task).language if language is None else language
        if (cell.model, kind, language) not in self._models:
            asked = replace(cell.model, pooling="none") if language else cell.model
            self._models[cell.model, kind, language] = open_checkpoint(asked, kind)
        return self._models[cell.model, kind, language]

    @cached_property
    def cells(self) -> tuple[Cell, ...]:
        """Every model with every task and each of its budgets."""
        return tuple(
            Cell(model, task.called, shots)
            for model in self.plan.models
            for task in self.plan.tasks
            for shots in self._shots(task)
        )

    @cached_property
    def jobs(self) -> tuple[Job, ...]:
        """Every run, each once, in order: see the module."""
        found = {job.digest: job for job in self._jobs()}
        return tuple(found.values())

    def _jobs(self) -> Iterator[Job]:
        shared, own, further = self.plan.counts
        chosen = {cell: self._candidates(number, cell) for number, cell in enumerate(self.cells)}
        yield from (self._floors(cell) for cell in self.cells)
        for place in range(shared):
            yield from (self._job(cell, chosen[cell][place]) for cell in self.cells)
        for seed in range(1, REPEATED_SEEDS):
            for place in range(shared - further // (REPEATED_SEEDS - 1), shared):
                yield from (self._job(cell, chosen[cell][place], seed) for cell in self.cells)
        for place in range(shared, shared + own):
            yield from (self._job(cell, chosen[cell][place]) for cell in self.cells)

    def _candidates(self, number: int, cell: Cell) -> list[Recommendation]:
        """The default and the other shared ones, then those of this cell alone: a piece of the sequence of its own."""
        shared, own, _ = self.plan.counts
        here, seed = self._situation(cell, self._rows(cell)), self.plan.seed
        anywhere = self._situation(cell, self._typical_rows)
        return [
            published(replace(here, methods=TUNERS))[0],
            *sample(anywhere, shared - 1, seed, steps=self.plan.steps, examples=self.plan.examples),
            *sample(here, own, seed, shared - 1 + number * own, steps=self.plan.steps, examples=self.plan.examples),
        ]

    def _situation(self, cell: Cell, rows: int) -> Situation:
        task, checkpoint = self.task(cell.task), self.checkpoint(cell)
        return Situation(
            TaskCard(task.name, task.schema.kind, {"train": rows}, len(task.schema.labels)),
            checkpoint.family,
            checkpoint.parameters,
            {name: TUNERS[name] for name in self.plan.trained},
            self._part(task),
            fresh_head=not self.objective(task).language,
        )

    @cached_property
    def _typical_rows(self) -> int:
        """Training rows of the cell in the middle: what the shared configurations are made for."""
        return median_low(map(self._rows, self.cells))

    def _rows(self, cell: Cell) -> int:
        """Training rows of a cell: what its shots leave beside dev."""
        classes = len(self.task(cell.task).schema.labels) or 1
        return classes * (cell.shots - dev_count(cell.shots, self.plan.dev_fraction))

    def _job(self, cell: Cell, candidate: Recommendation, seed: int = 0) -> Job:
        seen = min(self.plan.evaluations, candidate.schedule.steps)
        schedule = replace(candidate.schedule, evaluations=seen, precision=self.plan.precision)
        config = RunConfig(
            model=self.checkpoint(cell).ref,
            task=self._ref(cell),
            tuner=candidate.tuner,
            objective=candidate.objective,
            schedule=schedule,
            seeds=Seeds(data=self.plan.seed, init=seed, order=seed, dropout=seed),
        )
        return Job(cell, config)

    def _floors(self, cell: Cell) -> Job:
        kind = self.task(cell.task).schema.kind
        config = RunConfig(
            model=self.checkpoint(cell, language=False).ref,
            task=self._ref(cell),
            tuner=Part(FLOORS),
            objective=_objective(for_kind(kind), self.task(cell.task)),
            schedule=Schedule(steps=1),
            seeds=Seeds(data=self.plan.seed),
        )
        return Job(cell, config)

    def _ref(self, cell: Cell) -> TaskRef:
        task, held_out = self.task(cell.task), self.plan.test_fraction
        if self.plan.test_rows is not None and "test" not in task.splits:
            held_out = min(held_out, self.plan.test_rows / task.splits["train"].num_rows)
        return replace(task.ref, shots=cell.shots, dev_fraction=self.plan.dev_fraction, test_fraction=held_out)

    def _part(self, task: Task) -> Part:
        return _objective(self.plan.objective or for_kind(task.schema.kind), task)

    def _shots(self, task: CollectedTask) -> tuple[int, ...]:
        return task.shots or self.plan.shots


def located(source: str, data_dir: str | None) -> str:
    """A file of a plan, which may lie beside the plan's reader or in the folder of the data."""
    if data_dir is None or is_catalog_name(source) or Path(source).exists():
        return source
    inside = Path(data_dir, source)
    return str(inside) if inside.exists() else source


def _objective(name: str, task: Task) -> Part:
    references = task.schema.references if name == "response" else ""
    return Part(name, {"references": references} if references else {})
