"""Kept laps: a file that every finished lap is written to, so that a replay that was interrupted goes on.

One JSON line a lap. The first line says what all of them depend on: the runs, the protocol, the budgets. A file of
another replay is refused, never mixed in. Recommenders, seeds and controls may differ, for a lap has them in its key:
a first look and the full protocol may share a file.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict
from hashlib import blake2b
from pathlib import Path
from typing import Any, final

from foretune.comparison.replay.race import Lap
from foretune.errors import StoreError, UsageError
from foretune.store.metadataset import MetaDataset

Key = tuple[str, str, int]
"""Entry, task id, and which of its seeds."""


@final
class Kept:
    """Laps by key; without a ``path`` in memory alone.

    Args:
        path: of the file; it is begun with the first lap where it is not there.
        about: plain values that every lap depends on.

    Raises:
        UsageError: the file is of another replay, or of none.
        StoreError: it cannot be read.
    """

    def __init__(self, path: Path | None = None, about: Mapping[str, Any] | None = None) -> None:
        self._path, self._about = path, dict(about or {})
        self._laps: dict[Key, Lap] = {}
        if path is not None and path.exists():
            self._read(path)

    def __contains__(self, key: Key) -> bool:
        return key in self._laps

    def __len__(self) -> int:
        return len(self._laps)

    def lap(self, key: Key) -> Lap:
        """A lap that is there."""
        return self._laps[key]

    def add(self, key: Key, lap: Lap) -> None:
        """Keep a lap that is over.

        Raises:
            StoreError: it cannot be written.
        """
        self._laps[key] = lap
        if self._path is None:
            return
        values = {**asdict(lap), "seconds": lap.seconds if math.isfinite(lap.seconds) else None}
        try:
            begun = self._path.exists() and self._path.stat().st_size > 0
            with self._path.open("a", encoding="utf-8") as file:
                if not begun:
                    file.write(json.dumps({"about": self._about}) + "\n")
                file.write(json.dumps({"key": key, "lap": values}) + "\n")
        except OSError as error:
            raise StoreError(f"{self._path} cannot be written: {error.strerror}. Name another file.") from error

    def _read(self, path: Path) -> None:
        try:
            text = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise StoreError(f"{path} cannot be read: {error}. Name another file.") from error
        lines = [line for line in map(_parsed, text.splitlines()) if line]
        if not text:
            return
        if not lines or "about" not in lines[0]:
            raise UsageError(f"{path} holds no laps of a replay. Name another file: this one stays as it is.")
        there, here = lines[0]["about"], json.loads(json.dumps(self._about))
        other = [name for name in here if there.get(name) != here[name]]
        if other:
            raise UsageError(
                f"{path} holds laps of another replay: its {other[0]} is {there.get(other[0])}, but here it is "
                f"{here[other[0]]}. Name another file, or ask for the same."
            )
        for line in lines[1:]:
            if "lap" in line:
                entry, task, seed = line["key"]
                self._laps[entry, task, seed] = _lap(line["lap"])
        if not text.endswith("\n"):  # a kill tore the last line: it is run again, behind a new beginning
            with path.open("a", encoding="utf-8") as file:
                file.write("\n")


def digest(dataset: MetaDataset) -> str:
    """What tells the runs of one replay from those of another, in sixteen hexadecimal digits."""
    made = blake2b(digest_size=8)
    words = (dataset.tasks, dataset.run_ids, dataset.config_ids.tolist(), dataset.status.tolist())
    made.update(repr(words).encode())
    numbers = (dataset.task, dataset.score, dataset.test, dataset.seconds)
    for values in (*numbers, *dataset.curves.values(), *dataset.start.values(), *dataset.cost.values()):
        made.update(values.tobytes())
    return made.hexdigest()


def _parsed(line: str) -> dict[str, Any]:
    try:
        found = json.loads(line)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _lap(values: Mapping[str, Any]) -> Lap:
    return Lap(
        tuple(values["incumbents"]),
        tuple(values["best"]),
        values["trials"],
        values["cells"],
        math.nan if values["seconds"] is None else values["seconds"],
        values["thinking"],
        tuple(values["evidence"]),
        bool(values.get("abstained")),
    )
