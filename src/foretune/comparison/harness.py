"""compare: run what is missing of a protocol, and say what may be claimed."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from foretune.comparison.arena import Event, run_missing
from foretune.comparison.cells import Cells
from foretune.comparison.plan import Plan
from foretune.comparison.protocol import Protocol
from foretune.comparison.verdict import judge
from foretune.errors import UsageError
from foretune.records.reading import read_text
from foretune.records.verdict import Verdict
from foretune.store.journal import JournalStore, default_folder
from foretune.training.workers import Backend, processes


def compare(
    protocol: Protocol | str | os.PathLike[str],
    *,
    store: JournalStore | str | os.PathLike[str] | None = None,
    data_dir: str | None = None,
    workers: int | None = None,
    run: bool = True,
    retry_failed: bool = False,
    keep_adapters: bool = False,
    watch: Callable[[Event], None] = lambda event: None,
    backend: Backend = processes,
) -> Verdict:
    """Run every method of ``protocol`` under the same rules, and judge.

    Nothing that the store has is run again, so a comparison that was killed goes on, and one that is finished costs
    nothing. Two comparisons may share a store at the same time.

    Args:
        protocol: or the path of a YAML file.
        store: where records and predictions lie; None is the local store, from which the recommender learns too.
        data_dir: where the files of catalog tasks lie.
        workers: processes; None is as many as the machine bears.
        run: False judges what there is.
        retry_failed: run again what failed before.
        keep_adapters: leave what every run has learned in the store's ``cells``.
        watch: told of every run.
        backend: where it is run: processes of this machine, or ``training.ray_cluster.on_ray(address)``.

    Raises:
        UsageError, DataError, ModelError: before anything is run, where the protocol cannot be carried out.
        ForetuneError: a worker could not go on.

    A run that fails is part of the verdict, and raises nothing.
    """
    asked = protocol if isinstance(protocol, Protocol) else read_protocol(Path(protocol))
    cells = opened(asked, store=store, data_dir=data_dir, retry_failed=retry_failed)
    if not run:
        return judge(cells)
    return run_and_judge(cells, workers=workers, keep_adapters=keep_adapters, watch=watch, backend=backend)


def opened(
    protocol: Protocol,
    *,
    store: JournalStore | str | os.PathLike[str] | None = None,
    data_dir: str | None = None,
    retry_failed: bool = False,
) -> Cells:
    """The cells of a protocol in a store, once it is known that they can be run. Arguments as of ``compare``."""
    folder = store.folder if isinstance(store, JournalStore) else Path(store) if store else default_folder()
    plan = Plan(protocol, data_dir)
    plan.check()
    cells = Cells(plan, folder)
    return Cells(plan, folder, cells.failures()) if retry_failed else cells


def run_and_judge(
    cells: Cells,
    *,
    workers: int | None = None,
    keep_adapters: bool = False,
    watch: Callable[[Event], None] = lambda event: None,
    backend: Backend = processes,
) -> Verdict:
    """Run what is missing, and judge. Arguments as of ``compare``."""
    if workers is not None and workers < 1:
        raise UsageError(f"`workers` must be at least 1, but got {workers}. Leave it out for as many as fit.")
    run_missing(cells, workers=workers, keep_adapters=keep_adapters, watch=watch, backend=backend)
    return judge(Cells(cells.plan, cells.root))


def read_protocol(path: Path) -> Protocol:
    """The protocol of a YAML file.

    Raises:
        UsageError: it cannot be read, or breaks a rule.
    """
    return Protocol.from_yaml(read_text(path, "protocol"), f"`{path}`")
