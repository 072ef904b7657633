"""Worker processes: one that has grown is replaced, one that fails says why, and nothing is run twice."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from foretune.errors import ResourceError
from foretune.training.workers import drive


@pytest.fixture(autouse=True)
def _importable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent))


def test_a_worker_that_has_grown_is_replaced_and_the_work_goes_on(tmp_path: Path):
    told: list[dict[str, Any]] = []
    failed = drive("renewed_worker", {"folder": str(tmp_path), "jobs": 5}, 1, told.append)
    assert failed is None
    assert [event["job"] for event in told] == ["0", "1", "2", "3", "4"]
    assert [event["nth"] for event in told] == [1, 2, 3, 1, 2]


def test_a_worker_that_dies_is_told_of(tmp_path: Path):
    failed = drive("no_module_of_this_name", {"folder": str(tmp_path), "jobs": 1}, 1, lambda told: None)
    assert isinstance(failed, ResourceError)
    assert "A worker ended with status 1" in str(failed)
