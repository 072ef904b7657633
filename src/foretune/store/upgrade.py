"""Old record -> new record: numbered pure functions on plain dicts, so that a memory of runs stays readable for years.

``UPGRADES[n]`` turns format ``n`` into ``n + 1``. They work on JSON and never on ``RunRecord``, whose fields move on.
To change the format: raise ``records.FORMAT``, add a function here, keep an old file in ``tests/store/old_formats/``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from foretune.errors import StoreError
from foretune.records import FORMAT, RunRecord


def m001_evaluations(plain: Mapping[str, Any]) -> dict[str, Any]:
    """Format 0 (before the first release) held flat scores and counts; format 1 holds one evaluation per split.

    >>> m001_evaluations({"scores": {"dev.accuracy": 0.5}, "examples": {"dev": 8}})["evaluations"]["dev"]["scores"]
    {'accuracy': 0.5}
    """
    rest = {key: value for key, value in plain.items() if key not in ("scores", "examples")}
    evaluations = {
        split: {"n": n, "scores": {}, "intervals": {}, "flags": []} for split, n in plain["examples"].items()
    }
    for key, value in plain["scores"].items():
        split, metric = key.rsplit(".", 1)
        evaluations[split]["scores"][metric] = value
    return {"floors": {}, "gaps": [], "labels": [], **rest, "evaluations": evaluations, "format": 1}


UPGRADES = (m001_evaluations,)


def check_format(plain: Mapping[str, Any], where: str) -> int:
    """The format that ``plain`` was written in; without a ``format`` it is 0.

    Args:
        plain: what ``json.loads`` gave.
        where: what an error names, e.g. ``runs/first/run.json``.

    Raises:
        StoreError: a newer foretune wrote it. Nothing is wrong with the file, so it is never skipped as damage.

    >>> check_format({"format": 1}, "run.json")
    1
    """
    version = plain.get("format", 0)
    if not isinstance(version, int) or version < 0:
        raise StoreError(f"`{where}` is not a run record: its format is {version!r}, not a number from 0 to {FORMAT}.")
    if version > FORMAT:
        raise StoreError(
            f"`{where}` holds a record of format {version}, but this foretune reads formats up to {FORMAT}. "
            "Install a newer foretune to read it."
        )
    return version


def load_record(plain: Mapping[str, Any], where: str) -> RunRecord:
    """The record that ``plain`` tells of, whatever format it was written in. Arguments as of ``check_format``.

    Raises:
        StoreError: written by a newer foretune, or not a record.
    """
    version = check_format(plain, where)
    try:
        for upgrade in UPGRADES[version:]:
            plain = upgrade(plain)
        return RunRecord.from_json(plain)
    except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
        raise StoreError(f"`{where}` is not a run record ({type(error).__name__}: {error}).") from error
