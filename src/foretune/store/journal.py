"""JournalStore: a folder with one JSON-lines file per writer, so that two writers never meet and a kill costs one line.

A line is ``{"crc":"8 hex digits","written":nanoseconds,"record":{...}}``; the CRC-32 covers every byte after its own
field. A record is in the store once its newline is on the disk; only then does ``append`` return. Every store object
writes to a fresh file of its own, so a line torn by a kill has nothing after it to swallow. Readers skip and report
what is torn or damaged; nothing is repaired in place. Two stores are merged by copying their files into one folder.
"""

from __future__ import annotations

import heapq
import json
import logging
import os
import re
import secrets
import socket
import threading
import time
import zlib
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import final

from foretune.errors import StoreError
from foretune.records import RunRecord
from foretune.store.base import Store
from foretune.store.folder import sync_folder
from foretune.store.upgrade import check_format, load_record

logger = logging.getLogger(__name__)

SUFFIX = ".jsonl"
_HEAD = re.compile(rb'\{"crc":"([0-9a-f]{8})",')


@dataclass(frozen=True)
class Damage:
    """A line that is not a whole record: the file, its number counted from 1, and what is wrong with it."""

    path: Path
    line: int
    reason: str

    @property
    def because(self) -> str:
        """The line's number and its reason.

        >>> Damage(Path("a.jsonl"), 3, "its checksum does not match").because
        '3: its checksum does not match'
        """
        return f"{self.line}: {self.reason}"

    def __str__(self) -> str:
        return f"{self.path}, line {self.because}"


@dataclass(frozen=True)
class Entry:
    """One record, and when it was appended, in nanoseconds since 1970."""

    written: int
    record: RunRecord


@dataclass
class JournalFile:
    """One writer's file as far as it has been read; ``refresh`` reads on from there.

    Attributes:
        entries: in the order of the lines; their times never fall, whatever the clock did.
        latest: digest -> its last entry.
        damage: complete lines that are not records.
        torn: the unterminated last line, when there is one: a writer was killed in it, or is writing it now.
    """

    path: Path
    entries: list[Entry] = field(default_factory=list)
    latest: dict[str, Entry] = field(default_factory=dict)
    damage: list[Damage] = field(default_factory=list)
    torn: Damage | None = None
    _offset: int = 0
    _lines: int = 0

    def refresh(self) -> None:
        """Read what was added since the last call.

        Raises:
            StoreError: the file cannot be read, or a newer foretune wrote in it.
        """
        try:
            if self.path.stat().st_size == self._offset:
                return
            with self.path.open("rb") as file:
                file.seek(self._offset)
                fresh = file.read()
        except OSError as error:
            raise StoreError(f"the store file `{self.path}` cannot be read: {error.strerror}.") from error
        known = len(self.damage)
        *lines, tail = fresh.split(b"\n")
        for line in lines:
            if line.strip():
                self._take(line, self._lines + 1)
            self._lines += 1
            self._offset += len(line) + 1
        torn = Damage(self.path, self._lines + 1, "unfinished: its writer was killed in it") if tail else None
        fresh_damage = [*self.damage[known:], *([torn] if torn and torn != self.torn else [])]
        if fresh_damage:
            numbers = ", ".join(str(damage.line) for damage in fresh_damage)
            logger.warning("%s: ignored line(s) %s; line %s", self.path, numbers, fresh_damage[0].because)
        self.torn = torn

    def _take(self, line: bytes, number: int) -> None:
        try:
            entry = decode_line(line, f"{self.path}, line {number}")
            key = entry.record.digest
        except (ValueError, KeyError, TypeError) as error:
            self.damage.append(Damage(self.path, number, str(error)))
            return
        if self.entries and entry.written < self.entries[-1].written:
            entry = Entry(self.entries[-1].written, entry.record)
        self.entries.append(entry)
        self.latest[key] = entry


def encode_line(record: RunRecord, written: int) -> bytes:
    """The line for ``record``, newline included. ASCII only, so that no text of a user can break it."""
    plain = {"written": written, "record": record.to_json()}
    body = json.dumps(plain, separators=(",", ":"), allow_nan=False).encode("ascii")[1:]
    return b'{"crc":"%08x",%s\n' % (zlib.crc32(body), body)


def decode_line(line: bytes, where: str) -> Entry:
    """The inverse of ``encode_line``.

    Raises:
        ValueError, KeyError, TypeError: the line is damaged; the message says how.
        StoreError: a newer foretune wrote it.
    """
    head = _HEAD.match(line)
    if head is None:
        raise ValueError("it does not begin with a checksum")
    body = line[head.end() :]
    if zlib.crc32(body) != int(head[1], 16):
        raise ValueError("its checksum does not match")
    plain = json.loads(b"{" + body)
    check_format(plain["record"], where)
    try:
        return Entry(plain["written"], load_record(plain["record"], where))
    except StoreError as error:
        raise ValueError(str(error)) from error


def _fresh_name() -> str:
    host = re.sub(r"[^A-Za-z0-9.]+", "_", socket.gethostname())[:64]
    return f"{host}-{os.getpid()}-{secrets.token_hex(4)}{SUFFIX}"


@final
class JournalStore(Store):
    """The store on disk. Reading sees what other processes have appended meanwhile.

    Args:
        folder: made at the first ``append``; a folder that does not exist is an empty store.

    >>> import tempfile
    >>> len(JournalStore(tempfile.mkdtemp()))
    0
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self.folder = Path(folder)
        self._files: dict[Path, JournalFile] = {}
        self._own: tuple[int, Path] | None = None
        self._lock = threading.Lock()

    def append(self, record: RunRecord) -> None:
        with self._lock:
            if self._own is None or self._own[0] != os.getpid():
                self._own = os.getpid(), self.folder / _fresh_name()
            append_line(self._own[1], encode_line(record, time.time_ns()))

    def __iter__(self) -> Iterator[RunRecord]:
        lines = [tuple(file.entries) for file in self._refreshed()]
        return (entry.record for entry in heapq.merge(*lines, key=lambda entry: entry.written))

    def __len__(self) -> int:
        return sum(len(file.entries) for file in self._refreshed())

    def find(self, digest: str) -> RunRecord | None:
        found = [file.latest[digest] for file in self._refreshed() if digest in file.latest]
        return max(found, key=lambda entry: entry.written).record if found else None

    def damage(self) -> list[Damage]:
        """Every line that is not a record, torn last lines included: what ``foretune doctor`` reports."""
        files = self._refreshed()
        return [damage for file in files for damage in (*file.damage, *([file.torn] if file.torn else []))]

    def _refreshed(self) -> list[JournalFile]:
        with self._lock:
            try:
                paths = sorted(path for path in self.folder.iterdir() if path.suffix == SUFFIX)
            except FileNotFoundError:
                paths = []
            except OSError as error:
                raise StoreError(
                    f"the store `{self.folder}` cannot be read: {error.strerror}. "
                    "Name another folder with --store or FORETUNE_STORE."
                ) from error
            self._files = {path: self._files.get(path) or JournalFile(path) for path in paths}
            for file in self._files.values():
                file.refresh()
            return list(self._files.values())


def append_line(path: Path, line: bytes) -> None:
    """Append ``line`` to ``path`` in one write and wait for the disk.

    An earlier piece without a newline is closed off first; on an error the file is cut back to what it was.

    Raises:
        StoreError: full disk or no permission.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | getattr(os, "O_BINARY", 0), 0o644)
        try:
            _append(handle, line)
        finally:
            os.close(handle)
        sync_folder(path.parent)
    except OSError as error:
        raise StoreError(
            f"the store file `{path}` cannot be written: {error.strerror}. "
            "Free some space, or name another folder with --store or FORETUNE_STORE."
        ) from error


def _append(handle: int, line: bytes) -> None:
    end = os.lseek(handle, 0, os.SEEK_END)
    if end:
        os.lseek(handle, end - 1, os.SEEK_SET)
        line = line if os.read(handle, 1) == b"\n" else b"\n" + line
    rest = memoryview(line)
    try:
        while rest:
            rest = rest[os.write(handle, rest) :]
        os.fsync(handle)
    except OSError:
        with suppress(OSError):
            os.ftruncate(handle, end)
        raise


def default_folder() -> Path:
    """``FORETUNE_STORE`` where it is set, otherwise ``foretune/store`` under ``XDG_CACHE_HOME`` (``~/.cache``)."""
    named = os.environ.get("FORETUNE_STORE")
    if named:
        return Path(named).expanduser()
    cache = Path(os.environ.get("XDG_CACHE_HOME", ""))
    return (cache if cache.is_absolute() else Path.home() / ".cache") / "foretune" / "store"
