"""AdamW with the groups that fine-tuning needs, a rate that is a pure function of the step, its state by name."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from foretune.records import Schedule
from foretune.training.prepare import Prepared, trainable
from foretune.training.state import Tensors

if TYPE_CHECKING:
    from torch import nn
    from torch.optim import Optimizer


def make_optimizer(run: Prepared) -> Optimizer:
    """The tuner's optimizer (AdamW) over groups of equal rate, decay and clipping.

    They are {body, fresh head} x {matrices, vectors}. Biases and norms (one dimension) are not decayed, as in BERT's
    own recipe; a tuner may say otherwise of its own. A head that starts at random may have a rate of its own
    (``Schedule.head_lr``): the rate that keeps pretrained weights intact hardly moves it.
    """
    schedule = run.config.schedule
    tuner, bare = run.engine.tuner, run.engine.bare
    groups: dict[tuple[bool, float, bool], list[nn.Parameter]] = {}
    for name, parameter in trainable(bare).items():
        fresh = any(f".{module}." in f".{name}" for module in run.fresh)
        decay = tuner.decay(name, schedule.weight_decay if parameter.dim() >= 2 else 0.0)
        groups.setdefault((fresh, decay, tuner.clips(bare, name)), []).append(parameter)
    return tuner.optimizer_for(
        bare,
        [
            {
                "params": parameters,
                "peak": (schedule.head_lr or schedule.lr) if fresh else schedule.lr,
                "weight_decay": decay,
                "clip": clip,
            }
            for (fresh, decay, clip), parameters in groups.items()
        ],
        schedule,
    )


def learning_rate(schedule: Schedule, step: int) -> float:
    """The share of the peak rate at optimizer step ``step``, counted from 0.

    >>> schedule = Schedule(steps=10, warmup=0.2, decay="linear")
    >>> [round(learning_rate(schedule, s), 3) for s in (0, 1, 2, 9)]
    [0.5, 1.0, 1.0, 0.125]
    """
    warm = math.ceil(schedule.warmup * schedule.steps)
    if step < warm:
        return (step + 1) / warm
    progress = (step - warm) / max(1, schedule.steps - warm)
    if schedule.decay == "cosine":
        return 0.5 * (1.0 + math.cos(math.pi * progress))
    return 1.0 - progress if schedule.decay == "linear" else 1.0


def moments(optimizer: Optimizer, weights: Tensors) -> Tensors:
    """The optimizer's state by parameter name: for AdamW ``name.exp_avg``, ``name.exp_avg_sq``, ``name.step``."""
    return {
        f"{name}.{key}": value
        for name, parameter in weights.items()
        if parameter in optimizer.state
        for key, value in optimizer.state[parameter].items()
    }


def restore_moments(optimizer: Optimizer, weights: Tensors, kept: Tensors) -> None:
    """The inverse of ``moments``, on a fresh optimizer over the same parameters. Where each number belongs, beside its
    parameter or on the host, the optimizer itself knows: a step counted on the wrong one would wait for the device."""
    blank = optimizer.state_dict()
    numbers = {
        parameter: number
        for group, shown in zip(optimizer.param_groups, blank["param_groups"], strict=True)
        for parameter, number in zip(group["params"], shown["params"], strict=True)
    }
    state: dict[int, dict[str, Any]] = {}
    for name, parameter in weights.items():
        own = {key.removeprefix(f"{name}."): value for key, value in kept.items() if key.rpartition(".")[0] == name}
        if own:
            state[numbers[parameter]] = own
    optimizer.load_state_dict({**blank, "state": state})
