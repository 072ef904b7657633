"""The rules for labelled rows, tried before any model is loaded. A message names the rows and the way out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from foretune.errors import DataError
from foretune.registry import did_you_mean
from foretune.tasks.labels import LONGEST, means_numbers, number, order, quoted, short, with_point
from foretune.tasks.schema import Schema

MIN_ROWS = 8
"""Labelled training rows below which nothing can be learned, selected and tested."""


MOSTLY = 0.8
"""The share of labels of one sort from which the others are taken for slips."""


def name_rows(rows: Sequence[int]) -> str:
    """The first five row numbers, and how many more there are.

    >>> name_rows([4]), name_rows(range(1, 18))
    ('row 4', 'rows 1, 2, 3, 4, 5 and 12 more')
    """
    shown = ", ".join(str(row) for row in rows[:5])
    more = f" and {len(rows) - 5:,} more" if len(rows) > 5 else ""
    return f"{'row' if len(rows) == 1 else 'rows'} {shown}{more}"


def check_splits(schema: Schema, splits: Mapping[str, pa.Table], ood: Mapping[str, pa.Table]) -> None:
    """Try every rule on every split.

    Raises:
        DataError: too few rows, an empty text, a missing label, one class only, a class with one example, a label that
            training does not know, a label that is no number, or no choice.
    """
    train = splits["train"]
    if train.num_rows < MIN_ROWS:
        raise DataError(
            f"train must have at least {MIN_ROWS} labelled rows, but has {train.num_rows}. Label more examples."
        )
    everything = {**splits, **{f"the out-of-domain set `{name}`": table for name, table in ood.items()}}
    for name, table in everything.items():
        if table.num_rows == 0:
            raise DataError(f"{name} must have rows, but has none. Leave it out or fill it.")
        check_texts(table, name)
        _check_labels_present(table, name)
    if schema.kind == "classification":
        _check_classes(train)
        for name, table in splits.items():
            check_known(table, schema.labels, name)
        for name, table in ood.items():
            check_known(table, ood_labels(schema, name), f"the out-of-domain set `{name}`")
    if schema.kind == "regression":
        for name, table in everything.items():
            _check_numbers(table, name)
        if pc.count_distinct(train["label"]).as_py() == 1:
            raise DataError(f"the labels of train must differ, but all are {train['label'][0]}. Add other examples.")
    if schema.kind == "choice":
        for name, table in everything.items():
            _check_choices(table, name)


def check_texts(table: pa.Table, name: str) -> None:
    """Refuse rows whose text, second text or candidate is missing or blank; a pair is one in all rows or in none."""
    _refuse(
        table,
        _blank_texts(table),
        f"{name}: the text must not be empty, but is in {{rows}}. Fill it in or remove these rows.",
    )
    _refuse(
        table,
        _few_choices(table),
        f"{name}: every row needs two or more choices with text, but not {{rows}}. Correct them.",
    )


def without_text(table: pa.Table) -> pa.ChunkedArray:
    """Which rows ``check_texts`` would refuse."""
    return pc.or_(_blank_texts(table), _few_choices(table))


def _blank_texts(table: pa.Table) -> pa.ChunkedArray:
    blank = is_blank(table["text"])
    if table["pair"].null_count < table.num_rows:
        blank = pc.or_(blank, is_blank(table["pair"]))
    return blank


def _few_choices(table: pa.Table) -> pa.Array:
    if table["choices"].null_count == table.num_rows:
        return pa.array([False] * table.num_rows, pa.bool_())
    return pa.array(
        [not c or len(c) < 2 or any(not (x or "").strip() for x in c) for c in table["choices"].to_pylist()], pa.bool_()
    )


def ood_labels(schema: Schema, name: str) -> tuple[str, ...]:
    """The class names of an out-of-domain set: the task's own, unless ``ood_label_map`` merges some of them.

    >>> mapped = {"hans": {"entailment": "yes", "neutral": "no", "contradiction": "no"}}
    >>> ood_labels(Schema("classification", labels=("contradiction", "entailment"), ood_label_map=mapped), "hans")
    ('no', 'yes')
    """
    return order(schema.ood_label_map[name].values()) if name in schema.ood_label_map else schema.labels


def check_known(table: pa.Table, labels: Sequence[str], name: str) -> None:
    """Refuse labels that are not among ``labels``."""
    unknown = pc.and_(pc.invert(pc.is_in(table["label"], pa.array(labels, pa.string()))), pc.is_valid(table["label"]))
    strange = pc.unique(table["label"].filter(unknown)).to_pylist()
    if strange:
        rows = table["row"].filter(unknown).to_pylist()
        hint = did_you_mean(strange[0], [label for label in labels if len(label) <= LONGEST])
        raise DataError(
            f"{name}: every label must occur in train, but {quoted(strange)} does not ({name_rows(rows)})."
            f"{hint} Known: {quoted(labels)}. Correct these rows or add training examples."
        )


def is_blank(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Which values are missing, empty or white space."""
    return pc.fill_null(pc.equal(pc.utf8_trim_whitespace(column), ""), True)


def _refuse(table: pa.Table, wrong: pa.ChunkedArray | pa.Array, message: str) -> None:
    rows = table["row"].filter(wrong).to_pylist()
    if rows:
        raise DataError(message.format(rows=name_rows(rows)))


def _check_labels_present(table: pa.Table, name: str) -> None:
    _refuse(
        table,
        is_blank(table["label"]),
        f"{name}: every row needs a label, but {{rows}} has none. Label or remove these rows.",
    )


def _check_classes(train: pa.Table) -> None:
    counted = pc.value_counts(train["label"]).to_pylist()
    if len(counted) == 1:
        raise DataError(
            f"train must have two classes or more, but all {train.num_rows} rows are {short(counted[0]['values'])}. "
            "Add examples of another class, or name another column with `--label`."
        )
    single = sorted(entry["values"] for entry in counted if entry["counts"] < 2)
    if single:
        rows = train["row"].filter(pc.is_in(train["label"], pa.array(single))).to_pylist()
        way = almost_numbers(train) or _almost_texts(train, single) or "Add examples or remove the class."
        raise DataError(
            f"every class needs at least 2 examples in train, but {quoted(single)} has one ({name_rows(rows)}). {way}"
        )


def almost_numbers(train: pa.Table) -> str | None:
    """A sentence on class names nearly all of which are quantities, or are with a decimal point; None of others."""
    labels = train["label"].to_pylist()
    wrong = np.array([number(label) is None for label in labels])
    numbers = Counter(pointed for label in labels if number(pointed := with_point(label)) is not None)
    if not wrong.any() or numbers.total() < MOSTLY * len(labels) or not means_numbers(numbers):
        return None
    first = labels[int(wrong.argmax())]
    pointed = with_point(first)
    written = f" (a number is written {short(pointed)})" if pointed != first else ""
    return (
        f"{len(labels) - wrong.sum():,} of {len(labels):,} labels are numbers, but not {short(first)} in "
        f"{name_rows(train['row'].filter(pa.array(wrong)).to_pylist())}. If numbers are meant, correct "
        f"{'it' if wrong.sum() == 1 else 'them'}{written} and use `--kind regression`."
    )


def _almost_texts(train: pa.Table, single: Sequence[str]) -> str | None:
    """A sentence on labels that hardly ever come back; None of others."""
    if len(single) < MOSTLY * train.num_rows:
        return None
    return (
        f"{len(single):,} of {train.num_rows:,} labels occur once: the column seems to hold texts. Name the column of "
        "the label with `--label`, or written answers with `--prompt` and `--response`."
    )


def label_notes(schema: Schema, train: pa.Table, said: bool) -> tuple[str, ...]:
    """What a reader should know of class names that break no rule.

    Args:
        said: whether the user said that they are classes.
    """
    if schema.kind != "classification":
        return ()
    notes = []
    if not said and (almost := almost_numbers(train.filter(pc.is_valid(train["label"])))):
        notes.append(f"label: {almost}")
    alike: dict[str, list[str]] = {}
    for label in schema.labels:
        alike.setdefault(label.casefold(), []).append(label)
    for labels in alike.values():
        if len(labels) > 1:
            notes.append(f"label: {quoted(labels)} differ in capitals only, and are classes of their own.")
    return tuple(notes)


def _check_numbers(table: pa.Table, name: str) -> None:
    cells = zip(table["row"].to_pylist(), table["label"].to_pylist(), strict=True)
    wrong = [(row, label) for row, label in cells if number(label) is None]
    if wrong:
        first, pointed = wrong[0][1], with_point(wrong[0][1])
        written = f" (a number is written {short(pointed)})" if pointed != first else ""
        raise DataError(
            f"{name}: every label of a regression must be a number such as 3.5, but not {short(first)} in "
            f"{name_rows([row for row, _ in wrong])}. Correct them{written}, or use `--kind classification`."
        )


def _check_choices(table: pa.Table, name: str) -> None:
    wrong = [
        not (label.isdecimal() and int(label) < len(choices or ()))
        for label, choices in zip(table["label"].to_pylist(), table["choices"].to_pylist(), strict=True)
    ]
    _refuse(table, pa.array(wrong), f"{name}: the label must point at one of the row's choices, but not in {{rows}}.")
