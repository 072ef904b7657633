"""When two rows count as the same, and the numbers that seed every draw.

Rows are compared after lower-casing and keeping only letters, their marks and digits, of any script, over all text
fields at once: copies that differ in case, spacing or punctuation are copies. A text without any letter or digit is
compared as it stands, for otherwise all of those would be equal.
"""

from __future__ import annotations

import hashlib
import unicodedata
from collections.abc import Iterator
from typing import Any

import pyarrow as pa

from foretune.records.config import canonical


class _Kept(dict[int, int | None]):
    """A table for ``str.translate`` that decides about each character once."""

    def __missing__(self, code: int) -> int | None:
        character = chr(code)
        keep = character.isalnum() or unicodedata.category(character).startswith("M")
        self[code] = code if keep else None
        return self[code]


_KEPT = _Kept()


def normalise(text: str) -> str:
    """Lower-case, letters and digits only; the text itself where nothing would be left.

    >>> normalise("Don't PANIC, 2nd time!"), normalise("Привет, мир"), normalise(" :-) ")
    ('dontpanic2ndtime', 'приветмир', ':-)')
    """
    lower = text.lower() if text.isascii() else unicodedata.normalize("NFC", text.lower())
    return lower.translate(_KEPT) or text.strip()


def iterate(table: pa.Table, *names: str) -> Iterator[tuple[Any, ...]]:
    """The values of the named columns row by row, a few thousand at a time, so that a large table is never unpacked."""
    for batch in table.select(list(names)).to_batches(max_chunksize=4096):
        yield from zip(*(batch.column(i).to_pylist() for i in range(batch.num_columns)), strict=True)


def row_keys(table: pa.Table) -> list[bytes]:
    """One 16-byte key per row of a split: equal keys mean equal text fields after ``normalise``."""
    keys = []
    for text, pair, choices in iterate(table, "text", "pair", "choices"):
        fields = [text or "", *([] if pair is None else [pair]), *(choices or ())]
        joined = "\x1f".join(normalise(field) for field in fields)
        keys.append(hashlib.blake2b(joined.encode(), digest_size=16).digest())
    return keys


def hash64(*parts: str | int) -> int:
    """A 64-bit number from names and seeds: equal parts give the equal stream on every machine.

    >>> hash64("cola", "sample", 0) == hash64("cola", "sample", 0) != hash64("cola", "sample", 1)
    True
    """
    return int.from_bytes(hashlib.sha256(canonical(parts).encode()).digest()[:8], "big")


def digest_rows(table: pa.Table) -> str:
    """SHA-256 over the contents of a split in order, without row numbers: the same for every file format."""
    running = hashlib.sha256()
    for row in iterate(table, "text", "pair", "choices", "label"):
        running.update(canonical(row).encode() + b"\n")
    return running.hexdigest()
