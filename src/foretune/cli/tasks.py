"""``foretune tasks``: the catalog of known data sets, and whether their data are at hand. Fetches nothing."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from foretune.tasks.catalog import Entry

app = typer.Typer()


@app.command()
def tasks(
    name: Annotated[str | None, typer.Argument(help="One task; without it, all are listed.")] = None,
    data_dir: Annotated[Path | None, typer.Option(help="Where the data lie (also FORETUNE_DATA).")] = None,
    json: Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")] = False,
) -> None:
    """The catalog of known data sets, or one of them with its rows where they are at hand."""
    from foretune.cli import output
    from foretune.tasks import catalog

    folder = data_dir or (Path(os.environ["FORETUNE_DATA"]) if os.environ.get("FORETUNE_DATA") else None)
    if name is None:
        listed = [describe(catalog.entry(one), folder) for one in catalog.names()]
        if json:
            output.print_json(listed)
            return
        columns = ("name", "kind", "title", "out of domain", "licence", "data")
        output.print_table(columns, [[shown(one[key.replace(" ", "_")]) for key in columns] for one in listed])
        output.say("Any of these names serves as the data of `foretune tune`.")
        return
    entry = catalog.entry(name)
    told = {**describe(entry, folder), "metric": entry.metric, "url": entry.url, "note": entry.note}
    if at_hand(entry, folder):
        told["rows"] = rows(entry, folder)
    if json:
        output.print_json(told)
        return
    counted = told.pop("rows", {})
    output.print_table(("", ""), [(key.replace("_", " "), shown(value)) for key, value in told.items()])
    if counted:
        output.print_table(("split", "rows"), [(split, f"{n:,}") for split, n in counted.items()])


def describe(entry: Entry, folder: Path | None) -> dict[str, Any]:
    """What the list says of one task."""
    return {
        "name": entry.name,
        "kind": entry.kind,
        "title": entry.title,
        "out_of_domain": list(entry.ood),
        "licence": entry.licence,
        "data": whereabouts(entry, folder),
    }


def at_hand(entry: Entry, folder: Path | None) -> bool:
    """Whether every file of every split lies inside the package or in ``folder``."""
    files = [path for split in entry.splits.values() for path in split.local.files.values()]
    return entry.bundled or (folder is not None and all((folder / path).is_file() for path in files))


def whereabouts(entry: Entry, folder: Path | None) -> str:
    """Where the data are, in a few words."""
    if entry.bundled:
        return "in the package"
    if at_hand(entry, folder):
        return f"in {folder}"
    if folder is not None:
        return f"not in {folder}"
    return "on the Hub" if all(split.hub for split in entry.splits.values()) else "needs --data-dir"


def rows(entry: Entry, folder: Path | None) -> dict[str, int]:
    """Split or out-of-domain set -> number of rows."""
    from foretune.tasks import catalog

    _, splits, ood = catalog.open(entry.name, folder)
    return {**{split: len(table) for split, table in splits.items()}, **{f"ood:{o}": len(t) for o, t in ood.items()}}


def shown(value: Any) -> str:
    """A cell of text."""
    return ", ".join(value) if isinstance(value, list) else str(value)
