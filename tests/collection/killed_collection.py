"""Run a collection to its end once, and another one that is killed again and again. Not a test.

``python killed_collection.py PLAN OUT KILLS SEED``: the stores are ``OUT/whole`` and ``OUT/killed``. Every worker is a
forked child, so what loads slowly is loaded once; some rounds have two of them at a time.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import time
from dataclasses import replace
from pathlib import Path

import torch

from foretune.collection import CollectionPlan
from foretune.collection.local import opened
from foretune.collection.worker import work


def start(plan: CollectionPlan, store: Path) -> tuple[int, int]:
    """Fork a worker; its process id, and a pipe with one byte for each run that it begins or ends."""
    reading, writing = os.pipe()
    child = os.fork()
    if child:
        os.close(writing)
        return child, reading
    try:
        os.close(reading)
        work(opened(plan, store=store), lambda event: os.write(writing, event["event"][:1].encode()) and None)
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


def main(plan: str, out: str, kills: str, seed: str) -> None:
    torch.set_num_threads(1)
    rng, asked = random.Random(int(seed)), CollectionPlan.from_json(json.loads(plan))
    work(opened(replace(asked, tasks=asked.tasks[:1], configs=2, repeats=0), store=Path(out) / "warm"))
    begun = time.monotonic()
    whole = finish(*start(asked, Path(out) / "whole"))
    each = (time.monotonic() - begun) / whole.count("e")
    ended = 0
    for i in range(int(kills)):
        if not opened(asked, store=Path(out) / "killed").missing():
            break
        workers = [start(asked, Path(out) / "killed") for _ in range(1 + i % 2)]
        ended += kill(workers, rng.uniform(0.0, 1.2 * each))
    last = finish(*start(asked, Path(out) / "killed"))
    print(json.dumps({"whole": whole, "before": ended, "last": last}), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
