"""What a plan recommends, with what the user asked for laid over it: objective, config, and the plan as it is run."""

from __future__ import annotations

import math
from dataclasses import asdict, replace

from foretune.errors import UsageError
from foretune.objectives import for_kind
from foretune.objectives import make as make_objective
from foretune.pipeline.options import TuneOptions, flag
from foretune.records import ModelRef, Part, Plan, Recommendation, RunConfig, Schedule, Seeds
from foretune.tasks import Task

_SCHEDULE = (
    "lr", "head_lr", "batch_size", "micro_batch", "weight_decay", "warmup", "decay", "evaluations", "patience",
    "precision",
)  # fmt: skip
_LAID_OVER = (*_SCHEDULE, "clip", "steps", "epochs", "option")
_TRAINING = (*_SCHEDULE, "clip", "steps", "epochs")


def laid_over(best: Recommendation, options: TuneOptions, rows: int) -> Recommendation:
    """``best`` with every option that the user gave laid over it.

    Raises:
        UsageError: it trains nothing, and an option says how to train.
    """
    asked = {name: value for name in _SCHEDULE if (value := getattr(options, name)) is not None}
    if options.clip is not None:
        asked["clip"] = options.clip or None
    if best.schedule.steps == 0 and (idle := [name for name in _TRAINING if name in options.given()]):
        raise UsageError(
            f"`{best.tuner.name}` trains nothing, but `{flag(idle[0])}` says how to train. Leave it out, or name "
            "another tuner."
        )
    schedule: Schedule = replace(best.schedule, **asked)
    if options.steps is not None:
        schedule = replace(schedule, steps=options.steps)
    elif options.epochs is not None:
        schedule = replace(schedule, steps=max(1, math.ceil(options.epochs * math.ceil(rows / schedule.batch_size))))
    schedule = replace(schedule, evaluations=max(1, min(schedule.evaluations, schedule.steps)))
    return replace(best, tuner=Part(best.tuner.name, {**best.tuner.options, **options.option}), schedule=schedule)


def run_config(task: Task, model: ModelRef, plan: Plan, options: TuneOptions, rows: int) -> RunConfig:
    """The best of ``plan`` with every option that the user gave laid over it."""
    best = laid_over(plan.best, options, rows)
    return RunConfig(
        model=model,
        task=replace(
            task.ref, shots=options.shots, dev_fraction=options.dev_fraction, test_fraction=options.test_fraction
        ),
        tuner=best.tuner,
        objective=best.objective,
        schedule=best.schedule,
        seeds=Seeds.all(options.seed),
    )


def as_run(plan: Plan, config: RunConfig, options: TuneOptions) -> Plan:
    """``plan`` with its best as it will be run; what was foretold of other settings is not said of these."""
    best = plan.best
    ours = Recommendation(config.tuner, config.objective, config.schedule)
    if ours == best.bare:
        return plan
    asked = fixed(options)
    said = (f"Asked for, in place of what is said above: {', '.join(asked)}.",) if asked else ()
    return replace(plan, ranked=(ours, *plan.ranked[1:]), evidence=(*plan.evidence, *said), tied=1)


def fixed(options: TuneOptions) -> list[str]:
    """What the user decided of any pipeline that may be recommended, as the command line spells it."""
    given = options.given()
    return [f"{flag(name)} {given[name]}" for name in _LAID_OVER if name in given]


def objective_of(task: Task, options: TuneOptions, plan: Plan | None) -> Part:
    """What is minimised: asked for, planned, or the default of the kind.

    Raises:
        UsageError: it does not serve the kind, or a given plan says something else than the options.
    """
    if plan is not None:
        for name, planned in (("tuner", plan.best.tuner.name), ("objective", plan.best.objective.name)):
            if getattr(options, name) not in (None, planned):
                asked = getattr(options, name)
                raise UsageError(
                    f"The plan says {name} `{planned}`, but `{asked}` was asked for. Leave one of them out."
                )
    chosen = plan.best.objective if plan else Part(options.objective or for_kind(task.schema.kind))
    objective = typed(Part(chosen.name, {**chosen.options, **options.objective_option}))
    kinds = make_objective(objective).kinds
    if task.schema.kind not in kinds:
        raise UsageError(
            f"The objective `{objective.name}` serves {', '.join(kinds)} tasks, but `{task.name}` is a "
            f"{task.schema.kind} task. Leave `--objective` out to choose by kind."
        )
    if task.schema.references and objective.name == "response":
        return Part(objective.name, {**objective.options, "references": task.schema.references})
    return _identified(objective, task, options.data_dir)


def _identified(objective: Part, task: Task, data_dir: str | None) -> Part:
    """The part with what the files hold that its options name."""
    made = make_objective(objective)
    before, after = asdict(made), asdict(made.identified(task.schema, data_dir))
    found = {name: value for name, value in after.items() if value != before[name]}
    return Part(objective.name, {**objective.options, **found}) if found else objective


def typed(objective: Part) -> Part:
    """The options as the objective holds them, so that ``"4"`` and ``4`` are one run.

    Raises:
        UsageError: no such objective, or an option or value that it does not have.

    >>> typed(Part("pattern", {"demonstrations": "4"})).options
    {'demonstrations': 4}
    """
    made = asdict(make_objective(objective))
    return Part(objective.name, {name: made[name] for name in objective.options})
