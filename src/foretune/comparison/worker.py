"""One worker of a comparison: ``python -m foretune.comparison.worker``; see ``training.worker``."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from foretune.comparison.cells import Cells
from foretune.comparison.plan import FLOORS, Cell, Job, Plan
from foretune.comparison.protocol import Protocol
from foretune.comparison.work import come_to, event
from foretune.records import RunConfig, RunRecord
from foretune.training.worker import Say, attempt, serve, share
from foretune.training.workers import Site


def work(cells: Cells, say: Say = lambda event: None, keep_adapters: bool = False) -> None:
    """Run what is missing until nothing is, or until what is missing is being run by others, and wait for that.

    Raises:
        Interrupted: SIGINT or SIGTERM; the run under way has saved its state.
        StoreError: the store cannot be written.
    """

    def one(job: Job) -> None:
        say(event("begin", job))
        say(event("end", job, run(cells, job, keep_adapters)))

    share(cells.root / "claims", cells.missing, cells.finished, one)


def run(cells: Cells, job: Job, keep_adapters: bool = False) -> RunRecord:
    """Run ``job`` in its folder, or go on with it, and append its record; whatever happens, there is one.

    Raises:
        Interrupted: by the user; nothing is appended, and the folder holds what is needed to go on.
    """
    record = measured(cells, job, keep_adapters)
    cells.store.append(record)
    return record


def measured(cells: Cells, job: Job, keep_adapters: bool = False) -> RunRecord:
    """The record of ``job``, which nobody has appended yet; its files are in its folder. Raises as ``run``."""
    folder = cells.folder(job.digest)
    record = attempt(job.config, folder, partial(_run, cells, job))
    if not keep_adapters:
        shutil.rmtree(folder / "adapter", ignore_errors=True)
    return record


def on_node(asked: Mapping[str, Any]) -> tuple[Site, str]:
    """The protocol opened on a machine without its store; what runs it, and the digest over what it comes to."""
    plan = _plan(asked)

    def run(wanted: Mapping[str, Any], root: Path) -> tuple[RunRecord, Path]:
        job = Job(Cell(**wanted["cell"]), RunConfig.from_json(wanted["config"]))
        cells = Cells(plan, root)
        return measured(cells, job, asked["keep_adapters"]), cells.folder(job.digest)

    return run, come_to(plan)


def _run(cells: Cells, job: Job) -> RunRecord:
    from foretune.training.floor_record import floor_record
    from foretune.training.run import train

    plan, folder = cells.plan, cells.folder(job.digest)
    task = plan.task(job.cell.task)
    if job.cell.method == FLOORS:
        return floor_record(job.config, task, folder)
    return train(job.config, task=task, folder=folder, data_dir=plan.data_dir, floors=False, store=cells.root)


def _work(asked: Mapping[str, Any], say: Say) -> None:
    work(Cells(_plan(asked), asked["store"], asked["retry"]), say, asked["keep_adapters"])


def _plan(asked: Mapping[str, Any]) -> Plan:
    return Plan(Protocol.from_json(asked["protocol"]), asked["data_dir"])


if __name__ == "__main__":
    serve(_work)
