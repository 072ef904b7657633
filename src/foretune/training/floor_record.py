"""The floors of one draw as a record of their own: no method pays for them or is measured beside them.

Once for each draw, however many runs there are on it. So are the landmarks, which end in the record's card.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from foretune.models import model_card
from foretune.records import Cost, Part, RunConfig, RunRecord
from foretune.store.folder import write_run
from foretune.tasks import Task
from foretune.tasks.describe import card
from foretune.training.floors import frozen_of, measure_floors
from foretune.training.landmarks import landmarks
from foretune.training.meters import Stopwatch
from foretune.training.prepare import prepare
from foretune.training.surroundings import surroundings
from foretune.training.worker import now
from foretune.tuners import TUNERS

FLOORS = "floors"
"""The tuner of a config whose run is nothing but floors."""


def floor_record(config: RunConfig, task: Task, folder: Path) -> RunRecord:
    """Measure the floors and the landmarks of the draw that ``config`` names; its tuner is not looked at.

    The answers go to ``floors.parquet`` in ``folder``.

    Raises:
        ForetuneError: task, model or draw cannot be.
    """
    watch, started = Stopwatch(), now()
    folder.mkdir(parents=True, exist_ok=True)
    with watch("setup"):
        made = prepare(replace(config, tuner=Part(next(iter(TUNERS)))), task)  # any: it is not trained
    engine, train = made.engine, made.tables["train"]
    with watch("floors"):
        frozen = frozen_of(made)
        found, seen = measure_floors(made, frozen, folder), landmarks(task, train, frozen)
    rows = {split: len(table) for split, table in made.tables.items()}
    about = card(task.name, task.schema, train, rows, task.sketch)
    record = RunRecord(
        config,
        "ok",
        metric=task.schema.metric,
        card=replace(about, features={**about.features, **seen}),
        model=model_card(engine.checkpoint),
        floors=found,
        labels=task.schema.labels,
        cost=Cost(setup_seconds=watch.seconds["setup"], floor_seconds=watch.seconds["floors"]),
        surroundings=surroundings(str(engine.accelerator.device), 1),
        notes=made.draw.notes,
        started=started,
        finished=now(),
    )
    write_run(folder, record)
    return record
