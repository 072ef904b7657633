"""``foretune export``: hand a finished run over as PEFT, merged or ONNX files, checked in a fresh process."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated  # typer reads the annotations at run time

import typer

app = typer.Typer()


@app.command()
def export(
    run: Annotated[Path, typer.Argument(help="Run folder.")],
    to: Annotated[
        str, typer.Option(help="peft, merged, supertuning, shira or lora (of a subset), onnx, decision (of words).")
    ],
    out: Annotated[Path | None, typer.Option(help="Folder to write; default RUN/export/FORMAT.")] = None,
    model: Annotated[str | None, typer.Option(help="Where the base model lies now, if elsewhere.")] = None,
    collapse: Annotated[
        str | None,
        typer.Option(help="Which model of a prefix subspace: midpoint (the default) or vertex:0, vertex:1, ..."),
    ] = None,
    rank: Annotated[int | None, typer.Option(help="Of --to lora: the rank of its matrices; default 16.")] = None,
    tolerance: Annotated[
        float | None,
        typer.Option(help="Of --to lora: the largest difference from a recorded prediction; default 0.001."),
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object instead of text.")] = False,
) -> None:
    """Hand a finished run over in a stock format.

    The folder is written only after a fresh process, without foretune, reloaded it and gave the recorded predictions.
    """
    from foretune.cli.output import print_json, say
    from foretune.export import export as hand_over
    from foretune.report.units import size

    done = hand_over(run, to, out, model, collapse, rank, tolerance)
    total = sum(done.files.values())
    if json:
        print_json(
            {
                "folder": str(done.folder),
                "format": done.format,
                "checked_rows": done.checked_rows,
                "largest_difference": done.largest_difference,
                "tolerance": done.tolerance,
                "unit": done.unit,
                "reproduced": done.wanted,
                "delta": dict(done.delta) or None,
                "bytes": total,
                "files": done.files,
            }
        )
        return
    say(f"{done.format}: {size(total)} in {done.folder}")
    say(*(f"  {name}  {size(count)}" for name, count in done.files.items()))
    if done.said:
        say(done.said)
    say(
        f"A fresh process without foretune reproduced {done.checked_rows} {done.wanted}: largest difference "
        f"{done.largest_difference:.2g} ({done.unit}), allowed {done.tolerance:g}."
    )
