"""Name -> class for every plug point: a visible dict in each room, plus entry points of other packages.

A room keeps its own dict (``TUNERS``, ``OBJECTIVES``, ...) so that one glance shows what exists. A stranger's package
adds to it without touching this repository, through an entry point of the group ``foretune.<room>``.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from importlib.metadata import entry_points
from typing import TypeVar

from foretune.errors import UsageError

T = TypeVar("T")


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return ``' Did you mean `x`?'`` for a near miss, otherwise an empty string.

    >>> did_you_mean("lroa", ["lora", "full"])
    ' Did you mean `lora`?'
    >>> did_you_mean("zebra", ["lora", "full"])
    ''
    """
    near = difflib.get_close_matches(name, list(known), n=1, cutoff=0.6)
    return f" Did you mean `{near[0]}`?" if near else ""


def find(kind: str, name: str, known: Mapping[str, T]) -> T:
    """Return the entry called ``name``, from ``known`` or from an installed plug-in.

    Args:
        kind: the room in the singular, as the reader of an error should see it: ``"tuner"``.
        name: what was asked for.
        known: the room's own dict.

    Raises:
        UsageError: nothing has that name; the message lists what does.

    >>> find("tuner", "lora", {"lora": 1})
    1
    """
    if name in known:
        return known[name]
    plugins = {point.name: point for point in entry_points(group=f"foretune.{kind}s")}
    if name in plugins:
        loaded: T = plugins[name].load()
        return loaded
    names = sorted({*known, *plugins})
    article = "an" if kind[0] in "aeiou" else "a"
    raise UsageError(f"`{name}` is not {article} {kind}.{did_you_mean(name, names)} Known: {', '.join(names)}.")
