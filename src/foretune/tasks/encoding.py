"""Which encoding a text file has: UTF-8, or UTF-16/32 that says so in its first bytes; nothing is ever guessed.

A guess would turn letters into other letters without a sound, so any other encoding is refused, with the position.
"""

from __future__ import annotations

import codecs
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from foretune.errors import DataError

_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Turn what the operating system says about ``path`` into a ``DataError``."""
    try:
        yield
    except PermissionError:
        raise DataError(f"`{path}` may not be read by this user. Change its permissions, or copy it.") from None
    except OSError as error:
        raise DataError(f"`{path}` cannot be read ({error.strerror or error}). Check the path and the disk.") from None


def check_file(path: Path) -> None:
    """Refuse what is not a regular file with at least one byte.

    Raises:
        DataError: a device or a pipe, or an empty file.
    """
    with reading(path):
        status = os.stat(path)
    if not stat.S_ISREG(status.st_mode):
        raise DataError(f"`{path}` must be a regular file, but it is a device, a pipe or a socket. Save it as a file.")
    if status.st_size == 0:
        raise DataError(f"`{path}` is empty (0 bytes). It must hold a header and rows.")


def find_encoding(path: Path) -> str:
    """Read the whole file once, block by block, and return the encoding in which it can be opened.

    Raises:
        DataError: bytes that are not UTF-8 (with the position, the line and a command that converts), or NUL.
    """
    check_file(path)
    with reading(path), open(path, "rb") as file:
        start = file.read(4)
        encoding = next((name for mark, name in _MARKS if start.startswith(mark)), "utf-8")
        file.seek(0)
        decoder = codecs.getincrementaldecoder(encoding)()
        at, line = 0, 1
        while True:
            block = file.read(1 << 20)
            waiting = len(decoder.getstate()[0])
            try:
                text = decoder.decode(block, final=not block)
            except UnicodeDecodeError as error:
                raise _undecodable(path, encoding, block, at - waiting, error, line) from None
            if "\0" in text:
                line += text.count("\n", 0, text.index("\0"))
                raise DataError(
                    f"`{path}` must be a text file, but line {line} holds a NUL character. If it is UTF-16 without its "
                    "mark, or a binary format such as .xlsx, save it as UTF-8 text."
                )
            line += text.count("\n")
            at += len(block)
            if not block:
                return encoding


def _undecodable(path: Path, encoding: str, block: bytes, base: int, error: UnicodeDecodeError, line: int) -> DataError:
    bad = error.object[error.start] if error.start < len(error.object) else 0
    line += error.object.count(b"\n", 0, error.start)
    shown = "UTF-8" if encoding.startswith("utf-8") else encoding.upper()
    return DataError(
        f"`{path}` must be {shown}, but byte 0x{bad:02x} at position {base + error.start} (line {line}) is not. Save "
        f"it as UTF-8; if it is Latin-1, `iconv -f latin1 -t utf-8 {path.name} > fixed{path.suffix}` does it."
    )
