"""Entry: one task of the catalog, as its ``.toml`` file declares it.

A task is data, not code: where each split lies, how the file is written, which column plays which role, how raw labels
become class names. An entry names two homes of the same task, a local folder and the Hugging Face Hub, because few-shot
work is often done where there is no network. Every table of the file becomes a frozen dataclass or the arguments of a
reader, so that a misspelt key fails and is never ignored.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Reading:
    """What the columns of one source mean, and which of its rows count.

    Attributes:
        columns: role (``text``, ``pair``, ``choices``, ``label``, ``prompt``, ``response``) -> column name, a dotted
            path into nested objects (``translation.en``), or a list of them: joined by a space, but for ``choices``.
            ``group``, of a set that tests out of domain: what its rows are parts of.
        labels: raw label -> class name. A raw label that already is one of the class names stays.
        values: column -> raw value -> text, applied before columns are joined.
        keep: ``{column, ranges}``: only rows whose integer lies in one of the inclusive ranges.
        drop: raw labels whose rows are left out (``-1``: no gold label).
        references: separator that joins a list of accepted responses; without one the list is one response in parts.
        percent: ``(low, high)``: only rows whose text hashes to low <= h < high out of 100, for sets without a split.
    """

    columns: Mapping[str, Any]
    labels: Mapping[str, str] = field(default_factory=dict)
    values: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    keep: Mapping[str, Any] | None = None
    drop: tuple[str, ...] = ()
    references: str | None = None
    percent: tuple[int, int] | None = None


@dataclass(frozen=True)
class Local:
    """Files under the data folder: name -> path, the reader's name (see ``readers.READERS``) and its options."""

    files: Mapping[str, str]
    format: str
    reading: Reading
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Hub:
    """One split on the Hugging Face Hub, as ``datasets.load_dataset`` takes it (``split`` may be a slice)."""

    id: str
    split: str
    reading: Reading
    config: str | None = None
    revision: str | None = None
    data_files: str | None = None


@dataclass(frozen=True)
class Split:
    """The two homes of one split; ``hub`` is None where the Hub does not have it."""

    local: Local
    hub: Hub | None = None


@dataclass(frozen=True)
class Ood:
    """An out-of-domain set: rows of its own, or a split (``all`` = every split) of another task of the catalog.

    Attributes:
        own: where its rows lie, or None.
        task, split: the other task, when ``own`` is None.
        labels: that task's class names -> ours, where they are the same classes under other names.
        predictions: our class names -> the set's, where several of our classes are one of its classes.
    """

    own: Split | None = None
    task: str | None = None
    split: str = "test"
    labels: Mapping[str, str] = field(default_factory=dict)
    predictions: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Entry:
    """One task of the catalog.

    Attributes:
        kind: one of ``foretune.records.KINDS``.
        metric: what selects the checkpoint.
        licence: the terms of the data; foretune bundles nothing of it but ``banking77_demo``.
        note: what a user must know: which split is ``test`` and why, what is known to recur.
        group: tasks with the same group share text and are no out-of-domain test for one another; ``""`` = none.
        bundled: the files lie inside the package.
    """

    name: str
    title: str
    kind: str
    metric: str
    licence: str
    url: str
    note: str
    splits: Mapping[str, Split]
    ood: Mapping[str, Ood] = field(default_factory=dict)
    group: str = ""
    bundled: bool = False

    @property
    def reading(self) -> Reading:
        """What the columns of the first split's local file mean."""
        return next(iter(self.splits.values())).local.reading


def parse(name: str, text: str) -> Entry:
    """Read one ``.toml`` file.

    ``[columns]``, ``[labels]``, ``[values]`` and ``references`` hold for all sources, ``[read]`` for all local files,
    ``[hub]`` for all of the Hub; a split's own table overrides them. Raises ``TypeError`` on a key that nothing reads.

    >>> entry = parse("x", '''
    ... title = "X"
    ... kind = "classification"
    ... metric = "accuracy"
    ... licence = "MIT"
    ... url = ""
    ... note = ""
    ... [columns]
    ... text = "sentence"
    ... label = "y"
    ... [read]
    ... format = "csv"
    ... [splits]
    ... train = {file = "x/train.csv"}
    ... ''')
    >>> entry.splits["train"].local.files, entry.splits["train"].hub
    ({'file': 'x/train.csv'}, None)
    """
    table = tomllib.loads(text)
    read = table.pop("read", {})
    hub = table.pop("hub", {})
    meaning: dict[str, Any] = {
        key: table.pop(key) for key in ("columns", "labels", "values", "references") if key in table
    }
    hub_splits = hub.pop("splits", {})
    splits = {
        split: _split({**meaning, **read, **own}, {**meaning, **hub}, hub_splits.get(split))
        for split, own in table.pop("splits").items()
    }
    ood = {
        other: Ood(**own) if "task" in own else _own_ood({**meaning, **read}, {**meaning, **hub}, dict(own))
        for other, own in table.pop("ood", {}).items()
    }
    return Entry(name=name, splits=splits, ood=ood, **table)


def _own_ood(local: Mapping[str, Any], hub: Mapping[str, Any], own: dict[str, Any]) -> Ood:
    on_hub, predictions = own.pop("hub", None), own.pop("predictions", {})
    return Ood(own=_split({**local, **own}, hub, on_hub), predictions=predictions)


def _split(local: Mapping[str, Any], hub: Mapping[str, Any], on_hub: str | Mapping[str, Any] | None) -> Split:
    reading, rest = _reading(local)
    files = rest.pop("files", None) or {"file": rest.pop("file")}
    here = Local(files=files, format=rest.pop("format"), reading=reading, options=rest)
    if on_hub is None:
        return Split(here)
    own = {"split": on_hub} if isinstance(on_hub, str) else on_hub
    reading, rest = _reading({**hub, **own})
    return Split(here, Hub(reading=reading, **rest))


def _reading(table: Mapping[str, Any]) -> tuple[Reading, dict[str, Any]]:
    """Split off the keys of ``Reading``; TOML arrays become tuples."""
    own = {key: table[key] for key in Reading.__dataclass_fields__ if key in table}
    for key in ("drop", "percent"):
        if key in own:
            own[key] = tuple(own[key])
    return Reading(**own), {key: value for key, value in table.items() if key not in own}
