"""Work: the missing runs of a collection, as processes and actors see them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar, final

from foretune.collection.runs import Job, Runs
from foretune.records import RunRecord, digest
from foretune.store.journal import JournalStore
from foretune.training.workers import Told, Work


@final
@dataclass(frozen=True, eq=False)
class Collecting(Work[Job]):
    """The missing runs of a collection, for those who have them done."""

    runs: Runs
    module: ClassVar[str] = "foretune.collection.worker"

    @property
    def store(self) -> JournalStore:
        return self.runs.store

    @property
    def asked(self) -> dict[str, Any]:
        return {"plan": self.runs.plan.to_json(), "data_dir": self.runs.data_dir, "store": str(self.runs.root)}

    @property
    def digest(self) -> str:
        return come_to(self.runs)

    @property
    def weights(self) -> int:
        return max(self.runs.checkpoint(cell).parameters for cell in self.runs.cells)

    def missing(self) -> list[Job]:
        return self.runs.missing()

    def finished(self, job: Job) -> bool:
        return self.runs.finished(job)

    def wanted(self, job: Job) -> dict[str, Any]:
        return {"digest": job.digest}

    def event(self, kind: str, job: Job, record: RunRecord | None = None) -> Told:
        return event(kind, job, record)

    def folder(self, job: Job) -> None:
        """Nothing stays of a run but its record."""


def event(kind: str, job: Job, record: RunRecord | None = None) -> Told:
    """What is told of a run; of one that ended with its outcome."""
    about = {"tuner": job.config.tuner.name, "task": job.cell.task, "shots": job.cell.shots}
    told = {"event": kind, "digest": job.digest, **about, "model": job.cell.model.name}
    if record is None:
        return told
    dev = record.evaluations.get("dev")
    score = dev.scores.get(record.metric, math.nan) if dev else math.nan
    return {
        **told,
        "status": record.status,
        "error": record.error,
        "metric": record.metric,
        "score": score if math.isfinite(score) else None,
        "seconds": record.cost.seconds,
    }


def come_to(runs: Runs) -> str:
    """A digest over all runs: the same wherever data and models are."""
    return digest([job.digest for job in runs.jobs])
