"""Plan: a protocol with its tasks and its model opened: every run that it asks for, as a config with a digest.

What cannot be run is refused here, before anything is trained: too few rows for the shots, an objective that does not
serve a kind, dev rows that the shots cannot pay for. A run is a ``RunConfig``, and its digest is where it lies in the
store: two comparisons that ask for the same run share it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

from foretune.comparison.answerable import require_answerable
from foretune.comparison.methods import Method
from foretune.comparison.protocol import ALL_ROWS, Protocol, TaskSpec
from foretune.comparison.texts import Shelf
from foretune.errors import UsageError
from foretune.models import Checkpoint, build, open_checkpoint
from foretune.objectives import Objective, for_kind
from foretune.objectives import make as make_objective
from foretune.recommenders.published import FROZEN_HEAD_LR, HEAD_LR
from foretune.records import HeldTexts, ModelRef, Part, RunConfig, Schedule, Seeds, TaskRef
from foretune.tasks import Draw, Task, draw
from foretune.tasks.cut import cut
from foretune.tasks.keys import hash64, row_keys
from foretune.training.floor_record import FLOORS
from foretune.tuners.frozen import Frozen

ZERO_SHOT = "zero-shot"
"""What the floor is called that an untrained language model sets."""

HEAD = "head"
"""A tuner that trains nothing but the fresh head, whose rate is its own."""


@dataclass(frozen=True)
class Cell:
    """One run of a method: what it learns from and which seeds it has."""

    method: str
    task: str
    shots: int
    data_seed: int
    init_seed: int


@dataclass(frozen=True)
class Job:
    """One thing to be run.

    Attributes:
        cell: what it is for; of the job ``FLOORS`` the method has that name.
        config: with every fingerprint filled in, so that its digest is final.
    """

    cell: Cell
    config: RunConfig

    @property
    def digest(self) -> str:
        """The identity of the run."""
        return self.config.digest

    @property
    def rate(self) -> float:
        """The learning rate."""
        return self.config.schedule.lr


@dataclass(eq=False)
class Plan:
    """See the module.

    Attributes:
        protocol: what is asked for.
        data_dir: where the files of catalog tasks lie.
    """

    protocol: Protocol
    data_dir: str | None = None
    _opened: dict[str, Task] = field(default_factory=dict)
    _checkpoints: dict[tuple[str, bool], Checkpoint] = field(default_factory=dict)
    _rows: dict[tuple[str, int], int] = field(default_factory=dict)

    @cached_property
    def specs(self) -> dict[str, TaskSpec]:
        """Name -> task, those for tuning included."""
        return {spec.called: spec for spec in (*self.protocol.tasks, *self.protocol.tuning_tasks)}

    def task(self, name: str) -> Task:
        """The opened task, its test sets cut to ``test_rows``.

        Raises:
            DataError: it cannot be read, or breaks a rule.
        """
        if name not in self._opened:
            spec = self.specs[name]
            whole = Task.from_source(
                spec.source, name=name, ood=dict(spec.ood) or None, data_dir=self.data_dir, **spec.options
            )
            self._opened[name] = self._cut(whole)
        return self._opened[name]

    def check(self) -> None:
        """Open everything and refuse what cannot be run.

        Raises:
            ForetuneError: the first rule that is broken.
        """
        heads: set[str] = set()
        for spec in (*self.protocol.tasks, *self.protocol.tuning_tasks):
            task = self.task(spec.called)
            for shots in self.protocol.shots:
                self.rows(task, shots)
            for method in self.protocol.methods:
                objective = self.objective(method, task)
                self.model(method, task)
                self.config(method, Cell(method.name, task.name, self.protocol.shots[0], 0, 0), None)
                if objective.language:
                    if task.schema.kind not in heads:
                        build(self.checkpoint(task, True), objective.outputs(2), objective.fresh_head)
                        heads.add(task.schema.kind)
                    require_answerable(self, method, task)
        self._require_tuned_apart()

    def _require_tuned_apart(self) -> None:
        """No row that judges may choose a rate, under whatever name its source goes."""
        for spec in self.protocol.tuning_tasks:
            seen = {key for table in self.task(spec.called).splits.values() for key in row_keys(table)}
            for compared in self.protocol.tasks:
                task = self.task(compared.called)
                judging = (task.splits.get("test", task.splits["train"]), *task.ood.values())
                shared = sum(key in seen for table in judging for key in row_keys(table))
                if shared:
                    raise UsageError(
                        f"Rates may not be chosen on rows that judge, but {shared} rows of `{task.name}` stand in the "
                        f"tuning task `{spec.called}` too. Take another tuning task."
                    )

    def cells(self, method: str, task: str, shots: int) -> list[Cell]:
        """The runs of one cell of the tables, in the order of the seeds; one where no seed has a say."""
        seeds = self.protocol.seeds if self.seeded(method, task) else self.protocol.seeds[:1]
        return [Cell(method, task, shots, data, init) for data, init in seeds]

    def seeded(self, method: str, task: str) -> bool:
        """Whether seeds have a say: something is trained, or examples are shown."""
        return self._seeded(self.protocol.method(method), self.task(task))

    def _seeded(self, method: Method, task: Task) -> bool:
        return method.trained or self.objective(method, task).in_context

    def grid(self) -> list[tuple[str, int]]:
        """Every task with every number of shots."""
        return [(spec.called, shots) for spec in self.protocol.tasks for shots in self.protocol.shots]

    def jobs(self, cell: Cell, rates: tuple[float, ...], method: Method | None = None) -> list[Job]:
        """The runs that a cell needs, one for each rate; one without a rate where nothing is trained.

        Args:
            method: that of the cell, where it is none of the protocol's.
        """
        method = method or self.protocol.method(cell.method)
        budget = self.protocol.tuning_seconds
        seconds = budget / len(rates) if budget is not None and len(rates) > 1 else None
        return [Job(cell, replace(self.config(method, cell, rate), seconds=seconds)) for rate in rates or (None,)]

    def tuning_jobs(self, method: Method, shots: int) -> dict[float, list[Job]]:
        """Rate -> its runs on the tuning tasks."""
        tasks = [spec.called for spec in self.protocol.tuning_tasks]
        cells = [Cell(method.name, t, shots, seed, seed) for t in tasks for seed in self.protocol.tuning_seeds]
        rates = self.protocol.trials(method)
        tried = {rate: [Job(cell, self.config(method, cell, rate, tuning=True)) for cell in cells] for rate in rates}
        budget = self.protocol.tuning_seconds
        if budget is None:
            return tried
        each = budget / (len(rates) * len(cells))
        return {
            rate: [replace(job, config=replace(job.config, seconds=each)) for job in jobs]
            for rate, jobs in tried.items()
        }

    def config(self, method: Method, cell: Cell, rate: float | None, tuning: bool = False) -> RunConfig:
        """The whole configuration of one run."""
        task, asked = self.task(cell.task), self.protocol
        objective, options = self.objective(method, task), dict(method.objective_options)
        if "demonstrations" in options:  # no more than there are labels, and as many of every class
            shown = min(options["demonstrations"], self.rows(task, cell.shots))
            classes = max(1, len(task.schema.labels))
            options["demonstrations"] = max(classes, shown // classes * classes) if shown else 0
        shots = cell.shots if self._seeded(method, task) else asked.shots[0]
        course: dict[str, Any] = {
            "steps": self.steps(task, cell.shots),
            "evaluations": 1 if asked.selection == "last" else asked.evaluations,
            **{
                name: getattr(asked, name)
                for name in ("batch_size", "micro_batch", "weight_decay", "warmup", "decay", "clip", "precision")
            },
            "head_lr": self._head_lr(method, objective),
            **method.schedule,
        }
        if not method.trained:
            course["steps"] = 0
        course["evaluations"] = max(1, min(course["evaluations"], course["steps"]))
        return RunConfig(
            model=self.model(method, task),
            task=self._drawn(task, shots, asked.dev_fraction if tuning else asked.dev_share),
            tuner=Part(method.tuner, dict(method.options)),
            objective=self._part(objective.name, options, task),
            schedule=Schedule(lr=1.0 if rate is None else rate, **course),
            seeds=self.seeds(cell),
            pretraining=self.stage(method, task),
            held=None if tuning else self.held(method, task),
        )

    def seeds(self, cell: Cell) -> Seeds:
        """Those of one run. Initial weights are nested in draws: the same number gives others with another draw. Were
        they shared, all draws would lean with them, and an interval over draws would not know it."""
        own = cell.init_seed
        if self.protocol.init_seeds:
            own = hash64("initial weights", cell.data_seed, cell.init_seed) % 2**31
        return Seeds(data=cell.data_seed, init=own, order=own, dropout=own)

    def stage(self, method: Method, task: Task) -> RunConfig | None:
        """What the model is trained on before the task; None: nothing."""
        if method.pretrain is None:
            return None
        asked = self.protocol
        return self.shelf.stage(method.pretrain, task, self.model(method, task), asked.test_fraction, asked.precision)

    def held(self, method: Method, task: Task) -> HeldTexts | None:
        """The texts on which forgetting is measured; None where nothing is asked or there is nothing to forget."""
        language = self.objective(method, task).language
        if self.protocol.forgetting is None or not language or not method.trained:
            return None
        if self.checkpoint(task, language).family == "encoder-decoder":
            return None
        return self.shelf.held(self.protocol.forgetting, task)

    @cached_property
    def shelf(self) -> Shelf:
        """The texts without labels."""
        return Shelf(self.data_dir)

    def floors(self, task: str, shots: int, seed: int) -> Job:
        """The job that measures the floors of one draw."""
        opened = self.task(task)
        config = RunConfig(
            model=self._ref(opened, language=False),
            task=self.drawn(opened, shots),
            tuner=Part(FLOORS),
            objective=self._part(for_kind(opened.schema.kind), {}, opened),
            schedule=Schedule(steps=1),
            seeds=Seeds(data=seed),
        )
        return Job(Cell(FLOORS, task, shots, seed, seed), config)

    def zero_shot(self, task: str) -> Job | None:
        """The job that measures the floor ``ZERO_SHOT``: the untrained model, shown nothing, with the pattern of the
        first method that has one; None where no method reads with words, or a method of the protocol is just that."""
        opened, asked = self.task(task), self.protocol
        bare = next((found for m in asked.methods if (found := self.objective(m, opened).bare) is not None), None)
        if bare is None:
            return None
        method = Method(ZERO_SHOT, Frozen.name, bare.name, objective_options=bare.options)
        cell = Cell(ZERO_SHOT, task, asked.shots[0], *asked.seeds[0])
        (job,) = self.jobs(cell, (), method)
        listed = [m.name for m in asked.methods if not self._seeded(m, opened)]
        if any(job.digest == each.digest for m in listed for each in self.jobs(replace(cell, method=m), ())):
            return None
        return job

    def objective(self, method: Method, task: Task) -> Objective:
        """What a method minimises on a task.

        Raises:
            UsageError: the objective does not serve the kind of the task.
        """
        kind = task.schema.kind
        made = make_objective(Part(method.objective or for_kind(kind), method.objective_options))
        if kind not in made.kinds:
            raise UsageError(
                f"The objective `{made.name}` of the method `{method.name}` serves {', '.join(made.kinds)} tasks, but "
                f"`{task.name}` is a {kind} task. Leave one of them out."
            )
        return made

    def model(self, method: Method, task: Task) -> ModelRef:
        """The model, fingerprinted, as this method reads it."""
        return self._ref(task, self.objective(method, task).language)

    def labels(self, task: Task, shots: int) -> int | None:
        """The declared budget of labels, None where all rows may be used."""
        per_class = self.per_class(task, shots)
        return None if per_class is None else per_class * (len(task.schema.labels) or 1)

    def per_class(self, task: Task, shots: int) -> int | None:
        """The shots as ``tasks.draw`` counts them.

        Raises:
            UsageError: a total that cannot be shared out equally.
        """
        classes = len(task.schema.labels) or 1
        if shots == ALL_ROWS:
            return None
        if self.protocol.shots_are == "per_class":
            return shots
        if shots % classes:
            raise UsageError(
                f"`shots` in total must be shared out equally over the {classes} classes of `{task.name}`, but got "
                f"{shots}. Use {max(1, shots // classes) * classes}, or `shots_are: per_class`."
            )
        return shots // classes

    def steps(self, task: Task, shots: int) -> int:
        """The optimizer steps, equal for all methods: given, or by epochs."""
        asked = self.protocol
        passes = asked.epochs * math.ceil(self.rows(task, shots) / asked.batch_size)
        return asked.steps or min(max(passes, asked.fewest_steps), asked.most_steps)

    def rows(self, task: Task, shots: int) -> int:
        """The rows of train, as many with every seed.

        Raises:
            DataError: too few rows for the shots.
            UsageError: dev rows that the shots cannot pay for.
        """
        asked, key = self.protocol, (task.name, shots)
        if key not in self._rows:
            ref = self._drawn(task, shots, asked.dev_fraction if self._tunes(task) else asked.dev_share)
            drawn = draw_rows(task, ref, asked.data_seeds[0])
            if ref.dev_fraction and not len(drawn.dev):
                raise UsageError(
                    f"Something is chosen on dev rows, but {shots} shots of `{task.name}` leave none beside training. "
                    "Use more shots, or `selection: last` with `tuning_trials: 1`."
                )
            self._rows[key] = len(drawn.train)
        return self._rows[key]

    def drawn(self, task: Task, shots: int) -> TaskRef:
        """How the rows of a compared task are drawn."""
        return self._drawn(task, shots, self.protocol.dev_share)

    def _drawn(self, task: Task, shots: int, dev_share: float) -> TaskRef:
        return replace(
            task.ref,
            shots=self.per_class(task, shots),
            dev_fraction=dev_share,
            test_fraction=self.protocol.test_fraction,
        )

    def _tunes(self, task: Task) -> bool:
        return task.name in {spec.called for spec in self.protocol.tuning_tasks}

    def _ref(self, task: Task, language: bool) -> ModelRef:
        return self.checkpoint(task, language).ref

    def checkpoint(self, task: Task, language: bool) -> Checkpoint:
        """The model, opened, as a language model or as what a head stands on."""
        kind = task.schema.kind
        if (kind, language) not in self._checkpoints:
            asked = replace(self.protocol.model, pooling="none") if language else self.protocol.model
            self._checkpoints[kind, language] = open_checkpoint(asked, kind)
        return self._checkpoints[kind, language]

    def _part(self, name: str, options: Mapping[str, Any], task: Task) -> Part:
        further = {"references": task.schema.references} if task.schema.references and name == "response" else {}
        found = self.shelf.identified(make_objective(Part(name, options)), task)
        return Part(name, {**options, **further, **found})

    def _head_lr(self, method: Method, objective: Objective) -> float | None:
        if objective.language or method.tuner == HEAD or not method.trained:
            return None
        return HEAD_LR.get(method.tuner, FROZEN_HEAD_LR)

    def _cut(self, task: Task) -> Task:
        """Without rows that nobody judges, and without a dev split that nobody reads: it would count as labels."""
        asked = self.protocol
        unread = not asked.dev_share and not self._tunes(task) and ALL_ROWS in asked.shots
        return cut(task, asked.test_rows, ("dev",) if unread else (), asked.test_fraction)


def draw_rows(task: Task, ref: TaskRef, seed: int) -> Draw:
    """The rows of one draw, as ``train`` will draw them."""
    return draw(task, shots=ref.shots, dev_fraction=ref.dev_fraction, test_fraction=ref.test_fraction, seed=seed)
