"""``foretune runs list|show|compare|check|import|export``: what was run before. Loads no torch."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from foretune.records import RunRecord
    from foretune.store import JournalStore

app = typer.Typer(help="List, show, compare, check, import and export earlier runs.", no_args_is_help=True)

StorePath = Annotated[Path | None, typer.Option("--store", help="Store folder; else FORETUNE_STORE, else the cache.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")]
Run = Annotated[str, typer.Argument(help="The beginning of a run's digest, or a run folder.")]
Runs = Annotated[list[str], typer.Argument(help="Two or more runs: the beginning of a digest, or a run folder.")]


@app.command("list")
def list_runs(
    task: Annotated[str | None, typer.Option(help="Only tasks whose name contains this.")] = None,
    tuner: Annotated[str | None, typer.Option(help="Only this fine-tuning method.")] = None,
    status: Annotated[str | None, typer.Option(help="Only ok, stopped, failed, diverged, oom or running.")] = None,
    store: StorePath = None,
    json: Json = False,
) -> None:
    """One line per run, the newest first; of a run that was recorded more than once, its latest record."""
    from foretune.cli import output, run_views

    opened = open_store(store)
    known = latest(opened)
    chosen = [record for record in known if matches(record, task, tuner, status)]
    if json:
        output.print_json([run_views.summary(record) for record in chosen])
        return
    if not chosen:
        output.say(
            f"None of the {len(known)} runs in {opened.folder} fits." if known else f"No runs in {opened.folder} yet."
        )
        return
    output.print_table(run_views.LIST_COLUMNS, map(run_views.list_row, chosen))
    output.say("Scores with their 95 % interval over examples. A dev score chose its checkpoint and is optimistic.")


@app.command()
def show(run: Run, store: StorePath = None, json: Json = False) -> None:
    """All that is known of one run."""
    from foretune.cli import output, run_views

    record = resolve(run, store)
    if json:
        output.print_json(record.to_json())
        return
    output.say(f"Run {record.digest}: {record.status}" + (f" ({record.error})" if record.error else ""))
    output.print_table(
        ("setting", "value"), [(key, str(v)) for key, v in run_views.flat(record.config.to_json()).items()]
    )
    output.print_table(("split", "score"), run_views.score_rows([record]))
    floors = [
        (run_views.units.floor_title(name), split, run_views.scored(record.metric, judged))
        for name, splits in record.floors.items()
        for split, judged in splits.items()
    ]
    if floors:
        output.print_table(("floor", "split", "score"), floors)
    output.print_table(("cost", ""), run_views.cost_rows([record]))
    output.say(*record.notes, *(f"Warning: {warning}" for warning in record.warnings))


@app.command()
def compare(runs: Runs, store: StorePath = None, json: Json = False) -> None:
    """Runs side by side: what differs in their settings, then scores with intervals, then cost."""
    from foretune.cli import output, run_views
    from foretune.errors import UsageError

    if len(runs) < 2:
        raise UsageError(f"a comparison needs at least 2 runs, but got {len(runs)}. `foretune runs list` names them.")
    records = [resolve(run, store) for run in runs]
    differing = run_views.differences(records)
    if json:
        output.print_json(
            {
                "runs": [run_views.summary(record) for record in records],
                "differences": differing,
                "statements": run_views.statements(records),
            }
        )
        return
    names = [record.digest[: run_views.SHORT] for record in records]
    output.print_table(("setting", *names), [(key, *map(str, values)) for key, values in differing.items()])
    output.print_table(("score", *names), run_views.score_rows(records))
    output.print_table(("cost", *names), run_views.cost_rows(records))
    output.say(*run_views.statements(records))


@app.command()
def check(
    runs: Annotated[
        list[str] | None,
        typer.Argument(help="Runs: beginnings of digests, or run folders. None: all that the store holds."),
    ] = None,
    store: StorePath = None,
    json: Json = False,
) -> None:
    """Faults that a table of scores hides: seeds that are one run, equal samples, constant answers, chance level."""
    from foretune.cli import check_views, output
    from foretune.comparison.stored import checked

    opened = open_store(store)
    chosen = [resolve(run, store) for run in runs] if runs else latest(opened)
    given = {record.digest: Path(run) for record, run in zip(chosen, runs or (), strict=False) if Path(run).is_dir()}
    groups = checked({record.digest: record for record in chosen}.values(), opened.folder, given)
    if json:
        output.print_json([check_views.summary(group) for group in groups])
        return
    output.say(*check_views.lines(groups))


@app.command("import")
def import_(
    paths: Annotated[
        list[Path],
        typer.Argument(
            help="Run folders, folders of run folders, journals; or a format and its files: taskset DIR, "
            "peft-comparison DIR, qtt-csv DIR, csv FILE, parquet FILE (or DIR)."
        ),
    ],
    task: Annotated[str | None, typer.Option(help="Of a table: the column that names the task.")] = None,
    group: Annotated[
        str | None, typer.Option(help="Of a table: the column whose equal values are never split.")
    ] = None,
    model: Annotated[str | None, typer.Option(help="Of a table: the column that names a given model.")] = None,
    family: Annotated[str | None, typer.Option(help="Of a table: the column that names the model's family.")] = None,
    metric: Annotated[str | None, typer.Option(help="Of a table: the score, of a column dev.METRIC.")] = None,
    minimise: Annotated[bool, typer.Option("--minimise", help="Of a table: less is better.")] = False,
    store: StorePath = None,
    json: Json = False,
) -> None:
    """Add runs from elsewhere to the store; what it holds already is not added again."""
    from foretune.cli import output, run_exchange
    from foretune.errors import UsageError
    from foretune.store import import_runs

    opened = open_store(store)
    form = str(paths[0]) if str(paths[0]) in run_exchange.FORMATS and len(paths) > 1 else None
    if form is not None:
        from foretune.store.importers import Columns

        columns = Columns(task, group, model, family, minimise)
        done = run_exchange.bring_in(form, paths[1:], opened, columns, metric)
        if json:
            output.print_json(done)
        else:
            output.say(*run_exchange.sentences(done))
        return
    if any((task, group, model, family, metric, minimise)):
        raise UsageError(
            "`--task`, `--group`, `--model`, `--family`, `--metric` and `--minimise` are about tables of other "
            f"projects. Write the format before the path: {', '.join(run_exchange.WITH_COLUMNS)}."
        )
    counts = [import_runs(opened, path) for path in paths]
    added, known = (sum(column) for column in zip(*counts, strict=True))
    if json:
        output.print_json({"store": str(opened.folder), "added": added, "known": known})
    else:
        output.say(f"{added} added to {opened.folder}, {known} known already.")


@app.command()
def export(
    folder: Annotated[Path, typer.Argument(help="A new folder for the tables.")],
    form: Annotated[str, typer.Option("--format", help="parquet (four tables) or qtt-csv (Quick-Tune's).")] = "parquet",
    collection: Annotated[str | None, typer.Option(help="One collection alone: runs, or an imported one.")] = None,
    store: StorePath = None,
    json: Json = False,
) -> None:
    """Write settings, curves, costs and outcomes of runs as tables; no text and no weight is in them."""
    from foretune.cli import output, run_exchange

    chosen = run_exchange.take_out(open_store(store), collection)
    lost = run_exchange.write(chosen, folder, form)
    if json:
        output.print_json({"folder": str(folder), **run_exchange.summary(chosen), "left_out": list(lost)})
    else:
        output.say(f"{len(chosen.runs):,} runs of {len(chosen.tasks)} tasks in {folder}.", *lost)


def open_store(folder: Path | None) -> JournalStore:
    """The store that ``--store``, FORETUNE_STORE or the default names."""
    from foretune.store import JournalStore, default_folder

    return JournalStore(folder or default_folder())


def latest(store: JournalStore) -> list[RunRecord]:
    """The latest record of every run, the last started first."""
    records = {record.digest: record for record in store}
    return sorted(records.values(), key=lambda record: record.started)[::-1]


def matches(record: RunRecord, task: str | None, tuner: str | None, status: str | None) -> bool:
    """Whether the filters of ``runs list`` let ``record`` through.

    Raises:
        UsageError: no record can have this status.
    """
    from foretune.cli.run_views import task_name
    from foretune.errors import UsageError
    from foretune.records import STATUSES
    from foretune.registry import did_you_mean

    if status is not None and status not in STATUSES:
        raise UsageError(f"`{status}` is not a status.{did_you_mean(status, STATUSES)} Known: {', '.join(STATUSES)}.")
    return (
        (task is None or task.casefold() in task_name(record).casefold())
        and tuner in (None, record.config.tuner.name)
        and status in (None, record.status)
    )


def resolve(name: str, store: Path | None) -> RunRecord:
    """The record that a user means by a run folder or the beginning of a digest.

    Raises:
        UsageError: no run begins so, or more than one.
        StoreError: the run folder cannot be read.
    """
    from foretune.errors import UsageError
    from foretune.store import read_run

    if Path(name).is_dir():
        return read_run(name)
    opened = open_store(store)
    found = {record.digest: record for record in opened if record.digest.startswith(name.lower())}
    if not found:
        raise UsageError(f"`{name}` is neither a run folder nor the beginning of a run in {opened.folder}.")
    if len(found) > 1:
        raise UsageError(
            f"`{name}` is the beginning of {len(found)} runs: {', '.join(sorted(found))}. Give more digits."
        )
    return next(iter(found.values()))
