"""Advice: what the recommender is told of a task, and what it says, in the number format of this machine."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

import numpy as np

from foretune.models import Checkpoint
from foretune.objectives import make as make_objective
from foretune.pipeline.memory_of_runs import described, memory_for, seen_by
from foretune.pipeline.options import TuneOptions
from foretune.pipeline.settings import fixed, laid_over
from foretune.recommenders import Measured, Planner, Pool, Situation, Transfer
from foretune.recommenders.published import TUNER
from foretune.records import MetaTask, Part, Plan, Recommendation, RunConfig, Schedule, Seeds, TaskCard
from foretune.tasks import Draw, Task
from foretune.tasks.describe import card
from foretune.training.meters import free_memory
from foretune.training.precision import machine_precision
from foretune.training.probe import Probe
from foretune.tuners import TUNERS


@dataclass
class Adviser:
    """Asks the recommender about one task, as often as more is known.

    Attributes:
        situation: before anything was timed.
        planner: learns from the earlier runs once.
        notes: which earlier runs were left out.
        seen: the landmarks of the task, where they were measured.
    """

    situation: Situation
    planner: Planner
    options: TuneOptions
    notes: tuple[str, ...] = ()
    seen: Mapping[str, float] = field(default_factory=dict)

    def plan(self, measured: Measured | None = None, budget_seconds: float | None = None) -> Plan:
        """What to run.

        Args:
            measured: what a few steps took here.
            budget_seconds: left for training steps; with it ``measured`` must be given.
        """
        made = self.planner.plan(self._asked(measured, budget_seconds))
        wanted = fixed(self.options)
        if wanted and made.recommender != "default":
            made = replace(made, evidence=(*made.evidence, f"Fixed for every candidate: {', '.join(wanted)}."))
        return _in_precision(replace(made, evidence=(*made.evidence, *self.notes)))

    def to_play(
        self, measured: Measured | None, budget_seconds: float | None, overhead: float
    ) -> tuple[Pool, Transfer, np.ndarray]:
        """The candidates of which several are to be run, who chooses among them, and the seconds that each would take.

        Args:
            measured, budget_seconds: as in ``plan``.
            overhead: seconds that starting or continuing a candidate costs beside its steps.
        """
        return self.planner.to_play(self._asked(measured, budget_seconds), overhead)

    def _asked(self, measured: Measured | None, budget_seconds: float | None) -> Situation:
        asked = replace(self.situation, measured=measured)
        if budget_seconds is not None and measured is not None:
            asked = replace(asked, budget_seconds=budget_seconds, seconds_per_step=measured.step_seconds)
        return asked


def adviser(
    task: Task,
    rows: Draw,
    checkpoint: Checkpoint,
    objective: Part,
    options: TuneOptions,
    say: Callable[[str], None] = lambda line: None,
) -> Adviser:
    """Who is to be asked about ``task``: reads the earlier runs, and measures landmarks where their tasks have some.

    Args:
        say: told how many runs are learned from, for that may take a minute.
    """
    sizes = {"train": len(rows.train), "dev": len(rows.dev), "test": len(rows.test)}
    about = card(task.name, task.schema, rows.train, sizes, task.sketch)
    situation = Situation(
        card=about,
        family=checkpoint.family,
        parameters=checkpoint.parameters,
        methods=TUNERS,
        objective=objective,
        tuner=options.tuner,
        fresh_head=not make_objective(objective).language,
    )
    if options.recommender == "default":
        return Adviser(situation, Planner(), options)
    bare = _as_task(task, checkpoint, objective, options, about)
    memory = memory_for(bare)
    if memory.runs is None:
        return Adviser(situation, Planner(), options, memory.notes)
    tasks = len(set(memory.runs.groups[memory.runs.succeeded]))
    say(f"Learning from {len(memory.runs):,} earlier runs on {tasks} tasks.")
    seen = seen_by(memory.runs, task, rows, checkpoint)
    told = replace(about, features={**about.features, **seen})
    situation = replace(
        situation,
        task=_as_task(task, checkpoint, objective, options, told),
        settle=lambda pipeline: laid_over(_precise(pipeline), options, len(rows.train)),
        pooling=checkpoint.ref.pooling,
        max_length=checkpoint.ref.max_length,
        pretrained_further=options.pretrain is not None,
        memory_bytes=_memory(),
    )
    planner = Planner(memory.runs, options.mode, options.seed, refit=options.refit)
    return Adviser(situation, planner, options, memory.notes, seen)


def measured_by(probe: Probe, config: RunConfig) -> Measured | None:
    """What ``probe`` says of ``config``; None where it trains nothing."""
    if not probe.step_seconds:
        return None
    around = probe.total(0, config.schedule.evaluations)
    of = Recommendation(config.tuner, config.objective, config.schedule)
    return Measured(of, probe.step_seconds, around, probe.bytes)


def _as_task(task: Task, checkpoint: Checkpoint, objective: Part, options: TuneOptions, about: TaskCard) -> MetaTask:
    ref = replace(task.ref, shots=options.shots, dev_fraction=options.dev_fraction, test_fraction=options.test_fraction)
    any_run = RunConfig(checkpoint.ref, ref, Part(TUNER), objective, Schedule(1), Seeds.all(options.seed))
    return described(task, checkpoint, any_run, about)


def _memory() -> int:
    import torch

    return int(torch.cuda.mem_get_info()[0]) if torch.cuda.is_available() else free_memory()


def _precise(pipeline: Recommendation) -> Recommendation:
    return replace(pipeline, schedule=replace(pipeline.schedule, precision=machine_precision()))


def _in_precision(plan: Plan) -> Plan:
    """The plan in the number format that this machine multiplies fastest."""
    precision = machine_precision()
    if precision == "fp32":
        return plan
    said = f"Training multiplies in {precision}: this machine does so natively."
    return replace(plan, ranked=tuple(_precise(r) for r in plan.ranked), evidence=(*plan.evidence, said))
