"""``foretune predict``: label new rows with a finished run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer()


@app.command()
def predict(
    run: Annotated[Path, typer.Argument(help="Run folder.")],
    source: Annotated[str, typer.Argument(help="Rows to predict: CSV, TSV, JSON Lines, Parquet or a datasets folder.")],
    out: Annotated[Path | None, typer.Option(help="File to write: .csv, .jsonl or .parquet; default: stdout.")] = None,
    model: Annotated[str | None, typer.Option(help="Where the base model lies now, if elsewhere.")] = None,
    text: Annotated[str | None, typer.Option(help="Column of the text, where it has another name now.")] = None,
    pair: Annotated[str | None, typer.Option(help="Column of the second text.")] = None,
    members: Annotated[
        int | None,
        typer.Option(help="Let so many models of a prefix subspace answer together, and say how far they are apart."),
    ] = None,
    json: Annotated[
        bool,
        typer.Option("--json", help="JSON Lines on stdout instead of CSV; with --out one JSON object about the file."),
    ] = False,
) -> None:
    """Label new rows with a finished run: labels with calibrated probabilities, numbers, or written responses.

    The rows need no label. CSV holds row, text, prediction and probability; the other formats the probability of every
    class too. A row without a text gets no answer, and is named on stderr.
    With --members M the answer is that of the members' mean probability, and three columns follow: members, spread (the
    standard deviation over members of the answer's probability, or of the number) and agreement (the share of members
    that give the answer themselves).
    """
    import sys

    from foretune.cli import output
    from foretune.pipeline.predict import check_out, write
    from foretune.pipeline.predict import predict as answer

    check_out(out)
    notes: list[str] = []
    table = answer(run, source, model=model, text=text, pair=pair, members=members, say=notes.append)
    write(table, out, as_json=json)
    if out is not None and json:
        output.print_json({"predictions": str(out), "rows": table.num_rows, "notes": notes})
        return
    if out is not None:
        output.say(f"{table.num_rows:,} row{'' if table.num_rows == 1 else 's'} in {out}")
    for line in notes:
        print(output.clean(line), file=sys.stderr)
