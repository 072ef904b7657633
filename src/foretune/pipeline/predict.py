"""Predictions for the rows of a file, read with the columns that the run was trained with."""

from __future__ import annotations

import csv
import io
import json
import os
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from foretune.errors import StoreError, UsageError
from foretune.tasks import Schema
from foretune.tasks.opening import read_rows
from foretune.training.predictor import Predictor, read_recipe, require_members

FORMATS = (".csv", ".jsonl", ".parquet")
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
) -> pa.Table:
    """``row, prediction, probability, probabilities`` for the rows of ``source``; no label column is needed.

    With ``members`` so many of the run's models answer together, and ``members, spread, agreement`` follow: see
    ``Predictor.spread``.

    Raises:
        DataError: the file cannot be read or lacks a column. StoreError: no finished run. ModelError: no base model.
        UsageError: the run has no members to ask.
    """
    recipe, _ = read_recipe(run)
    if members is not None:
        require_members(recipe, members)
    columns = dict(recipe["columns"])
    for role, name in (("text", text), ("pair", pair)):
        if name is not None:
            columns["prompt" if role == "text" and "prompt" in columns else role] = name
    schema = Schema(recipe["kind"], columns, tuple(recipe["labels"]), recipe["metric"], recipe["references"])
    rows = read_rows(source, schema, labelled=False)
    predictor = Predictor.load(run, model)
    if members is None:
        return predictor(rows).select(["row", *ANSWER])
    return predictor.spread(rows, members).select(["row", *ANSWER, *SPREAD])


def check_out(out: Path | None) -> None:
    """Refuse a file name whose ending says no format, before a model is loaded for it.

    Raises:
        UsageError: an ending that is none of ``FORMATS``.
    """
    if out is not None and out.suffix.lower() not in FORMATS:
        raise UsageError(f"Predictions are written as {', '.join(FORMATS)}, but `{out}` has none of these endings.")


def write(table: pa.Table, out: Path | None, as_json: bool = False) -> None:
    """Write predictions to a file by its ending, or to stdout as CSV or JSON Lines, in UTF-8 wherever they go.

    Raises:
        UsageError: see ``check_out``. StoreError: the file cannot be written.
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
    held = io.StringIO()
    columns = [name for name in table.column_names if name != "probabilities"]
    writer = csv.DictWriter(held, columns, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    writer.writerows(table.to_pylist())
    return held.getvalue()
