"""Run a collection or a comparison to its end once, and another one that is killed again and again. Not a test.

``python killed_workers.py ROOM ASKED WARM OUT KILLS SEED``: ``ROOM`` is ``collection`` or ``comparison``, ``ASKED`` its
plan or protocol as JSON, ``WARM`` a short one. The stores are ``OUT/whole`` and ``OUT/killed``. Every worker is a
forked child, so what loads slowly is loaded once, by ``WARM``; some rounds have two of them at a time.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

import foretune.collection.local
import foretune.collection.worker
import foretune.comparison.harness
import foretune.comparison.worker
from foretune.collection import CollectionPlan
from foretune.comparison import Protocol

ROOMS: dict[str, tuple[Any, Callable[..., Any], Callable[..., None]]] = {
    "collection": (CollectionPlan, foretune.collection.local.opened, foretune.collection.worker.work),
    "comparison": (Protocol, foretune.comparison.harness.opened, foretune.comparison.worker.work),
}
"""What is asked for, how it is opened on a store, and who works on it."""


def start(work: Callable[..., None], missing: Any) -> tuple[int, int]:
    """Fork a worker; its process id, and a pipe with one byte for each run that it begins or ends."""
    reading, writing = os.pipe()
    child = os.fork()
    if child:
        os.close(writing)
        return child, reading
    try:
        os.close(reading)
        work(missing, lambda event: os.write(writing, event["event"][:1].encode()) and None)
        os._exit(0)
    except BaseException as error:
        print(repr(error), file=sys.stderr, flush=True)
        os._exit(1)


def finish(child: int, pipe: int) -> str:
    """Wait for the end; what it began and ended."""
    told = b""
    while read := os.read(pipe, 4096):
        told += read
    os.close(pipe)
    _, status = os.waitpid(child, 0)
    if status:
        raise SystemExit(f"a worker ended with status {status}")
    return told.decode()


def kill(workers: list[tuple[int, int]], delay: float) -> int:
    """SIGKILL all of them ``delay`` seconds after the first begins a run; the runs that they ended."""
    os.read(workers[0][1], 1)
    time.sleep(delay)
    for child, _ in workers:
        os.kill(child, signal.SIGKILL)
    ended = 0
    for child, pipe in workers:
        os.waitpid(child, 0)
        while read := os.read(pipe, 4096):
            ended += read.count(b"e")
        os.close(pipe)
    return ended


def main(room: str, asked: str, warm: str, out: str, kills: str, seed: str) -> None:
    torch.set_num_threads(1)
    kind, opened, work = ROOMS[room]
    rng, wanted = random.Random(int(seed)), kind.from_json(json.loads(asked))
    work(opened(kind.from_json(json.loads(warm)), store=Path(out) / "warm"))
    begun = time.monotonic()
    whole = finish(*start(work, opened(wanted, store=Path(out) / "whole")))
    each = (time.monotonic() - begun) / whole.count("e")
    ended = killed = 0
    for i in range(int(kills)):
        resumed = opened(wanted, store=Path(out) / "killed")
        if not resumed.missing():
            break
        ended += kill([start(work, resumed) for _ in range(1 + i % 2)], rng.uniform(0.0, 1.2 * each))
        killed += 1
    last = finish(*start(work, opened(wanted, store=Path(out) / "killed")))
    print(json.dumps({"whole": whole, "before": ended, "last": last, "kills": killed}), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
