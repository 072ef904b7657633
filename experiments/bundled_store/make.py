"""Collected stores -> the tables that the package ships, and what they hold as Markdown.

``python experiments/bundled_store/make.py STORE [STORE ...]`` writes ``src/foretune/store/bundled/*.parquet`` and
``contents.md`` beside this file. ``make.py --again`` writes the table of tasks anew from the tables that are there,
where only what is measured of a task has changed. Nothing of the machine's own stays in them but what it is: names of
folders are cut down to their last part, and tasks carry the licence that the catalog gives.
"""

from __future__ import annotations

import argparse
import platform
import re
import shutil
import statistics
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

from foretune.errors import DataError
from foretune.records import SUCCESSES, MetaRun, MetaTask, ModelCard, RunCollection, RunRecord
from foretune.registry import find
from foretune.store.bundled import FOLDER, NAME
from foretune.store.collections import read_collection, write_collection
from foretune.store.journal import JournalStore
from foretune.store.metadata import from_records
from foretune.tasks import catalog
from foretune.training.floor_record import FLOORS

LARGEST = 5_000_000
"""Bytes of all tables together that a package may weigh more for them."""

PATH = re.compile(r"(?:/[\w.+-]+)+/")


def main() -> None:
    parser = argparse.ArgumentParser(description="Make the collection that ships with foretune.")
    parser.add_argument("stores", nargs="*", type=Path, help="folders that `foretune collect --store` wrote")
    parser.add_argument("--again", action="store_true", help="the tasks alone, from the tables in --out")
    parser.add_argument("--call", action="append", default=[], metavar="FOLDER=NAME", help="what a model is called")
    parser.add_argument("--out", type=Path, default=FOLDER, help="where the tables go")
    parser.add_argument("--contents", type=Path, default=Path(__file__).with_name("contents.md"))
    asked = parser.parse_args()
    if asked.again:
        again(asked.out)
        return
    records = [record for store in asked.stores for record in JournalStore(store)]
    made = public(from_records(records, NAME), dict(each.split("=") for each in asked.call))
    if not made.runs:
        raise DataError(f"{', '.join(map(str, asked.stores))} hold no runs. Name a folder of `foretune collect`.")
    write_collection(asked.out, made)
    size = sum(path.stat().st_size for path in asked.out.glob("*.parquet"))
    if size > LARGEST:
        raise DataError(f"The tables take {size:,} bytes, more than {LARGEST:,}. Collect fewer runs or shorter curves.")
    assert read_collection(asked.out) == made
    asked.contents.write_text(contents(made, records, size), encoding="utf-8")
    print(f"{len(made.runs):,} runs on {len(made.tasks)} tasks, {size / 1e6:.2f} MB, in {asked.out}")


def again(folder: Path) -> None:
    """Write the tasks in ``folder`` anew; runs, configurations and curves stay as they are, byte for byte."""
    made = read_collection(folder)
    with TemporaryDirectory() as temporary:
        write_collection(temporary, replace(made, tasks=tuple(map(today, made.tasks))))
        shutil.copyfile(Path(temporary) / "tasks.parquet", folder / "tasks.parquet")


def public(collection: RunCollection, called: Mapping[str, str]) -> RunCollection:
    """The same without names of folders, and with licences."""
    named = (replace(task, model=_model(task, called), licence=_licence(task)) for task in collection.tasks)
    tasks = tuple(map(today, named))
    runs = tuple(replace(run, error=PATH.sub("", run.error)) for run in collection.runs)
    return replace(collection, tasks=tasks, runs=runs)


def today(task: MetaTask) -> MetaTask:
    """``task`` without what is measured no longer: where no class has two rows, a linear model is judged on no class
    that it learned, so the share of its right answers says nothing (``training.landmarks`` omits it)."""
    features = dict(task.features)
    if task.kind == "classification" and features.get("response_distinct") == 1.0:
        features.pop("landmark_probe", None)
    return replace(task, features=features)


def _model(task: MetaTask, called: Mapping[str, str]) -> ModelCard | None:
    name = Path(task.model.name).name if task.model else ""
    return task.model and replace(task.model, name=called.get(name, name))


def _licence(task: MetaTask) -> str:
    return find("task", task.name, {name: catalog.entry(name) for name in catalog.names()}).licence


def contents(collection: RunCollection, records: Iterable[RunRecord], size: int) -> str:
    """The data sheet's tables."""
    runs: dict[str, list[MetaRun]] = defaultdict(list)
    for run in collection.runs:
        runs[run.task_id].append(run)
    tuners: dict[str, list[MetaRun]] = defaultdict(list)
    for run in collection.runs:
        tuners[str(run.config["tuner"])].append(run)
    statuses = Counter(run.status for run in collection.runs)
    told = ", ".join(f"{count:,} {status}" for status, count in statuses.most_common())
    hours = sum(map(_seconds, collection.runs)) / 3600
    return (
        "\n\n".join(
            [
                "# What the tables hold",
                f"Written by `make.py`. {len(collection.runs):,} runs ({told}), {len(collection.tasks)} tasks (data "
                f"set, label budget and model), {hours:.1f} hours of runs, {size / 1e6:.2f} MB.",
                _machines(records),
                _table(
                    (
                        "task",
                        "model",
                        "kind",
                        "metric",
                        "train",
                        "dev",
                        "test",
                        "runs",
                        "failed",
                        "median s",
                        "licence",
                    ),
                    [_row(task, runs[task.task_id]) for task in sorted(collection.tasks, key=_order)],
                ),
                _table(
                    ("tuner", "runs", "failed", "median s"),
                    [(name, *_counts(tuners[name])) for name in sorted(tuners)],
                ),
            ]
        )
        + "\n"
    )


def _machines(records: Iterable[RunRecord]) -> str:
    named = Counter(
        ", ".join(f"{name} {about[name]}" for name in ("system", "device", "cores", "threads", "python", "torch",
                                                       "transformers", "peft", "foretune") if name in about)
        for record in records
        if (about := dict(record.surroundings)) and record.config.tuner.name != FLOORS
    )  # fmt: skip
    lines = [f"- {count:,} runs: {machine}" for machine, count in named.most_common()]
    return "\n".join([f"Machine of the runs (processor of the one that wrote this: {processor()}):", "", *lines])


def processor() -> str:
    """The name of this machine's processor, as the system tells it."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return platform.processor() or platform.machine()
    names = re.findall(r"^model name\s*: (.*)$", text, re.M)
    return f"{names[0]}, {len(names)} cores" if names else platform.machine()


def _order(task: MetaTask) -> tuple[int, str, int]:
    parameters = (task.model.parameters if task.model else 0) or 0
    return -parameters, task.name, task.rows.get("train", 0)


def _row(task: MetaTask, runs: Sequence[MetaRun]) -> tuple[str, ...]:
    sizes = (f"{task.rows.get(split, 0)}" for split in ("train", "dev", "test"))
    return (
        task.name,
        task.model.name if task.model else "",
        task.kind,
        task.metric,
        *sizes,
        *_counts(runs),
        task.licence,
    )


def _counts(runs: Sequence[MetaRun]) -> tuple[str, str, str]:
    failed = sum(run.status not in SUCCESSES for run in runs)
    return str(len(runs)), str(failed), f"{statistics.median(map(_seconds, runs)):.1f}"


def _seconds(run: MetaRun) -> float:
    return sum(run.cost.get(name, 0.0) for name in ("train_seconds", "eval_seconds", "setup_seconds"))


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


if __name__ == "__main__":
    main()
