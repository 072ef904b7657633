"""collect: runs what a plan asks for and the store has not, in processes of this machine or on a cluster.

A run that fails is a record with a status; a run that is killed is run again by whoever is next, and one that has ended
is never repeated. Of a run its record stays, with the score on test, which replays read and no surrogate; what it
predicted and what it learned do not.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from foretune.collection.plan import CollectionPlan
from foretune.collection.runs import Runs
from foretune.collection.work import Collecting
from foretune.errors import UsageError
from foretune.store.journal import default_folder
from foretune.training.workers import Backend, Told, processes


@dataclass(frozen=True)
class Event:
    """What a worker did: ``begin`` or ``end`` of a run.

    Attributes:
        tuner: ``floors`` where only floors and landmarks are measured.
        status, error, metric, score, seconds: of the run that ended; the score is that on dev.
        done, total: runs that have ended, of all that the plan asks for.
    """

    event: str
    tuner: str = ""
    task: str = ""
    shots: int = 0
    model: str = ""
    status: str = ""
    error: str | None = None
    metric: str = ""
    score: float | None = None
    seconds: float = 0.0
    done: int = 0
    total: int = 0


Watch = Callable[[Event], None]


@dataclass(frozen=True)
class Collected:
    """What the store has of a plan.

    Attributes:
        total: runs that the plan asks for, floors included.
        statuses: status -> number of runs that ended so.
        seconds: of all of them together.
    """

    total: int
    statuses: dict[str, int]
    seconds: float


def collect(
    plan: CollectionPlan | str | os.PathLike[str],
    *,
    store: str | os.PathLike[str] | None = None,
    data_dir: str | None = None,
    workers: int | None = None,
    watch: Watch = lambda event: None,
    backend: Backend = processes,
) -> Collected:
    """Run every run of ``plan`` that the store does not have.

    Several commands may share a store, and a plan, at the same time.

    Args:
        plan: or the path of a YAML file.
        store: where records lie; None is the local store.
        data_dir: where the files of catalog tasks lie.
        workers: processes; None is as many as cores and memory allow, and one where there is a GPU.
        watch: told of every run.
        backend: where it is run: processes of this machine, or ``training.ray_cluster.on_ray(address)``.

    Raises:
        UsageError, DataError, ModelError: before anything is run, where the plan cannot be carried out.
        Interrupted: by Ctrl-C or SIGTERM; the same call goes on.
        ForetuneError: a worker could not go on, for example for want of disk.
    """
    asked = plan if isinstance(plan, CollectionPlan) else CollectionPlan.from_yaml(Path(plan))
    runs = opened(asked, store=store, data_dir=data_dir)
    return run_missing(runs, workers=workers, watch=watch, backend=backend)


def opened(plan: CollectionPlan, *, store: str | os.PathLike[str] | None = None, data_dir: str | None = None) -> Runs:
    """The runs of a plan in a store, once it is known that they can be run. Arguments as of ``collect``."""
    runs = Runs(plan, Path(store) if store else default_folder(), data_dir)
    runs.check()
    return runs


def run_missing(
    runs: Runs, *, workers: int | None = None, watch: Watch = lambda event: None, backend: Backend = processes
) -> Collected:
    """Run what the store has not. Arguments as of ``collect``.

    Args:
        backend: where it is run.
    """
    if workers is not None and workers < 1:
        raise UsageError(f"`workers` must be at least 1, but got {workers}. Leave it out for as many as fit.")
    runs.tidy()
    missing, total = len(runs.missing()), len(runs.jobs)
    done = total - missing

    def tell(told: Told) -> None:
        nonlocal done
        done += told["event"] == "end"
        fields = {name: told[name] for name in Event.__dataclass_fields__ if name in told}
        watch(Event(**fields, done=done, total=total))

    if missing:
        failed = backend(Collecting(runs), workers, tell)
        if failed is not None and runs.missing():
            raise failed
    return collected(runs)


def collected(runs: Runs) -> Collected:
    """What the store has of a plan."""
    records = runs.records()
    seconds = sum(record.cost.seconds for record in records)
    return Collected(len(runs.jobs), dict(Counter(record.status for record in records)), seconds)
