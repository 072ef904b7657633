"""Predictions for the rows of a file, read with the columns that the run was trained with."""

from __future__ import annotations

import csv
import io
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from foretune.errors import DataError, StoreError, UsageError
from foretune.pipeline.places import require_ending, require_place
from foretune.tasks import Schema
from foretune.tasks.checks import name_rows, without_text
from foretune.tasks.opening import read_rows
from foretune.training.predictor import Predictor, read_recipe, require_members

Say = Callable[[str], None]

FORMATS = (".csv", ".jsonl", ".parquet")
TEXTS = ("text", "pair", "choices")
"""What was read, of which those columns stand before the answer that the rows have."""

ANSWER = ("prediction", "probability", "probabilities")
SPREAD = ("members", "spread", "agreement")
"""What is added where several members answer."""


def predict(
    run: Path,
    source: str,
    *,
    model: str | None = None,
    text: str | None = None,
    pair: str | None = None,
    members: int | None = None,
    say: Say = lambda line: None,
) -> pa.Table:
    """``row, text, prediction, probability, probabilities`` for the rows of ``source``; no label column is needed.

    After ``text`` stand ``pair`` and ``choices`` where the rows have them. A row without a text has no answer, only
    nulls. With ``members`` so many of the run's models answer together, and ``members, spread, agreement`` follow: see
    ``Predictor.spread``.

    Args:
        say: told which rows have no answer.

    Raises:
        DataError: the file cannot be read, lacks a column, or has no row with a text. StoreError: no finished run.
        ModelError: no base model. UsageError: the run has no members to ask, or no pairs.
    """
    recipe, _ = read_recipe(run)
    if members is not None:
        require_members(recipe, members)
    rows = read_rows(source, _schema(recipe, text, pair), labelled=False)
    empty = without_text(rows)
    left = rows.filter(pc.invert(empty))
    if rows.num_rows and not left.num_rows:
        raise DataError(
            f"`{source}` must have a row with a text, but all {rows.num_rows:,} are empty. Name the column of the text "
            "with `--text`."
        )
    predictor = Predictor.load(run, model)
    answers = predictor(left) if members is None else predictor.spread(left, members)
    if left.num_rows < rows.num_rows:
        numbers = rows["row"].filter(empty).to_pylist()
        many = "1 row has" if len(numbers) == 1 else f"{len(numbers):,} rows have"
        say(f"{many} no text and got no answer ({name_rows(numbers)}).")
    read = {name: rows[name] for name in ("row", *TEXTS) if name == "text" or rows[name].null_count < rows.num_rows}
    names = (*ANSWER, *(SPREAD if members is not None else ()))
    return pa.table({**read, **_laid_out(answers.select(names), empty)})


def _schema(recipe: dict[str, Any], text: str | None, pair: str | None) -> Schema:
    """What the run was trained with, under the names that the columns have now."""
    columns = dict(recipe["columns"])
    if pair is not None and "pair" not in columns:
        raise UsageError(
            f"`--pair {pair}` names a second text, but the run was trained on single texts. Leave it out, or train on "
            "pairs with `foretune tune --pair`."
        )
    for role, name in (("text", text), ("pair", pair)):
        if name is not None:
            columns["prompt" if role == "text" and "prompt" in columns else role] = name
    return Schema(recipe["kind"], columns, tuple(recipe["labels"]), recipe["metric"], recipe["references"])


def _laid_out(answers: pa.Table, empty: pa.ChunkedArray) -> dict[str, pa.ChunkedArray]:
    """The columns of ``answers`` with nulls at the rows that are ``empty``."""
    places, positions = iter(range(len(answers))), []
    for blank in empty.to_pylist():
        positions.append(None if blank else next(places))
    spread = answers.take(pa.array(positions, pa.int64()))
    return {name: spread[name] for name in spread.column_names}


def check_out(out: Path | None) -> None:
    """Refuse a file that could not be written, before a model is loaded for it.

    Raises:
        UsageError: an ending that is none of ``FORMATS``. StoreError: a place where nothing may be written.
    """
    if out is not None:
        require_ending(out, FORMATS, "Predictions")
        require_place(out)


def write(table: pa.Table, out: Path | None, as_json: bool = False) -> None:
    """Write predictions to a file by its ending, or to stdout as CSV or JSON Lines, in UTF-8 wherever they go.

    Raises:
        UsageError, StoreError: see ``check_out``, or the file cannot be written.
    """
    check_out(out)
    if out is None:
        sys.stdout.flush()
        sys.stdout.buffer.write((_lines(table) if as_json else _csv(table)).encode())
        sys.stdout.buffer.flush()
        return
    kind = out.suffix.lower()
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        new = out.with_name(out.name + ".new")
        if kind == ".parquet":
            pq.write_table(table, new)
        else:
            new.write_bytes((_csv(table) if kind == ".csv" else _lines(table)).encode())
        os.replace(new, out)
    except OSError as error:
        raise StoreError(
            f"`{out}` cannot be written: {error.strerror or error}. Free some space, or give another `--out`."
        ) from error


def _lines(table: pa.Table) -> str:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in table.to_pylist())


def _csv(table: pa.Table) -> str:
    """Columns of lists are left out; a carriage return within a text is quoted, which ``csv`` by itself forgets."""
    held, rows = io.StringIO(), table.to_pylist()
    columns = [field.name for field in table.schema if not pa.types.is_list(field.type)]
    returns = any("\r" in value for row in rows for value in row.values() if isinstance(value, str))
    quoting: Any = csv.QUOTE_NONNUMERIC if returns else csv.QUOTE_MINIMAL
    writer = csv.DictWriter(held, columns, extrasaction="ignore", lineterminator="\n", quoting=quoting)
    writer.writeheader()
    writer.writerows(rows)
    return held.getvalue()
