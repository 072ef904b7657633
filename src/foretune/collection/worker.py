"""One worker of a collection: ``python -m foretune.collection.worker``; see ``training.worker``."""

from __future__ import annotations

import math
import shutil
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from foretune.collection.plan import CollectionPlan
from foretune.collection.runs import Job, Runs
from foretune.records import RunRecord
from foretune.training.floor_record import FLOORS
from foretune.training.worker import Say, attempt, serve, share

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
        record = run(runs, job)
        say(event("end", job, **outcome(record)))

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


def outcome(record: RunRecord) -> dict[str, Any]:
    """What is told of a run that ended."""
    dev = record.evaluations.get("dev")
    score = dev.scores.get(record.metric, math.nan) if dev else math.nan
    return {
        "status": record.status,
        "error": record.error,
        "metric": record.metric,
        "score": score if math.isfinite(score) else None,
        "seconds": record.cost.seconds,
    }


def event(kind: str, job: Job, **more: Any) -> dict[str, Any]:
    """What is told of a run."""
    about = {"tuner": job.config.tuner.name, "task": job.cell.task, "shots": job.cell.shots}
    return {"event": kind, "digest": job.digest, **about, "model": job.cell.model.name, **more}


def _work(asked: Mapping[str, Any], say: Say) -> None:
    work(Runs(CollectionPlan.from_json(asked["plan"]), Path(asked["store"]), asked["data_dir"]), say)


if __name__ == "__main__":
    serve(_work)
