"""Cut: a task with fewer test rows, the same ones for every run, where judging all of them would cost too much."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from foretune.tasks.keys import hash64
from foretune.tasks.splits import draw
from foretune.tasks.task import Task


def cut(task: Task, test_rows: int | None, without: Collection[str] = (), test_fraction: float | None = None) -> Task:
    """At most ``test_rows`` rows of every test set, chosen by the rows' own fingerprint.

    Args:
        test_rows: None is all.
        without: splits, or names of out-of-domain sets, that are left out.
        test_fraction: of a source without test rows as many are held out as ``draw`` would; the rest of them are in no
            split. None leaves such a source as it is.
    """
    if test_rows is not None and test_fraction is not None and "test" not in task.splits:
        task = _held_out(task, test_rows, test_fraction)
    splits = {name: table for name, table in task.splits.items() if name not in without}
    ood = {name: table for name, table in task.ood.items() if name not in without}
    if test_rows is not None and "test" in splits:
        splits["test"] = _some(splits["test"], test_rows, hash64(task.draw_key, "test rows"))
    if test_rows is not None:
        ood = {name: _some(table, test_rows, hash64(task.draw_key, name)) for name, table in ood.items()}
    if _sizes(task.splits, task.ood) == _sizes(splits, ood):
        return task
    made = Task.from_splits(task.name, task.schema, splits, ood)
    return replace(made, notes=task.notes)


def _held_out(task: Task, test_rows: int, test_fraction: float) -> Task:
    """The task with the held-out rows as its test split, where they are more than ``test_rows``."""
    test = draw(task, test_fraction=test_fraction, dev_fraction=0.0).test
    if len(test) <= test_rows:
        return task
    train = task.splits["train"]
    rest = train.filter(pc.invert(pc.is_in(train["row"], test["row"])))
    made = Task.from_splits(task.name, task.schema, {**task.splits, "train": rest, "test": test}, dict(task.ood))
    said = f"test: {test_rows:,} of {test.num_rows:,} rows of train, held out; the same ones for every seed."
    return replace(made, notes=(*task.notes, said))


def _sizes(splits: Mapping[str, pa.Table], ood: Mapping[str, pa.Table]) -> list[int]:
    return [table.num_rows for table in (*splits.values(), *ood.values())]


def _some(table: pa.Table, most: int, seed: int) -> pa.Table:
    if table.num_rows <= most:
        return table
    return table.take(np.sort(np.random.Generator(np.random.PCG64(seed)).permutation(table.num_rows)[:most]))
