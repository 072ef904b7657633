"""One worker of a collection: ``python -m foretune.collection.worker``; see ``training.worker``."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from foretune.collection.plan import CollectionPlan
from foretune.collection.runs import Job, Runs
from foretune.collection.work import come_to, event
from foretune.records import RunRecord
from foretune.training.floor_record import FLOORS
from foretune.training.worker import Say, attempt, serve, share
from foretune.training.workers import Site

SAVE_EVERY = 120.0
"""Seconds of training between two saves of a run: most runs are shorter, and cost nothing to repeat."""


def work(runs: Runs, say: Say = lambda told: None) -> None:
    """Run what is missing until nothing is, or until what is missing is being run by others, and wait for that.

    Raises:
        Interrupted: SIGINT or SIGTERM; the run under way has saved its state.
        StoreError: the store cannot be written.
    """

    def one(job: Job) -> None:
        say(event("begin", job))
        say(event("end", job, run(runs, job)))

    share(runs.root / "claims", runs.missing, runs.finished, one)


def run(runs: Runs, job: Job) -> RunRecord:
    """Run ``job`` and append its record, after which nothing else is left of it; whatever happens, there is a record.

    Raises:
        Interrupted: by the user; nothing is appended, and its folder holds what is needed to go on.
    """
    record = measured(runs, job)
    runs.store.append(record)
    shutil.rmtree(runs.folder(job), ignore_errors=True)
    return record


def measured(runs: Runs, job: Job) -> RunRecord:
    """The record of ``job``, which is under way in its folder and appended by nobody yet. Raises as ``run``."""
    folder = runs.folder(job)
    return attempt(job.config, folder, partial(_run, runs, job, folder))


def _run(runs: Runs, job: Job, folder: Path) -> RunRecord:
    from foretune.training.floor_record import floor_record
    from foretune.training.run import train

    task = runs.task(job.cell.task)
    if job.config.tuner.name == FLOORS:
        return floor_record(job.config, task, folder)
    return train(job.config, task=task, folder=folder, floors=False, save_every=SAVE_EVERY)


def on_node(asked: Mapping[str, Any]) -> tuple[Site, str]:
    """The plan opened on a machine without its store; what runs it, and the digest over all its runs."""
    runs = Runs(CollectionPlan.from_json(asked["plan"]), Path(), asked["data_dir"])
    jobs = {job.digest: job for job in runs.jobs}

    def run(wanted: Mapping[str, Any], root: Path) -> tuple[RunRecord, None]:
        return measured(replace(runs, root=root), jobs[wanted["digest"]]), None

    return run, come_to(runs)


def _work(asked: Mapping[str, Any], say: Say) -> None:
    work(Runs(CollectionPlan.from_json(asked["plan"]), Path(asked["store"]), asked["data_dir"]), say)


if __name__ == "__main__":
    serve(_work)
