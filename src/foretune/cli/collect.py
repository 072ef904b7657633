"""``foretune collect``: many runs of many configurations into a store, from which later ones are foretold."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from foretune.cli.backend import RAY, WORKERS, on

if TYPE_CHECKING:
    from foretune.collection import Event

app = typer.Typer()


@app.command()
def collect(
    plan: Annotated[
        Path, typer.Argument(help="Plan of the collection (.yaml): tasks, model, number of configurations.")
    ],
    store: Annotated[Path | None, typer.Option(help="Where runs are remembered (also FORETUNE_STORE).")] = None,
    data_dir: Annotated[Path | None, typer.Option(help="Where catalog tasks lie (also FORETUNE_DATA).")] = None,
    model: Annotated[str | None, typer.Option(help="Folder or Hub id, in place of the plan's models.")] = None,
    workers: Annotated[int | None, typer.Option(help=WORKERS)] = None,
    ray: Annotated[str | None, typer.Option(metavar="ADDRESS", help=RAY)] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print the plan and how many runs are missing, and stop.")
    ] = False,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object instead of text.")] = False,
) -> None:
    """Run many configurations on many tasks, so that later runs can be foretold.

    What the store has is not run again, and a run that fails is remembered as such. Ctrl-C loses nothing but the runs
    under way: the same command goes on.
    """
    from dataclasses import asdict, replace

    from foretune.cli.output import print_json, say
    from foretune.collection import CollectionPlan
    from foretune.collection.local import opened, run_missing

    backend = on(ray)
    asked = CollectionPlan.from_yaml(plan)
    if model is not None:
        asked = replace(asked, models=tuple(replace(each, name=model) for each in asked.models[:1]))
    runs = opened(asked, store=store, data_dir=str(data_dir) if data_dir else None)
    missing = runs.missing()
    if dry_run and json:
        print_json({"digest": asked.digest, "plan": asked.to_json(), "runs": len(runs.jobs), "missing": len(missing)})
        return
    if dry_run:
        say(*asked.to_yaml().splitlines())
    if not json:
        say(f"Plan {asked.digest}: {len(missing):,} of {len(runs.jobs):,} runs are missing in {runs.root}.")
    if dry_run:
        return
    watch = (lambda event: None) if json else Told(len(missing))
    done = run_missing(runs, workers=workers, watch=watch, backend=backend)
    if json:
        print_json({"digest": asked.digest, "store": str(runs.root), **asdict(done)})
        return
    statuses = ", ".join(f"{count:,} {status}" for status, count in sorted(done.statuses.items()))
    say(f"Done: {statuses}; {done.seconds / 3600:.2g} hours of runs.")


class Told:
    """Prints a line for every run that ended, with how long the rest will take at this pace."""

    def __init__(self, missing: int) -> None:
        self.missing, self.ended, self.begun = missing, 0, time.monotonic()

    def __call__(self, event: Event) -> None:
        from foretune.cli.output import say

        if event.event != "end":
            return
        self.ended += 1
        each = (time.monotonic() - self.begun) / self.ended
        left = each * max(self.missing - self.ended, 0) / 3600
        scored = "" if event.score is None else f", {event.metric} {event.score:.3f} on dev"
        reason = f" ({event.error})" if event.error else ""
        say(
            f"[{event.done:,}/{event.total:,}] {event.tuner} on {event.task}, {event.shots} shots: "
            f"{event.status}{reason}{scored}, {event.seconds:.1f} s; {left:.1f} hours left"
        )
