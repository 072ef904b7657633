"""``foretune report``: write a run's report again as one self-contained HTML page."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated  # typer reads the annotations at run time

import typer

app = typer.Typer()

Run = Annotated[Path, typer.Argument(help="The folder that `foretune tune --out` wrote.")]
Out = Annotated[Path | None, typer.Option(help="Where to write the page, .html (RUN/report.html).")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object instead of the path.")]


@app.command()
def report(run: Run, out: Out = None, json: Json = False) -> None:
    """Write a run's report again as one self-contained HTML page, and print its path."""
    from foretune.report.page import write

    if out is not None:
        from foretune.pipeline.places import require_ending, require_place

        require_ending(out, (".html", ".htm"), "Reports of a run")
        require_place(out)
    page = write(run, out)
    if json:
        from json import dumps

        typer.echo(dumps({"report": str(page), "bytes": page.stat().st_size}))
    else:
        typer.echo(page)
