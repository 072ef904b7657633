"""``foretune replay``: recommenders race on recorded runs; nothing is trained."""

from __future__ import annotations

import shutil
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from foretune.comparison.replay.pace import Ahead

app = typer.Typer()


@app.command()
def replay(
    collection: Annotated[
        str, typer.Option(help="bundled, runs (your own), an imported collection such as taskset, or a folder.")
    ] = "bundled",
    protocol: Annotated[
        str, typer.Option(help="leave-one-task-out, leave-one-family-out or leave-one-task-and-family-out.")
    ] = "leave-one-task-out",
    recommenders: Annotated[
        str, typer.Option(help="Names with commas between them; options behind colons, as halving:eta=4.")
    ] = "transfer,random,halving,mean-table,portfolio",
    budgets: Annotated[str, typer.Option(help="Full-run equivalents at which regret is read.")] = "1,2,5,10",
    unit: Annotated[
        str, typer.Option(help="What a budget is counted in: runs, or seconds, thinking included.")
    ] = "runs",
    full: Annotated[
        bool, typer.Option("--full", help="The whole protocol, five seeds and every control; else a first look.")
    ] = False,
    seeds: Annotated[int | None, typer.Option(help="How many seeds of every recommender: 1, or 5 with --full.")] = None,
    unseen: Annotated[
        bool, typer.Option("--unseen", help="Race on the half of the configurations that no past task has seen.")
    ] = False,
    split: Annotated[int, typer.Option(help="The seed that parts the configurations.")] = 0,
    default: Annotated[
        str | None,
        typer.Option(
            help="Settings of the published default, as lr=1e-3,tuner=lora; the nearest counts. Of foretune's own runs "
            "it is known."
        ),
    ] = None,
    learn_from: Annotated[str, typer.Option(help="Which scores of past tasks are learned from: dev or test.")] = "dev",
    controls: Annotated[
        str | None,
        typer.Option(
            help="What is shuffled to tell knowledge from luck: shuffled-targets, shuffled-features, or none. "
            "Without it: none, or both with --full."
        ),
    ] = None,
    no_duplicates: Annotated[
        bool, typer.Option("--no-duplicates", help="Keep one task of each group of copies.")
    ] = False,
    out: Annotated[Path | None, typer.Option(help="Also write the report: .html, .md or .json.")] = None,
    keep: Annotated[
        Path | None, typer.Option(help="A file for finished laps: asked again, the replay goes on from there.")
    ] = None,
    store: Annotated[Path | None, typer.Option(help="Store folder; else FORETUNE_STORE, else the cache.")] = None,
    json: Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")] = False,
) -> None:
    """Race recommenders on recorded runs: each task is held out in turn, at equal budgets, beside the baselines.

    The candidate that a recommender has found best on dev is judged on test, as normalised regret: 0 is the best of
    the pool in hindsight, 1 among its worst twentieth.
    """
    from foretune.cli import output
    from foretune.pipeline.places import require_ending, require_place
    from foretune.pipeline.replay import replay as run

    if out is not None:
        require_ending(out, (".html", ".htm", ".md", ".json"), "Reports of a replay")
        require_place(out)
    told = Told()
    done = run(
        protocol,
        collection,
        _words(recommenders),
        _numbers(budgets),
        unit=unit,
        full=full,
        seeds=seeds,
        unseen=unseen,
        split=split,
        default=None if default is None else _settings(default),
        learn_from=learn_from,
        controls=None if controls is None else [] if controls == "none" else _words(controls),
        duplicates=not no_duplicates,
        store=store,
        keep=keep,
        watch=(lambda ahead: None) if json else told,
    )
    told.clear()
    written = None if out is None else done.report(out)
    if json:
        output.print_json({**done.to_json(), "report": None if written is None else str(written)})
        return
    output.say(*done.sentences())
    for table in done.tables()[:2]:
        output.print_table([column.name for column in table.columns], table.rows, table.caption)
    if written is not None:
        output.say(f"Report: {written}")
    else:
        output.say("Pairs with their p, and every task: `--out replay.html`.")


class Told:
    """A line on stderr about the lap that begins: always the same line on a terminal, else one in ``EVERY`` seconds.
    What is over sooner says nothing."""

    EVERY = 20.0

    def __init__(self) -> None:
        self._terminal, self._last, self._shown = sys.stderr.isatty(), time.monotonic(), False

    def __call__(self, ahead: Ahead) -> None:
        from foretune.cli.output import clean
        from foretune.report.units import seconds

        if time.monotonic() - self._last < (0.2 if self._terminal else self.EVERY):
            return
        self._last = time.monotonic()
        left = "" if ahead.seconds is None else f", about {seconds(ahead.seconds)} left"
        line = clean(f"Lap {ahead.number:,} of {ahead.of:,}{left}: {ahead.entry} on {ahead.task}")
        if self._terminal:
            self.clear()
            line, self._shown = line[: shutil.get_terminal_size().columns - 1], True
        print(line, end="" if self._terminal else "\n", file=sys.stderr, flush=True)

    def clear(self) -> None:
        """Take the line off a terminal."""
        if self._shown:
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)
            self._shown = False


def _words(text: str) -> list[str]:
    return [word.strip() for word in text.split(",") if word.strip()]


def _numbers(text: str) -> list[float]:
    from foretune.errors import UsageError

    try:
        return [float(word) for word in _words(text)]
    except ValueError:
        raise UsageError(
            f"`--budgets` are numbers with commas between them, but got `{text}`. Write `1,2,5`."
        ) from None


def _settings(text: str) -> dict[str, str | int | float | bool]:
    from foretune.comparison.replay.entries import value_of
    from foretune.errors import UsageError

    pairs = [word.partition("=") for word in _words(text)]
    wrong = [name for name, equals, _ in pairs if not equals]
    if wrong or not pairs:
        raise UsageError(f"`--default` is settings such as `lr=1e-3,tuner=lora`, but got `{text}`.")
    return {name.strip(): value_of(value.strip()) for name, _, value in pairs}
