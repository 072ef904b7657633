"""A toy checkpoint, a toy task for each kind, and a short run over them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from foretune.objectives import for_kind
from foretune.records import ModelRef, Part, RunConfig, Schedule, Seeds
from foretune.tasks import Task
from foretune.testing import toys


@pytest.fixture(scope="session")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """``saved("bert")``: the folder of a toy checkpoint; the same one for the whole session."""
    folder = tmp_path_factory.mktemp("checkpoints")

    def find(name: str) -> Path:
        return folder / name if (folder / name).exists() else toys.checkpoint(folder / name, name)

    return find


@pytest.fixture(scope="session")
def task() -> Callable[..., Task]:
    """``task("regression")``: the toy task of a kind; options as for ``Task.from_records``."""
    return lambda kind="classification", **options: Task.from_records(toys.rows(kind), kind=kind, **options)


@pytest.fixture(scope="session")
def config(saved: Callable[[str], Path], task: Callable[..., Task]) -> Callable[..., RunConfig]:
    """``config(kind, name, tuner=..., seeds=..., steps=...)``: a short run; further names are those of ``Schedule``."""

    def make(
        kind: str = "classification",
        name: str = "bert",
        tuner: Part = Part("lora"),  # noqa: B008 - frozen
        seeds: Seeds = Seeds(),  # noqa: B008 - frozen
        objective: Part | None = None,
        **schedule: object,
    ) -> RunConfig:
        planned = {"steps": 12, "lr": 2e-2, "batch_size": 8, "evaluations": 3, **schedule}
        ref, part = ModelRef(str(saved(name))), objective or Part(for_kind(kind))
        return RunConfig(ref, task(kind).ref, tuner, part, Schedule(**planned), seeds)  # type: ignore[arg-type]

    return make
