"""Task: what is to be learned. Rows, their meaning, and the reference by which a run can be repeated."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from foretune.errors import DataError, UsageError
from foretune.records import TaskRef, digest
from foretune.tasks.checks import check_known, check_splits, name_rows, ood_labels
from foretune.tasks.detect import Said
from foretune.tasks.keys import digest_rows
from foretune.tasks.labels import number, order, short
from foretune.tasks.leaks import check_ood
from foretune.tasks.load import is_catalog_name, split_of
from foretune.tasks.normal import as_names
from foretune.tasks.opening import Opened, Source, open_source, read_groups, read_rows
from foretune.tasks.schema import GROUPED_COLUMNS, SPLIT_COLUMNS, Schema
from foretune.tasks.sketch import sketch


@dataclass(frozen=True, eq=False)
class Task:
    """Checked rows with a meaning. Make one with a ``from_`` constructor: only these run the checks.

    Attributes:
        name: how reports call it.
        schema: kind, columns, labels, metric.
        splits: ``train`` and, where the source has them, ``dev`` and ``test``; tables with ``SPLIT_COLUMNS``.
        ood: name -> out-of-domain test set, with ``GROUPED_COLUMNS`` where its rows belong to parts.
        notes: what a reader should know about how the source was read, as sentences.
        ref: re-opens the task with ``from_ref``.

    >>> rows = [{"text": f"{word} number {i}", "label": word} for i in range(5) for word in ("yes", "no")]
    >>> task = Task.from_records(rows)
    >>> task.schema.kind, task.schema.labels, task.targets(task.splits["train"])[:4].tolist()
    ('classification', ('no', 'yes'), [1, 0, 1, 0])
    """

    name: str
    schema: Schema
    splits: Mapping[str, pa.Table]
    ood: Mapping[str, pa.Table] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    ref: TaskRef = field(default_factory=lambda: TaskRef("memory", "classification"))

    @classmethod
    def from_csv(cls, path: str | Path, **options: Any) -> Task:
        """A task from one file; ``options`` are those of ``from_source``."""
        return cls.from_source(Path(path), **options)

    @classmethod
    def from_source(
        cls,
        source: Source,
        *,
        text: str | None = None,
        pair: str | None = None,
        label: str | None = None,
        prompt: str | tuple[str, ...] | None = None,
        response: str | None = None,
        choices: str | tuple[str, ...] | None = None,
        kind: str | None = None,
        metric: str | None = None,
        dev: Source | None = None,
        test: Source | None = None,
        ood: Mapping[str, Source] | None = None,
        group: str | None = None,
        data_dir: str | Path | None = None,
        name: str | None = None,
    ) -> Task:
        """A task from a file, a folder, a ``datasets`` folder, a catalog name or a Hub id.

        Args:
            source: see ``foretune.tasks.load`` for how a string is understood.
            text, pair, label, prompt, response, choices: column names; None is detected, see ``foretune.tasks.detect``.
            kind: one of ``foretune.records.KINDS``.
            metric: what selects the checkpoint, one of ``foretune.tasks.metrics.METRICS[kind]``.
            dev, test: further sources; they replace splits of those names in ``source``.
            ood: name -> source of an out-of-domain test set.
            group: column of the out-of-domain sets that names a part of each row; scores are told part by part.
            data_dir: where the catalog finds its files.
            name: how reports call the task; None is the file's or the catalog's name.

        Raises:
            DataError: the data break a rule; the message has the rows and the way out.
            UsageError: a kind or a metric that does not exist or does not fit.
        """
        opened = open_source(source, Said(text, pair, label, prompt, response, choices, kind, metric), data_dir)
        given = {"dev": dev, "test": test}
        notes = [
            f"{split}: given apart, in place of the one in {_place(source)}."
            for split in given
            if given[split] and split in opened.splits
        ]
        further = {
            s: read_rows(v, opened.schema, labelled=True, data_dir=data_dir) for s, v in given.items() if v is not None
        }
        shifted = {n: read_groups(v, opened.schema, group, data_dir=data_dir) for n, v in (ood or {}).items()}
        named = {n: column for n, (_, column) in shifted.items() if column is not None}
        if group is not None and group not in named.values():
            raise DataError(
                f"`group` must be a column of an out-of-domain set, but none has `{group}`. Correct its name, or give "
                "the set that has it with `--ood`."
            )
        schema = replace(opened.schema, ood_groups={**opened.schema.ood_groups, **named})
        ref = TaskRef(
            _place(source),
            opened.schema.kind,
            dev=None if dev is None else _place(dev),
            test=None if test is None else _place(test),
            ood={n: _place(v) for n, v in (ood or {}).items()},
        )
        outside = {**opened.ood, **{n: table for n, (table, _) in shifted.items()}}
        whole = Opened(schema, {**opened.splits, **further}, outside, (*opened.notes, *notes))
        return cls._checked(name or _name(source), whole, ref)

    @classmethod
    def from_records(cls, records: list[dict[str, Any]], **options: Any) -> Task:
        """A task from rows as dicts; ``options`` as for ``from_source``, whose further sources may be rows too.

        Such a task cannot be re-opened by ``from_ref``: its rows are nowhere but in memory.
        """
        return cls.from_source(list(records), **options)

    @classmethod
    def from_splits(
        cls,
        name: str,
        schema: Schema,
        splits: Mapping[str, pa.Table],
        ood: Mapping[str, pa.Table] | None = None,
    ) -> Task:
        """A task from tables that already have ``SPLIT_COLUMNS``; missing class names are read off ``train``.

        Raises:
            UsageError: a table of another shape, or no ``train``.
            DataError: as for ``from_source``.
        """
        return cls._checked(name, Opened(schema, dict(splits), dict(ood or {})), TaskRef("memory", schema.kind))

    @classmethod
    def from_ref(cls, ref: TaskRef, data_dir: str | Path | None = None) -> Task:
        """Re-open what ``ref`` names.

        Raises:
            DataError: the rows are in memory only, are no longer there, or are not the rows of the run.
        """
        if "memory" in (ref.source, ref.dev, ref.test, *ref.ood.values()):
            raise DataError("this task was built in Python and its rows were not kept. Build it again and pass it.")
        roles = {k: v if isinstance(v, str) else tuple(v) for k, v in ref.columns.items() if k != "coding"}
        said: dict[str, Any] = {} if is_catalog_name(ref.source) else {**roles, "kind": ref.kind}
        task = cls.from_source(
            ref.source, **said, metric=ref.metric, dev=ref.dev, test=ref.test, ood=ref.ood, data_dir=data_dir
        )
        if ref.fingerprint not in (None, task.fingerprint):
            raise DataError(
                f"the rows of `{ref.source}` have changed since the run (fingerprint {str(ref.fingerprint)[:12]} then, "
                f"{task.fingerprint[:12]} now). Restore the data, or start a new run."
            )
        return task

    @classmethod
    def _checked(cls, name: str, opened: Opened, ref: TaskRef) -> Task:
        schema, splits, ood = opened.schema, opened.splits, opened.ood
        if "train" not in splits or set(splits) - {"train", "dev", "test"}:
            raise UsageError(f"splits must be `train` and, if any, `dev` and `test`, but got {', '.join(splits)}.")
        shapes = (*(table.schema.equals(SPLIT_COLUMNS) for table in splits.values()), *map(_is_outside, ood.values()))
        if not all(shapes):
            raise UsageError("the tables of a task must have the columns of `foretune.tasks.schema.SPLIT_COLUMNS`.")
        splits = {split: splits[split] for split in ("train", "dev", "test") if split in splits}
        if schema.kind == "classification" and not schema.labels:
            schema = replace(schema, labels=order(splits["train"]["label"].drop_null().to_pylist()))
        try:
            check_splits(schema, splits, ood)
            check_ood(splits["train"], ood)
        except DataError as error:
            raise _counted(error, ref.source) from None
        task = cls(name, schema, splits, ood, opened.notes, ref)
        ref = replace(
            ref, kind=schema.kind, columns=dict(schema.columns), metric=schema.metric, fingerprint=task.fingerprint
        )
        return replace(task, ref=ref)

    @cached_property
    def draw_key(self) -> str:
        """SHA-256 of the splits without the out-of-domain sets: the name of the stream that draws."""
        return digest({name: digest_rows(table) for name, table in self.splits.items()}, 64)

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 over all splits and out-of-domain sets: the same wherever and in whatever format they are stored."""
        shifted = {name: digest_rows(table) for name, table in self.ood.items()}
        return digest({"splits": self.draw_key, "ood": shifted}, 64)

    @cached_property
    def sketch(self) -> tuple[str, ...]:
        """The smallest hashes of the texts of all splits, by which copies are found; see ``tasks/sketch.py``."""
        return sketch(self.splits.values())

    def class_map(self, ood: str) -> np.ndarray:
        """Index of each class of this task among those of an out-of-domain set, int64 ``(classes,)``.

        The identity, unless the schema merges classes for that set: a prediction is made first and renamed after.
        """
        renamed = self.schema.ood_label_map.get(ood, {})
        theirs = ood_labels(self.schema, ood)
        return np.array([theirs.index(renamed.get(label, label)) for label in self.schema.labels], np.int64)

    def targets(self, table: pa.Table, ood: str | None = None) -> np.ndarray:
        """The labels as numbers, ``(n,)``: int64 class index, float64 value, or int64 index of the right choice.

        Args:
            table: rows of this task, with ``SPLIT_COLUMNS``.
            ood: the out-of-domain set that the rows are of; its classes are ``checks.ood_labels(schema, ood)``.

        Raises:
            DataError: a missing label, or one that the schema does not know; the message has the row.
            UsageError: a generation task, whose labels are texts.
        """
        if self.schema.kind == "generation":
            raise UsageError("a generation task has responses, not numeric targets: read the column `label`.")
        missing = table["row"].filter(pc.is_null(table["label"])).to_pylist()
        if missing:
            raise DataError(f"{self.name}: every row needs a label here, but {name_rows(missing)} has none. Label it.")
        if self.schema.kind == "classification":
            labels = self.schema.labels if ood is None else ood_labels(self.schema, ood)
            check_known(table, labels, self.name)
            indices = pc.index_in(table["label"], pa.array(labels, pa.string()))
            return np.asarray(indices.to_numpy(), np.int64)
        values = [number(label) for label in table["label"].to_pylist()]
        wrong = [row for row, value in zip(table["row"].to_pylist(), values, strict=True) if value is None]
        if wrong:
            raise DataError(f"{self.name}: labels must be numbers, but not in {name_rows(wrong)}. Correct them.")
        return np.array(values, np.int64 if self.schema.kind == "choice" else np.float64)

    def describe_schema(self) -> list[str]:
        """Lines that show what was understood, for the command line to print."""
        schema = self.schema
        lines = [f"{self.name}: {schema.kind}, judged by {schema.metric}"]
        for role, columns in schema.columns.items():
            if role == "coding":
                continue
            named = " + ".join(f"`{column}`" for column in as_names(columns))
            lines.append(f"{role} = column{'s' if len(as_names(columns)) > 1 else ''} {named}")
            if role == "label":
                lines[-1] += self._label_note()
        sizes = [f"{name} {table.num_rows:,}" for name, table in {**self.splits, **self.ood}.items()]
        return [*lines, f"rows: {', '.join(sizes)}"]

    def _label_note(self) -> str:
        if self.schema.kind == "classification":
            shown = ", ".join(map(short, self.schema.labels[:8]))
            more = ", ..." if len(self.schema.labels) > 8 else ""
            return f" ({len(self.schema.labels)} classes: {shown}{more})"
        if self.schema.kind == "regression":
            values = self.targets(self.splits["train"])
            return f" (numbers from {values.min():g} to {values.max():g})"
        return f" (written as {self.schema.columns['coding']})" if "coding" in self.schema.columns else ""


def _is_outside(table: pa.Table) -> bool:
    return any(table.schema.equals(columns) for columns in (SPLIT_COLUMNS, GROUPED_COLUMNS))


def _counted(error: DataError, source: str) -> DataError:
    """The error with how its rows are counted, where a spreadsheet would show other numbers."""
    if not source.lower().endswith((".csv", ".tsv")) or not re.search(r"\brows? [0-9]", str(error)):
        return error
    return DataError(f"{error} (Rows are counted after the header.)")


def _place(source: Source) -> str:
    """How a reference names a source: existing paths in full, so that another working directory finds them."""
    if isinstance(source, list):
        return "memory"
    if isinstance(source, str) and (is_catalog_name(source) or not os.path.exists(source)):
        return source
    return os.path.abspath(source)


def _name(source: Source) -> str:
    """The file's name without its ending; for ``banking77/train.csv`` the folder's."""
    if isinstance(source, list):
        return "records"
    path = Path(os.path.abspath(source)) if os.path.exists(source) else Path(source)
    return path.parent.name if split_of(path.stem) and path.parent.name else path.stem
