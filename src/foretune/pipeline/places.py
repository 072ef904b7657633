"""Where a command is to write: refused before the work, not after it."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from foretune.errors import StoreError, UsageError


def require_ending(path: Path, endings: Sequence[str], what: str) -> None:
    """Refuse a file name whose ending says no format that ``what`` has.

    Raises:
        UsageError: with the endings there are.
    """
    if path.suffix.lower() not in endings:
        raise UsageError(
            f"{what} are written as {', '.join(endings)}, but `{path}` has none of these endings. Rename `--out`."
        )


def require_place(path: Path, folder: bool = False) -> None:
    """Refuse a file, or a folder, that could not be written; nothing is made.

    Raises:
        StoreError: something else stands there, or the nearest folder above that exists may not be written.
    """
    if path.exists() and path.is_dir() != folder:
        raise _refused(path, f"it is a {'file' if folder else 'folder'}")
    above = path if folder else path.parent
    try:
        while not above.exists() and above != above.parent:
            above = above.parent
    except OSError as error:
        raise _refused(path, error.strerror or str(error)) from error
    if not above.is_dir():
        raise _refused(path, f"`{above}` is a file")
    if not os.access(above, os.W_OK | os.X_OK):
        raise _refused(path, f"nothing may be written in `{above}`")


def _refused(path: Path, reason: str) -> StoreError:
    return StoreError(f"`{path}` cannot be written: {reason}. Give another place with `--out`.")
