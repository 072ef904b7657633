"""``foretune runs import FORMAT`` and ``export``: runs of other projects in, one's own and theirs out."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from foretune.errors import DataError, UsageError
from foretune.registry import did_you_mean

if TYPE_CHECKING:
    from foretune.records import RunCollection
    from foretune.store import JournalStore
    from foretune.store.importers import Columns

FORMATS = ("taskset", "peft-comparison", "qtt-csv", "csv", "parquet")
WITH_COLUMNS = ("qtt-csv", "csv", "parquet")
"""The formats whose columns a user may name."""

WRITTEN = ("parquet", "qtt-csv")


def read(form: str, path: Path, columns: Columns, metric: str | None) -> RunCollection:
    """The runs at ``path``.

    Raises:
        UsageError: an option that the format has no use for.
        DataError, StoreError: the files cannot be read.
    """
    from foretune.store import importers
    from foretune.store.collections import read_collection

    whole = form == "parquet" and path.is_dir()
    asked = bool(columns.named()) or columns.minimise
    if asked and (form not in WITH_COLUMNS or whole):
        raise UsageError(f"`{form}` says itself what its columns are. Leave `--task`, `--model` and the like out.")
    if metric is not None and (form not in ("csv", "parquet") or whole):
        raise UsageError(f"`{form}` has one score. Leave `--metric` out.")
    if whole:
        return read_collection(path)
    readers: dict[str, Callable[[], RunCollection]] = {
        "taskset": lambda: importers.read_taskset(path),
        "peft-comparison": lambda: importers.read_peft_comparison(path),
        "qtt-csv": lambda: importers.read_qtt(path, columns),
        "csv": lambda: importers.read_table(path, columns, metric),
        "parquet": lambda: importers.read_table(path, columns, metric),
    }
    return readers[form]()


def bring_in(form: str, paths: list[Path], store: JournalStore, columns: Columns, metric: str | None) -> dict[str, Any]:
    """Keep the runs at ``paths`` in ``store``; what was done, as plain data."""
    from foretune.store.collections import keep

    done = []
    for collection in [read(form, path, columns, metric) for path in paths]:
        folder, fresh = keep(store.folder, collection)
        done.append({**summary(collection), "name": folder.name, "folder": str(folder), "known_already": not fresh})
    return {"store": str(store.folder), "collections": done}


def summary(collection: RunCollection) -> dict[str, Any]:
    """What a collection holds."""
    from collections import Counter

    from foretune.store.metadata import SOURCE

    return {
        "tasks": len(collection.tasks),
        "own_tasks": sum(task.source == SOURCE for task in collection.tasks),
        "runs": len(collection.runs),
        "points": sum(len(line.steps) for run in collection.runs for line in run.lines),
        "status": dict(sorted(Counter(run.status for run in collection.runs).items())),
        "notes": list(collection.notes),
    }


def sentences(done: dict[str, Any]) -> list[str]:
    """``bring_in`` in words."""
    out = []
    for item in done["collections"]:
        counts = ", ".join(f"{n:,} {status}" for status, n in item["status"].items())
        what = f"{item['tasks']} tasks, {item['runs']:,} runs ({counts}), {item['points']:,} measurements"
        out.append(f"{item['name']}: {what}" + (", known already." if item["known_already"] else "."))
        out += item["notes"]
        if item["own_tasks"]:
            out.append(f"`foretune recommend` learns from {item['own_tasks']} of these tasks: foretune's own runs.")
        else:
            out.append("`foretune recommend` learns from foretune's own runs alone; `foretune replay` reads these.")
    return out


def take_out(store: JournalStore, name: str | None) -> RunCollection:
    """All runs of ``store``, or those of the collection whose name begins with ``name``.

    Raises:
        UsageError: no collection is called so, or more than one.
        DataError: there are no runs.
    """
    from foretune.records import RunCollection
    from foretune.store.collections import kept, read_collection
    from foretune.store.metadata import OWN, from_records

    folders = kept(store.folder)
    names = [OWN, *folders]
    chosen = names if name is None else [known for known in names if known == name or known.startswith(f"{name}-")]
    chosen = chosen or [known for known in names if known.startswith(str(name))]
    if not chosen:
        raise UsageError(f"`{name}` is no collection.{did_you_mean(str(name), names)} Known: {', '.join(names)}.")
    if name is not None and len(chosen) > 1:
        raise UsageError(
            f"`{name}` is the beginning of {len(chosen)} collections: {', '.join(chosen)}. Give more of it."
        )
    found = [from_records(store) if each == OWN else read_collection(folders[each]) for each in chosen]
    found = [collection for collection in found if collection.runs]
    if not found:
        raise DataError(f"{store.folder} holds no finished run. Import some, or run `foretune tune` first.")
    if len(found) == 1:
        return found[0]
    tasks = {task.task_id: task for collection in found for task in collection.tasks}
    runs = tuple(run for collection in found for run in collection.runs)
    return RunCollection("all", tuple(tasks.values()), runs, tuple(n for c in found for n in c.notes))


def write(collection: RunCollection, folder: Path, form: str) -> tuple[str, ...]:
    """Write ``collection`` into the new folder ``folder``; return what the format could not hold.

    Raises:
        UsageError: the folder holds something already, or the format does not exist.
    """
    if form not in WRITTEN:
        raise UsageError(f"runs are written as {' or '.join(WRITTEN)}, not as `{form}`.{did_you_mean(form, WRITTEN)}")
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UsageError(f"`{folder}` holds something already. Name a new folder.")
    if form == "qtt-csv":
        from foretune.store.importers import write_qtt

        return write_qtt(folder, collection)
    from foretune.store.collections import write_collection

    write_collection(folder, collection)
    return ()
