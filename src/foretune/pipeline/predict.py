"""Predictions for the rows of a file, read with the columns that the run was trained with."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from foretune.errors import StoreError, UsageError
from foretune.tasks import Schema
from foretune.tasks.opening import read_rows
from foretune.training.predictor import Predictor, read_recipe

FORMATS = (".csv", ".jsonl", ".parquet")


def predict(
    run: Path, source: str, *, model: str | None = None, text: str | None = None, pair: str | None = None
) -> pa.Table:
    """``row, prediction, probability, probabilities`` for the rows of ``source``; no label column is needed.

    Raises:
        DataError: the file cannot be read or lacks a column. StoreError: no finished run. ModelError: no base model.
    """
    recipe, _ = read_recipe(run)
    columns = dict(recipe["columns"])
    for role, name in (("text", text), ("pair", pair)):
        if name is not None:
            columns["prompt" if role == "text" and "prompt" in columns else role] = name
    schema = Schema(recipe["kind"], columns, tuple(recipe["labels"]), recipe["metric"], recipe["references"])
    rows = read_rows(source, schema, labelled=False)
    found = Predictor.load(run, model)(rows)
    return found.select(["row", "prediction", "probability", "probabilities"])


def write(table: pa.Table, out: Path | None, as_json: bool = False) -> None:
    """Write predictions to a file by its ending, or to stdout as CSV or JSON Lines.

    Raises:
        UsageError: an ending that is none of ``FORMATS``. StoreError: the file cannot be written.
    """
    if out is None:
        sys.stdout.write(_lines(table) if as_json else _csv(table))
        return
    if out.suffix not in FORMATS:
        raise UsageError(f"Predictions are written as {', '.join(FORMATS)}, but `{out}` ends in `{out.suffix}`.")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        new = out.with_name(out.name + ".new")
        if out.suffix == ".parquet":
            pq.write_table(table, new)
        else:
            new.write_text(_csv(table) if out.suffix == ".csv" else _lines(table), encoding="utf-8", newline="")
        os.replace(new, out)
    except OSError as error:
        raise StoreError(f"`{out}` cannot be written: {error.strerror or error}.") from error


def _lines(table: pa.Table) -> str:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in table.to_pylist())


def _csv(table: pa.Table) -> str:
    import csv
    import io

    held = io.StringIO()
    writer = csv.writer(held)
    writer.writerow(["row", "prediction", "probability"])
    rows: list[dict[str, Any]] = table.to_pylist()
    writer.writerows([row["row"], row["prediction"], row["probability"]] for row in rows)
    return held.getvalue()
