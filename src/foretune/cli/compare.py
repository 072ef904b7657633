"""``foretune compare``: every method on the same rows and seeds, and what may be claimed of the differences."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from foretune.cli.backend import RAY, WORKERS, on
from foretune.cli.tune import (
    BatchSize,
    Data,
    DataDir,
    Kind,
    Label,
    MaxLength,
    Method,
    MetricName,
    Ood,
    Pair,
    Prompt,
    Response,
    Run,
    Test,
    Text,
    _option,
)

if TYPE_CHECKING:
    from foretune.comparison import Protocol
    from foretune.comparison.arena import Event
    from foretune.records.verdict import Verdict

app = typer.Typer()

Rules = "Rules"
METHODS = "lora,full,head"
YAML = (".yaml", ".yml")

PROFILES = {"cpu-small": {"steps": 40, "tasks": 3, "methods": 2, "seeds": 3, "test_rows": 200}}
"""Name -> how much of a protocol is run for a first look."""

READING = ("text", "pair", "label", "prompt", "response", "kind", "metric", "test", "group")


@app.command()
def compare(
    source: Annotated[str, typer.Argument(help="Protocol (.yaml), or a data file, folder, Hub id or catalog name.")],
    text: Text = None,
    pair: Pair = None,
    label: Label = None,
    prompt: Prompt = None,
    response: Response = None,
    kind: Kind = None,
    metric: MetricName = None,
    test: Test = None,
    ood: Ood = None,
    group: Annotated[
        str | None, _option(Data, "Column of the --ood files by whose values out-of-domain scores are split.")
    ] = None,
    data_dir: DataDir = None,
    methods: Annotated[str | None, _option(Method, f"Names with commas between them ({METHODS}).")] = None,
    model: Annotated[str | None, _option(Method, "Folder or Hub id of the model of all runs (demo).")] = None,
    max_length: MaxLength = None,
    shots: Annotated[
        str | None, _option(Rules, "Labelled rows per class, dev included, as 2,16,64; default: all.")
    ] = None,
    seeds: Annotated[int | None, _option(Rules, "How many draws and initial weights (5).")] = None,
    steps: Annotated[int | None, _option(Rules, "Optimizer steps of every method; default: 40 epochs.")] = None,
    batch_size: BatchSize = None,
    trials: Annotated[int | None, _option(Rules, "Learning rates that every method tries on dev (1: untuned).")] = None,
    selection: Annotated[
        str | None, _option(Rules, "Checkpoint that is judged: `last`, or `dev`: the best there.")
    ] = None,
    test_rows: Annotated[int | None, _option(Rules, "Judge at most so many test rows, the same ones always.")] = None,
    margin: Annotated[float | None, _option(Rules, "Largest difference that does not matter (0.01).")] = None,
    contrasts: Annotated[
        str | None, _option(Rules, "Pairs about which something is claimed: all, first, none.")
    ] = None,
    allow_unequal: Annotated[
        bool, _option(Rules, "Let methods differ in trials, steps or batches, and say so.", "--allow-unequal")
    ] = False,
    profile: Annotated[
        str | None,
        _option(Run, "cpu-small, a first look: 3 tasks, 2 methods, 1 budget, 3 seeds, 1 rate, 40 steps."),
    ] = None,
    out: Annotated[Path | None, _option(Run, "Folder of the report; default: comparisons/<task>-<identity>.")] = None,
    store: Annotated[Path | None, _option(Run, "Where runs are remembered (also FORETUNE_STORE).")] = None,
    workers: Annotated[int | None, _option(Run, WORKERS)] = None,
    ray: Annotated[str | None, typer.Option(metavar="ADDRESS", help=RAY, rich_help_panel=Run)] = None,
    dry_run: Annotated[
        bool, _option(Run, "Print the protocol and how many runs are missing, and stop.", "--dry-run")
    ] = False,
    retry_failed: Annotated[bool, _option(Run, "Run again what failed before.", "--retry-failed")] = False,
    keep_adapters: Annotated[bool, _option(Run, "Keep what every run has learned.", "--keep-adapters")] = False,
    json: Annotated[bool, _option(Run, "Print one JSON object instead of text.", "--json")] = False,
) -> None:
    """Run several methods on the same rows with the same seeds, and say what may be claimed.

    The rules are frozen before the first run and printed with the result. Ctrl-C loses nothing: the same command goes
    on, and runs nothing twice.
    """
    values = {name: value for name, value in locals().items() if name not in COMMAND}
    from foretune.cli.output import print_json, say
    from foretune.comparison.harness import opened, run_and_judge
    from foretune.report import comparison_page

    backend = on(ray)
    protocol = _frozen(source, values, allow_unequal, profile)
    cells = opened(protocol, store=store, data_dir=data_dir, retry_failed=retry_failed)
    missing = cells.missing()
    if dry_run:
        if json:
            print_json({"digest": protocol.digest, "protocol": protocol.to_json(), "missing": len(missing)})
        else:
            say(*protocol.to_yaml().splitlines(), *_to_do(protocol, len(missing)))
        return
    folder = out or Path("comparisons") / f"{protocol.tasks[0].called}-{protocol.digest[:8]}"
    _freeze(folder, protocol)
    if not json:
        say(*_to_do(protocol, len(missing)))
    watch = _silent if json else Told()
    verdict = run_and_judge(cells, workers=workers, keep_adapters=keep_adapters, watch=watch, backend=backend)
    written = comparison_page.write(verdict, folder)
    if json:
        print_json({"folder": str(folder), "files": [str(path) for path in written], "verdict": verdict.to_json()})
        return
    _show(verdict)
    say(f"Report: {written[0]}", f"Protocol: {folder / 'protocol.yaml'}")


COMMAND = (
    "source", "data_dir", "allow_unequal", "profile", "out", "store", "workers", "ray", "dry_run", "retry_failed",
    "keep_adapters", "json",
)  # fmt: skip
"""What is asked of the command; the other parameters are the protocol's."""


def _frozen(source: str, values: dict[str, Any], allow_unequal: bool, profile: str | None) -> Protocol:
    """The protocol of a YAML file, or the one that the options describe."""
    from foretune.comparison import Protocol
    from foretune.comparison.protocol import shorter
    from foretune.errors import UsageError
    from foretune.records.reading import parse, read_text
    from foretune.registry import did_you_mean

    given = {name: value for name, value in values.items() if value not in (None, [])}
    if Path(source).suffix.lower() in YAML:
        if given:
            name = next(iter(given))
            raise UsageError(
                f"`--{name.replace('_', '-')}` belongs in the protocol, but `{source}` is one already. Write it there "
                "(`foretune compare DATA --dry-run` prints a whole protocol)."
            )
        plain = parse(read_text(Path(source), "protocol"), f"`{source}`")
    else:
        plain = _described(source, given)
    if allow_unequal:
        plain["allow_unequal"] = True
    protocol = Protocol.from_json(plain)
    if profile is None:
        return protocol
    if profile not in PROFILES:
        known = list(PROFILES)
        raise UsageError(
            f"`--profile` must be one of {', '.join(known)}, but got `{profile}`.{did_you_mean(profile, known)}"
        )
    return shorter(protocol, **PROFILES[profile])


def _described(source: str, given: dict[str, Any]) -> dict[str, Any]:
    """Options as a protocol's fields."""
    from foretune.errors import UsageError

    task = {"source": source, "options": {name: given[name] for name in READING if name in given}}
    if "ood" in given:
        from foretune.pipeline.draft import named

        task["ood"] = {name: path for path, name in map(named, given["ood"])}
    plain: dict[str, Any] = {"tasks": [task], "methods": _words(given.get("methods", METHODS))}
    if "model" in given or "max_length" in given:
        length = {"max_length": given["max_length"]} if "max_length" in given else {}
        plain["model"] = {"name": given.get("model", "demo"), **length}
    if "shots" in given:
        words = _words(given["shots"])
        wrong = [word for word in words if word != "all" and not (word.isdecimal() and int(word))]
        if wrong or not words:
            raise UsageError(
                "`--shots` must be `all` or numbers from 1 with commas between them, but got "
                f"`{(wrong or [given['shots']])[0]}`. Write `2,16`."
            )
        plain["shots"] = [word if word == "all" else int(word) for word in words]
    if "seeds" in given:
        if given["seeds"] < 1:
            raise UsageError(f"`--seeds` must be at least 1, but got {given['seeds']}. Write `--seeds 5`.")
        plain["data_seeds"] = list(range(given["seeds"]))
    if "trials" in given:
        plain["tuning_trials"] = given["trials"]
    same = ("steps", "batch_size", "selection", "test_rows", "margin", "contrasts")
    return plain | {name: given[name] for name in same if name in given}


def _words(text: str) -> list[str]:
    """What stands between commas.

    >>> _words("lora, full,")
    ['lora', 'full']
    """
    return [word.strip() for word in text.split(",") if word.strip()]


def _freeze(folder: Path, protocol: Protocol) -> None:
    """Write the protocol before the first run; another one's folder is left alone."""
    from foretune.comparison.harness import read_protocol
    from foretune.errors import UsageError
    from foretune.report.html import written

    path = folder / "protocol.yaml"
    if path.exists() and (held := read_protocol(path)).digest != protocol.digest:
        raise UsageError(
            f"`{folder}` holds the comparison {held.digest}, but this one is {protocol.digest}. Give another folder "
            "with `--out`."
        )
    written(path, protocol.to_yaml())


def _silent(event: Event) -> None:
    """Says nothing."""


class Told:
    """Prints a line for the first run that begins and for every one that ends, with how long the rest takes at this
    pace."""

    def __init__(self) -> None:
        self.ended, self.begun = 0, 0.0

    def __call__(self, event: Event) -> None:
        from foretune.cli.output import say
        from foretune.report.units import seconds

        what = f"{event.method} on {event.task}, {event.shots or 'all'} shots, seed {event.data_seed}"
        init = f"/{event.init_seed}" if event.init_seed != event.data_seed else ""
        if event.event == "begin" and not self.begun:
            self.begun = time.monotonic()
            say(f"[{event.done}/{event.total}] {what}{init}: begun")
        if event.event == "end":
            self.ended += 1
            each = (time.monotonic() - self.begun) / self.ended if self.begun else 0.0
            left = each * max(event.total - event.done, 0)
            reason = f" ({event.error})" if event.error else ""
            say(
                f"[{event.done}/{event.total}] {what}{init}: {event.status}{reason}"
                f"{f'; about {seconds(left)} left' if left else ''}"
            )


def _to_do(protocol: Protocol, missing: int) -> Iterator[str]:
    """How many runs are missing, what makes their number, and what would make them slow."""
    from foretune.training.precision import about_emulated

    if not missing:
        yield f"Protocol {protocol.digest}: no runs to do, the store has them all."
        return
    counted = {
        "methods": len(protocol.methods),
        "seeds": len(protocol.seeds),
        "tasks": len(protocol.tasks),
        "numbers of shots": len(protocol.shots),
    }
    made = " x ".join(f"{n} {word}" for word, n in counted.items() if n > 1) or "1 method"
    trials = f", {protocol.tuning_trials} trials each" if protocol.tuning_trials > 1 else ""
    yield f"Protocol {protocol.digest}: {missing:,} runs to do ({made}{trials}, and their floors)."
    if slow := about_emulated(protocol.precision):
        yield slow


def _show(verdict: Verdict) -> None:
    from foretune.cli.output import print_table, say
    from foretune.report import comparison_page, verdict_tables

    for task in verdict.tasks:
        if any(cell.task == task for cell in verdict.cells):
            table = verdict_tables.scores(verdict, task)
            print_table([column.name for column in table.columns], table.rows, table.caption)
    say(*comparison_page.summary(verdict))
