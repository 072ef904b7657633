"""A source -> its splits: a file, a folder of files, a ``datasets`` folder, a Hub id.

What a source string means is decided in this order: a catalog name (a folder of the same name is ``./name``), an
existing path, a Hub id ``org/name`` or ``org/name:config``. Only the last one uses the network.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

import pyarrow as pa

from foretune.errors import DataError
from foretune.registry import did_you_mean
from foretune.tasks.encoding import reading
from foretune.tasks.formats import READERS, from_datasets, read_file, read_saved
from foretune.tasks.names import plain
from foretune.tasks.raw import Rows

SPLIT_NAMES = {
    "train": ("train", "training"),
    "dev": ("dev", "validation", "valid", "val", "eval"),
    "test": ("test", "testing"),
}
"""Our split name -> what others call it."""

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+(:[\w.-]+)?")


@dataclass(frozen=True)
class Loaded:
    """What a source holds: ``splits`` has at least ``train``."""

    splits: dict[str, Rows]
    notes: tuple[str, ...] = ()


def is_catalog_name(source: str) -> bool:
    """Whether ``source`` is the name of a task in the catalog."""
    from foretune.tasks import catalog

    return source in catalog.names()


def load(source: str | Path, named: frozenset[str] = frozenset()) -> Loaded:
    """Read a path or a Hub id.

    Args:
        source: see the module's docstring; catalog names are not for this function.
        named: the columns that the user named.

    Raises:
        DataError: nothing is there (with the nearest name that is), or its contents cannot be read.
    """
    text, path = os.fspath(source), Path(source)
    if text and os.path.isdir(path):
        return _load_folder(path, named)
    if text and os.path.exists(path):
        rows, notes = read_file(path, named)
        return Loaded({"train": rows}, (*notes, *_left_out({"train": rows})))
    if isinstance(source, str) and _HUB_ID.fullmatch(text) and path.suffix.lower() not in READERS:
        return _load_hub(text)
    raise _missing(text)


def _missing(source: str) -> DataError:
    from foretune.tasks import catalog

    folder = Path(source).parent
    files = [entry.name for entry in folder.iterdir()] if os.path.isdir(folder) and os.access(folder, os.R_OK) else []
    hint = did_you_mean(Path(source).name, files) or did_you_mean(source, catalog.names())
    return DataError(
        f"`{source}` must be a file, a folder, a catalog name or a Hub id `org/name`, but there is no such file.{hint} "
        "`foretune tasks` lists the catalog."
    )


def _load_folder(folder: Path, named: frozenset[str]) -> Loaded:
    with reading(folder):
        entries = sorted(folder.iterdir())
    names = {entry.name for entry in entries}
    if {"dataset_dict.json", "state.json"} & names:
        return _by_split(read_saved(folder), str(folder))
    files = [entry for entry in entries if entry.suffix.lower() in READERS and entry.is_file()]
    if not files:
        raise DataError(
            f"`{folder}` must hold a data file ({', '.join(READERS)}) or a `datasets` folder, but holds none."
        )
    if len(files) == 1:
        rows, notes = read_file(files[0], named)
        return Loaded({"train": rows}, (*notes, *_left_out({"train": rows})))
    chosen: dict[str, Path] = {}
    for file in files:
        split = split_of(file.name.split(".")[0])
        if split in chosen:
            raise DataError(
                f"`{folder}` must hold one file per split, but `{chosen[split].name}` and `{file.name}` are both "
                f"{split}. Name the files with the path and `--dev`, `--test`."
            )
        if split:
            chosen[split] = file
    if "train" not in chosen:
        listed = ", ".join(file.name for file in files[:8])
        raise DataError(
            f"`{folder}` must hold a file called train.*, but holds {listed}. Name the training file itself."
        )
    splits, notes = {}, []
    for split, file in chosen.items():
        splits[split], found = read_file(file, named)
        notes += found
    return Loaded(splits, (*notes, *_left_out(splits)))


def split_of(name: str) -> str | None:
    """``train``, ``dev`` or ``test`` for the names in use, otherwise None.

    >>> split_of("Validation"), split_of("train"), split_of("unsupervised")
    ('dev', 'train', None)
    """
    return next((ours for ours, theirs in SPLIT_NAMES.items() if name.lower() in theirs), None)


def parted(rows: Rows, named: frozenset[str] = frozenset()) -> Loaded:
    """One table by its column `split`, where that names splits and a train is among them; else whole, with a note.

    Args:
        named: the columns that the user named: one that is the label or a text parts nothing.
    """
    column = next((n for n in rows.table.column_names if plain(n) == "split" and n not in named), None)
    if column is None or pa.types.is_list(rows.table[column].type):
        return Loaded({"train": rows})
    names = [split_of((value or "").strip()) for value in rows.table[column].to_pylist()]
    if None in names or "train" not in names:
        note = f"{rows.where}: the column `{column}` is not used, for it does not name train, dev or test in every row."
        return Loaded({"train": rows}, (note,))
    splits = {}
    for split in (ours for ours in SPLIT_NAMES if ours in names):
        mine = pa.array([name == split for name in names])
        where = f"{rows.where} ({split})"
        splits[split] = replace(rows, table=rows.table.filter(mine), numbers=rows.numbers.filter(mine), where=where)
    return Loaded(splits, (f"{rows.where}: the column `{column}` says which rows are {', '.join(splits)}.",))


def _by_split(found: dict[str, Rows], where: str) -> Loaded:
    splits: dict[str, Rows] = {}
    for name, rows in found.items():
        ours = split_of(name)
        if ours:
            splits.setdefault(ours, rows)
    if len(found) == 1:
        splits = {"train": next(iter(found.values()))}
    if "train" not in splits:
        raise DataError(f"{where} must have a split called `train`, but has {', '.join(f'`{n}`' for n in found)}.")
    unused = [name for name in found if split_of(name) is None and len(found) > 1]
    notes = [f"{where}: the split `{name}` is not used." for name in unused]
    return Loaded(splits, (*notes, *_left_out(splits)))


def _left_out(splits: dict[str, Rows]) -> Iterable[str]:
    return [
        f"{r.where}: column {column} is not text and is left out." for r in splits.values() for column in r.left_out
    ]


def _load_hub(source: str) -> Loaded:
    import datasets

    name, _, config = source.partition(":")
    try:
        loaded = datasets.load_dataset(name, config or None)
        found = from_datasets(loaded, source)
    except DataError:
        raise
    except Exception as error:  # the Hub client has a dozen exceptions, and a network adds its own
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise DataError(
            f"`{source}` is neither an existing path nor a catalog name, and as a data set of the Hugging Face Hub it "
            f"could not be loaded ({reason}). Check the spelling and the network, or give a local file."
        ) from None
    return _by_split(found, source)
