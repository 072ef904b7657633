"""Replay as one call: find the runs, race, and hand over what a reader wants. Loads no model."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from foretune.comparison.replay.controls import CONTROLS
from foretune.comparison.replay.pace import Ahead
from foretune.comparison.replay.run import BUDGETS, FULL_SEEDS, RACED, SEEDS, Replay, run_replay
from foretune.errors import DataError, UsageError
from foretune.pipeline.without_past import without_past
from foretune.recommenders.recorded import Published
from foretune.records import RunCollection, Value
from foretune.registry import did_you_mean
from foretune.report import replay_tables
from foretune.report.tables import Table
from foretune.store import JournalStore, default_folder
from foretune.store.collections import TABLES, kept, read_collection
from foretune.store.importers import read_taskset
from foretune.store.metadata import OWN, SOURCE, from_records
from foretune.store.metadataset import metadataset

BUNDLED = "bundled"
PUBLISHED: Mapping[str, Published] = {"taskset": {"learning_rate": 1e-3, "beta1": 0.9, "beta2": 0.999}}
"""Imported collection -> its published default: Adam's (Kingma and Ba 2015)."""


@dataclass(frozen=True)
class Replayed:
    """A finished replay as a user holds it."""

    outcome: Replay

    def tables(self) -> list[Table]:
        """Captions, columns and rows of finished cells."""
        return replay_tables.every(self.outcome)

    def sentences(self) -> list[str]:
        """What may be said, the main finding first."""
        return [f"{replay_tables.headline(self.outcome)}.", *replay_tables.sentences(self.outcome)]

    def report(self, path: str | os.PathLike[str]) -> Path:
        """Write ``.html``, ``.md`` or ``.json``; returns the path.

        Raises:
            StoreError: it cannot be written.
        """
        return replay_tables.write(self.outcome, Path(path))

    def to_json(self) -> dict[str, Any]:
        """Everything as plain values."""
        return self.outcome.to_json()


def replay(
    protocol: str = "leave-one-task-out",
    collection: str | os.PathLike[str] | RunCollection = BUNDLED,
    recommenders: Sequence[str] = RACED,
    budgets: Sequence[float] = BUDGETS,
    *,
    unit: str = "runs",
    full: bool = False,
    seeds: int | None = None,
    unseen: bool = False,
    split: int = 0,
    default: Mapping[str, Value] | None = None,
    learn_from: str = "dev",
    controls: Sequence[str] | None = None,
    duplicates: bool = True,
    store: str | os.PathLike[str] | None = None,
    keep: str | os.PathLike[str] | None = None,
    watch: Callable[[Ahead], None] = lambda ahead: None,
) -> Replayed:
    """Race recommenders on recorded runs: a first look, or the ``full`` protocol.

    Args:
        protocol: what is held out together, a name in ``comparison.replay.pools.PROTOCOLS``.
        collection: ``bundled``, ``runs`` (one's own), a collection that was imported, a folder, or the runs.
        recommenders: names, options behind colons: ``halving:eta=4``.
        budgets: full-run equivalents at which regret is read.
        unit: ``runs``, or ``seconds`` with the recommender's own time included.
        full: five seeds and every control, where a first look has one and none.
        seeds: of each recommender; None leaves it to ``full``.
        unseen: race on configurations that no past task has seen.
        split: the seed that parts them.
        default: settings of the published default; the nearest candidate stands for it. None: of runs of foretune's
            own it is what ``tune`` does without a past, of an imported collection what its paper names.
        learn_from: ``dev`` or ``test`` scores of past tasks.
        controls: what is shuffled to see whether knowledge or luck won; None leaves it to ``full``.
        duplicates: False keeps one task of each group.
        store: where one's own runs and imported collections lie.
        keep: a file that finished laps are written to, and those that are there are not run again.
        watch: told of every lap before it is run.

    Raises:
        UsageError: a name or an option that does not exist.
        DataError: too few runs or tasks.
        StoreError: a collection, or the kept laps, cannot be read.
    """
    found = collection if isinstance(collection, RunCollection) else opened(collection, store)
    told = default if default is not None else PUBLISHED.get(found.name) or _own(found)
    return Replayed(
        run_replay(
            metadataset([found]),
            collection=found.name,
            protocol=protocol,
            recommenders=recommenders,
            budgets=budgets,
            unit=unit,
            seeds=seeds if seeds is not None else FULL_SEEDS if full else SEEDS,
            unseen=unseen,
            split=split,
            default=told,
            learn_from=learn_from,
            controls=controls if controls is not None else tuple(CONTROLS) if full else (),
            duplicates=duplicates,
            keep=None if keep is None else Path(keep),
            watch=watch,
        )
    )


def opened(name: str | os.PathLike[str], store: str | os.PathLike[str] | None = None) -> RunCollection:
    """The runs that ``name`` means: ``bundled``, ``runs``, an imported collection, or a folder.

    Raises:
        UsageError: nothing is called so, or more than one collection.
        DataError: there are no runs.
    """
    home = JournalStore(Path(store) if store is not None else default_folder())
    folders = kept(home.folder)
    if str(name) == BUNDLED:
        return _bundled()
    if str(name) == OWN:
        own = from_records(home)
        if not own.runs:
            raise DataError(f"{home.folder} holds no finished run. Run `foretune tune` first, or name a collection.")
        return own
    path = Path(name)
    if path.is_dir():
        whole = all((path / f"{table}.parquet").exists() for table in TABLES)
        return read_collection(path) if whole else read_taskset(path)
    meant = [known for known in folders if known == str(name) or known.startswith(f"{name}-")]
    if len(meant) != 1:
        names = [BUNDLED, OWN, *folders]
        many = f"`{name}` is the beginning of {len(meant)} collections" if meant else f"`{name}` is no collection"
        raise UsageError(
            f"{many}.{did_you_mean(str(name), names)} Known: {', '.join(names)}. `foretune runs import` adds one."
        )
    return read_collection(folders[meant[0]])


def _own(collection: RunCollection) -> Published | None:
    """What tells the published default of runs that foretune made; None of anybody else's."""
    return without_past if any(task.source == SOURCE for task in collection.tasks) else None


def _bundled() -> RunCollection:
    from foretune.store.bundled import bundled

    found = bundled()
    if found is None or not found.runs:
        raise DataError("This installation ships no runs. Name a collection that was imported, or `runs`.")
    return found
