"""The collection that the package ships: runs on public tasks, so that a first recommendation has something to rest on.

Four Parquet tables in the folder ``bundled`` beside this file. How they were made, on which machine, and where they
cannot speak is in ``experiments/bundled_store/README.md``.
"""

from __future__ import annotations

import os
from functools import cache
from pathlib import Path

from foretune.records import RunCollection
from foretune.store.collections import TABLES, read_collection

NAME = "foretune"
"""What the collection is called where several are listed."""

FOLDER = Path(__file__).with_name("bundled")

INSTEAD = "FORETUNE_BUNDLED"
"""Environment variable: the folder of another collection that stands in its place, or ``NONE``."""

NONE = "none"


def bundled() -> RunCollection | None:
    """The shipped collection, or the one that ``FORETUNE_BUNDLED`` puts in its place; None where there is none.

    Raises:
        StoreError: a table is damaged, or absent while others are there; the folder that was named holds none.
    """
    named = os.environ.get(INSTEAD, "")
    if named == NONE:
        return None
    return read_collection(Path(named).expanduser()) if named else _read(FOLDER)


@cache
def _read(folder: Path) -> RunCollection | None:
    if not any((folder / f"{name}.parquet").exists() for name in TABLES):
        return None
    return read_collection(folder)
