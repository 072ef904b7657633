"""A source and what the user said about it -> a schema and normalised splits."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from foretune.errors import DataError, UsageError
from foretune.tasks.checks import is_blank, label_notes, name_rows
from foretune.tasks.detect import Said, detect
from foretune.tasks.load import is_catalog_name, load, parted
from foretune.tasks.metrics import choose_metric
from foretune.tasks.normal import groups, to_split
from foretune.tasks.raw import Rows, RowsBuilder, not_text
from foretune.tasks.schema import SPLIT_COLUMNS, Schema

Source = str | Path | list[dict[str, Any]]
"""A path, a catalog name, a Hub id, or rows as dicts."""


@dataclass(frozen=True)
class Opened:
    """What a source gave; the tables have ``SPLIT_COLUMNS``."""

    schema: Schema
    splits: dict[str, pa.Table]
    ood: dict[str, pa.Table] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


def open_source(source: Source, said: Said, data_dir: str | Path | None = None) -> Opened:
    """Open one source with all the splits that it holds.

    Raises:
        DataError, UsageError: see ``load.load``, ``detect.detect`` and ``normal.to_split``.
    """
    if isinstance(source, str) and is_catalog_name(source):
        return _open_catalog(source, said, data_dir)
    found, notes = _found(source, said.columns)
    if set(found) == {"train"}:
        loaded = parted(found["train"], said.columns)
        found, notes = loaded.splits, (*notes, *loaded.notes)
    schema = detect(found["train"], said)
    splits = {}
    for name, rows in found.items():
        table = to_split(rows, schema, labelled=name == "train")
        if name != "train" and table["label"].null_count == table.num_rows:
            notes = (*notes, f"{rows.where}: has no labels, so it is not used as {name}.")
            continue
        splits[name] = table
    return Opened(schema, splits, notes=(*notes, *label_notes(schema, splits["train"], said.kind is not None)))


def read_rows(
    source: Source, schema: Schema, *, labelled: bool = False, data_dir: str | Path | None = None
) -> pa.Table:
    """Further rows of a known task: to predict, or as dev, test or out-of-domain set.

    The columns are those of the schema; where they are missing, the rows' own names are tried with the same kind. Of a
    source with several splits the test split is taken, else dev, else train.

    Args:
        source: as for a task.
        schema: of the task.
        labelled: whether labels must be there.
        data_dir: where the catalog finds its files.

    Returns:
        A table with ``SPLIT_COLUMNS``.

    Raises:
        DataError: the rows cannot be read, or neither way gives the columns.
    """
    table, _ = read_groups(source, schema, labelled=labelled, data_dir=data_dir)
    return table.select(SPLIT_COLUMNS.names)


def read_groups(
    source: Source,
    schema: Schema,
    group: str | None = None,
    *,
    labelled: bool = True,
    data_dir: str | Path | None = None,
) -> tuple[pa.Table, str | None]:
    """``read_rows`` with the parts of an out-of-domain set, and what tells them apart.

    Args:
        group: the column that names a row's part; a set of the catalog knows its own.

    Returns:
        A table with ``GROUPED_COLUMNS`` and the name of the column; with ``SPLIT_COLUMNS`` and None where the source
        has no such column.

    Raises:
        DataError: as ``read_rows``, or the column holds no names.
    """
    if isinstance(source, str) and is_catalog_name(source):
        opened = _open_catalog(source, Said(), data_dir)
        if opened.schema.kind != schema.kind:
            raise DataError(
                f"`{source}` is a {opened.schema.kind} task, but this one is {schema.kind}. Choose another set."
            )
        return _best(opened.splits), _own_group(source)
    wanted = frozenset(v for role, v in schema.columns.items() if isinstance(v, str) and role != "coding")
    found, _ = _found(source, wanted)
    rows = _best(found)
    table = _split(rows, schema, labelled)
    if group is None or group not in rows.table.column_names:
        return table, None
    return table.append_column("group", groups(rows, group)), group


def _split(rows: Rows, schema: Schema, labelled: bool) -> pa.Table:
    """The rows by the columns of ``schema``, or by their own where these are missing."""
    try:
        return to_split(rows, schema, labelled)
    except DataError:
        try:
            own = detect(rows, Said(kind=schema.kind))
        except (DataError, UsageError):
            own = None
        if own is None or own.columns == schema.columns:
            raise
        return to_split(rows, own, labelled)


def _own_group(name: str) -> str | None:
    from foretune.tasks import catalog

    group: str | None = catalog.entry(name).reading.columns.get("group")
    return group


def _best(splits: Mapping[str, Any]) -> Any:
    return next(splits[name] for name in ("test", "dev", "train") if name in splits)


def _found(source: Source, named: frozenset[str]) -> tuple[dict[str, Rows], tuple[str, ...]]:
    if isinstance(source, list):
        builder = RowsBuilder("the records")
        for i, row in enumerate(source, 1):
            if not isinstance(row, Mapping):
                raise DataError(f"record {i} must be a dict of column name -> value, but is a {type(row).__name__}.")
            builder.add(i, row)
        return _with_rows({"train": builder.finish()}), ()
    loaded = load(source, named)
    return _with_rows(loaded.splits), loaded.notes


def _with_rows(splits: dict[str, Rows]) -> dict[str, Rows]:
    for rows in splits.values():
        if rows.left_out and not rows.table.num_columns:
            raise DataError(f"{rows.where} must hold columns of text or numbers, but {not_text(rows)}")
        if not rows.table.num_rows or not rows.table.num_columns:
            raise DataError(f"{rows.where} holds no rows. It must hold a header and labelled rows.")
    return splits


def _open_catalog(name: str, said: Said, data_dir: str | Path | None) -> Opened:
    from foretune.tasks import catalog

    if said.columns or said.kind:
        raise UsageError(
            f"`{name}` is a catalog task, whose columns and kind are fixed. Leave out the column options, or write "
            f"`./{name}` for a folder of this name."
        )
    schema, splits, ood = catalog.open(name, data_dir)
    if said.metric:
        schema = replace(schema, metric=choose_metric(schema.kind, said.metric))
    notes: list[str] = []
    splits = {split: _without_blank(table, split, notes) for split, table in splits.items()}
    ood = {other: _without_blank(table, other, notes) for other, table in ood.items()}
    return Opened(schema, splits, ood, tuple(notes))


def _without_blank(table: pa.Table, name: str, notes: list[str]) -> pa.Table:
    """Published sets hold a few empty rows that nobody can fill in; they are left out and named."""
    blank = is_blank(table["text"])
    rows = table["row"].filter(blank).to_pylist()
    if not rows:
        return table
    notes.append(f"{name}: left out for want of text: {name_rows(rows)}.")
    return table.filter(pc.invert(blank))
