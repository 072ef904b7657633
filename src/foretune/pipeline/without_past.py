"""What ``tune`` runs on a task where nothing was ever run: the default that everything else is held against."""

from __future__ import annotations

from foretune.recommenders.published import published
from foretune.recommenders.situation import FAMILIES, Situation
from foretune.records import MetaTask, Part, TaskCard, Value
from foretune.store.importers.plain import plain_config


def without_past(task: MetaTask) -> dict[str, Value] | None:
    """What ``tune`` runs on ``task`` where nothing was ever run, as plain settings; None where that cannot be told.

    >>> from foretune.records import ModelCard
    >>> model = ModelCard("m", reading="encoder")
    >>> found = without_past(MetaTask("a", "a", "a", "accuracy", model=model, rows={"train": 400}))
    >>> found["tuner"], found["tuner.rank"], found["lr"], found["steps"]
    ('lora', 8, 0.0005, 500)
    """
    from foretune.tuners import TUNERS

    if task.model is None or task.model.reading not in FAMILIES or not task.rows.get("train"):
        return None
    card = TaskCard(task.name, task.kind, task.rows)
    best, _ = published(Situation(card, task.model.reading, task.model.parameters or 0, TUNERS, Part("")))
    options, course = plain_config(best.tuner.options, "tuner."), best.schedule
    return {
        "tuner": best.tuner.name,
        **options,
        "steps": course.steps,
        "batch_size": course.batch_size,
        "lr": course.lr,
    }
