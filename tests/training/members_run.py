"""One training step and one evaluation of a prefix subspace, by a launcher of several processes or by a test.

Not a test: ``members_run.py CONFIG FOLDER`` writes what each process saw into ``FOLDER/<rank>.safetensors``.
"""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file

from foretune.records import Part, RunConfig
from foretune.tasks import Task
from foretune.training.loop import optimizer_step
from foretune.training.measure import score_dev
from foretune.training.prepare import prepare, trainable

ROWS = np.arange(9)
"""The examples of the step: an odd number, so that two processes get unequal shares."""


def step(config: RunConfig, task: Task | None = None) -> tuple[dict[str, torch.Tensor], list[torch.Tensor]]:
    """The gradient of one optimizer step (of plain SGD at rate 1), and the weights of every pass of this process."""
    run = prepare(config, task)
    mixture, passes = run.engine.bare.mixture, []
    network = run.engine.bare.get_base_model()
    network.register_forward_pre_hook(lambda module, args: passes.append(mixture.point.alpha.clone()))
    weights = trainable(run.engine.bare)
    before = {name: p.detach().clone() for name, p in weights.items()}
    optimizer_step(run, torch.optim.SGD([{"params": list(weights.values()), "peak": 1.0}], lr=1.0), ROWS, 0)
    return {name: before[name] - p.detach() for name, p in weights.items()}, passes


def observed(config: RunConfig, task: Task | None = None) -> dict[str, torch.Tensor]:
    """The first pass's ``alpha``; the gradient of the ``penalty``; the raw ``outputs`` and the ``score`` of dev."""
    beta = float(config.tuner.options["beta"])
    with_penalty, passes = step(config, task)
    without, _ = step(replace(config, tuner=Part(config.tuner.name, {**config.tuner.options, "beta": 0.0})), task)
    run = prepare(config, task)
    dev = run.encoded["dev"]
    ensemble = run.engine.tuner.ensemble(run.engine.bare, len(dev), 5)
    outputs, _ = run.engine.member_outputs(dev, ensemble)
    return {
        "alpha": passes[0],
        "passes": torch.tensor(len(passes)),
        "score": torch.tensor(list(score_dev(run).values()), dtype=torch.float64),
        "outputs": torch.from_numpy(outputs),
        **{f"penalty.{name}": (with_penalty[name] - without[name]) / beta for name in without},
    }


if __name__ == "__main__":
    torch.set_num_threads(1)
    seen = observed(RunConfig.from_json(json.loads(sys.argv[1])))
    rank = torch.distributed.get_rank()
    save_file({name: tensor.contiguous() for name, tensor in seen.items()}, Path(sys.argv[2]) / f"{rank}.safetensors")
    torch.distributed.destroy_process_group()
