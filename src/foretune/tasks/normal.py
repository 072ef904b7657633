"""Rows as found -> the one normalised form (``SPLIT_COLUMNS``), by a schema."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from foretune.errors import DataError
from foretune.tasks.labels import choice_coding, choice_index, short
from foretune.tasks.raw import Rows
from foretune.tasks.schema import SPLIT_COLUMNS, Schema


def as_names(role: Any) -> list[str]:
    """The column names of a role that may hold none, one or several.

    >>> as_names(None), as_names("a"), as_names(("a", "b"))
    ([], ['a'], ['a', 'b'])
    """
    return [] if role is None else [role] if isinstance(role, str) else list(role)


def trimmed(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Without the space around each value; what is empty then is null.

    >>> trimmed(pa.chunked_array([["a ", " ", None]])).to_pylist()
    ['a', None, None]
    """
    if pa.types.is_list(column.type):
        raise DataError("a label must be one value, but the label column holds lists. Name another with `--label`.")
    bare = pc.utf8_trim_whitespace(column)
    return pc.if_else(pc.equal(bare, ""), pa.scalar(None, pa.string()), bare)


def candidate_lists(table: pa.Table, columns: Sequence[str]) -> list[list[str] | None]:
    """The candidates of every row, from one column of lists or from several columns (empty ones at the end dropped)."""
    if len(columns) == 1 and pa.types.is_list(table[columns[0]].type):
        lists: list[list[str] | None] = table[columns[0]].to_pylist()
        return lists
    rows = zip(*(table[name].to_pylist() for name in columns), strict=True)
    return [_without_end(list(row)) or None for row in rows]


def _without_end(values: list[Any]) -> list[Any]:
    while values and values[-1] is None:
        values.pop()
    return values


def to_split(rows: Rows, schema: Schema, labelled: bool = True) -> pa.Table:
    """A table with ``SPLIT_COLUMNS``.

    Args:
        rows: as found.
        schema: which column is what.
        labelled: whether the label or response column must be there; otherwise its absence gives nulls.

    Raises:
        DataError: a column is missing, or a choice's label names none of its choices; the message has the row.
    """
    roles = schema.columns
    label: str = roles["response" if schema.kind == "generation" else "label"]
    needed = [name for role in ("text", "pair", "prompt", "choices") for name in as_names(roles.get(role))]
    missing = [n for n in [*needed, *([label] if labelled else [])] if n not in rows.table.column_names]
    if missing:
        raise DataError(
            f"{rows.where} must have the columns of the training data, but lacks {', '.join(f'`{n}`' for n in missing)}"
            f" (it has {', '.join(f'`{n}`' for n in rows.table.column_names)}). Rename its columns."
        )
    size = rows.table.num_rows
    found: dict[str, Any] = {name: pa.nulls(size, SPLIT_COLUMNS.field(name).type) for name in SPLIT_COLUMNS.names}
    found["row"] = rows.numbers
    found["text"] = _joined(rows.table, as_names(roles.get("prompt", roles.get("text"))), rows.where)
    if "pair" in roles:
        found["pair"] = _joined(rows.table, [roles["pair"]], rows.where)
    if "choices" in roles:
        found["choices"] = pa.array(candidate_lists(rows.table, as_names(roles["choices"])), pa.list_(pa.string()))
    if label in rows.table.column_names:
        found["label"] = _labels(rows, schema, label, found["choices"])
    return pa.table(found, schema=SPLIT_COLUMNS)


MOST_GROUPS = 50
"""Parts of an out-of-domain set beyond which a column is no name of parts but an identity or a text."""


def groups(rows: Rows, name: str) -> pa.ChunkedArray:
    """The column that names the part a row belongs to, null where it belongs to none.

    Raises:
        DataError: lists, or so many values that they name no parts.
    """
    if pa.types.is_list(rows.table[name].type):
        raise DataError(f"{rows.where}: the group `{name}` must be one name per row, but holds lists. Name another.")
    found = trimmed(rows.table[name])
    distinct = pc.count_distinct(found).as_py()
    if distinct > MOST_GROUPS:
        raise DataError(
            f"{rows.where}: a group must have at most {MOST_GROUPS} names, but `{name}` has {distinct}. Name a column "
            "that tells parts of the set apart."
        )
    return found


def _joined(table: pa.Table, names: Sequence[str], where: str) -> pa.ChunkedArray:
    lists = next((n for n in names if pa.types.is_list(table[n].type)), None)
    if lists is not None:
        raise DataError(f"{where}: column `{lists}` must hold one text per row, but holds lists. Name another column.")
    if len(names) == 1:
        return table[names[0]]
    return pc.binary_join_element_wise(*(table[n] for n in names), "\n\n", null_handling="skip")


def _labels(rows: Rows, schema: Schema, label: str, choices: pa.Array) -> Any:
    column = rows.table[label]
    if schema.kind == "generation":
        if not pa.types.is_list(column.type):
            return column
        if schema.references is None:
            raise DataError(
                f"{rows.where}: column `{label}` must hold one response per row, as in training, but holds lists."
            )
        filled = pc.binary_join(column.cast(pa.list_(pa.string())), schema.references)
        return pc.if_else(pc.equal(filled, ""), pa.scalar(None, pa.string()), filled)
    bare = trimmed(column)
    if schema.kind != "choice":
        return bare
    whole = list(zip(rows.numbers.to_pylist(), bare.to_pylist(), choices.to_pylist(), strict=True))
    full = [(text, options) for _, text, options in whole if text and options]
    coding = schema.columns.get("coding") or choice_coding([t for t, _ in full], [o for _, o in full])
    indices = []
    for number, text, options in whole:
        index = None if text is None else choice_index(text, options or [], coding)
        if text is not None and index is None:
            raise DataError(
                f"{rows.where}: row {number} has the label {short(text)}, which as {coding} names none of "
                f"its {len(options or [])} choices. Correct the row."
            )
        indices.append(None if index is None else str(index))
    return pa.array(indices, pa.string())
