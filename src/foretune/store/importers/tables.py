"""CSV and Parquet files -> Arrow tables, with errors in words. Types are found by Arrow; numbers keep every bit."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from foretune.errors import DataError, StoreError

if TYPE_CHECKING:
    import pyarrow as pa


def read_csv(path: Path) -> pa.Table:
    """The table at ``path``; an empty cell is null, the word ``nan`` a number that is none.

    Raises:
        DataError: absent, not UTF-8, ragged, or without a row.
    """
    import pyarrow as pa
    from pyarrow import csv

    options = csv.ConvertOptions(
        null_values=[""], strings_can_be_null=True, true_values=["True", "true"], false_values=["False", "false"]
    )
    try:
        table = csv.read_csv(path, convert_options=options)
    except (OSError, pa.ArrowException) as error:
        first = str(error).splitlines()[0]
        raise DataError(
            f"`{path}` cannot be read as CSV: {first}. Every row needs the columns of the header."
        ) from error
    return _whole(table, path)


def read_parquet(path: Path) -> pa.Table:
    """The table at ``path``.

    Raises:
        DataError: absent, damaged, or without a row.
    """
    import pyarrow as pa
    from pyarrow import parquet

    try:
        table = parquet.read_table(path)
    except (OSError, pa.ArrowException) as error:
        first = str(error).splitlines()[0]
        raise DataError(f"`{path}` cannot be read as Parquet: {first} Restore a whole copy of it.") from error
    return _whole(table, path)


def _whole(table: pa.Table, path: Path) -> pa.Table:
    if not table.num_rows:
        raise DataError(f"`{path}` holds no row.")
    twice = sorted({name for name in table.column_names if table.column_names.count(name) > 1})
    if twice:
        raise DataError(f"`{path}` has the column `{twice[0]}` more than once. Rename one of them.")
    return table


def numbers(column: pa.ChunkedArray, name: str, path: Path) -> np.ndarray:
    """The column as float64 ``(n,)``, null as NaN.

    Raises:
        DataError: it holds something else; the message has the first such row, counted from 1.
    """
    import pyarrow as pa

    kind = column.type
    if pa.types.is_null(kind):
        return np.full(len(column), np.nan)
    if not (pa.types.is_integer(kind) or pa.types.is_floating(kind)):
        row, value = next((n, v) for n, v in enumerate(column.to_pylist(), 1) if not _is_number(v))
        raise DataError(f"`{path}`: the column `{name}` must hold numbers, but row {row} has {value!r}.")
    found: np.ndarray = column.cast(pa.float64()).to_numpy(zero_copy_only=False)
    return found


def _is_number(value: Any) -> bool:
    try:
        float(value)
    except (TypeError, ValueError):
        return value is None
    return True


def mappings(table: pa.Table, prefix: str = "") -> list[dict[str, Any]]:
    """Row -> its values by name, without ``prefix``; what is null is absent."""
    names = [name for name in table.column_names if name.startswith(prefix)]
    short = [name.removeprefix(prefix) for name in names]
    columns = [table[name].to_pylist() for name in names]
    rows = zip(*columns, strict=True) if columns else ((),) * table.num_rows
    return [{key: value for key, value in zip(short, row, strict=True) if value is not None} for row in rows]


def write_csv(path: Path, table: pa.Table) -> None:
    """Write ``table`` so that ``read_csv`` gives it again, bit for bit.

    Arrow writes the shortest digits that give the same number. It writes NaN as ``nan`` and null as nothing.

    Raises:
        StoreError: full disk or no permission.
    """
    from pyarrow import csv

    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        csv.write_csv(table, path)
    except OSError as error:
        raise StoreError(f"`{path}` cannot be written: {error}. Free some space, or name another folder.") from error
