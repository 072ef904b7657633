"""TaskSet: a folder of ``TASK.json.gz``, each a list of runs ``{hp, train, valid, test}``, every split with its losses.

The files are those of Metz et al. 2020 (arXiv 2002.11887) as Deep Power Laws ships them. Every task has the same
configurations in the same order. A run with any loss that is no finite number is ``diverged``; its numbers are kept as
they are, NaN among them, for when a run broke is information too.
"""

from __future__ import annotations

import gzip
import json
import math
import os
import re
import statistics
from pathlib import Path
from typing import Any

from foretune.errors import DataError
from foretune.records import Line, MetaRun, MetaTask, ModelCard, RunCollection

SPLITS = {"train": "train", "valid": "dev", "test": "test"}
_CELL = re.compile(r"_(LSTM|GRU|IRNN|VRNN)(\d+)")
_NUMBERS = {"patch": re.compile(r"_patch(\d+)"), "batch_size": re.compile(r"_bs(\d+)")}


def read_taskset(folder: str | os.PathLike[str]) -> RunCollection:
    """The runs of every ``*.json.gz`` (or ``*.json``) in ``folder``, the tasks in the order of the file names.

    The family of a task is the recurrent cell that its name tells (``lstm``, ``gru``, ...). Each task is a group of its
    own: these tasks share their text, so what is seen here is transfer between networks. The feature ``untrained`` is
    the median validation loss before the first step, a property of task and network that no configuration changes.

    Raises:
        DataError: no such files, or one that is not of this form; the message has the file and the run.
    """
    folder = Path(folder)
    files = sorted(path for path in folder.glob("*.json*") if path.name.endswith((".json", ".json.gz")))
    if not files:
        raise DataError(f"`{folder}` holds no TaskSet task. Give the folder with the `*.json.gz` files.")
    tasks, runs = [], []
    for path in files:
        name = path.name.removesuffix(".gz").removesuffix(".json")
        found = [_run(name, number, entry, path) for number, entry in enumerate(_entries(path))]
        tasks.append(_task(name, found))
        runs += found
    return RunCollection("taskset", tuple(tasks), tuple(runs))


def _entries(path: Path) -> list[Any]:
    try:
        raw = path.read_bytes()
        entries = json.loads(gzip.decompress(raw) if path.suffix == ".gz" else raw)
    except (OSError, EOFError, ValueError, RecursionError) as error:
        raise DataError(f"`{path}` cannot be read as JSON ({error}). Restore a whole copy of it.") from error
    if not isinstance(entries, list):
        raise DataError(f"`{path}` must hold a list of runs, but holds a JSON {type(entries).__name__}.")
    return entries


def _task(name: str, runs: list[MetaRun]) -> MetaTask:
    cell = _CELL.search(name)
    numbers = {key: float(found[1]) for key, pattern in _NUMBERS.items() if (found := pattern.search(name))}
    features = {**numbers, "units": float(cell[2])} if cell else numbers
    first = [line.values[0] for run in runs if (line := run.line("dev", "loss")) and math.isfinite(line.values[0])]
    untrained = {"untrained": statistics.median(first)} if first else {}
    model = ModelCard(cell[0][1:], cell[1].lower()) if cell else None
    return MetaTask(
        task_id=name,
        name=name,
        group_key=name,
        metric="loss",
        direction="min",
        kind="classification",
        model=model,
        features={**features, "mean_pooled": float("_avg" in name), **untrained},
        source="taskset",
    )


def _run(task: str, number: int, entry: Any, path: Path) -> MetaRun:
    try:
        config = {name: float(value) for name, value in entry["hp"].items()}
        losses = {split: tuple(map(float, entry[key]["loss"])) for key, split in SPLITS.items()}
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise DataError(
            f"`{path}`, run {number}, must have `hp` and a list `loss` for each of {', '.join(SPLITS)}, but "
            f"{type(error).__name__}: {error}."
        ) from error
    length = len(losses["dev"])
    if not length or any(len(values) != length for values in losses.values()):
        counts = ", ".join(f"{split} {len(values)}" for split, values in losses.items())
        raise DataError(f"`{path}`, run {number}, must have equally many losses of every split, but has {counts}.")
    steps = tuple(range(length))
    finite = all(math.isfinite(value) for values in losses.values() for value in values)
    return MetaRun(
        run_id=f"{task}/{number}",
        task_id=task,
        config=config,
        status="ok" if finite else "diverged",
        max_steps=max(length - 1, 1),
        lines=tuple(Line(split, "loss", steps, values) for split, values in losses.items()),
    )
