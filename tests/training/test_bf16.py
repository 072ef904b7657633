"""In bf16 every tuner trains, and what is recorded is computed in fp32."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from foretune.records import ModelRef, Part, RunConfig, Schedule
from foretune.tasks import Task
from foretune.testing import toys
from foretune.training.run import train
from foretune.tuners import TUNERS


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A decoder with relative positions, so that virtual tokens and texts fit."""
    return toys.checkpoint(tmp_path_factory.mktemp("models") / "llama", "llama", max_position_embeddings=128)


@pytest.mark.parametrize("name", [name for name, tuner in TUNERS.items() if tuner.lr and name != "bitfit"])
def test_every_tuner_trains(name: str, llama: Path):
    task = Task.from_records(toys.rows("classification"))
    config = RunConfig(
        ModelRef(str(llama), pooling="mean", max_length=32),
        replace(task.ref, shots=4),
        Part(name),
        Part("head"),
        Schedule(steps=2, batch_size=4, evaluations=1, precision="bf16"),
    )
    record = train(config, task=task, floors=False)
    assert record.status == "ok"
    assert record.steps_done == 2
