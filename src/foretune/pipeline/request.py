"""request.json: what was asked of a run folder, so that the same command goes on with it and another is refused.

It is the first file of a folder, and a file takes its name only when it is whole: a kill at any moment leaves a folder
that the same command recognises.
"""

from __future__ import annotations

import json
import os
import shutil
from contextlib import suppress
from pathlib import Path
from typing import Any

from foretune.errors import StoreError, UsageError
from foretune.records import Plan, RunRecord
from foretune.store.folder import RUN_FILE, read_run

REQUEST, PLAN, NEW = "request.json", "plan.json", ".new"


def found(folder: Path, request: dict[str, Any], overwrite: bool = False) -> RunRecord | None:
    """The record of the same request in ``folder``; None when the folder is free, or no step was taken there.

    Raises:
        UsageError: the folder holds something else; another run is passed over where ``overwrite`` was said.
        StoreError: the folder or a file in it cannot be read.
    """
    try:
        names = {entry.name for entry in folder.iterdir()}
    except FileNotFoundError:
        return None
    except NotADirectoryError as error:
        raise UsageError(f"A run needs a folder, but `{folder}` is a file. Give another one with `--out`.") from error
    except OSError as error:
        raise StoreError(f"The run folder `{folder}` cannot be read: {error.strerror or error}.") from error
    if not names - {REQUEST + NEW}:
        return None
    if REQUEST not in names:
        raise UsageError(f"`{folder}` holds files that are not a run of foretune. Give another folder with `--out`.")
    if overwrite:
        return None
    before = read_json(folder / REQUEST)
    if before != json.loads(json.dumps(request)):
        raise UsageError(
            f"`{folder}` holds another run ({difference(before, request)}). "
            "Give another folder with `--out`, or begin anew there with `--overwrite`."
        )
    return read_run(folder) if RUN_FILE in names else None


def begin(folder: Path, request: dict[str, Any], plan: Plan) -> None:
    """Make ``folder`` the place of this request, removing an earlier run of foretune from it.

    Raises:
        StoreError: the folder cannot be written.
    """
    try:
        if (folder / REQUEST).exists():
            shutil.rmtree(folder)
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _unwritable(folder, error) from error
    write_text(folder / REQUEST, json.dumps(request, indent=2))
    write_text(folder / PLAN, json.dumps(plan.to_json(), indent=2))


def read_plan(folder: Path) -> Plan | None:
    """``plan.json`` of a run folder, None where there is none.

    Raises:
        StoreError: it cannot be read.
    """
    path = folder / PLAN
    if not path.exists():
        return None
    try:
        return Plan.from_json(read_json(path))
    except (KeyError, TypeError) as error:
        raise StoreError(
            f"`{path}` is not a plan of this foretune ({error!r}). Run again with `--overwrite`."
        ) from error


def read_json(path: Path) -> Any:
    """What a JSON file holds.

    Raises:
        StoreError: it cannot be read.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise StoreError(f"`{path}` cannot be read ({error}). Restore it, or run again with `--overwrite`.") from error


def write_text(path: Path, text: str) -> None:
    """Write a whole file or none.

    Raises:
        StoreError: full disk or no permission; an earlier file is untouched.
    """
    new = path.with_name(path.name + NEW)
    try:
        new.write_text(text, encoding="utf-8")
        os.replace(new, path)
    except OSError as error:
        with suppress(OSError):
            new.unlink()
        raise _unwritable(path, error) from error


def difference(before: Any, now: dict[str, Any]) -> str:
    """What another request asked for, in a few words."""
    if not isinstance(before, dict) or before.get("task") != now["task"]:
        return "the data differ"
    if before.get("texts") != now.get("texts"):
        return "the unlabelled texts differ"
    if before.get("held") != now.get("held"):
        return "the held texts differ"
    old, new = before.get("options", {}), json.loads(json.dumps(now["options"]))
    changed = sorted(name for name in {*old, *new} if old.get(name) != new.get(name))
    told = [f"`{name}` was {_told(old, name)} and is {_told(new, name)}" for name in changed]
    return "; ".join(told) or "the plan differs"


def _told(options: dict[str, Any], name: str) -> str:
    return f"`{options[name]}`" if name in options else "not given"


def _unwritable(path: Path, error: OSError) -> StoreError:
    return StoreError(
        f"`{path}` cannot be written: {error.strerror or error}. Free some space, or give another folder with `--out`."
    )
