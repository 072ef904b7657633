"""RunRecord -> MetaRun: our own runs in the form that surrogates learn from, beside those of other projects.

A task is the rows that were drawn, label budget and model: runs that differ in tuner, objective, schedule or in the
other seeds compete within it. Two draws of 16 rows are two tasks of one group: the better of two runs on different
rows may have had the easier ones. Test scores go into lines of the split ``test``, which a replay reads and no
surrogate.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import asdict, replace

from foretune.records import (
    KINDS,
    Line,
    MetaRun,
    MetaTask,
    ModelCard,
    Part,
    RunCollection,
    RunRecord,
    Schedule,
    Value,
    digest,
)
from foretune.store.importers.plain import plain_config

OWN = "runs"
"""The name of the collection of one's own runs."""

SOURCE = "foretune"
"""``MetaTask.source`` of runs whose settings can be run here."""

_NO_SETTING = ("evaluations", "micro_batch")
"""Fields of a schedule that change what is seen of a run, or its memory, and not what comes out."""


def from_records(records: Iterable[RunRecord], name: str = OWN) -> RunCollection:
    """The collection of ``records``; of one that was recorded more than once, the latest.

    Runs that are not over, those on texts without labels, and records of floors alone are left out. What one record
    knows of a task holds for all its runs: one that failed before its task was described takes the description of
    another, and what the frozen model makes of a draw is measured once for each, with its floors.
    """
    latest = {record.digest: record for record in records}
    over = _with_draws([r for r in latest.values() if r.status != "running" and r.config.task.kind in KINDS])
    runs = [record for record in over if not _idle(record)]
    tasks: dict[str, MetaTask] = {}
    for record in runs:
        tasks.setdefault(task_id(record), _task(record))
    for record in over:
        found = _task(record)
        if (known := tasks.get(found.task_id)) is not None:
            tasks[found.task_id] = _with(known, found)
    return RunCollection(name, tuple(tasks.values()), tuple(_run(record) for record in runs))


def _with_draws(records: list[RunRecord]) -> list[RunRecord]:
    """``records``, those that ended before their draw with that of another that asked for the same one."""
    drawn = {_asked(record): record.sample for record in records if record.sample}
    return [record if record.sample else replace(record, sample=drawn.get(_asked(record))) for record in records]


def _asked(record: RunRecord) -> str:
    """The budget and the seed that rows were drawn by, in one word."""
    return digest([_budgeted(record), record.config.seeds.data])


def _with(task: MetaTask, other: MetaTask) -> MetaTask:
    """``task``, with what it lacks and another description of it has; no features of another version."""
    if not task.features_version:
        return other if other.features_version else task
    if other.features_version != task.features_version:
        return task
    return replace(task, features={**other.features, **task.features})


def _idle(record: RunRecord) -> bool:
    """Whether nothing was judged but floors: no pipeline ran."""
    return record.status == "ok" and not record.evaluations and bool(record.floors)


def task_id(record: RunRecord) -> str:
    """Rows, budget, draw and model of a run, in one word.

    The draw is the hash of its rows, so that seeds that draw the same ones have one task; where it was not kept, the
    seed that drew it.
    """
    return digest([_budgeted(record), record.sample or record.config.seeds.data])


def _budgeted(record: RunRecord) -> str:
    """Rows to draw from, budget and model, in one word."""
    task, model = record.config.task, record.config.model
    rows = task.fingerprint or [task.source, task.dev, task.test]
    budget = [task.kind, record.metric, task.shots, task.dev_fraction, task.test_fraction]
    return digest([rows, budget, model.fingerprint or [model.name, model.revision]])


def own_config(record: RunRecord) -> dict[str, Value]:
    """Tuner, objective and schedule as plain values.

    >>> from foretune.testing.store_contract import toy_record
    >>> {name: own_config(toy_record())[name] for name in ("tuner", "tuner.rank", "lr")}
    {'tuner': 'lora', 'tuner.rank': 8, 'lr': 0.0002}
    """
    config = record.config
    return plain_settings(
        record.tuner or config.tuner,
        config.objective,
        config.schedule,
        config.model.pooling,
        config.model.max_length,
        config.pretraining is not None,
    )


def plain_settings(
    tuner: Part,
    objective: Part,
    schedule: Schedule,
    pooling: str,
    max_length: int,
    pretrained_further: bool = False,
) -> dict[str, Value]:
    """A pipeline as plain values by name: the form in which candidates and past runs are compared.

    Args:
        tuner: with every option, those that nobody gave included (``Tuner.part``): a run that names a default and one
            that leaves it out are the same.

    >>> made = plain_settings(Part("ia3"), Part("head"), Schedule(steps=20, clip=None), "mean", 64)
    >>> made["tuner"], made["steps"], "clip" in made, "evaluations" in made
    ('ia3', 20, False, False)
    """
    course = {name: value for name, value in asdict(schedule).items() if name not in _NO_SETTING}
    return {
        "tuner": tuner.name,
        **plain_config(tuner.options, "tuner."),
        "objective": objective.name,
        **plain_config(objective.options, "objective."),
        **plain_config(course),
        "pooling": pooling,
        "max_length": max_length,
        "pretrained_further": pretrained_further,
    }


def _task(record: RunRecord) -> MetaTask:
    card, config = record.card, record.config
    total = record.cost.total_parameters - record.cost.trainable_parameters
    model = record.model or ModelCard(config.model.name, parameters=total if total > 0 else None)
    about = {"classes": card.classes, "majority": card.majority, "label_entropy": card.label_entropy} if card else {}
    described = card is not None and card.kind == "classification"
    return MetaTask(
        task_id=task_id(record),
        name=card.name if card else config.task.source,
        group_key=config.task.fingerprint or config.task.source,
        metric=record.metric,
        kind=config.task.kind,
        model=model,
        rows=dict(card.rows) if card else {},
        features={**({k: float(v) for k, v in about.items()} if described else {}), **(card.features if card else {})},
        features_version=card.version if card else 0,
        data_hash=config.task.fingerprint,
        sketch=card.sketch if card else (),
        source=SOURCE,
    )


def _out_of_patience(record: RunRecord) -> bool:
    """Whether training ended for want of a gain on dev, as its schedule says, and not because a clock ended it.

    A record says so in a sentence for readers; the curve says it as well, and the same of every record.
    """
    patience, curve = record.config.schedule.patience, record.curve
    if patience is None:
        return False
    score, loss = (
        {p.step: p.value for p in curve if (p.split, p.metric) == ("dev", m)} for m in (record.metric, "loss")
    )
    keys = [(_or_worst(score[step]), _or_worst(-loss.get(step, math.inf))) for step in sorted(score)]
    return bool(keys) and len(keys) - 1 - keys.index(max(keys)) >= patience


def _or_worst(value: float) -> float:
    return value if math.isfinite(value) else -math.inf


def _run(record: RunRecord) -> MetaRun:
    """A run that a budget cut is ``stopped``, though its record is ``ok``: what was judged is not how it would end."""
    curve = record.curve
    lines = []
    for split, metric in curve.lines():
        points = [p for p in curve if (p.split, p.metric) == (split, metric)]
        columns = zip(*((p.step, p.value, p.seconds) for p in points), strict=True)
        lines.append(Line(split, metric, *(tuple(column) for column in columns)))
    planned, done = max(record.config.schedule.steps, 1), max((record.steps_done, *(point.step for point in curve)))
    cut = done < record.config.schedule.steps and not _out_of_patience(record)
    status = "stopped" if record.status == "ok" and cut else record.status
    step = record.chosen_step if record.chosen_step is not None else record.steps_done
    for split, judged in record.evaluations.items():
        if split != "dev" and record.metric in judged.scores:
            lines.append(Line(split, record.metric, (step,), (judged.scores[record.metric],)))
    cost = {name: float(value) for name, value in asdict(record.cost).items() if value}
    return MetaRun(
        run_id=record.digest,
        task_id=task_id(record),
        config=own_config(record),
        status=status,
        max_steps=planned,
        steps_done=planned if done >= record.config.schedule.steps else done,
        lines=tuple(lines),
        seed=record.config.seeds.init,
        cost=cost,
        hardware=record.surroundings.get("device", ""),
        error=record.error or "",
    )
