"""Claims: which process runs what, so that two workers, or two commands on one store, never run the same.

A claim is a lock of the operating system on a file, not the file itself: when its holder dies, however it dies, the
lock is gone with it, and the next worker takes the run up where its checkpoint was.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from foretune.errors import StoreError


@contextmanager
def claim(folder: Path, name: str) -> Iterator[bool]:
    """Inside the block this process alone holds ``name``, or False was yielded because another one does.

    Raises:
        StoreError: the folder cannot be written.

    >>> import tempfile
    >>> with claim(Path(tempfile.mkdtemp()), "a") as mine:
    ...     mine
    True
    """
    path = folder / f"{name}.lock"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:
        raise StoreError(
            f"`{path}` cannot be written: {error.strerror}. Name another store with --store or FORETUNE_STORE."
        ) from error
    try:
        yield _lock(handle)
    finally:
        os.close(handle)


def _lock(handle: int) -> bool:
    """Take the lock without waiting; closing the handle gives it back."""
    try:
        import fcntl
    except ImportError:
        import msvcrt

        try:
            msvcrt.locking(handle, msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined,unused-ignore]
        except OSError:
            return False
        return True
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
