"""Rows of any source -> the one table of ``tasks.schema``: columns by role, labels by name, rows by rule."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pyarrow as pa

from foretune.errors import DataError
from foretune.tasks.catalog.entry import Reading
from foretune.tasks.catalog.readers import Row
from foretune.tasks.schema import GROUPED_COLUMNS, SPLIT_COLUMNS

_FOLDED = re.compile(r"[^a-z0-9]")


def to_table(rows: Iterable[Row], reading: Reading, where: str) -> pa.Table:
    """The rows that count, as a table with ``SPLIT_COLUMNS``, or ``GROUPED_COLUMNS`` where the source has groups; white
    space around texts is dropped.

    Args:
        rows: one dict per row of the source.
        reading: what its columns mean.
        where: the source's name in an error.

    Raises:
        DataError: a column is missing, or a label has no class name.
    """
    roles = reading.columns
    schema = GROUPED_COLUMNS if "group" in roles else SPLIT_COLUMNS
    columns: dict[str, list[Any]] = {name: [] for name in schema.names}
    text = roles.get("text", roles.get("prompt"))
    label = roles.get("label", roles.get("response"))
    for number, row in enumerate(rows, 1):
        try:
            written = _text(row, text, reading.values)
            raw = _label(_value(row, label), reading.references or " ")
            if raw in reading.drop or not _counts(row, written, reading):
                continue
            pair = _text(row, roles["pair"], reading.values) if "pair" in roles else None
            choices = [_text(row, choice, reading.values) for choice in roles.get("choices", ())] or None
            group = [_text(row, roles["group"], reading.values) or None] if "group" in roles else []
        except KeyError as error:
            raise DataError(
                f"{where}, row {number} must have the column {error}, but has {', '.join(map(str, row))}. "
                "Fetch the data set again."
            ) from error
        values = (number, written, pair, choices, _class(raw, reading.labels, where, number), *group)
        for name, value in zip(columns, values, strict=True):
            columns[name].append(value)
    return pa.table(columns, schema=schema)


def rename_labels(table: pa.Table, names: Mapping[str, str]) -> pa.Table:
    """The same table with its class names replaced; a name that ``names`` does not hold stays."""
    renamed = pa.array([names.get(label, label) for label in table["label"].to_pylist()], pa.string())
    return table.set_column(table.schema.get_field_index("label"), "label", renamed)


def bucket(text: str) -> int:
    """0..99 from the SHA-256 of the text's letters and digits: a split that no seed, order or spelling of space moves.

    Equal texts fall on the same side, so such a split cannot leak.

    >>> bucket("A fine film .") == bucket("a fine film.")
    True
    """
    folded = _FOLDED.sub("", text.lower())
    return int.from_bytes(hashlib.sha256(folded.encode()).digest()[:8], "big") % 100


def _counts(row: Row, text: str, reading: Reading) -> bool:
    if reading.keep is not None:
        value = int(_value(row, reading.keep["column"]))
        if not any(low <= value <= high for low, high in reading.keep["ranges"]):
            return False
    return reading.percent is None or reading.percent[0] <= bucket(text) < reading.percent[1]


def _value(row: Row, column: str) -> Any:
    """The value of a column, or of a dotted path into nested objects."""
    if column in row or "." not in column:
        return row[column]
    head, _, rest = column.partition(".")
    return _value(row[head], rest)


def _text(row: Row, column: str | Sequence[str], values: Mapping[str, Mapping[str, str]]) -> str:
    if not isinstance(column, str):
        return " ".join(_text(row, part, values) for part in column)
    value = _value(row, column)
    if value is None:
        return ""
    if isinstance(value, list):
        return " ".join(str(part).strip() for part in value)
    return values.get(column, {}).get(value, str(value)).strip()


def _label(value: Any, references: str) -> str | None:
    if isinstance(value, list):
        return references.join(" ".join(str(part).split()) for part in value)
    if isinstance(value, bool):
        return str(value).lower()
    return None if value is None else str(value).strip()


def _class(raw: str | None, labels: Mapping[str, str], where: str, number: int) -> str | None:
    if raw is None or not labels:
        return raw
    name = labels.get(raw, raw)
    if name not in labels.values():
        raise DataError(f"{where}, row {number} must have one of the labels {', '.join(labels)}, but has {raw!r}.")
    return name
