"""The catalog: public data sets by name, each one small ``.toml`` file beside this one.

``open`` reads a task from a local folder (an argument or ``FORETUNE_DATA``) or, where none is given, from the Hugging
Face Hub. Splits are called ``train``, ``dev`` and ``test``. Where a set has no test labels, its official dev is
``test``: labels are a budget, validation is paid for out of the training rows, and nothing is ever selected on test.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from functools import cache
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any

import pyarrow as pa

from foretune.errors import DataError, UsageError
from foretune.registry import did_you_mean
from foretune.tasks.catalog import hub, rows
from foretune.tasks.catalog.entry import Entry, Local, Ood, Split, parse
from foretune.tasks.catalog.readers import READERS, File, Row
from foretune.tasks.schema import Schema

__all__ = ["Entry", "entry", "names", "open"]

VARIABLE = "FORETUNE_DATA"


@cache
def names() -> tuple[str, ...]:
    """The names of all tasks, sorted.

    >>> "banking77_demo" in names()
    True
    """
    return tuple(sorted(file.name.removesuffix(".toml") for file in _home().iterdir() if file.name.endswith(".toml")))


@cache
def entry(name: str) -> Entry:
    """What is declared of one task; reads no data.

    Raises:
        UsageError: the catalog has no such task.

    >>> entry("cola").metric
    'mcc'
    """
    if name not in names():
        raise UsageError(f"`{name}` is not in the catalog.{did_you_mean(name, names())} Known: {', '.join(names())}.")
    return parse(name, (_home() / f"{name}.toml").read_text(encoding="utf-8"))


def open(name: str, data_dir: str | Path | None = None) -> tuple[Schema, dict[str, pa.Table], dict[str, pa.Table]]:
    """Read a task: its schema, its splits and its out-of-domain sets.

    A model of three classes is judged on a set of two by ``schema.ood_label_map``. Some out-of-domain sets do not exist
    on the Hub; the result then lacks them, and ``entry(name).ood`` still names them.

    Args:
        name: one of ``names()``.
        data_dir: the folder that holds the data sets' folders. None: ``FORETUNE_DATA``, else the Hub.

    Returns:
        The schema, split name -> table, out-of-domain name -> table, each table with ``SPLIT_COLUMNS``; a test set with
        groups has ``GROUPED_COLUMNS``.

    Raises:
        UsageError: the catalog has no such task.
        DataError: a file is missing or not what the entry says, or the Hub cannot be reached.

    >>> schema, splits, ood = open("banking77_demo")
    >>> schema.kind, len(schema.labels), splits["train"].num_rows, splits["test"].num_rows, ood
    ('classification', 8, 128, 320, {})
    """
    task = entry(name)
    folder = _folder(task, data_dir)
    splits = {split: _read(task, source, folder) for split, source in task.splits.items()}
    ood = {other: _ood(task, other, folder) for other, source in task.ood.items() if folder or _ood_on_hub(source)}
    schema = _schema(task, splits.values())
    for other, table in ood.items():
        _check_labels(task, other, schema, table)
    return schema, splits, ood


def _home() -> Traversable:
    return files(__package__)


def _folder(task: Entry, data_dir: str | Path | None) -> Traversable | None:
    """Where the task's files lie, or None for the Hub."""
    if task.bundled:
        return _home() / "data"
    given = data_dir or os.environ.get(VARIABLE)
    if not given:
        return None
    folder = Path(given).expanduser()
    if not folder.is_dir():
        raise DataError(f"the data folder must exist, but {folder} does not. Correct --data-dir or {VARIABLE}.")
    return folder


def _read(task: Entry, source: Split, folder: Traversable | None) -> pa.Table:
    paths = " and ".join(source.local.files.values())
    if folder is not None:
        return rows.to_table(_local_rows(task, source.local, folder), source.local.reading, paths)
    if source.hub is None:
        raise DataError(
            f"`{task.name}` is not on the Hub. Give the folder that holds {paths} with --data-dir or {VARIABLE}."
        )
    where = f"{source.hub.id}, split {source.hub.split}"
    return rows.to_table(hub.read(task.name, source.hub), source.hub.reading, where)


def _local_rows(task: Entry, local: Local, folder: Traversable) -> list[Row]:
    contents = {}
    for column, path in local.files.items():
        try:
            contents[column] = File(path, (folder / path).read_bytes())
        except OSError as error:
            raise DataError(
                f"`{task.name}` needs the file {path}, but it could not be read in {folder} ({error.strerror}). "
                f"Give the folder that holds it with --data-dir or {VARIABLE}, or give neither to read the Hub."
            ) from error
    return READERS[local.format](contents, **local.options)


def _ood(task: Entry, other: str, folder: Traversable | None) -> pa.Table:
    source = task.ood[other]
    if source.own is not None:
        return _read(task, source.own, folder)
    home, splits = _borrowed(source)
    table = pa.concat_tables([_read(home, split, folder) for split in splits])
    return rows.rename_labels(table, source.labels)


def _borrowed(source: Ood) -> tuple[Entry, list[Split]]:
    """The other task, and those of its splits that make up the set."""
    home = entry(source.task or "")
    return home, list(home.splits.values()) if source.split == "all" else [home.splits[source.split]]


def _ood_on_hub(source: Ood) -> bool:
    splits = [source.own] if source.own is not None else _borrowed(source)[1]
    return all(split.hub is not None for split in splits)


def _schema(task: Entry, splits: Iterable[pa.Table]) -> Schema:
    """The schema; class names are those that occur in any split, sorted."""
    occurring: set[str] = set()
    if task.kind == "classification":
        for table in splits:
            occurring.update(table["label"].drop_null().unique().to_pylist())
    maps: Mapping[str, Mapping[str, str]] = {name: o.predictions for name, o in task.ood.items() if o.predictions}
    return Schema(
        kind=task.kind,
        columns=_without_group(task.reading.columns),
        labels=tuple(sorted(occurring)),
        metric=task.metric,
        references=task.reading.references,
        ood_label_map=maps,
        ood_groups={name: group for name, source in task.ood.items() if (group := _group(source))},
    )


def _without_group(columns: Mapping[str, Any]) -> dict[str, Any]:
    """The roles that a model reads or answers."""
    return {role: column for role, column in columns.items() if role != "group"}


def _group(source: Ood) -> str | None:
    """What the rows of an out-of-domain set are parts of."""
    split = source.own if source.own is not None else _borrowed(source)[1][0]
    return split.local.reading.columns.get("group")


def _check_labels(task: Entry, other: str, schema: Schema, table: pa.Table) -> None:
    """An out-of-domain label that no prediction can equal would count as an error of every model."""
    if task.kind != "classification":
        return
    judged = set(schema.ood_label_map.get(other, {}).values()) or set(schema.labels)
    strange = set(table["label"].drop_null().unique().to_pylist()) - judged
    if strange:
        raise DataError(
            f"the labels of `{other}` must be among {', '.join(sorted(judged))} to test `{task.name}`, "
            f"but {', '.join(sorted(strange))} are not. Correct the catalog entry."
        )
