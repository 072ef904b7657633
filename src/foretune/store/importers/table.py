"""A plain table, CSV or Parquet, with one row per evaluation: the form in which anybody's runs can be written down.

Column names say what a column is, and nothing is guessed: ``run`` and ``step``; ``dev.accuracy``, ``train.loss`` and
the like are curves; ``config.lr`` and the like are settings; ``meta.classes`` and the like are meta-features. What
belongs to a run or a task (settings, status) must be the same in all its rows.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from foretune.errors import DataError
from foretune.records import OUTCOMES, Line, MetaRun, MetaTask, RunCollection
from foretune.registry import did_you_mean
from foretune.store.importers.columns import Columns, constant_note
from foretune.store.importers.tables import mappings, numbers, read_csv, read_parquet

if TYPE_CHECKING:
    import pyarrow as pa

SPLITS = ("train", "dev", "test")
COSTS = (
    "train_seconds", "eval_seconds", "setup_seconds", "seconds", "peak_bytes", "tokens", "adapter_bytes",
    "trainable_parameters", "total_parameters",
)  # fmt: skip
_DEFAULTS = {"task": "task", "group": "group", "model": "model", "family": "family"}
_OTHERS = ("run", "step", "status", "max_steps", "steps_done", "seed", "error", "elapsed", "hardware")


def read_table(
    path: str | os.PathLike[str], columns: Columns | None = None, metric: str | None = None
) -> RunCollection:
    """The runs of the table at ``path``.

    Args:
        columns: other names for ``task``, ``group``, ``model`` and ``family``, and whether less is better.
        metric: of the score, one of those in a column ``dev.METRIC``; None takes the first such column.

    Raises:
        DataError: a column is missing, unknown or of another kind, or a run contradicts itself; with the row.
    """
    path = Path(path)
    table = read_parquet(path) if path.suffix.lower() == ".parquet" else read_csv(path)
    columns = _filled(columns or Columns(), table)
    columns.require(table.column_names, f"`{path}`")
    lines = _checked(table, columns, path)
    score = metric or next((name.partition(".")[2] for name in lines if name.startswith("dev.")), None)
    if score is None or f"dev.{score}" not in lines:
        raise DataError(
            f"`{path}` must have the score in a column `dev.{metric or 'METRIC'}`, but has "
            f"{', '.join(lines) or 'no curve'}."
        )
    rows = table.drop_columns([*lines, "step", *(n for n in ("elapsed",) if n in table.column_names)]).to_pylist()
    values = {name: numbers(table[name], name, path) for name in (*lines, "step")}
    if "elapsed" in table.column_names:
        values["elapsed"] = numbers(table["elapsed"], "elapsed", path)
    nulls = {name: table[name].is_null().to_numpy() for name in lines}
    features = mappings(table, "meta.")
    tasks: dict[str, MetaTask] = {}
    runs = []
    for places in _runs(rows, values["step"], path):
        first = rows[places[0]]
        task = columns.task_of(
            first, path.stem, path.stem, score, features=_floats(features[places[0]], path, places[0])
        )
        tasks.setdefault(task.task_id, task)
        runs.append(_run(first, places, task, lines, values, nulls, path))
    notes = constant_note([run.config for run in runs])
    return RunCollection(path.stem, tuple(tasks.values()), tuple(runs), notes)


def _filled(columns: Columns, table: pa.Table) -> Columns:
    """The usual names where the table has them and the user named no other."""
    usual = {field: name if name in table.column_names else None for field, name in _DEFAULTS.items()}
    return Columns(
        columns.task or usual["task"],
        columns.group or usual["group"],
        columns.model or usual["model"],
        columns.family or usual["family"],
        columns.minimise,
    )


def _checked(table: pa.Table, columns: Columns, path: Path) -> list[str]:
    """The names of the curves; raises where a column is missing or nothing known."""
    names = table.column_names
    missing = [name for name in ("run", "step") if name not in names]
    if missing:
        raise DataError(
            f"`{path}` must have the columns `run` and `step`, one row per evaluation, but lacks `{missing[0]}`."
        )
    lines = [name for name in names if name.partition(".")[0] in SPLITS and "." in name]
    known = {*_OTHERS, *COSTS, *columns.named(), *lines}
    for name in names:
        if name not in known and not name.startswith(("config.", "meta.")):
            raise DataError(
                f"`{path}`: the column `{name}` is none that is known.{did_you_mean(name, sorted(known))} "
                f"Write `config.{name}` for a setting, `meta.{name}` for a meta-feature, `dev.{name}` for a curve."
            )
    return lines


def _runs(rows: list[dict[str, Any]], steps: np.ndarray, path: Path) -> Iterator[list[int]]:
    """The places of each run's rows, by step; raises where a run contradicts itself."""
    found: dict[Any, list[int]] = {}
    for place, row in enumerate(rows):
        if row["run"] is None or not steps[place] >= 0 or steps[place] % 1:
            raise DataError(f"`{path}`, row {place + 1}, must have a run and a whole step of 0 or more.")
        found.setdefault((row.get("task"), row["run"]), []).append(place)
    for places in found.values():
        places.sort(key=lambda place: float(steps[place]))
        for before, place in pairwise(places):
            if steps[before] == steps[place]:
                raise DataError(f"`{path}`: rows {before + 1} and {place + 1} are the same step of the same run.")
            other = [n for n in rows[place] if rows[place][n] != rows[before][n]]
            if other:
                raise DataError(f"`{path}`: rows {before + 1} and {place + 1} are one run, but differ in `{other[0]}`.")
        yield places


def _run(
    first: Mapping[str, Any],
    places: list[int],
    task: MetaTask,
    lines: list[str],
    values: Mapping[str, np.ndarray],
    nulls: Mapping[str, np.ndarray],
    path: Path,
) -> MetaRun:
    status = first.get("status") or "ok"
    if status not in OUTCOMES:
        raise DataError(
            f"`{path}`, row {places[0] + 1}: the status must be one of {', '.join(OUTCOMES)}, but is `{status}`."
            f"{did_you_mean(str(status), OUTCOMES)}"
        )
    found = []
    for name in lines:
        kept = [place for place in places if not nulls[name][place]]
        seconds = values.get("elapsed")
        times = () if seconds is None else tuple(float(seconds[place]) for place in kept)
        split, _, metric = name.partition(".")
        steps = tuple(int(values["step"][place]) for place in kept)
        if kept:
            found.append(Line(split, metric, steps, tuple(float(values[name][place]) for place in kept), times))
    planned = first.get("max_steps")
    if planned is None:  # a run that ended early says nothing of its planned length: the longest in the file does
        planned = values["step"][places[-1]] if status == "ok" else values["step"].max()
    return MetaRun(
        run_id=str(first["run"]),
        task_id=task.task_id,
        config={n.removeprefix("config."): v for n, v in first.items() if n.startswith("config.") and v is not None},
        status=str(status),
        max_steps=max(int(planned), 1),
        lines=tuple(found),
        seed=None if first.get("seed") is None else int(first["seed"]),
        cost=_floats({name: first[name] for name in COSTS if first.get(name) is not None}, path, places[0]),
        hardware=str(first.get("hardware") or ""),
        error=str(first.get("error") or ""),
        steps_done=None if first.get("steps_done") is None else int(first["steps_done"]),
    )


def _floats(values: Mapping[str, Any], path: Path, place: int) -> dict[str, float]:
    for name, value in values.items():
        if not isinstance(value, int | float):
            raise DataError(f"`{path}`, row {place + 1}: `{name}` must be a number, but is {value!r}.")
    return {name: float(value) for name, value in values.items()}
