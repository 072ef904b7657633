"""One run, to be started by a launcher of several processes. Not a test: ``distributed_run.py CONFIG FOLDER``."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch

from foretune.records import RunConfig
from foretune.training.run import train

if __name__ == "__main__":
    torch.set_num_threads(1)
    config, folder = sys.argv[1:]
    train(RunConfig.from_json(json.loads(config)), folder=Path(folder), deadline_seconds=600.0, save_every=0.0)
    torch.distributed.destroy_process_group()
