"""Texts without labels that a comparison reads: of stages before the task, of a student's pool, held apart.

Each is opened before the first run and fingerprinted, so that a file that changes is another run. None of them costs a
label. What would spoil the result is left out as ``foretune tune`` leaves it out: rows that judge the task from what is
learned from, rows of the task from what is held apart.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from foretune.comparison.methods import Pretrain
from foretune.objectives import Objective
from foretune.records import HeldTexts, ModelRef, RunConfig
from foretune.tasks import Task
from foretune.tasks.unlabelled import Texts, evaluation_rows, open_held, open_texts
from foretune.training.stages import stage_config


@dataclass(eq=False)
class Shelf:
    """The texts that have been opened.

    Attributes:
        data_dir: where the files of catalog tasks lie.

    Every method raises ``DataError`` where the texts cannot be read or too few are left.
    """

    data_dir: str | None = None
    _stages: dict[tuple[str, str], Texts] = field(default_factory=dict)
    _held: dict[str, HeldTexts] = field(default_factory=dict)
    _pools: dict[tuple[Objective, str], Mapping[str, Any]] = field(default_factory=dict)

    def stage(self, asked: Pretrain, task: Task, model: ModelRef, test_fraction: float, precision: str) -> RunConfig:
        """The stage that runs of ``task`` start from."""
        key = asked.source, task.name
        if key not in self._stages:
            texts = open_texts(asked.source, task.schema, self.data_dir)
            self._stages[key] = texts.without(evaluation_rows(task, test_fraction))
        return stage_config(model, self._stages[key], precision=precision, **asked.given)

    def held(self, asked: HeldTexts, task: Task) -> HeldTexts:
        """``asked`` with the fingerprint of the texts that ``task`` leaves of it."""
        if task.name not in self._held:
            found = open_held(asked, task, self.data_dir)
            self._held[task.name] = replace(asked, fingerprint=found.fingerprint)
        return self._held[task.name]

    def identified(self, objective: Objective, task: Task) -> Mapping[str, Any]:
        """The options that say what the files hold that the options of ``objective`` name."""
        key = objective, task.name
        if key not in self._pools:
            before, after = asdict(objective), asdict(objective.identified(task.schema, self.data_dir))
            self._pools[key] = {name: value for name, value in after.items() if value != before[name]}
        return self._pools[key]
