"""Collections on disk: four Parquet tables in a folder, and the place in a store where imported ones are kept.

``tasks``, ``configs``, ``runs`` and ``points`` are relations that any tool reads: a run names its task and its
configuration, a point its run. Nested settings are JSON text, since no two sources have the same ones. A collection
that was kept is never changed: its folder is named after its contents, written under another name and renamed as a
whole, so that a kill leaves nothing half and importing twice adds nothing.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import secrets
import shutil
from collections.abc import Mapping
from dataclasses import asdict
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from foretune.errors import StoreError
from foretune.records import Line, MetaRun, MetaTask, ModelCard, RunCollection
from foretune.records.config import canonical
from foretune.store.folder import sync_folder

if TYPE_CHECKING:
    import pyarrow as pa

TABLES = ("tasks", "configs", "runs", "points")
FOLDER = "collections"
LAYOUT = 1
"""Version of the tables, in the file metadata. A change keeps a reader of the older ones."""

_TASK_JSON = ("rows", "features", "sketch")
_RUN_PLAIN = ("run_id", "task_id", "status", "max_steps", "seed", "hardware", "error")
_RUN_LATER = ("steps_done",)
"""Columns that older tables lack. A run that says nothing there has the digest that it had before."""


def write_collection(folder: str | os.PathLike[str], collection: RunCollection) -> None:
    """Write the four tables into ``folder``, which is made if need be.

    Raises:
        StoreError: full disk or no permission.
    """
    import pyarrow as pa
    from pyarrow import parquet

    folder = Path(folder)
    about = {
        "foretune.layout": str(LAYOUT),
        "foretune.name": collection.name,
        "foretune.notes": canonical(collection.notes),
    }
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, table in _tables(collection).items():
            parquet.write_table(table.replace_schema_metadata(about), folder / f"{name}.parquet", compression="zstd")
    except (OSError, pa.ArrowException) as error:
        raise StoreError(f"`{folder}` cannot be written: {error}. Free some space, or name another folder.") from error


def read_collection(folder: str | os.PathLike[str]) -> RunCollection:
    """The inverse of ``write_collection``.

    Raises:
        StoreError: a table is absent or damaged, or a newer foretune wrote it.
    """
    import pyarrow as pa
    from pyarrow import parquet

    folder = Path(folder)
    try:
        tables = {name: parquet.read_table(folder / f"{name}.parquet") for name in TABLES}
        about = {k.decode(): v.decode() for k, v in (tables["tasks"].schema.metadata or {}).items()}
        if int(about.get("foretune.layout", 0)) > LAYOUT:
            raise StoreError(f"`{folder}` was written by a newer foretune. Install one to read it.")
        tasks = tuple(_task(row) for row in tables["tasks"].to_pylist())
        runs = _runs(tables)
        notes = tuple(json.loads(about.get("foretune.notes", "[]")))
        return RunCollection(about.get("foretune.name", folder.name), tasks, runs, notes)
    except (OSError, pa.ArrowException, KeyError, TypeError, ValueError) as error:
        raise StoreError(
            f"`{folder}` holds no collection of runs: {str(error).splitlines()[0]} "
            f"Give a folder with {', '.join(f'{name}.parquet' for name in TABLES)}."
        ) from error


def keep(store: str | os.PathLike[str], collection: RunCollection) -> tuple[Path, bool]:
    """Keep ``collection`` in the folder of a store.

    Returns:
        Where it lies, and whether it is new there.

    Raises:
        StoreError: full disk or no permission; what was there before is untouched.
    """
    home = Path(store) / FOLDER
    short = re.sub(r"[^A-Za-z0-9._-]+", "_", collection.name)[:60].strip(".") or "runs"
    folder = home / f"{short}-{content_digest(collection)}"
    if folder.exists():
        return folder, False
    temporary = home / f".{folder.name}.{os.getpid()}.{secrets.token_hex(4)}"
    try:
        write_collection(temporary, collection)
        for name in TABLES:
            with (temporary / f"{name}.parquet").open("rb+") as file:
                os.fsync(file.fileno())
        temporary.rename(folder)
        sync_folder(home)
    except OSError as error:
        if folder.exists():  # another process kept the same collection meanwhile
            return folder, False
        raise StoreError(
            f"`{folder}` cannot be written: {error.strerror}. Free some space, or name another store."
        ) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return folder, True


def kept(store: str | os.PathLike[str]) -> dict[str, Path]:
    """The collections in the folder of a store: the folder's name -> where it lies; unfinished ones are not there."""
    try:
        found = sorted((Path(store) / FOLDER).iterdir())
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise StoreError(f"the collections in `{store}` cannot be read: {error.strerror}.") from error
    return {path.name: path for path in found if path.is_dir() and not path.name.startswith(".")}


def content_digest(collection: RunCollection) -> str:
    """Eight hexadecimal digits over tasks and runs: the same for every way the same runs were written down."""
    running = hashlib.sha256()
    for task in collection.tasks:
        running.update(canonical(asdict(task)).encode())
    for run in collection.runs:
        plain = {name: getattr(run, name) for name in _RUN_PLAIN}
        plain |= {name: getattr(run, name) for name in _RUN_LATER if getattr(run, name) is not None}
        running.update(canonical({**plain, "config": run.config_id, "cost": dict(run.cost)}).encode())
        for line in run.lines:
            running.update(f"{line.split} {line.metric}".encode())
            running.update(np.array(line.steps, np.int64).tobytes())
            running.update(np.array([*line.values, *line.seconds], np.float64).tobytes())
    return running.hexdigest()[:8]


def _tables(collection: RunCollection) -> dict[str, pa.Table]:
    import pyarrow as pa

    configs = {run.config_id: canonical(dict(run.config)) for run in collection.runs}
    tasks = []
    for task in collection.tasks:
        plain = asdict(task)
        model = plain.pop("model")
        tasks.append({**plain, **{n: canonical(plain[n]) for n in _TASK_JSON}, "model": model and canonical(model)})
    runs = [
        {
            **{name: getattr(run, name) for name in (*_RUN_PLAIN, *_RUN_LATER)},
            "config_id": run.config_id,
            "cost": canonical(dict(run.cost)),
        }
        for run in collection.runs
    ]
    return {
        "tasks": _table(tasks, _TASK_COLUMNS),
        "configs": pa.table({"config_id": list(configs), "values": list(configs.values())}, _schema(_CONFIG_COLUMNS)),
        "runs": _table(runs, _RUN_COLUMNS),
        "points": _points(collection.runs),
    }


_TASK_COLUMNS = dict.fromkeys(
    ("task_id", "name", "group_key", "metric", "direction", "kind", "model", "rows", "features", "data_hash", "sketch",
     "licence", "source"), "string",
) | {"features_version": "int64"}  # fmt: skip
_CONFIG_COLUMNS = {"config_id": "string", "values": "string"}
_RUN_COLUMNS = dict.fromkeys(
    ("run_id", "task_id", "config_id", "status", "cost", "hardware", "error"), "string"
) | {"max_steps": "int64", "steps_done": "int64", "seed": "int64"}  # fmt: skip


def _schema(columns: Mapping[str, str]) -> pa.Schema:
    import pyarrow as pa

    return pa.schema([(name, pa.type_for_alias(kind)) for name, kind in columns.items()])


def _table(rows: list[dict[str, Any]], columns: Mapping[str, str]) -> pa.Table:
    import pyarrow as pa

    return pa.Table.from_pylist(rows, _schema(columns))


def _points(runs: tuple[MetaRun, ...]) -> pa.Table:
    """All points in the order of runs and lines. ``run`` counts the rows of the table of runs from 0."""
    import pyarrow as pa

    lines = [(number, line) for number, run in enumerate(runs) for line in run.lines]
    lengths = np.array([len(line.steps) for _, line in lines], np.int64)
    splits = list(dict.fromkeys((line.split, line.metric) for _, line in lines))
    which = {name: number for number, name in enumerate(splits)}
    code = np.repeat(np.array([which[line.split, line.metric] for _, line in lines], np.int32), lengths)
    seconds = [line.seconds or (None,) * len(line.steps) for _, line in lines]
    return pa.table(
        {
            "run": np.repeat(np.array([number for number, _ in lines], np.int32), lengths),
            "split": pa.DictionaryArray.from_arrays(code, pa.array([split for split, _ in splits], pa.string())),
            "metric": pa.DictionaryArray.from_arrays(code, pa.array([metric for _, metric in splits], pa.string())),
            "step": np.concatenate([np.array(line.steps, np.int64) for _, line in lines] or [np.array([], np.int64)]),
            "value": np.concatenate([np.array(line.values) for _, line in lines] or [np.array([])]),
            "elapsed_train_s": pa.array([t for times in seconds for t in times], pa.float64()),
        }
    )


def _task(row: Mapping[str, Any]) -> MetaTask:
    plain = {**row, **{name: json.loads(row[name]) for name in _TASK_JSON}}
    plain["sketch"] = tuple(plain["sketch"])
    plain["model"] = ModelCard(**json.loads(row["model"])) if row["model"] else None
    return MetaTask(**plain)


def _runs(tables: Mapping[str, pa.Table]) -> tuple[MetaRun, ...]:
    configs = {row["config_id"]: json.loads(row["values"]) for row in tables["configs"].to_pylist()}
    rows = tables["runs"].to_pylist()
    lines = _lines(tables["points"], len(rows))
    return tuple(
        MetaRun(
            **{name: row[name] for name in _RUN_PLAIN},
            **{name: row.get(name) for name in _RUN_LATER},
            config=configs[row["config_id"]],
            lines=tuple(lines[number]),
            cost=json.loads(row["cost"]),
        )
        for number, row in enumerate(rows)
    )


def _lines(points: pa.Table, runs: int) -> list[list[Line]]:
    """Run -> its lines: a line is a stretch of points of one run, split and metric."""
    found: list[list[Line]] = [[] for _ in range(runs)]
    if not points.num_rows:
        return found
    run, step = points["run"].to_numpy(), points["step"].to_numpy()
    value, elapsed = points["value"].to_numpy(), points["elapsed_train_s"].to_numpy()
    splits, metrics = (points[name].cast("string") for name in ("split", "metric"))
    codes = [column.dictionary_encode().combine_chunks().indices.to_numpy() for column in (splits, metrics)]
    changed = (np.diff(run) != 0) | (np.diff(codes[0]) != 0) | (np.diff(codes[1]) != 0)
    edges = [0, *(np.flatnonzero(changed) + 1).tolist(), len(run)]
    for start, end in pairwise(edges):
        times = elapsed[start:end]
        line = Line(
            splits[start].as_py(),
            metrics[start].as_py(),
            tuple(step[start:end].tolist()),
            tuple(value[start:end].tolist()),
            () if np.isnan(times).any() else tuple(times.tolist()),
        )
        found[int(run[start])].append(line)
    return found
