"""Arena: runs what is missing from the store, in worker processes, until nothing is.

Each worker is one process with one thread on a CPU: two of them do a quarter more than one with two threads, and a
result does not depend on how many there are. What is to be run next is not handed out: every worker looks for itself,
and claims a run with a lock, so two comparisons on one store share the work, and a worker that is killed holds up
nobody. A run that fails is a record, and the others go on; a comparison that is killed goes on where it was.
"""

from __future__ import annotations

import json
import os
import queue
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from foretune import errors
from foretune.comparison.cells import Cells
from foretune.errors import ForetuneError, Interrupted, ResourceError

PER_WEIGHT = 24
"""Bytes of a worker for each weight of the model: weights, gradients, two moments, and as much again for activations
and for what is evaluated; a plan for full tuning, the largest there is."""

BESIDE = 1_000_000_000
"""Bytes of a worker beside the model: libraries, tasks, texts."""


@dataclass(frozen=True)
class Event:
    """What a worker did: ``begin`` and ``end`` of a run, or an ``error`` that ended the worker.

    Attributes:
        done, total: runs that have ended, of all that are known by now.
        status, error: of the run that ended.
    """

    event: str
    method: str = ""
    task: str = ""
    shots: int = 0
    data_seed: int = 0
    init_seed: int = 0
    rate: float = 0.0
    status: str = ""
    error: str | None = None
    done: int = 0
    total: int = 0


Watch = Callable[[Event], None]


def run_missing(
    cells: Cells, *, workers: int | None = None, keep_adapters: bool = False, watch: Watch = lambda event: None
) -> None:
    """Run every run of ``cells.plan`` that the store does not have.

    Args:
        workers: processes; None is as many as cores and memory allow, and one where there is a GPU.
        keep_adapters: leave what was learned in each run's folder.
        watch: told of every run.

    Raises:
        Interrupted: by Ctrl-C or SIGTERM; the same call goes on.
        ForetuneError: a worker could not go on, for example for want of disk.
    """
    missing = cells.missing()
    if not missing:
        return
    wanted = min(len(missing), workers or reasonable(cells))
    total = sum(1 for _ in {job.digest for job in cells.known()})
    done = total - len(missing)
    events: queue.Queue[tuple[int, dict[str, Any] | None]] = queue.Queue()
    processes = [_start(cells, keep_adapters) for _ in range(wanted)]
    listeners = [
        threading.Thread(target=_listen, args=(number, process, events), daemon=True)
        for number, process in enumerate(processes)
    ]
    for listener in listeners:
        listener.start()
    failed: dict[str, Any] | None = None
    running = set(range(wanted))
    try:
        while running:
            number, told = events.get()
            if told is None:
                running.discard(number)
                failed = failed or _ended(processes[number])
            elif told["event"] == "error":
                failed = told
            else:
                done += told["event"] == "end"
                fields = {name: told[name] for name in Event.__dataclass_fields__ if name in told}
                watch(Event(**fields, done=done, total=max(total, done)))
    except KeyboardInterrupt:
        raise Interrupted("Stopped. What is done is in the store: the same command goes on.") from None
    finally:
        _stop(processes, listeners)
    if failed is not None and cells.missing():
        kind = getattr(errors, failed["type"], ForetuneError)
        raise kind(failed["message"])


def reasonable(cells: Cells) -> int:
    """How many workers this machine bears: one for each core, as memory allows; one where there is a GPU."""
    import psutil
    import torch

    from foretune.models import open_checkpoint

    if torch.cuda.is_available():
        return 1
    protocol = cells.plan.protocol
    kinds = {cells.plan.task(spec.called).schema.kind for spec in protocol.tasks}
    weights = max(open_checkpoint(protocol.model, kind).parameters for kind in kinds)
    fitting = psutil.virtual_memory().available // (weights * PER_WEIGHT + BESIDE)
    return max(1, min(os.cpu_count() or 1, fitting))


def _start(cells: Cells, keep_adapters: bool) -> subprocess.Popen[str]:
    """A worker in a session of its own: a Ctrl-C at the terminal reaches it through us, as the end of its input."""
    threads = os.environ.get("OMP_NUM_THREADS", "1")
    surroundings = {**os.environ, "OMP_NUM_THREADS": threads, "TOKENIZERS_PARALLELISM": "false"}
    process = subprocess.Popen(
        [sys.executable, "-m", "foretune.comparison.worker"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        encoding="utf-8",
        env=surroundings,
        start_new_session=True,
    )
    plan = cells.plan
    asked = {
        "protocol": plan.protocol.to_json(),
        "data_dir": plan.data_dir,
        "store": str(cells.root),
        "retry": cells.retry,
        "keep_adapters": keep_adapters,
        "threads": int(threads),
    }
    assert process.stdin is not None
    process.stdin.write(json.dumps(asked) + "\n")
    process.stdin.flush()
    return process


def _listen(number: int, process: subprocess.Popen[str], events: queue.Queue[Any]) -> None:
    assert process.stdout is not None
    for line in process.stdout:
        try:
            told = json.loads(line)
        except ValueError:  # a library that prints
            continue
        if isinstance(told, Mapping) and "event" in told:
            events.put((number, dict(told)))
    process.wait()
    events.put((number, None))


def _ended(process: subprocess.Popen[str]) -> dict[str, Any] | None:
    """Why a worker ended, where it said nothing itself."""
    code = process.returncode
    if code in (0, Interrupted.exit_code):
        return None
    return {
        "type": ResourceError.__name__,
        "message": (
            f"A worker ended with status {code} in the middle of a run, as a process does that takes more memory than "
            "there is. What is done is in the store: the same command goes on; use `--workers 1`, or a smaller batch."
        ),
    }


def _stop(processes: list[subprocess.Popen[str]], listeners: list[threading.Thread]) -> None:
    """Close every input, and wait for the runs under way to save their state."""
    for process in processes:
        assert process.stdin is not None
        try:
            process.stdin.close()
        except OSError:
            continue
    for process, listener in zip(processes, listeners, strict=True):
        assert process.stdout is not None
        try:
            process.wait(timeout=60)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        listener.join()
        process.stdout.close()
