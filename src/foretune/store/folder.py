"""The run folder's ``run.json``: one record, replaced as a whole, so that a kill leaves the old one or the new.

One process writes a run folder; others may read it at any time.
"""

from __future__ import annotations

import json
import os
from contextlib import suppress
from pathlib import Path

from foretune.errors import StoreError
from foretune.records import RunRecord
from foretune.store.upgrade import load_record

RUN_FILE = "run.json"


def read_run(folder: str | os.PathLike[str]) -> RunRecord:
    """The record in ``folder``, upgraded where an older foretune wrote it.

    Raises:
        StoreError: there is none, it is not JSON, or it was written by a newer foretune.
    """
    path = Path(folder) / RUN_FILE
    try:
        plain = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise StoreError(
            f"`{folder}` is not a run folder: it holds no {RUN_FILE}. Give the folder that `foretune tune --out` wrote."
        ) from None
    except OSError as error:
        raise StoreError(f"`{path}` cannot be read: {error.strerror}.") from error
    except (ValueError, RecursionError) as error:
        raise StoreError(f"`{path}` is not JSON ({error}). Restore a copy, or run again into a new folder.") from error
    if not isinstance(plain, dict):
        raise StoreError(f"`{path}` is not a run record: it holds a JSON {type(plain).__name__}, not an object.")
    return load_record(plain, str(path))


def write_run(folder: str | os.PathLike[str], record: RunRecord) -> Path:
    """Write ``record`` into ``folder``, which is made if need be, and return the path of the file.

    The bytes go into a temporary file beside it, to the disk, and only then take its name.

    Raises:
        StoreError: full disk or no permission; an earlier ``run.json`` is untouched.
    """
    path = Path(folder) / RUN_FILE
    temporary = path.with_name(f".{RUN_FILE}.tmp")
    text = json.dumps(record.to_json(), indent=2, allow_nan=False)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("w", encoding="ascii") as file:
            file.write(text + "\n")
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
        sync_folder(path.parent)
    except OSError as error:
        with suppress(OSError):
            temporary.unlink()
        raise StoreError(
            f"`{path}` cannot be written: {error.strerror}. Free some space, or name another folder with --out."
        ) from error
    return path


def sync_folder(folder: Path) -> None:
    """Make a new name in ``folder`` outlive a power cut, where the system can open folders (Windows cannot)."""
    if os.name == "nt":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
