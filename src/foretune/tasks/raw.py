"""Rows as they were found: every cell a string or a list of strings, whatever the file format.

Strings are the form in which no label is lost ("1" and "1.0", "NA", "007"), and the one in which equal contents in
different formats are equal. Only an empty cell, a JSON ``null`` and a floating-point NaN count as missing.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from foretune.errors import DataError

CHUNK = 4096
"""Rows that are Python objects at one time while a file is read."""


@dataclass(frozen=True)
class Rows:
    """One split as found.

    Attributes:
        table: ``string`` and ``list<string>`` columns.
        numbers: the row's number in its source, int64, counted from 1 after any header.
        where: how a message names the source.
        left_out: columns that are neither text nor numbers, with their type.
    """

    table: pa.Table
    numbers: pa.Array
    where: str
    left_out: tuple[str, ...] = ()


CHATS = ("messages", "conversations", "conversation")
"""What others call a column that holds a conversation, as a list of objects."""


def not_text(rows: Rows) -> str:
    """The columns that were left out, and how to write what they may hold.

    >>> not_text(Rows(pa.table({}), pa.array([1]), "a.jsonl", ("tags (dict)",)))
    'holds tags (dict), which is neither. Write one flat object per row.'
    """
    chat = any(column.partition(" ")[0] in CHATS for column in rows.left_out)
    way = '`{"prompt": "...", "response": "..."}`, one conversation a row' if chat else "one flat object per row"
    verb = "are" if len(rows.left_out) > 1 else "is"
    return f"holds {', '.join(rows.left_out)}, which {verb} neither. Write {way}."


class RowsBuilder:
    """Takes rows one by one and keeps them in Arrow; columns may appear late or be missing from a row."""

    def __init__(self, where: str) -> None:
        self._where = where
        self._chunks: list[pa.Table] = []
        self._numbers: list[pa.Array] = []
        self._types: dict[str, pa.DataType] = {}
        self._pending: list[tuple[int, dict[str, Any]]] = []
        self._left_out: dict[str, str] = {}

    def add(self, number: int, cells: Mapping[str, Any]) -> None:
        """Add the row with this number; nested objects become columns ``outer.inner``.

        A column with anything but text, numbers, truth values and lists of these is left out as a whole, and named.
        """
        flat: dict[str, Any] = {}
        for name, value in cells.items():
            inner = {f"{name}.{key}": v for key, v in value.items()} if isinstance(value, Mapping) else {name: value}
            for key, v in inner.items():
                try:
                    flat[str(key)] = cell(v)
                except (TypeError, ValueError):
                    self._left_out[str(key)] = type(v).__name__
        self._pending.append((number, flat))
        if len(self._pending) >= CHUNK:
            self._flush()

    def finish(self) -> Rows:
        """Everything that was added."""
        self._flush()
        table = pa.concat_tables(self._chunks, promote_options="default") if self._chunks else pa.table({})
        for i, field in enumerate(table.schema):
            if pa.types.is_null(field.type):
                table = table.set_column(i, field.name, pa.nulls(table.num_rows, pa.string()))
        table = table.drop_columns([name for name in self._left_out if name in table.column_names])
        numbers = pa.concat_arrays(self._numbers or [pa.array([], pa.int64())])
        return Rows(table, numbers, self._where, tuple(f"{name} ({kind})" for name, kind in self._left_out.items()))

    def _flush(self) -> None:
        if not self._pending:
            return
        names = dict.fromkeys(name for _, row in self._pending for name in row)
        self._chunks.append(pa.table({name: self._column(name) for name in names}))
        self._numbers.append(pa.array([number for number, _ in self._pending], pa.int64()))
        self._pending = []

    def _column(self, name: str) -> pa.Array:
        kind = self._types.get(name)
        for number, row in self._pending:
            value = row.get(name)
            found = None if value is None else pa.list_(pa.string()) if isinstance(value, list) else pa.string()
            if found is not None and kind is not None and found != kind:
                raise DataError(
                    f"{self._where}: column `{name}` must hold either texts or lists, but row {number} differs from "
                    "the rows before it. Write all its values in one form."
                )
            kind = kind or found
        if kind is not None:
            self._types[name] = kind
        try:
            return pa.array([row.get(name) for _, row in self._pending], kind or pa.null())
        except UnicodeEncodeError:
            number = next(n for n, row in self._pending if not _encodable(row.get(name)))
            raise DataError(
                f"{self._where}: row {number}, column `{name}` holds half of a surrogate pair (such as \\ud83d alone), "
                "which is no character. Remove it or write the whole character."
            ) from None


def cell(value: Any) -> str | list[str | None] | None:
    """The text of one value, lossless for text and numbers.

    >>> cell(1), cell(1.0), cell(True), cell(float("nan")), cell(["a", 2])
    ('1', '1.0', 'true', None, ['a', '2'])
    """
    if isinstance(value, np.generic):
        value = value.item()
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(value)
    if isinstance(value, float):
        return None if math.isnan(value) else repr(value)
    if isinstance(value, list | tuple):
        inner = [cell(v) for v in value]
        if any(isinstance(v, list) for v in inner):
            raise TypeError("a list within a list")
        return inner  # type: ignore[return-value]
    raise TypeError(type(value).__name__)


def _encodable(value: str | list[str | None] | None) -> bool:
    try:
        for text in value if isinstance(value, list) else [value]:
            (text or "").encode()
    except UnicodeEncodeError:
        return False
    return True


def from_arrow(table: pa.Table, where: str) -> Rows:
    """Rows from a typed Arrow table (Parquet, ``datasets``); text columns are passed on without a copy.

    Raises:
        DataError: a text column that is not valid UTF-8.
    """
    columns: dict[str, pa.ChunkedArray] = {}
    left_out = []
    for name, column in _flattened(table):
        try:
            column.validate(full=True)
            columns[name] = _as_text(column)
        except (pa.ArrowInvalid, UnicodeDecodeError) as error:
            raise DataError(
                f"{where}: column `{name}` cannot be read ({_first_line(error)}). Write the file again."
            ) from None
        except (pa.ArrowNotImplementedError, TypeError):
            left_out.append(f"{name} ({column.type})")
    numbers = pa.array(np.arange(1, table.num_rows + 1))
    return Rows(pa.table(columns), numbers, where, tuple(left_out))


def _flattened(table: pa.Table) -> list[tuple[str, pa.ChunkedArray]]:
    found = []
    for field, column in zip(table.schema, table.columns, strict=True):
        if pa.types.is_struct(field.type):
            parts = column.combine_chunks() if column.num_chunks != 1 else column.chunk(0)
            for i, inner in enumerate(field.type):
                found.append((f"{field.name}.{inner.name}", pa.chunked_array([parts.flatten()[i]])))
        else:
            found.append((field.name, column))
    return found


def _as_text(column: pa.ChunkedArray) -> pa.ChunkedArray:
    kind = column.type
    if pa.types.is_dictionary(kind):
        return _as_text(column.cast(kind.value_type))
    if pa.types.is_floating(kind):
        return pa.chunked_array([_floats_as_text(chunk) for chunk in column.chunks], pa.string())
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        if pa.types.is_nested(kind.value_type) or pa.types.is_floating(kind.value_type):
            return pa.chunked_array([pa.array(map(cell, c.to_pylist()), pa.list_(pa.string())) for c in column.chunks])
        return column.cast(pa.list_(pa.string()))
    if pa.types.is_nested(kind) or pa.types.is_binary(kind) or pa.types.is_large_binary(kind):
        raise TypeError(str(kind))
    return column.cast(pa.string())


def _floats_as_text(chunk: pa.Array) -> pa.Array:
    """As Python writes them: ``1.0`` stays ``1.0``, and a 32-bit 0.1 is ``0.1``."""
    values = chunk.to_numpy(zero_copy_only=False)
    return pa.array([None if math.isnan(v) else str(v) for v in values], pa.string())


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
