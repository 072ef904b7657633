"""Texts without labels: read, freed of what a task is judged on, and made into a task for a language model.

A ``.txt`` file holds one text per line. Any other source is read as a task's is: by the task's own columns where it has
them, otherwise by the only column of free text; a label column is not looked at.

A text that repeats an evaluation row is left out, for a model that has read the test set is not judged by it.
Evaluation rows are those that every seed shares: test (given or held out), the out-of-domain sets, and dev where the
source brings its own. Dev rows that a seed draws from the training rows stay: so that one stage serves all seeds.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from foretune.errors import DataError
from foretune.records import UNLABELLED, HeldTexts, TaskRef
from foretune.tasks.checks import MIN_ROWS, is_blank
from foretune.tasks.detect import text_column
from foretune.tasks.encoding import find_encoding, reading
from foretune.tasks.keys import digest_rows, hash64, iterate, normalise
from foretune.tasks.load import is_catalog_name, load
from foretune.tasks.normal import as_names, to_split
from foretune.tasks.raw import Rows, RowsBuilder
from foretune.tasks.schema import SPLIT_COLUMNS, Schema
from foretune.tasks.splits import draw
from foretune.tasks.task import Task

HELD_OUT, MOST_HELD_OUT = 0.05, 500
"""The share of the texts on which the loss is measured, and how many they are at most."""


@dataclass(frozen=True, eq=False)
class Texts:
    """Unlabelled texts.

    Attributes:
        source: the file, the folder or the name they come from.
        table: with ``SPLIT_COLUMNS``; labels are null.
        left_out: numbers of the rows that repeat an evaluation row.
    """

    source: str
    table: pa.Table
    left_out: tuple[int, ...] = ()

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of the texts that are used, in order."""
        return digest_rows(self.table)

    def without(self, tables: Iterable[pa.Table]) -> Texts:
        """These texts but for those that repeat a row of ``tables``, or one of its two texts, after ``normalise``.

        A prompt followed by its response counts as a text of the row, too: it holds the answer.

        Raises:
            DataError: fewer than ``MIN_ROWS`` texts are left.
        """
        taken = {key for table in tables for key in _evaluated(table)}
        keep = np.array([_key(text, pair) not in taken for text, pair in iterate(self.table, "text", "pair")], bool)
        left_out = self.table["row"].filter(pa.array(~keep)).to_pylist()
        if keep.sum() < MIN_ROWS:
            raise DataError(
                f"`{self.source}` must hold at least {MIN_ROWS} texts that are no evaluation rows of the task, but "
                f"holds {int(keep.sum())} (and {len(left_out)} that are). Give more texts."
            )
        return Texts(self.source, self.table.filter(pa.array(keep)), (*self.left_out, *left_out))

    def some(self, most: int) -> Texts:
        """At most so many of these texts, chosen by their contents alone, in their order."""
        if self.table.num_rows <= most:
            return self
        rng = np.random.Generator(np.random.PCG64(hash64(self.fingerprint, "some")))
        return replace(self, table=self.table.take(np.sort(rng.permutation(self.table.num_rows)[:most])))

    def task(self) -> Task:
        """A task for a language model: ``train``, and as ``dev`` texts held out by a stream of their contents.

        >>> records = [{"text": f"text number {i}"} for i in range(40)]
        >>> task = open_texts(records).task()
        >>> task.schema.kind, task.splits["train"].num_rows, task.splits["dev"].num_rows
        ('text', 38, 2)
        """
        rows = self.table.num_rows
        chance = np.random.Generator(np.random.PCG64(hash64(self.fingerprint, "held out"))).random(rows)
        count = min(max(1, round(HELD_OUT * rows)), MOST_HELD_OUT)
        held = np.sort(np.argsort(chance, kind="stable")[:count])
        rest = np.setdiff1d(np.arange(rows), held)
        splits = {"train": self.table.take(rest), "dev": self.table.take(held), "test": SPLIT_COLUMNS.empty_table()}
        schema = Schema(UNLABELLED, {"text": "text"}, metric="loss")
        ref = TaskRef(self.source, UNLABELLED, metric="loss", fingerprint=self.fingerprint)
        return Task(Path(self.source).stem or self.source, schema, splits, ref=ref)


def open_texts(
    source: str | os.PathLike[str] | list[dict[str, str]],
    schema: Schema | None = None,
    data_dir: str | os.PathLike[str] | None = None,
) -> Texts:
    """Read unlabelled texts.

    Args:
        source: a ``.txt`` file, what a task may be read from, a catalog name (its training texts), or rows as dicts.
        schema: of the task that comes after; its text columns are taken where the source has them.
        data_dir: where catalog tasks lie.

    Raises:
        DataError: the source cannot be read, or it is not clear which column holds the text.
    """
    if isinstance(source, list):
        builder = RowsBuilder("the texts")
        for i, row in enumerate(source, 1):
            builder.add(i, row)
        return _of_rows("memory", builder.finish(), schema)
    name = os.fspath(source)
    if isinstance(source, str) and is_catalog_name(source):
        from foretune.tasks import catalog

        table = catalog.open(source, None if data_dir is None else Path(data_dir))[1]["train"]
        return _checked(source, table.set_column(4, SPLIT_COLUMNS.field("label"), pa.nulls(len(table), pa.string())))
    place = os.path.abspath(name) if os.path.exists(name) else name
    if Path(name).suffix.lower() == ".txt" and os.path.exists(name):
        return _of_rows(place, _lines(Path(name)), None)
    return _of_rows(place, load(source if isinstance(source, str) else Path(source)).splits["train"], schema)


def open_held(held: HeldTexts, task: Task, data_dir: str | os.PathLike[str] | None = None) -> Texts:
    """The texts that ``held`` asks for, without those that repeat any row of ``task``, be it learned from or not.

    Raises:
        DataError: they cannot be read, too few are left, or they are not those of the fingerprint.
    """
    found = open_texts(held.source, None, data_dir).without([*task.splits.values(), *task.ood.values()])
    found = found.some(held.rows)
    require_same(found, held.fingerprint)
    return found


def undrawn(task: Task, tables: Mapping[str, pa.Table]) -> Texts:
    """The training rows of ``task`` that repeat no row of ``tables`` (split -> rows), without their labels.

    Raises:
        DataError: fewer than ``MIN_ROWS`` are left.
    """
    table = task.splits["train"]
    bare = table.set_column(4, SPLIT_COLUMNS.field("label"), pa.nulls(len(table), pa.string()))
    try:
        return replace(Texts(task.name, bare).without(tables.values()), left_out=())
    except DataError as error:
        raise DataError(
            f"Of the training rows of {task.name} fewer than {MIN_ROWS} are left to learn on without a label. Draw "
            "fewer with `--shots`, or name a file of texts with `--objective-option texts=FILE`."
        ) from error


def evaluation_rows(task: Task, test_fraction: float) -> list[pa.Table]:
    """The rows of ``task`` that judge a run of any seed: see the module's docstring."""
    given = [task.splits["dev"]] if "dev" in task.splits else []
    return [draw(task, test_fraction=test_fraction).test, *given, *task.ood.values()]


def _lines(path: Path) -> Rows:
    builder = RowsBuilder(path.name)
    with reading(path), open(path, encoding=find_encoding(path)) as file:
        for number, line in enumerate(file, 1):
            if line.strip():
                builder.add(number, {"text": line.strip()})
    return builder.finish()


def _of_rows(place: str, rows: Rows, schema: Schema | None) -> Texts:
    if not rows.table.num_rows or not rows.table.num_columns:
        raise DataError(f"`{place}` holds no texts. Give a file with one text per line or row.")
    roles = {} if schema is None else {r: schema.columns[r] for r in ("prompt", "text", "pair") if r in schema.columns}
    named = [name for role in roles.values() for name in as_names(role)]
    if not named or not set(named) <= set(rows.table.column_names):
        roles = {"text": text_column(rows)}
    plain = Schema(UNLABELLED, {**roles, "label": ""})
    return _checked(place, to_split(rows, plain, labelled=False))


def _checked(place: str, table: pa.Table) -> Texts:
    """Rows without text are passed over: a dump has empty lines."""
    table = table.filter(pc.invert(is_blank(table["text"])))
    if table.num_rows < MIN_ROWS:
        raise DataError(f"`{place}` must hold at least {MIN_ROWS} texts, but holds {table.num_rows}. Give more.")
    return Texts(place, table)


def _key(*fields: str | None) -> bytes:
    joined = "".join(normalise(field) for field in fields if field)
    return hashlib.blake2b(joined.encode(), digest_size=16).digest()


def _evaluated(table: pa.Table) -> Iterator[bytes]:
    for text, pair, label in iterate(table, "text", "pair", "label"):
        yield _key(text)
        yield _key(text, pair)
        yield _key(text, pair, label)
        if pair:
            yield _key(pair)


def require_same(texts: Texts, fingerprint: str | None) -> None:
    """Raise ``DataError`` unless ``texts`` are those of the config that names them."""
    if fingerprint not in (None, texts.fingerprint):
        raise DataError(
            f"The texts of `{texts.source}` have changed since this run began (fingerprint {str(fingerprint)[:12]} "
            f"then, {texts.fingerprint[:12]} now). Restore them, or begin anew with `--overwrite`."
        )
