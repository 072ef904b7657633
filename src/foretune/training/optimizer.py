"""AdamW with the groups that fine-tuning needs, a rate that is a pure function of the step, its state by name."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from foretune.records import Schedule
from foretune.training.prepare import Prepared, trainable
from foretune.training.state import Tensors

if TYPE_CHECKING:
    from torch.optim import Optimizer

MOMENTS = ("exp_avg", "exp_avg_sq", "step")


def make_optimizer(run: Prepared) -> Optimizer:
    """AdamW over four groups: {body, fresh head} x {matrices, vectors}.

    Biases and norms (one dimension) are not decayed, as in BERT's own recipe. A head that starts at random may have a
    rate of its own (``Schedule.head_lr``): the rate that keeps pretrained weights intact hardly moves it.
    """
    import torch

    schedule = run.config.schedule
    groups: dict[tuple[bool, bool], list[torch.nn.Parameter]] = {}
    for name, parameter in trainable(run.engine.bare).items():
        fresh = any(f".{module}." in f".{name}" for module in run.fresh)
        groups.setdefault((fresh, parameter.dim() >= 2), []).append(parameter)
    return torch.optim.AdamW(
        [
            {
                "params": parameters,
                "peak": (schedule.head_lr or schedule.lr) if fresh else schedule.lr,
                "weight_decay": schedule.weight_decay if decayed else 0.0,
            }
            for (fresh, decayed), parameters in groups.items()
        ],
        fused=True,
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
    """The optimizer's state by parameter name: ``name.exp_avg``, ``name.exp_avg_sq``, ``name.step``."""
    return {
        f"{name}.{key}": optimizer.state[parameter][key]
        for name, parameter in weights.items()
        if parameter in optimizer.state
        for key in MOMENTS
    }


def restore_moments(optimizer: Optimizer, weights: Tensors, kept: Tensors) -> None:
    """The inverse of ``moments``, on a fresh optimizer over the same parameters."""
    for name, parameter in weights.items():
        if f"{name}.step" in kept:
            optimizer.state[parameter] = {key: kept[f"{name}.{key}"].to(parameter.device) for key in MOMENTS}
