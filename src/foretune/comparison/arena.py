"""Arena: runs what is missing from the store, in worker processes or on a cluster, until nothing is.

A run that fails is a record, and the others go on; a comparison that is killed goes on where it was. How workers share
the runs, also with those of another comparison, is ``training.workers``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from foretune.comparison.cells import Cells
from foretune.comparison.work import Comparing
from foretune.training.workers import Backend, Told, processes


@dataclass(frozen=True)
class Event:
    """What a worker did: ``begin`` and ``end`` of a run, or an ``error`` that ended the worker.

    Attributes:
        done, total: runs that have ended, of all that are known by now.
        status, error: of the run that ended.
    """

    event: str
    method: str = ""
    task: str = ""
    shots: int = 0
    data_seed: int = 0
    init_seed: int = 0
    rate: float = 0.0
    status: str = ""
    error: str | None = None
    done: int = 0
    total: int = 0


Watch = Callable[[Event], None]


def run_missing(
    cells: Cells,
    *,
    workers: int | None = None,
    keep_adapters: bool = False,
    watch: Watch = lambda event: None,
    backend: Backend = processes,
) -> None:
    """Run every run of ``cells.plan`` that the store does not have.

    Args:
        workers: processes; None is as many as cores and memory allow, and one where there is a GPU.
        keep_adapters: leave what was learned in each run's folder.
        watch: told of every run.
        backend: where it is run: processes of this machine, or ``training.ray_cluster.on_ray(address)``.

    Raises:
        Interrupted: by Ctrl-C or SIGTERM; the same call goes on.
        ForetuneError: a worker could not go on, for example for want of disk.
    """
    missing = cells.missing()
    if not missing:
        return
    total = sum(1 for _ in {job.digest for job in cells.known()})
    done = total - len(missing)

    def tell(told: Told) -> None:
        nonlocal done
        done += told["event"] == "end"
        fields = {name: told[name] for name in Event.__dataclass_fields__ if name in told}
        watch(Event(**fields, done=done, total=max(total, done)))

    failed = backend(Comparing(cells, keep_adapters), workers, tell)
    if failed is not None and cells.missing():
        raise failed
