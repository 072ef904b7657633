"""bf16 where the machine only emulates it: said before anything is trained, by whoever trains."""

from __future__ import annotations

from pathlib import Path

import pytest

from foretune.cli.compare import _to_do
from foretune.comparison import Protocol
from foretune.pipeline import TuneOptions, prepare_plan
from foretune.tasks import Task
from foretune.testing import toys
from foretune.training import precision
from foretune.training.precision import about_emulated


@pytest.fixture
def without_units(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(precision, "machine_precision", lambda: "fp32")


@pytest.fixture
def with_units(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(precision, "machine_precision", lambda: "bf16")


def notes(bert: Path, asked: str) -> str:
    task = Task.from_records(toys.rows("classification"))
    options = TuneOptions(model=str(bert), recommender="default", steps=2, precision=asked)
    return " ".join(prepare_plan(task, options).notes)


@pytest.mark.usefixtures("without_units")
def test_it_is_told_where_the_machine_has_no_units(bert: Path):
    assert "tens of times slower than fp32" in about_emulated("bf16")
    assert about_emulated("fp32") == ""
    assert about_emulated("bf16") in notes(bert, "bf16")
    assert "slower" not in notes(bert, "fp32")
    asked = {"tasks": ["banking77_demo"], "methods": ["lora", "full"], "data_seeds": [0, 1]}
    assert list(_to_do(Protocol.from_json({**asked, "precision": "bf16"}), 4))[1:] == [about_emulated("bf16")]
    assert len(list(_to_do(Protocol.from_json(asked), 4))) == 1


@pytest.mark.usefixtures("with_units")
def test_nothing_is_told_where_it_has(bert: Path):
    assert about_emulated("bf16") == ""
    assert "slower" not in notes(bert, "bf16")
