"""Run the same configs twice in processes of their own: once in one go, once killed again and again. Not a test.

``python killed_runs.py CONFIGS OUT KILLS``: ``CONFIGS`` is JSON, name -> config; ``OUT/<name>/whole`` and
``OUT/<name>/killed`` get the run folders. Every run is a forked child, so what loads slowly is loaded once.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import time
from pathlib import Path

import torch

from foretune.records import RunConfig
from foretune.training.progress import Progress
from foretune.training.run import train


class Told(Progress):
    """Writes one byte per step into a pipe."""

    def __init__(self, pipe: int) -> None:
        self.pipe = pipe

    def step(self, step: int, loss: float, seconds_left: float) -> None:
        os.write(self.pipe, b".")


def start(config: RunConfig, folder: Path) -> tuple[int, int]:
    """Fork a child that runs ``config``; its process id and the pipe of its steps."""
    reading, writing = os.pipe()
    child = os.fork()
    if child:
        os.close(writing)
        return child, reading
    try:
        os.close(reading)
        train(config, folder=folder, progress=Told(writing), floors=False, save_every=0.0)
        os._exit(0)
    except BaseException as error:
        print(repr(error), file=sys.stderr, flush=True)
        os._exit(1)


def finish(child: int, pipe: int) -> int:
    """Wait for the end; the steps it took."""
    steps = 0
    while read := os.read(pipe, 4096):
        steps += len(read)
    os.close(pipe)
    _, status = os.waitpid(child, 0)
    if status:
        raise SystemExit(f"a run ended with status {status}")
    return steps


def kill(child: int, pipe: int, after: int, delay: float) -> None:
    """SIGKILL ``delay`` seconds after so many steps: in the middle of a step, or of a save."""
    for _ in range(after):
        if not os.read(pipe, 1):
            break
    time.sleep(delay)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    os.close(pipe)


def main(configs: str, out: str, kills: str) -> None:
    rng = random.Random(0)
    torch.set_num_threads(1)
    for plain in json.loads(configs).values():
        train(RunConfig.from_json(plain), floors=False)
    for name, plain in json.loads(configs).items():
        config, told = RunConfig.from_json(plain), {}
        told["whole"] = finish(*start(config, Path(out) / name / "whole"))
        for _ in range(int(kills)):
            kill(*start(config, Path(out) / name / "killed"), rng.randint(1, 4), rng.uniform(0.0, 0.03))
        told["last"] = finish(*start(config, Path(out) / name / "killed"))
        print(json.dumps({name: told}), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
