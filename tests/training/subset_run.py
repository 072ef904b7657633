"""Some steps of a moving subset, and a hash of what it holds after each, by several processes or by a test.

Not a test: ``subset_run.py WORLD CONFIG PORT FOLDER`` forks as many processes, so that what loads slowly is loaded
once; each writes its hashes into ``FOLDER/<rank>.json``.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
from pathlib import Path

import numpy as np
import torch

from foretune.records import RunConfig
from foretune.tasks import Task
from foretune.training.loop import optimizer_step
from foretune.training.optimizer import make_optimizer
from foretune.training.prepare import prepare
from foretune.tuners.subset.model import subset_of

ROWS = (np.arange(9), np.arange(9, 16), np.arange(16, 27), np.arange(3, 10), np.arange(11, 20))
"""The examples of each step: odd numbers, so that processes get unequal shares."""


def held(config: RunConfig, task: Task | None = None) -> dict[str, list[str]]:
    """Hashes after every step: of the ``places`` of the subset, and of its ``values``."""
    run = prepare(config, task)
    optimizer, hashes = make_optimizer(run), {"places": [], "values": []}
    for step, rows in enumerate(ROWS):
        optimizer_step(run, optimizer, rows, step)
        parts = subset_of(run.engine.bare).parts
        for kept, tensors in zip(hashes.values(), ([p.index for p in parts], [p.shadow for p in parts]), strict=True):
            kept.append(hashlib.sha256(torch.cat(tensors).numpy().tobytes()).hexdigest())
    return hashes


def main(world: str, config: str, port: str, folder: str) -> None:
    torch.set_num_threads(1)
    children = []
    for rank in range(int(world)):
        child = os.fork()
        if not child:
            place = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": world}
            place |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
            os.environ |= {name: str(value) for name, value in place.items()}
            found = held(RunConfig.from_json(json.loads(config)))
            assert torch.distributed.get_world_size() == int(world)
            (Path(folder) / f"{rank}.json").write_text(json.dumps(found), encoding="utf-8")
            torch.distributed.destroy_process_group()
            os._exit(0)
        children.append(child)
    sys.exit(max(os.waitpid(child, 0)[1] for child in children) != 0)


if __name__ == "__main__":
    main(*sys.argv[1:])
