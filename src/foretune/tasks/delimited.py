"""CSV and TSV, read strictly: a file that no spreadsheet would write is refused with its row, never repaired.

The delimiter of a ``.csv`` is the one of comma, semicolon, tab and bar that cuts the first rows into equally many
fields (most fields first, then in that order). A ``.tsv`` is read with quotes where that gives every row the header's
width; otherwise, or where quoting would join lines that are complete on their own, quotes are ordinary characters, as
in the files of GLUE.

A row's number counts records from 1 after the header, blank lines included: one less than a spreadsheet shows.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from foretune.errors import DataError
from foretune.tasks.encoding import find_encoding, reading
from foretune.tasks.raw import Rows, RowsBuilder

_DELIMITERS = {",": "comma", ";": "semicolon", "\t": "tab", "|": "bar"}
_LONGEST_FIELD = 1 << 24
_SAMPLE = 50
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")


@dataclass(frozen=True)
class _Dialect:
    path: Path
    encoding: str
    delimiter: str
    quoted: bool

    def records(self) -> Iterator[tuple[int, int, list[str]]]:
        """(record number from 0 at the header, last line, fields); blank lines are counted and passed over."""
        with reading(self.path), open(self.path, encoding=self.encoding, newline="") as file:
            if self.quoted:
                reader = csv.reader(file, delimiter=self.delimiter, strict=True)
            else:
                reader = csv.reader(file, delimiter=self.delimiter, strict=True, quoting=csv.QUOTE_NONE)
            number, before = -1, 0
            try:
                for fields in reader:
                    number += bool(fields) or number >= 0
                    if fields:
                        yield number, reader.line_num, fields
                    before = reader.line_num
            except csv.Error as error:
                raise DataError(
                    f"{self.path}: the record that starts on line {before + 1} is not well-formed ({error}). Inside a "
                    'quoted field write each quote twice (""), and close every quote; or save the data as JSON Lines.'
                ) from None


@contextmanager
def _long_fields() -> Iterator[None]:
    """A document may be longer than the csv module's 131,072 characters; its limit is put back afterwards."""
    before = csv.field_size_limit(_LONGEST_FIELD)
    try:
        yield
    finally:
        csv.field_size_limit(before)


def read_delimited(path: Path, named: frozenset[str] = frozenset()) -> tuple[Rows, list[str]]:
    """Read a CSV or TSV file with a header.

    Args:
        path: ``.tsv`` fixes the delimiter to tab.
        named: columns that the user named; when the header holds one, it is a header.

    Returns:
        The rows, and notes for the reader on how the file was read.

    Raises:
        DataError: encoding, quoting, a ragged row, a header that is none, no rows; the message names the row.
    """
    encoding = find_encoding(path)
    with _long_fields():
        dialect = (_tsv_dialect if path.suffix.lower() == ".tsv" else _csv_dialect)(path, encoding)
        rows = _read(dialect, named)
    notes = []
    if not dialect.quoted:
        notes.append(f"{path.name}: quotation marks are read as ordinary characters, one line per row.")
    if path.suffix.lower() == ".csv" and dialect.delimiter != ",":
        notes.append(f"{path.name}: fields are separated by the {_DELIMITERS[dialect.delimiter]}.")
    return rows, notes


def _read(dialect: _Dialect, named: frozenset[str]) -> Rows:
    records = dialect.records()
    _, _, cells = next(records, (0, 0, []))
    if not cells:
        raise DataError(f"`{dialect.path}` holds blank lines only. It must hold a header and rows.")
    header = [cell.strip() or f"column_{i}" for i, cell in enumerate(cells, 1)]
    twice = next((name for name in header if header.count(name) > 1), None)
    number = next((name for name in header if _NUMBER.fullmatch(name)), None)
    known = bool(named & set(header))
    if number and not known:
        raise _headerless(dialect.path, f"`{number}` is a number")
    if twice:
        raise DataError(
            f"{dialect.path}: column names must differ, but `{twice}` occurs twice in the header. Rename one."
        )
    builder = RowsBuilder(dialect.path.name)
    for row, line, fields in records:
        if len(fields) != len(header):
            raise _ragged(dialect, row, line, fields, header)
        builder.add(row, {name: value or None for name, value in zip(header, fields, strict=True)})
    rows = builder.finish()
    again = next((name for name in rows.table.column_names if _occurs(rows.table, name)), None)
    if again and not known:
        raise _headerless(dialect.path, f"`{again}` occurs again below")
    return rows


def _occurs(table: pa.Table, name: str) -> bool:
    """Whether a column's name is also one of its values: then the first row was a row."""
    return bool(pc.any(pc.equal(table[name], name)).as_py())


def _headerless(path: Path, reason: str) -> DataError:
    return DataError(
        f"{path}: the first row must name the columns, but it looks like data ({reason}). Add a first line such as "
        "`text,label`; if these are column names, say which ones to use with `--text` and `--label`."
    )


def _ragged(dialect: _Dialect, number: int, line: int, fields: list[str], header: list[str]) -> DataError:
    name = _DELIMITERS[dialect.delimiter]
    return DataError(
        f"{dialect.path}: row {number} (line {line}) has {len(fields)} fields, but the header has {len(header)} "
        f"({', '.join(f'`{h}`' for h in header[:6])}). Quote a field that holds the {name}, or fill in the missing one."
    )


def _csv_dialect(path: Path, encoding: str) -> _Dialect:
    widths = {}
    for delimiter in _DELIMITERS:
        dialect = _Dialect(path, encoding, delimiter, quoted=True)
        try:
            sample = [len(fields) for _, _, fields in islice(dialect.records(), _SAMPLE)]
        except DataError:
            sample = []
        if sample and sample[0] > 1:
            widths[delimiter] = (sample.count(sample[0]) == len(sample), sample[0])
    best = max(widths, key=lambda d: widths[d]) if widths else ","
    return _Dialect(path, encoding, best, quoted=True)


def _tsv_dialect(path: Path, encoding: str) -> _Dialect:
    quoted, plain = _Dialect(path, encoding, "\t", True), _Dialect(path, encoding, "\t", False)
    quoted_rows, plain_rows = _even_rows(quoted), _even_rows(plain)
    if quoted_rows is None or (plain_rows is not None and plain_rows != quoted_rows):
        return plain
    return quoted


def _even_rows(dialect: _Dialect) -> int | None:
    """The number of records where all have one width, otherwise None."""
    width, rows = 0, 0
    try:
        for _, _, fields in dialect.records():
            width = width or len(fields)
            if len(fields) != width:
                return None
            rows += 1
    except DataError:
        return None
    return rows
