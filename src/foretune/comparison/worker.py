"""One worker of a comparison: ``python -m foretune.comparison.worker``; see ``training.worker``."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from functools import partial
from typing import Any

from foretune.comparison.cells import Cells
from foretune.comparison.plan import FLOORS, Job, Plan
from foretune.comparison.protocol import Protocol
from foretune.records import RunRecord
from foretune.training.worker import Say, attempt, serve, share


def work(cells: Cells, say: Say = lambda event: None, keep_adapters: bool = False) -> None:
    """Run what is missing until nothing is, or until what is missing is being run by others, and wait for that.

    Raises:
        Interrupted: SIGINT or SIGTERM; the run under way has saved its state.
        StoreError: the store cannot be written.
    """

    def one(job: Job) -> None:
        say(_event("begin", job))
        record = run(cells, job, keep_adapters)
        say(_event("end", job, status=record.status, error=record.error))

    share(cells.root / "claims", cells.missing, cells.finished, one)


def run(cells: Cells, job: Job, keep_adapters: bool = False) -> RunRecord:
    """Run ``job`` in its folder, or go on with it, and append its record; whatever happens, there is one.

    Raises:
        Interrupted: by the user; nothing is appended, and the folder holds what is needed to go on.
    """
    folder = cells.folder(job.digest)
    record = attempt(job.config, folder, partial(_run, cells.plan, job, folder))
    if not keep_adapters:
        shutil.rmtree(folder / "adapter", ignore_errors=True)
    cells.store.append(record)
    return record


def _run(plan: Plan, job: Job, folder: Any) -> RunRecord:
    from foretune.training.floor_record import floor_record
    from foretune.training.run import train

    task = plan.task(job.cell.task)
    if job.cell.method == FLOORS:
        return floor_record(job.config, task, folder)
    return train(job.config, task=task, folder=folder, data_dir=plan.data_dir, floors=False)


def _event(kind: str, job: Job, **more: Any) -> dict[str, Any]:
    return {"event": kind, "digest": job.digest, "rate": job.rate, **vars(job.cell), **more}


def _work(asked: Mapping[str, Any], say: Say) -> None:
    plan = Plan(Protocol.from_json(asked["protocol"]), asked["data_dir"])
    work(Cells(plan, asked["store"], asked["retry"]), say, asked["keep_adapters"])


if __name__ == "__main__":
    serve(_work)
