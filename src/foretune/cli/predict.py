"""``foretune predict``: label new rows with a finished run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional  # typer reads the annotations at run time

import typer

app = typer.Typer()


@app.command()
def predict(
    run: Annotated[Path, typer.Argument(help="Run folder.")],
    source: Annotated[str, typer.Argument(help="Rows to predict: CSV, TSV, JSON Lines, Parquet or a datasets folder.")],
    out: Annotated[Optional[Path], typer.Option(help="Where to write (.csv, .jsonl or .parquet); default: stdout.")] = None,
    model: Annotated[Optional[str], typer.Option(help="Where the base model lies now, if elsewhere.")] = None,
    text: Annotated[Optional[str], typer.Option(help="Column of the text, where it has another name now.")] = None,
    pair: Annotated[Optional[str], typer.Option(help="Column of the second text.")] = None,
    json: Annotated[bool, typer.Option("--json", help="JSON Lines on stdout instead of CSV.")] = False,
) -> None:
    """Labels with calibrated probabilities, numbers, or written responses, for rows that need no label."""
    from foretune.pipeline.predict import predict as answer
    from foretune.pipeline.predict import write

    write(answer(run, source, model=model, text=text, pair=pair), out, as_json=json)
