"""Draft: the opened task, the plan and the config that follows from plan and options; nothing is trained yet."""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from foretune.errors import ResourceError, UsageError
from foretune.models import Checkpoint, open_checkpoint
from foretune.objectives import for_kind
from foretune.pipeline.options import TuneOptions, make_options, parse_budget
from foretune.recommenders import Situation
from foretune.recommenders import plan as make_plan
from foretune.records import ModelRef, Part, Plan, RunConfig, Schedule, Seeds
from foretune.tasks import Draw, Task, audit, draw
from foretune.tasks.describe import card
from foretune.training.probe import Probe, probe
from foretune.tuners import TUNERS
from foretune.tuners import make as make_tuner

Say = Callable[[str], None]


@dataclass(frozen=True)
class Draft:
    """What would be run.

    Attributes:
        task: opened, with its notes.
        plan: the recommendation, with what it rests on.
        config: the plan with the user's own options over it: what ``train`` gets.
        probe: what a few steps on this machine took; None when none were run.
        notes: about the budget, one sentence each.
    """

    task: Task
    plan: Plan
    config: RunConfig
    probe: Probe | None = None
    notes: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Plain data for ``--dry-run --json``."""
        return {
            "plan": self.plan.to_json(),
            "config": self.config.to_json(),
            "probe": asdict(self.probe) if self.probe else None,
            "notes": list(self.notes),
        }


def recommend(task: Task | str | os.PathLike[str], *, model: str = "demo", budget: str | None = None, **options: Any) -> Plan:
    """The ranked plan for ``task``; trains nothing. Options are those of ``tune``.

    Raises:
        ForetuneError: the task, the model or an option cannot be.
    """
    asked = make_options({"model": model, **({"budget": budget} if budget else {}), **options})
    return prepare_plan(task, asked).plan


def open_task(source: Task | str | os.PathLike[str], options: TuneOptions) -> Task:
    """The task that ``source`` names, read as ``options`` say."""
    if isinstance(source, Task):
        return source
    ood: dict[str, str] = {}
    for item in options.ood:
        path, name = _named(item)
        if name in ood:
            raise UsageError(f"Two out-of-domain sets are called `{name}`. Name them apart: `--ood {path}:other-name`.")
        ood[name] = path
    asked = {name: getattr(options, name) or None for name in _COLUMNS}
    choices = options.choices[0] if len(options.choices) == 1 else list(options.choices) or None
    return Task.from_source(os.fspath(source), **asked, choices=choices, ood=ood, data_dir=options.data_dir)


_COLUMNS = ("text", "pair", "label", "prompt", "response", "kind", "metric", "dev", "test")


def prepare_plan(
    source: Task | str | os.PathLike[str], options: TuneOptions, say: Say = lambda line: None, spent: float = 0.0
) -> Draft:
    """Open everything, ask the recommender, measure a few steps, and lay the user's options over the answer.

    Args:
        say: told what was detected.
        spent: seconds of the budget that are gone already.

    Raises:
        ForetuneError: the task, the model or an option cannot be, or the memory or the budget is not enough.
    """
    task = open_task(source, options)
    for line in task.describe_schema():
        say(line)
    rows = draw(
        task,
        shots=options.shots,
        dev_fraction=options.dev_fraction,
        test_fraction=options.test_fraction,
        seed=options.seed,
    )
    findings = (*rows.notes, *audit(rows).sentences())
    for line in findings:
        say(line)
    task = replace(task, notes=(*task.notes, *findings))
    checkpoint = open_checkpoint(_model(options), task.schema.kind)
    situation = _situation(task, rows, checkpoint, options)
    plan = make_plan(situation)
    config = _config(task, checkpoint, plan, options, len(rows.train))
    make_tuner(config.tuner)
    say(_about_rows(rows, task))
    return _measured(Draft(task, plan, config), situation, options, len(rows.train), spent)


def _measured(draft: Draft, situation: Situation, options: TuneOptions, rows: int, spent: float) -> Draft:
    """The draft with seconds and bytes; where there is a budget, with as many steps as fit it."""
    from foretune.models.network import require_memory

    measured = probe(draft.config, draft.task)
    require_memory(measured.bytes, "Training this model with this batch would")
    budget = parse_budget(options.budget)
    notes: tuple[str, ...] = ()
    plan, config = draft.plan, draft.config
    if budget is not None:
        evaluations = config.schedule.evaluations * measured.evaluated * measured.example_seconds
        left = budget - spent - 2 * measured.setup_seconds - evaluations - measured.reserve()
        if left <= measured.step_seconds:
            raise ResourceError(
                f"The budget of {budget:.0f} s does not hold one training step: {spent + measured.setup_seconds:.0f} s are spent, "
                f"loading, evaluation and floors need {budget - spent - left:.0f} s more. Give a larger `--budget`."
            )
        planned = make_plan(replace(situation, budget_seconds=left, seconds_per_step=measured.step_seconds))
        fitted = _config(draft.task, None, planned, options, rows, draft.config)
        if fitted.schedule.steps < config.schedule.steps:
            notes += (
                f"The budget of {budget:.0f} s leaves time for {fitted.schedule.steps} steps, not the "
                f"{config.schedule.steps} that would be recommended.",
            )
        elif fitted.schedule.steps * measured.step_seconds > left:
            notes += (
                f"{fitted.schedule.steps} steps take about {fitted.schedule.steps * measured.step_seconds:.0f} s, but "
                f"{left:.0f} s are left: training will stop when they are over.",
            )
        plan, config = planned, fitted
    best = replace(
        plan.best,
        seconds=measured.total(config.schedule.steps, config.schedule.evaluations),
        bytes=measured.bytes,
    )
    return replace(
        draft, plan=replace(plan, ranked=(best, *plan.ranked[1:])), config=config, probe=measured, notes=notes
    )


def _situation(task: Task, rows: Draw, checkpoint: Checkpoint, options: TuneOptions) -> Situation:
    sizes = {"train": len(rows.train), "dev": len(rows.dev), "test": len(rows.test)}
    return Situation(
        card=card(task.name, task.schema, rows.train, sizes),
        family=checkpoint.family,
        parameters=checkpoint.parameters,
        methods=TUNERS,
        objective=Part(options.objective or for_kind(task.schema.kind)),
        tuner=options.tuner,
    )


def _model(options: TuneOptions) -> ModelRef:
    return ModelRef(
        name=options.model,
        revision=options.revision,
        pooling=options.pooling or "auto",
        max_length=options.max_length or ModelRef("").max_length,
        trust_remote_code=options.trust_remote_code,
    )


_SCHEDULE = (
    "lr", "head_lr", "batch_size", "micro_batch", "weight_decay", "warmup", "decay", "evaluations", "patience", "precision",
)  # fmt: skip


def _config(
    task: Task,
    checkpoint: Checkpoint | None,
    plan: Plan,
    options: TuneOptions,
    rows: int,
    before: RunConfig | None = None,
) -> RunConfig:
    """The best of ``plan`` with every option that the user gave laid over it."""
    best = plan.best
    asked = {name: value for name in _SCHEDULE if (value := getattr(options, name)) is not None}
    if options.clip is not None:
        asked["clip"] = options.clip or None
    schedule: Schedule = replace(best.schedule, **asked)
    if options.steps is not None:
        schedule = replace(schedule, steps=options.steps)
    elif options.epochs is not None:
        schedule = replace(schedule, steps=max(1, math.ceil(options.epochs * math.ceil(rows / schedule.batch_size))))
    schedule = replace(schedule, evaluations=min(schedule.evaluations, schedule.steps))
    objective = best.objective
    if task.schema.references and objective.name == "response":
        objective = Part(objective.name, {**objective.options, "references": task.schema.references})
    assert checkpoint is not None or before is not None
    return RunConfig(
        model=checkpoint.ref if checkpoint is not None else before.model,  # type: ignore[union-attr]
        task=replace(
            task.ref, shots=options.shots, dev_fraction=options.dev_fraction, test_fraction=options.test_fraction
        ),
        tuner=Part(best.tuner.name, {**best.tuner.options, **options.option}),
        objective=objective,
        schedule=schedule,
        seeds=Seeds.all(options.seed),
    )


def _named(item: str) -> tuple[str, str]:
    """``path`` and name of ``path:name``; a path that exists is never split, nor a drive letter."""
    path, colon, name = item.rpartition(":")
    if not colon or Path(item).exists() or len(path) < 2 or "/" in name or "\\" in name:
        return item, Path(item).stem
    return path, name


def _about_rows(rows: Draw, task: Task) -> str:
    counts = f"{len(rows.train)} rows train, {len(rows.dev)} select (dev), {len(rows.test)} test"
    return counts + "".join(f", {len(table)} test out of domain ({name})" for name, table in task.ood.items()) + "."
