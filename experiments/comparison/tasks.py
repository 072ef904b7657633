"""The tasks of the comparison as plain files, so that its protocols are ordinary ones: two classes, called Yes and No.

The names are the words that every pattern asks for, so that one pattern serves the tasks that are compared and those on
which rates are chosen. Rows of more than `WORDS` words are left out of every file, so that demonstrations and a row
always fit into 512 positions; nothing else is chosen, and every file keeps the order of its source.
"""

from __future__ import annotations

import csv
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from foretune.tasks import catalog

Row = Mapping[str, Any]
"""``text``, ``pair`` or none, ``label`` (Yes or No), ``heuristic`` or none."""

WORDS = 32
"""Most words of a row, both texts together."""

TEXTS = 128
"""Unlabelled texts of a pool, for distillation; those that a draw has labelled are left out of it later."""

CAPTIONS = 4_000

YES = {"acceptable", "entailment", "duplicate", "paraphrase", "1"}
LEFT_OUT = {"neutral"}

Split = tuple[str, str]
"""A task of the catalog, and one of its splits (or ``ood:NAME``)."""

LABELLED: dict[str, Split] = {
    "cola.csv": ("cola", "train"),
    "cola-test.csv": ("cola", "test"),
    "cola-ood.csv": ("cola", "ood:out_of_domain"),
    "mnli.csv": ("mnli", "train"),
    "mnli-test.csv": ("mnli", "test"),
    "hans.csv": ("hans", "test"),
    "hans-lexical.csv": ("hans", "ood:lexical_overlap"),
    "qqp.csv": ("qqp", "train"),
    "qqp-test.csv": ("qqp", "test"),
    "paws.csv": ("paws_qqp", "test"),
    "snli.csv": ("snli", "train"),  # in no table: rates are chosen on it
}
ORDER = "order.csv"
"""Captions, half of them with two words exchanged: acceptable or not, and no CoLA. Rates are chosen on it."""

POOLS = {f"{name}-pool.csv": f"{name}.csv" for name in ("cola", "mnli", "snli", "order")}


def write(folder: Path, data: str) -> None:
    """Write every file that is not there yet; ``data`` is where the catalog's files lie."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, split in LABELLED.items():
        if not (folder / name).exists():
            save(folder / name, labelled(*split, data))
    if not (folder / ORDER).exists():
        save(folder / ORDER, reordered(data))
    for name, source in POOLS.items():
        if not (folder / name).exists():
            with (folder / source).open(encoding="utf-8", newline="") as file:
                rows = list(csv.DictReader(file))
            places = np.sort(np.random.default_rng(0).permutation(len(rows))[:TEXTS])
            save(folder / name, ({**rows[i], "label": None} for i in places))


def labelled(task: str, split: str, data: str) -> Iterator[Row]:
    """The rows of a split, in two classes; of HANS with the heuristic that a row is made to break."""
    _, splits, ood = catalog.open(task, data)
    table = ood[split.removeprefix("ood:")] if split.startswith("ood:") else splits[split]
    for row in table.to_pylist():
        if row["label"] not in LEFT_OUT and words(row["text"], row["pair"]) <= WORDS:
            answer = "Yes" if row["label"] in YES else "No"
            yield {"text": row["text"], "pair": row["pair"], "label": answer, "heuristic": row.get("group")}


def reordered(data: str) -> Iterator[Row]:
    """English captions of at least six words; in every other one two neighbouring words change places."""
    _, splits, _ = catalog.open("multi30k", data)
    rng = np.random.default_rng(0)
    for i, caption in enumerate(splits["train"].column("text").to_pylist()[:CAPTIONS]):
        split = caption.split()
        if not 6 <= len(split) <= WORDS:
            continue
        at = int(rng.integers(0, len(split) - 2))
        if i % 2:
            split[at], split[at + 1] = split[at + 1], split[at]
        yield {"text": " ".join(split), "label": "No" if i % 2 else "Yes"}


def words(text: str, pair: str | None) -> int:
    """How many words a row has."""
    return len(f"{text} {pair or ''}".split())


def save(path: Path, rows: Iterable[Row]) -> None:
    """A CSV file with the columns that the first row has; whole or not at all."""
    table = list(rows)
    names = [name for name, value in table[0].items() if value]
    unfinished = path.with_suffix(f".{os.getpid()}.tmp")  # another process may be at the same file
    with unfinished.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, names, extrasaction="ignore")
        writer.writeheader()
        writer.writerows(table)
    unfinished.replace(path)
