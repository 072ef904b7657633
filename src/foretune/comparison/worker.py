"""One worker: takes the next run that nobody has, runs it, puts its record into the store, until nothing is missing.

``python -m foretune.comparison.worker`` reads what to do as one line of JSON from its input and says what it does as
lines of JSON. When its input ends, which the death of the comparison that started it brings about too, it stops as
Ctrl-C would: at the next step, with its state saved. Libraries, tasks and tokenizers are loaded once for all its runs,
and the weights of the model lie in the memory that the operating system keeps of the file.
"""

from __future__ import annotations

import datetime as dt
import gc
import json
import os
import shutil
import signal
import sys
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from foretune.comparison.cells import Cells
from foretune.comparison.claims import claim
from foretune.comparison.plan import FLOORS, Job, Plan
from foretune.comparison.protocol import Protocol
from foretune.errors import ForetuneError, Interrupted
from foretune.records import RunRecord
from foretune.store.folder import RUN_FILE, read_run, write_run

Say = Callable[[Mapping[str, Any]], None]

PAUSE = 0.5
"""Seconds between two looks at what others are running."""


def work(cells: Cells, say: Say = lambda event: None, keep_adapters: bool = False) -> None:
    """Run what is missing until nothing is, or until what is missing is being run by others, and wait for that.

    Raises:
        Interrupted: SIGINT or SIGTERM; the run under way has saved its state.
        StoreError: the store cannot be written.
    """
    while missing := cells.missing():
        ran = False
        for job in missing:
            with claim(cells.root / "claims", job.digest) as mine:
                if not mine or cells.finished(job):
                    continue
                say(_event("begin", job))
                record = run(cells, job, keep_adapters)
                say(_event("end", job, status=record.status, error=record.error))
                ran = True
        if not ran:
            time.sleep(PAUSE)


def run(cells: Cells, job: Job, keep_adapters: bool = False) -> RunRecord:
    """Run ``job`` in its folder, or go on with it, and append its record; whatever happens, there is one.

    Raises:
        Interrupted: by the user; nothing is appended, and the folder holds what is needed to go on.
    """
    from foretune.training.run import train

    folder = cells.folder(job.digest)
    record = _unrecorded(folder, job)
    if record is None:
        _tidy()
        task = cells.plan.task(job.cell.task)
        try:
            if job.cell.method == FLOORS:
                record = measure_floors(job, cells.plan, folder)
            else:
                record = train(job.config, task=task, folder=folder, floors=False, deadline_seconds=job.seconds)
        except (Interrupted, KeyboardInterrupt, SystemExit):
            raise
        except Exception as error:  # a failed run is a record, whatever failed in it
            record = _failed(folder, job, error)
    if not keep_adapters:
        shutil.rmtree(folder / "adapter", ignore_errors=True)
    cells.store.append(record)
    return record


def measure_floors(job: Job, plan: Plan, folder: Path) -> RunRecord:
    """The floors of one draw as a record of their own: no method pays for them or is measured beside them."""
    from dataclasses import replace

    from foretune.records import Cost, Part
    from foretune.tasks.describe import card
    from foretune.training.floors import measure_floors as measure
    from foretune.training.meters import Stopwatch
    from foretune.training.prepare import prepare
    from foretune.training.surroundings import surroundings
    from foretune.tuners import TUNERS

    watch, task, started = Stopwatch(), plan.task(job.cell.task), _now()
    folder.mkdir(parents=True, exist_ok=True)
    with watch("setup"):
        made = prepare(replace(job.config, tuner=Part(next(iter(TUNERS)))), task)  # any: it is not trained
    with watch("floors"):
        found = measure(made, folder)
    rows = {split: len(table) for split, table in made.tables.items()}
    record = RunRecord(
        job.config,
        "ok",
        metric=task.schema.metric,
        card=card(task.name, task.schema, made.tables["train"], rows, task.sketch),
        floors=found,
        labels=task.schema.labels,
        cost=Cost(setup_seconds=watch.seconds["setup"], floor_seconds=watch.seconds["floors"]),
        surroundings=surroundings(str(made.engine.accelerator.device), 1),
        notes=made.draw.notes,
        started=started,
        finished=_now(),
    )
    write_run(folder, record)
    return record


def _unrecorded(folder: Path, job: Job) -> RunRecord | None:
    """A run that had ended when its worker was killed, before the store knew."""
    if not (folder / RUN_FILE).exists():
        return None
    try:
        record = read_run(folder)
    except ForetuneError:
        return None
    return record if record.status == "ok" and record.digest == job.digest else None


def _failed(folder: Path, job: Job, error: Exception) -> RunRecord:
    """The record that ``train`` left, or one of our own where it could not even begin."""
    if (folder / RUN_FILE).exists():
        record = read_run(folder)
        if record.digest == job.digest and record.status not in ("ok", "running"):
            return record
    return RunRecord(job.config, "failed", error=f"{type(error).__name__}: {error}", finished=_now())


def _now() -> str:
    return dt.datetime.now(dt.UTC).isoformat()


def _tidy() -> None:
    """Give freed memory back, so that the next run's peak is measured from where a fresh process would begin."""
    import ctypes

    gc.collect()
    if sys.platform == "linux":
        try:
            ctypes.CDLL(None).malloc_trim(0)
        except AttributeError:  # not glibc
            return


def _event(kind: str, job: Job, **more: Any) -> dict[str, Any]:
    return {"event": kind, "digest": job.digest, "rate": job.rate, **vars(job.cell), **more}


def main() -> None:
    """See the module's docstring."""
    asked = json.loads(sys.stdin.readline())
    threading.Thread(target=_stop_with_input, daemon=True).start()

    def say(event: Mapping[str, Any]) -> None:
        print(json.dumps(event), flush=True)

    import peft  # noqa: F401 - loaded once, and then left alone by every collection of garbage
    import torch

    torch.set_num_threads(asked["threads"])
    gc.freeze()
    try:
        plan = Plan(Protocol.from_json(asked["protocol"]), asked["data_dir"])
        work(Cells(plan, asked["store"], asked["retry"]), say, asked["keep_adapters"])
    except (Interrupted, KeyboardInterrupt):
        sys.exit(Interrupted.exit_code)
    except ForetuneError as error:
        say({"event": "error", "type": type(error).__name__, "message": str(error)})
        sys.exit(error.exit_code)


def _stop_with_input() -> None:
    """Wait for the end of the input, then stop this process as SIGTERM does."""
    sys.stdin.read()
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    main()
