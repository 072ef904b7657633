"""Runs from elsewhere: run folders, or the journal of another machine. Importing twice adds nothing."""

from __future__ import annotations

import os
from pathlib import Path

from foretune.errors import StoreError
from foretune.records import RunRecord, digest
from foretune.store.base import Store
from foretune.store.folder import RUN_FILE, read_run
from foretune.store.journal import SUFFIX, JournalFile

_WANTED = f"Give a run folder (with {RUN_FILE}), a folder of run folders, or a journal (*{SUFFIX})."


def gather(path: str | os.PathLike[str]) -> list[RunRecord]:
    """The records at ``path``: a run folder, its run.json, a folder of run folders, a journal or a folder of them.

    Raises:
        StoreError: nothing there, or a record that cannot be read.
    """
    path = Path(path)
    if path.name == RUN_FILE or (path / RUN_FILE).exists():
        return [read_run(path.parent if path.name == RUN_FILE else path)]
    if path.is_file() and path.suffix == SUFFIX:
        return _journal(path)
    try:
        inside = sorted(path.iterdir())
    except OSError as error:
        raise StoreError(f"`{path}` cannot be read: {error.strerror}. {_WANTED}") from error
    records = [read_run(child) for child in inside if (child / RUN_FILE).exists()]
    records += [record for child in inside if child.suffix == SUFFIX for record in _journal(child)]
    if not records:
        raise StoreError(f"`{path}` holds no runs. {_WANTED}")
    return records


def import_runs(store: Store, path: str | os.PathLike[str]) -> tuple[int, int]:
    """Append to ``store`` what ``gather(path)`` finds and it does not hold yet.

    A record is known when every field of it is equal: the same run in another state is a further record.

    Returns:
        The number of records added, and of those that were known.

    Raises:
        StoreError: as ``gather``; nothing is added unless everything can be read.
    """
    records = gather(path)
    known = {_content(record) for record in store}
    added = 0
    for record in records:
        content = _content(record)
        if content not in known:
            known.add(content)
            store.append(record)
            added += 1
    return added, len(records) - added


def _content(record: RunRecord) -> str:
    return digest(record.to_json(), 64)


def _journal(path: Path) -> list[RunRecord]:
    file = JournalFile(path)
    file.refresh()
    if file.damage and not file.entries:
        raise StoreError(f"`{path}` is not a journal of runs ({file.damage[0]}).")
    return [entry.record for entry in file.entries]
