"""Worker processes: one that has grown is replaced, so is one that dies, and a run that kills workers is given up."""

from __future__ import annotations

import os
import signal
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from foretune.errors import ResourceError
from foretune.records import RunConfig, RunRecord
from foretune.store.journal import JournalStore
from foretune.testing.store_contract import toy_record
from foretune.training.workers import TRIES, Work, drive


@dataclass(frozen=True)
class Job:
    config: RunConfig

    @property
    def digest(self) -> str:
        return self.config.digest


class Toy(Work[Job]):
    """Work of a module that has no store: what is done leaves a file of its digest."""

    def __init__(self, folder: Path, jobs: int, module: str = "killed_worker") -> None:
        self.module = module  # type: ignore[misc]
        self.root, self.jobs = folder, [Job(toy_record(seed=seed).config) for seed in range(jobs)]

    @property
    def store(self) -> JournalStore:
        return JournalStore(self.root)

    @property
    def asked(self) -> dict[str, Any]:
        return {"folder": str(self.root), "jobs": [job.digest for job in self.jobs]}

    digest, weights = "toy", 0

    def missing(self) -> list[Job]:
        return [job for job in self.jobs if not self.finished(job)]

    def finished(self, job: Job) -> bool:
        return (self.root / job.digest).exists() or self.store.find(job.digest) is not None

    def wanted(self, job: Job) -> dict[str, Any]:
        return {"digest": job.digest}

    def event(self, kind: str, job: Job, record: RunRecord | None = None) -> dict[str, Any]:
        return {"event": kind, "digest": job.digest, "status": record.status if record else None}

    def folder(self, job: Job) -> None:
        return None


@pytest.fixture(autouse=True)
def _importable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")]))


def test_a_worker_that_has_grown_is_replaced_and_the_work_goes_on(tmp_path: Path):
    told: list[dict[str, Any]] = []
    work = Toy(tmp_path, 5, "renewed_worker")
    assert drive(work, 1, told.append) is None
    ended = [event for event in told if event["event"] == "end"]
    assert [event["digest"] for event in ended] == [job.digest for job in work.jobs]
    assert [event["nth"] for event in ended] == [1, 2, 3, 1, 2]


def test_where_no_worker_ever_begins_a_run_the_command_ends_with_a_sentence(tmp_path: Path):
    work = Toy(tmp_path, 1, "no_module_of_this_name")
    failed = drive(work, 1, lambda told: None)
    assert isinstance(failed, ResourceError)
    assert "Workers end with status 1 without ending a run" in str(failed)
    assert not list(work.store)


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="Windows has no signal that kills")
@pytest.mark.parametrize("workers", [1, 2])
def test_a_run_that_kills_its_workers_is_recorded_and_the_others_go_on(tmp_path: Path, workers: int):
    told: list[dict[str, Any]] = []
    work = Toy(tmp_path, 4)
    deadly = work.jobs[1].digest
    (tmp_path / f"{deadly}.kills").touch()
    assert drive(work, workers, told.append) is None
    begun = Counter(event["digest"] for event in told if event["event"] == "begin")
    assert begun[deadly] >= TRIES if workers > 1 else begun[deadly] == TRIES
    assert {event["digest"] for event in told if event["event"] == "end"} == {job.digest for job in work.jobs}
    (record,) = work.store
    assert (record.digest, record.status) == (deadly, "failed")
    assert record.error == "its worker died 3 times, as one does that takes more memory than there is"
    assert not work.missing()


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="Windows has no signal that kills")
def test_where_every_run_kills_its_worker_the_command_stops_after_three_of_them(tmp_path: Path):
    work = Toy(tmp_path, 5)
    for job in work.jobs:
        (tmp_path / f"{job.digest}.kills").touch()
    failed = drive(work, 1, lambda told: None)
    assert isinstance(failed, ResourceError)
    assert f"status -{signal.SIGKILL.value}" in str(failed)
    assert [record.digest for record in work.store] == [job.digest for job in work.jobs[:TRIES]]
