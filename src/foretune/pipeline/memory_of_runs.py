"""Which earlier runs a recommendation learns from, and the task at hand in their words.

Three sources: the collection that comes with the package, the user's own store, and collections imported into it whose
runs are foretune's own (other projects' settings cannot be run here). A copy of the task at hand is left out and named,
for a memory of the answer is no foresight. Tasks of another kind are left out too. A source that cannot be read costs
its runs and a sentence, never the plan.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from foretune.errors import ForetuneError
from foretune.models import Checkpoint, FrozenModel, model_card
from foretune.pipeline.without_past import without_past
from foretune.recommenders.recorded import marked
from foretune.records import MetaTask, RunCollection, RunConfig, RunRecord, TaskCard
from foretune.store import JournalStore, default_folder
from foretune.store.collections import kept, read_collection
from foretune.store.metadata import OWN, SOURCE, from_records
from foretune.store.metadataset import MetaDataset, metadataset
from foretune.tasks import Draw, Task
from foretune.training.landmarks import landmarks

NAMED = 3
"""Most tasks that a sentence names."""


@dataclass(frozen=True)
class Memory:
    """Earlier runs that may speak about a task.

    Attributes:
        runs: those of each task's published default marked; None where there are none.
        notes: what was left out, one sentence each.
    """

    runs: MetaDataset | None
    notes: tuple[str, ...] = ()


def memory_for(task: MetaTask, folder: Path | None = None) -> Memory:
    """The earlier runs for ``task``, copies of it and other kinds left out.

    Args:
        folder: of the user's own store; None is the usual one.
    """
    found, notes = _collections(folder or default_folder())
    parts = [part for each in found if (part := _ours(each, task.kind)).runs]
    if not parts:
        return Memory(None, notes)
    runs, copies = metadataset(_distinct(parts)).without(task)
    if copies:
        names = list(dict.fromkeys(copies))
        listed = ", ".join(f"`{name}`" for name in names[:NAMED]) + (", ..." if len(names) > NAMED else "")
        notes = (*notes, f"Earlier runs on the same data were left out, for nothing is learned from a copy: {listed}.")
    return Memory(marked(runs, without_past) if len(runs) else None, notes)


def described(task: Task, checkpoint: Checkpoint, config: RunConfig, card: TaskCard) -> MetaTask:
    """The task at hand in the words of earlier runs: what the record of any run of it (``config``) is reduced to."""
    record = RunRecord(config, "stopped", metric=task.schema.metric, card=card, model=model_card(checkpoint))
    return from_records([record]).tasks[0]


def seen_by(runs: MetaDataset | None, task: Task, rows: Draw, checkpoint: Checkpoint) -> dict[str, float]:
    """The landmarks of the task where earlier tasks have theirs; seconds, for the model is loaded once more."""
    if runs is None or not any(_landmarks(each) for each in runs.tasks):
        return {}
    import torch

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return landmarks(task, rows.train, FrozenModel(checkpoint, device))


def _landmarks(task: MetaTask) -> bool:
    return any(name.startswith(("landmark_", "zero_shot_", "tokens_")) for name in task.features)


def _collections(folder: Path) -> tuple[list[RunCollection], tuple[str, ...]]:
    """All that can be read, and a sentence on each that cannot."""
    found, notes = [], []
    for name, read in _sources(folder):
        try:
            collection = read()
        except ForetuneError as error:
            notes.append(f"{name} could not be consulted: {error}")
            continue
        if collection is not None:
            found.append(collection)
    return found, tuple(notes)


def _sources(folder: Path) -> Iterator[tuple[str, Callable[[], RunCollection | None]]]:
    from foretune.store.bundled import bundled

    yield "The collection that comes with foretune", bundled
    yield f"The store `{folder}`", lambda: from_records(JournalStore(folder), OWN)
    try:
        imported = kept(folder)
    except ForetuneError:  # the journal in the same folder says it already
        return
    for name, path in imported.items():
        yield f"The imported collection `{name}`", partial(read_collection, path)


def _ours(collection: RunCollection, kind: str) -> RunCollection:
    """The tasks of ``kind`` on which foretune's own configurations ran, with these runs."""
    tasks = {t.task_id: t for t in collection.tasks if t.source == SOURCE and t.kind == kind}
    runs = tuple(run for run in collection.runs if run.task_id in tasks)
    used = {run.task_id for run in runs}
    return replace(collection, tasks=tuple(t for key, t in tasks.items() if key in used), runs=runs)


def _distinct(collections: list[RunCollection]) -> list[RunCollection]:
    """Every run once: a collection that was imported and also lies in the journal teaches nothing twice."""
    known: set[str] = set()
    made = []
    for collection in collections:
        runs = tuple(run for run in collection.runs if run.run_id not in known)
        known |= {run.run_id for run in runs}
        made.append(replace(collection, runs=runs))
    return made
