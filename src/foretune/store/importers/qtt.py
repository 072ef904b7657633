"""Quick-Tune's row-aligned tables: ``config.csv``, ``curve.csv`` and, where given, ``meta.csv`` and ``cost.csv``.

The format has no status and no task. Of a folder of somebody else's, what can be told from the numbers is told: a
curve of zeros or without a number is a failure and no score of 0; a tail that repeats its first value bit for bit is
padding and is cut; equal rows of meta-features are one task. Our own export lays ``runs.csv`` beside the four, which
says all that, so that what is read again is what was written.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from foretune.errors import DataError
from foretune.records import Line, MetaRun, MetaTask, RunCollection, digest
from foretune.store.importers.columns import Columns, constant_note
from foretune.store.importers.tables import mappings, numbers, read_csv, write_csv

if TYPE_CHECKING:
    import pyarrow as pa

TAIL = 3
"""Equal values at the end of a curve from which on they are taken for padding. Two may happen on a small dev set."""

FILES = ("config.csv", "curve.csv", "meta.csv", "cost.csv", "runs.csv")
SCORE = "score"
_STEP = "step_"


@dataclass(frozen=True)
class _Curve:
    """What is left of one row of ``curve.csv``, and what that says of the run."""

    steps: tuple[int, ...]
    values: tuple[float, ...]
    status: str
    cut: bool = False


def read_qtt(folder: str | os.PathLike[str], columns: Columns | None = None) -> RunCollection:
    """The runs of the tables in ``folder``.

    Args:
        columns: which column of ``config.csv`` or ``meta.csv`` names task, model and family, and whether less is
            better. Not for our own export, which says so itself.

    Raises:
        DataError: a table is absent, ragged or not as long as the others.
        UsageError: a named column does not exist.
    """
    folder, columns = Path(folder), columns or Columns()
    tables = {name: read_csv(folder / name) for name in FILES if name in FILES[:2] or (folder / name).exists()}
    _require_aligned(tables, folder)
    tables = _without_index(tables)
    steps, values = _curves(tables["curve.csv"], folder / "curve.csv")
    costs = _costs(tables.get("cost.csv"), folder / "cost.csv", len(values))
    meta = tables.get("meta.csv")
    rows = mappings(meta) if meta is not None else [{} for _ in values]
    if "runs.csv" in tables:
        own = mappings(tables["runs.csv"])
        return _ours(mappings(tables["config.csv"]), rows, own, steps, tables["curve.csv"], values, costs)
    configs = mappings(tables["config.csv"])
    columns.require([*tables["config.csv"].column_names, *(meta.column_names if meta else ())], f"`{folder}`")
    return _foreign(columns, configs, rows, steps, values, costs)


def _foreign(
    columns: Columns,
    configs: list[dict[str, Any]],
    features: list[dict[str, Any]],
    steps: tuple[int, ...],
    values: np.ndarray,
    costs: Sequence[Mapping[str, float]],
) -> RunCollection:
    tasks: dict[str, MetaTask] = {}
    runs, curves = [], [_told(steps, row) for row in values]
    named = set(columns.named())
    for number, (config, row, curve) in enumerate(zip(configs, features, curves, strict=True)):
        known = {key: float(v) for key, v in row.items() if isinstance(v, int | float) and key not in named}
        data = (
            digest({**known, **{k: v for k, v in row.items() if k not in known and k not in named}}) if row else "data"
        )
        task = columns.task_of({**config, **row}, data, "qtt-csv", SCORE, features=known)
        tasks.setdefault(task.task_id, task)
        line = Line("dev", SCORE, curve.steps, curve.values)
        runs.append(
            MetaRun(
                run_id=str(number),
                task_id=task.task_id,
                config={name: value for name, value in config.items() if name not in named},
                status=curve.status,
                max_steps=steps[-1],
                lines=(line,) if curve.steps else (),
                cost=costs[number],
                error="" if curve.status != "failed" else "a curve without any score",
            )
        )
    failed, cut = sum(c.status == "failed" for c in curves), sum(c.cut for c in curves)
    notes = [f"{failed} of {len(runs)} runs have no score but zeros or nothing: failed, not 0."] if failed else []
    if cut:
        notes.append(f"{cut} of {len(runs)} curves repeat their last value {TAIL} times or more: cut where it begins.")
    notes += constant_note([run.config for run in runs])
    return RunCollection("qtt-csv", tuple(tasks.values()), tuple(runs), tuple(notes))


def _told(steps: Sequence[int], row: np.ndarray) -> _Curve:
    """What a padded row tells: where it ends, and whether there was anything at all."""
    known = np.flatnonzero(~np.isnan(row)).tolist()
    if not known or not np.any(row[known]):
        return _Curve((), (), "failed")
    end = known[-1] + 1
    start = end - 1
    while start > 0 and row[start - 1] == row[end - 1]:
        start -= 1
    padded = end - start >= TAIL
    end = start + 1 if padded else end
    kept = [place for place in known if place < end]
    whole = end == len(row)
    return _Curve(
        tuple(steps[place] for place in kept),
        tuple(float(row[place]) for place in kept),
        "ok" if whole else "stopped",
        cut=padded,
    )


def _ours(
    configs: list[dict[str, Any]],
    features: list[dict[str, Any]],
    said: list[dict[str, Any]],
    steps: tuple[int, ...],
    table: pa.Table,
    values: np.ndarray,
    costs: Sequence[Mapping[str, float]],
) -> RunCollection:
    """Runs whose status, task and length are written beside the four tables: nothing is guessed."""
    from foretune.records import ModelCard

    measured = [~column.is_null().to_numpy() for column in table.columns]
    tasks: dict[str, MetaTask] = {}
    runs = []
    for number, row in enumerate(said):
        task_id = str(row["task"])
        if task_id not in tasks:
            model, family = str(row.get("model", "")), str(row.get("family", ""))
            tasks[task_id] = MetaTask(
                task_id=task_id,
                name=str(row["name"]),
                group_key=str(row["group"]),
                metric=str(row["metric"]),
                direction=str(row["direction"]),
                model=ModelCard(model, family) if model else None,
                features={key: float(value) for key, value in features[number].items()},
                source=str(row.get("source", "")),
            )
        kept = [place for place in range(len(steps)) if measured[place][number]]
        line = Line(
            "dev", tasks[task_id].metric, tuple(steps[p] for p in kept), tuple(float(values[number, p]) for p in kept)
        )
        runs.append(
            MetaRun(
                run_id=str(row["run"]),
                task_id=task_id,
                config=configs[number],
                status=str(row["status"]),
                max_steps=int(row["max_steps"]),
                lines=(line,) if kept else (),
                seed=None if "seed" not in row else int(row["seed"]),
                cost=costs[number],
                steps_done=None if "steps_done" not in row else int(row["steps_done"]),
            )
        )
    return RunCollection("qtt-csv", tuple(tasks.values()), tuple(runs))


def write_qtt(folder: str | os.PathLike[str], collection: RunCollection) -> tuple[str, ...]:
    """Write ``collection`` as the four tables, with ``runs.csv`` beside them; return what is lost in them.

    The format holds one curve per run, the score on dev, and one time, of training where it was measured apart. Where
    runs have different lengths, steps are no fidelity that they share: the columns are then tenths of each run.

    Raises:
        DataError: no run has a dev curve of its task's metric.
        StoreError: full disk or no permission.
    """
    import pyarrow as pa

    folder = Path(folder)
    tasks = {task.task_id: task for task in collection.tasks}
    lines = [run.line("dev", tasks[run.task_id].metric) for run in collection.runs]
    lengths = {run.max_steps for run in collection.runs}
    tenths = len(lengths) > 1
    cells = [_cells(line, run.max_steps if tenths else 0) for line, run in zip(lines, collection.runs, strict=True)]
    steps = sorted({step for row in cells for step in row})
    if not steps:
        raise DataError(f"`{collection.name}` holds no dev curve of a task's metric: nothing can be exported.")
    index = pa.array(range(1, len(cells) + 1))
    configs = [run.config for run in collection.runs]
    features = [tasks[run.task_id].features for run in collection.runs]
    time = "train_seconds" if any("train_seconds" in run.cost for run in collection.runs) else "seconds"
    seconds = [run.cost.get(time) for run in collection.runs]
    write_csv(folder / "config.csv", _table(index, configs))
    write_csv(folder / "curve.csv", _table(index, [{f"{_STEP}{s}": row.get(s) for s in steps} for row in cells]))
    write_csv(folder / "runs.csv", _table(index, [_said(run, tasks[run.task_id], tenths) for run in collection.runs]))
    if any(features):
        write_csv(folder / "meta.csv", _table(index, features))
    if any(value is not None for value in seconds):
        write_csv(folder / "cost.csv", _table(index, [{time: value} for value in seconds]))
    scores = {run.task_id: ("dev", tasks[run.task_id].metric) for run in collection.runs}
    others = {
        f"{line.split} {line.metric}"
        for run in collection.runs
        for line in run.lines
        if (line.split, line.metric) != scores[run.task_id]
    }
    lost = [f"The format holds one curve per run; left out: {', '.join(sorted(others))}."] if others else []
    if tenths:
        lost.append(f"Runs are between {min(lengths)} and {max(lengths)} steps long: the columns are tenths of a run.")
    return tuple(lost)


def _cells(line: Line | None, length: int) -> dict[int, float]:
    """Step (or tenth of ``length``) -> value; of several values in a tenth the last."""
    if line is None:
        return {}
    steps = [-(-step * 10 // length) if length else step for step in line.steps]
    return dict(zip(steps, line.values, strict=True))


def _said(run: MetaRun, task: MetaTask, tenths: bool) -> dict[str, Any]:
    done = run.steps_done
    return {
        "run": run.run_id,
        "task": task.task_id,
        "name": task.name,
        "group": task.group_key,
        "model": task.model.name if task.model else None,
        "family": task.family or None,
        "metric": task.metric,
        "direction": task.direction,
        "status": run.status,
        "max_steps": 10 if tenths else run.max_steps,
        "seed": run.seed,
        "source": task.source or None,
        **({} if done is None else {"steps_done": done * 10 // run.max_steps if tenths else done}),
    }


def _table(index: pa.Array, rows: Sequence[Any]) -> pa.Table:
    """Rows as columns behind the unnamed index that the format begins with; a column of several types is text."""
    import pyarrow as pa

    names = dict.fromkeys(name for row in rows for name in row)
    columns: dict[str, Any] = {"": index}
    for name in names:
        values = [row.get(name) for row in rows]
        kinds = {type(value) for value in values if value is not None}
        number = kinds <= {int, float}
        whole = [float(v) if number and float in kinds and v is not None else v for v in values]
        columns[name] = pa.array(whole if len(kinds) < 2 or number else [None if v is None else str(v) for v in values])
    return pa.table(columns)


def _require_aligned(tables: dict[str, pa.Table], folder: Path) -> None:
    lengths = {name: table.num_rows for name, table in tables.items()}
    if len(set(lengths.values())) > 1:
        counts = ", ".join(f"{name} {length}" for name, length in lengths.items())
        raise DataError(f"The tables in `{folder}` must have one row per run each, but have: {counts}.")


def _without_index(tables: dict[str, pa.Table]) -> dict[str, pa.Table]:
    """Without the first column where it is the index: unnamed, or named alike in every table."""
    first = {table.column_names[0] for table in tables.values()}
    if len(first) > 1 or (len(tables) < 2):
        return tables
    return {name: table.drop_columns([table.column_names[0]]) for name, table in tables.items()}


def _curves(table: pa.Table, path: Path) -> tuple[tuple[int, ...], np.ndarray]:
    """The steps of the columns and the values ``(runs, steps)``."""
    names = table.column_names
    values = np.stack([numbers(table[name], name, path) for name in names], axis=1)
    if not all(name.startswith(_STEP) and name.removeprefix(_STEP).isdigit() for name in names):
        return tuple(range(1, len(names) + 1)), values
    steps = tuple(int(name.removeprefix(_STEP)) for name in names)
    if any(before >= after for before, after in pairwise(steps)):
        raise DataError(
            f"`{path}`: the columns `{_STEP}N` must rise from left to right, but are {', '.join(names[:8])}."
        )
    return steps, values


def _costs(table: pa.Table | None, path: Path, runs: int) -> list[dict[str, float]]:
    """Measured seconds of each run, named ``train_seconds`` where the column is, else ``seconds`` (of everything)."""
    if table is None:
        return [{} for _ in range(runs)]
    name = table.column_names[-1]
    found = numbers(table[name], name, path)
    key = name if name == "train_seconds" else "seconds"
    return [{} if np.isnan(value) else {key: float(value)} for value in found]
