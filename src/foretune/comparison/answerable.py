"""What a language model would fail at only once other methods have been paid for, found out before anything is run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
import pyarrow.compute as pc

from foretune.comparison.methods import Method
from foretune.models import Checkpoint
from foretune.objectives import Objective
from foretune.objectives import make as make_objective
from foretune.records import RunConfig
from foretune.tasks import Task
from foretune.training.prepare import draw_rows, require_whole_prompts, tables_of

if TYPE_CHECKING:
    import pyarrow as pa

    from foretune.comparison.plan import Plan

LOOKED_AT = 64
"""Rows of a split, by their characters the longest, that are tried behind the examples; all of them if one does not
fit, so that the refusal has the right count."""


def require_answerable(plan: Plan, method: Method, task: Task) -> None:
    """Words and pattern are sound, and where examples are shown, by ``method`` or by
    its teacher, the rows fit behind those of every draw.

    Raises:
        ForetuneError: the first of these that does not hold.
    """
    checkpoint = plan.checkpoint(task, language=True)
    for shots in plan.protocol.shots:
        for cell in plan.cells(method.name, task.name, shots):
            shows = _require_sound(plan.config(method, cell, None), task, checkpoint, plan.data_dir)
            if not shows:
                break


def _require_sound(config: RunConfig, task: Task, checkpoint: Checkpoint, data_dir: str | None) -> bool:
    """Check one run; whether it shows examples, so that another draw may be too long."""
    tables = tables_of(draw_rows(config, task), task)
    objective = make_objective(config.objective).for_task(task.schema, tables, config.seeds, checkpoint)
    judged = {name: table for name, table in tables.items() if name != "train"}
    if objective.in_context:
        _require_room(objective, judged, checkpoint)
        return True
    lesson = objective.lesson(task, tables, config.seeds, checkpoint, data_dir)
    for teacher in lesson.teachers if lesson is not None else ():
        assert lesson is not None
        _require_room(teacher, {**judged, "the texts to learn on": lesson.table}, checkpoint)
    return lesson is not None


def _require_room(reader: Objective, judged: Mapping[str, pa.Table], checkpoint: Checkpoint) -> None:
    for name, table in judged.items():
        if reader.encode(_longest(table, LOOKED_AT), None, checkpoint).cut:
            require_whole_prompts(reader, {name: reader.encode(table, None, checkpoint)})


def _longest(table: pa.Table, n: int) -> pa.Table:
    sizes = [pc.fill_null(pc.utf8_length(table[name]), 0).to_numpy() for name in ("text", "pair")]
    return table.take(np.argsort(-sum(sizes), kind="stable")[:n])
