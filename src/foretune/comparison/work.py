"""Work: the missing runs of a comparison, as processes and actors see them."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar, final

from foretune.comparison.cells import Cells
from foretune.comparison.plan import Job, Plan
from foretune.models import open_checkpoint
from foretune.records import RunRecord, digest
from foretune.store.journal import JournalStore
from foretune.training.workers import Told, Work


@final
@dataclass(frozen=True, eq=False)
class Comparing(Work[Job]):
    """The missing runs of a comparison, for those who have them done.

    Attributes:
        keep_adapters: leave what was learned in each run's folder.
    """

    cells: Cells
    keep_adapters: bool = False
    module: ClassVar[str] = "foretune.comparison.worker"

    @property
    def store(self) -> JournalStore:
        return self.cells.store

    @property
    def asked(self) -> dict[str, Any]:
        return {
            "protocol": self.cells.plan.protocol.to_json(),
            "data_dir": self.cells.plan.data_dir,
            "store": str(self.cells.root),
            "retry": self.cells.retry,
            "keep_adapters": self.keep_adapters,
        }

    @property
    def digest(self) -> str:
        return come_to(self.cells.plan)

    @property
    def weights(self) -> int:
        plan = self.cells.plan
        kinds = {plan.task(spec.called).schema.kind for spec in plan.protocol.tasks}
        return max(open_checkpoint(plan.protocol.model, kind).parameters for kind in kinds)

    def missing(self) -> list[Job]:
        return self.cells.missing()

    def finished(self, job: Job) -> bool:
        return self.cells.finished(job)

    def wanted(self, job: Job) -> dict[str, Any]:
        """Whole: which rate was chosen is not known where the store is not."""
        return {"cell": asdict(job.cell), "config": job.config.to_json()}

    def event(self, kind: str, job: Job, record: RunRecord | None = None) -> Told:
        return event(kind, job, record)

    def folder(self, job: Job) -> Path:
        return self.cells.folder(job.digest)


def event(kind: str, job: Job, record: RunRecord | None = None) -> Told:
    """What is told of a run; of one that ended with its outcome."""
    told = {"event": kind, "digest": job.digest, "rate": job.rate, **asdict(job.cell)}
    return told if record is None else {**told, "status": record.status, "error": record.error}


def come_to(plan: Plan) -> str:
    """A digest over all runs but for their rates: the same wherever data and models are."""
    protocol = plan.protocol
    found = [job for spec in protocol.tasks if (job := plan.zero_shot(spec.called)) is not None]
    for task, shots in plan.grid():
        found += [plan.floors(task, shots, seed) for seed in protocol.data_seeds]
        for method in protocol.methods:
            found += [job for cell in plan.cells(method.name, task, shots) for job in plan.jobs(cell, ())]
    if protocol.tuning_tasks:
        trained = [method for method in protocol.methods if method.trained]
        tuned = [plan.tuning_jobs(method, shots) for method in trained for shots in protocol.shots]
        found += [job for rates in tuned for jobs in rates.values() for job in jobs]
    return digest([job.digest for job in found])
