"""Readers: the few ways in which the catalog's files are written; each gives one dict per row.

Published text sets share a handful of forms and as many traps: TSV whose quotation marks are text, line breaks of other
alphabets inside a row (``str.splitlines`` would break it there), bytes literals, byte-order marks. A reader is a plain
function ``(files, **options) -> rows``; which one reads a file, and with which options, stands in the task's ``.toml``.
"""

from __future__ import annotations

import ast
import csv
import io
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from xml.etree import ElementTree

from foretune.errors import DataError

Row = dict[str, Any]


@dataclass(frozen=True)
class File:
    """The bytes of one file under the name that an error shows."""

    name: str
    content: bytes

    def text(self, encoding: str) -> str:
        """The decoded text. Raises ``DataError`` where the bytes are not in that encoding."""
        try:
            return self.content.decode(encoding)
        except UnicodeDecodeError as error:
            raise DataError(
                f"{self.name} must be {encoding} text, but byte {error.start} is 0x{self.content[error.start]:02x}. "
                "Fetch the file again, or save it in that encoding."
            ) from error

    def lines(self, encoding: str) -> list[str]:
        """The lines, broken at ``\\n`` and ``\\r\\n`` alone; a final line break opens no further line."""
        lines = self.text(encoding).split("\n")
        if not lines[-1]:
            lines.pop()
        return [line.removesuffix("\r") for line in lines]


def read_csv(files: Mapping[str, File], encoding: str = "utf-8") -> list[Row]:
    """Comma-separated with a header and double quotes: a field may hold commas and line breaks."""
    file = files["file"]
    records = csv.reader(io.StringIO(file.text(encoding), newline=""), strict=True)
    try:
        return _named(file, next(records, []), records)
    except csv.Error as error:
        raise DataError(f"{file.name}, line {records.line_num}: {error}. Fetch the file again.") from error


def read_tsv(
    files: Mapping[str, File], encoding: str = "utf-8", header: Sequence[str] = (), bytes_literals: Sequence[str] = ()
) -> list[Row]:
    """Tab-separated without quoting: a quotation mark is text.

    Args:
        files: the file, under ``file``.
        encoding: ``utf-8-sig`` where the file starts with a byte-order mark.
        header: the column names of a file that has no header line.
        bytes_literals: columns written as Python bytes literals, ``b'..'`` or ``b".."``.
    """
    file = files["file"]
    records = [line.split("\t") for line in file.lines(encoding)]
    rows = _named(file, header, records) if header else _named(file, records[0] if records else [], records[1:])
    for column in bytes_literals:
        for number, row in enumerate(rows, 1):
            row[column] = _literal(file, number, row[column])
    return rows


def read_jsonl(files: Mapping[str, File], encoding: str = "utf-8") -> list[Row]:
    """One JSON object per line."""
    file = files["file"]
    return [_object(file, number, line) for number, line in enumerate(file.lines(encoding), 1)]


def read_json_dict(files: Mapping[str, File], encoding: str = "utf-8") -> list[Row]:
    """One JSON object whose values are the rows; its keys are row numbers and are not kept."""
    file = files["file"]
    return list(_object(file, 1, file.text(encoding)).values())


def read_lines(files: Mapping[str, File], encoding: str = "utf-8") -> list[Row]:
    """Line-aligned files, one per column; the names of the files are the names of the columns."""
    columns = {name: file.lines(encoding) for name, file in files.items()}
    counts = {file.name: len(columns[name]) for name, file in files.items()}
    if len(set(counts.values())) > 1:
        raise DataError(f"line-aligned files must have equally many lines, but got {counts}. Fetch them again.")
    return [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]


def read_labelled(files: Mapping[str, File], encoding: str = "utf-8") -> list[Row]:
    """Lines ``<label> <text>`` or ``<label>:<fine label> <text>``: columns ``label``, ``fine``, ``text``.

    >>> read_labelled({"file": File("t", b"NUM:dist How far is it ?\\n")})
    [{'label': 'NUM', 'fine': 'dist', 'text': 'How far is it ?'}]
    """
    file = files["file"]
    rows = []
    for number, line in enumerate(file.lines(encoding), 1):
        head, space, text = line.partition(" ")
        if not head or not space:
            raise DataError(
                f"{file.name}, row {number} must be `<label> <text>`, but is {line!r}. Fetch the file again."
            )
        label, _, fine = head.partition(":")
        rows.append({"label": label, "fine": fine, "text": text})
    return rows


def read_copa_xml(files: Mapping[str, File]) -> list[Row]:
    """COPA's XML, with its gold file (``<id> 1 0``) under ``gold`` where there is one.

    Columns ``id``, ``premise``, ``question`` (cause or effect), ``choice1``, ``choice2``, ``label`` (0 or 1). The order
    of the choices is the file's own and is not that of the JSON release.

    Raises:
        DataError: not XML, an item without one of its parts, or a gold file that says otherwise than the XML.
    """
    file = files["file"]
    try:
        items = ElementTree.fromstring(file.content).iter("item")
        rows = [_copa_item(item) for item in items]
    except (ElementTree.ParseError, KeyError) as error:
        raise DataError(f"{file.name} is not a COPA file ({error}). Fetch the file again.") from error
    if "gold" in files:
        gold = {int(line.split()[0]): line.split()[1:].index("1") for line in files["gold"].lines("utf-8")}
        wrong = [row["id"] for row in rows if gold.get(row["id"]) != row["label"]]
        if wrong:
            raise DataError(
                f"{files['gold'].name} must agree with {file.name}, but differs in item {wrong[0]} "
                f"({len(wrong)} in all). Fetch both files again."
            )
    return rows


READERS: dict[str, Callable[..., list[Row]]] = {
    "csv": read_csv,
    "tsv": read_tsv,
    "jsonl": read_jsonl,
    "json_dict": read_json_dict,
    "lines": read_lines,
    "labelled": read_labelled,
    "copa_xml": read_copa_xml,
}


def _named(file: File, header: Sequence[str], records: Iterable[Sequence[str]]) -> list[Row]:
    rows = []
    for number, record in enumerate(records, 1):
        if len(record) != len(header):
            raise DataError(
                f"{file.name}, row {number} must have {len(header)} fields ({', '.join(header)}), "
                f"but has {len(record)}. Fetch the file again."
            )
        rows.append(dict(zip(header, record, strict=True)))
    return rows


def _object(file: File, number: int, text: str) -> Row:
    try:
        value = json.loads(text)
    except json.JSONDecodeError as error:
        raise DataError(f"{file.name}, row {number} is not JSON ({error.msg}). Fetch the file again.") from error
    if not isinstance(value, dict):
        raise DataError(f"{file.name}, row {number} must be a JSON object, but is {text[:40]!r}. Fetch the file again.")
    return value


def _literal(file: File, number: int, written: str) -> str:
    try:
        decoded: str = ast.literal_eval(written).decode("utf-8")
    except (ValueError, SyntaxError, AttributeError) as error:
        raise DataError(
            f"{file.name}, row {number} must hold a bytes literal such as b'text', but holds {written[:40]!r}. "
            "Fetch the file again."
        ) from error
    return decoded


def _copa_item(item: ElementTree.Element) -> Row:
    part = {child.tag: child.text or "" for child in item}
    return {
        "id": int(item.attrib["id"]),
        "premise": part["p"],
        "question": item.attrib["asks-for"],
        "choice1": part["a1"],
        "choice2": part["a2"],
        "label": int(item.attrib["most-plausible-alternative"]) - 1,
    }
