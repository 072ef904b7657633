"""Cells: what of a plan the store has, and what is missing.

The records lie in the common store, so that every comparison also feeds the recommender; beside them, in
``cells/<digest>/``, each run keeps its folder with the predictions for every test row. A run counts as finished when
the store has its record and, where it ended well, its predictions are there.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from foretune.comparison.plan import FLOORS, Cell, Job, Plan
from foretune.comparison.tuning import chosen, chosen_rate
from foretune.records import RunRecord, digest
from foretune.store.journal import JournalStore

ENDED = ("ok", "failed", "diverged", "oom")
"""What is not run again unless it is asked for; a run that was stopped goes on."""


def folder_in(store: str | os.PathLike[str], digest: str) -> Path:
    """Where a run that was compared keeps its predictions in a store."""
    return Path(store) / "cells" / digest


class Cells:
    """The runs of a plan in a store.

    Args:
        plan: what is asked for.
        folder: of the store.
        retry: digest -> content of the failed record whose run is to be run again.
    """

    def __init__(self, plan: Plan, folder: str | os.PathLike[str], retry: Mapping[str, str] | None = None) -> None:
        self.plan, self.root, self.store = plan, Path(folder), JournalStore(folder)
        self.retry = dict(retry or {})

    def folder(self, digest: str) -> Path:
        """Where a run keeps its predictions."""
        return folder_in(self.root, digest)

    def finished(self, job: Job) -> bool:
        """Whether nothing is to be done for ``job``."""
        return self.record(job) is not None

    def record(self, job: Job) -> RunRecord | None:
        """The record of a run that has ended; None where it has not, or is to be run again."""
        found = self.store.find(job.digest)
        if found is None or found.status not in ENDED:
            return None
        if found.status == "ok" and not (self.folder(job.digest) / self._file(job)).exists():
            return None
        return None if job.digest in self.retry and self.retry[job.digest] == content(found) else found

    def missing(self) -> list[Job]:
        """What can be run now and has not been, each run once; runs that wait for a rate are not known yet."""
        found = {job.digest: job for job in self.known() if not self.finished(job)}
        return list(found.values())

    def known(self) -> Iterator[Job]:
        """Every run whose config is known now: rates are chosen on the tuning tasks first."""
        plan = self.plan
        if plan.protocol.tuning_tasks:
            for shots in plan.protocol.shots:
                for method in plan.protocol.methods:
                    if method.trained:
                        yield from (job for jobs in plan.tuning_jobs(method, shots).values() for job in jobs)
        yield from (job for spec in plan.protocol.tasks if (job := plan.zero_shot(spec.called)) is not None)
        for task, shots in plan.grid():
            for at, (data_seed, _) in enumerate(plan.protocol.seeds):
                yield plan.floors(task, shots, data_seed)
                for method in plan.protocol.methods:
                    cells = plan.cells(method.name, task, shots)
                    if at < len(cells):
                        yield from self.trials(cells[at])

    def trials(self, cell: Cell) -> list[Job]:
        """The runs of a cell: one for each rate that it tries; none where its rate is not chosen yet."""
        method, protocol = self.plan.protocol.method(cell.method), self.plan.protocol
        rates = protocol.trials(method)
        if protocol.tuning_tasks and method.trained:
            rate = self.tuned(cell.method, cell.shots)
            if rate is None:
                return []
            rates = (rate,)
        return self.plan.jobs(cell, rates)

    def tuned(self, method: str, shots: int) -> float | None:
        """The rate that the tuning tasks chose; None while a run is missing."""
        tried = self.plan.tuning_jobs(self.plan.protocol.method(method), shots)
        found = {rate: [record for job in jobs if (record := self.record(job))] for rate, jobs in tried.items()}
        if any(len(found[rate]) < len(jobs) for rate, jobs in tried.items()):
            return None
        return chosen_rate(found)

    def tuning(self, method: str, shots: int) -> list[RunRecord]:
        """The runs on the tuning tasks that chose a method's rate; none where nothing is chosen there."""
        protocol = self.plan.protocol
        if not (protocol.tuning_tasks and protocol.method(method).trained):
            return []
        tried = self.plan.tuning_jobs(protocol.method(method), shots)
        return [record for jobs in tried.values() for job in jobs if (record := self.record(job))]

    def outcome(self, cell: Cell) -> tuple[RunRecord | None, Sequence[RunRecord]]:
        """The run that a cell is judged by, and all its trials; None while one is missing."""
        jobs = self.trials(cell)
        trials = [record for job in jobs if (record := self.record(job))]
        return (chosen(trials) if jobs and len(trials) == len(jobs) else None), trials

    def failures(self) -> dict[str, str]:
        """Digest -> content, of every run of this plan that failed: what ``retry`` takes."""
        records = (self.store.find(job.digest) for job in self.known())
        return {r.digest: content(r) for r in records if r is not None and r.status in ENDED and r.status != "ok"}

    def _file(self, job: Job) -> str:
        return "floors.parquet" if job.cell.method == FLOORS else "predictions.parquet"


def content(record: RunRecord) -> str:
    """A hash of all that a record says: a second failure of a run is another record."""
    return digest(record.to_json())
