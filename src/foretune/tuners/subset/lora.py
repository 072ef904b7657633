"""A subset as LoRA, for servers that take nothing else: the nearest matrices of a low rank, and how far off they are.

Per matrix the delta's singular value decomposition is cut at the rank, which is the best that LoRA can hold (Eckart
and Young 1936). A sparse delta is not of low rank, so much may be lost; every loss is measured on the factors as they
are written, and the caller says how much of it is allowed.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

import torch

from foretune.errors import ModelError, UsageError
from foretune.tuners import _peft
from foretune.tuners.subset.model import ATTRIBUTE, whole_subset_of
from foretune.tuners.targets import is_linear, transposed, written

if TYPE_CHECKING:
    from peft import PeftModel
    from torch import nn
    from transformers import PreTrainedModel

    from foretune.tuners.subset.part import Part

ADAPTER = "default"


@dataclass(frozen=True)
class LoraFit:
    """What LoRA of one rank holds of a subset.

    Attributes:
        weights: those away from the base.
        rank: of every matrix.
        parameters: numbers in the LoRA matrices.
        relative_error: Frobenius norm of what is lost over that of the delta, all matrices together.
        by_matrix: module -> the same for its matrix.
        outputs: largest change of an output on a probe batch; None where none was given.
    """

    weights: int
    rank: int
    parameters: int
    relative_error: float
    by_matrix: Mapping[str, float]
    outputs: float | None = None


@dataclass(frozen=True)
class Cut:
    """The factors of one matrix and what they leave out.

    Attributes:
        up, down: ``(out, rank)`` and ``(rank, in)``; their product is the nearest matrix of that rank.
        lost, whole: squared Frobenius norms of the error and of the delta.
        singular: its singular values, largest first.
    """

    up: torch.Tensor
    down: torch.Tensor
    lost: float
    whole: float
    singular: torch.Tensor


def cut(delta: torch.Tensor, rank: int) -> Cut:
    """The best factors of ``delta``, ``(out, in)`` fp32; columns beyond its full rank are zeros.

    >>> found = cut(torch.tensor([[3.0, 0.0], [0.0, 4.0]]), 1)
    >>> round(found.lost, 4), found.whole
    (9.0, 25.0)
    """
    left, singular, right = torch.linalg.svd(delta, full_matrices=False)
    kept, root = min(rank, len(singular)), singular[:rank].sqrt()
    up, down = delta.new_zeros(len(delta), rank), delta.new_zeros(rank, delta.shape[1])
    up[:, :kept], down[:kept] = left[:, :kept] * root, root.unsqueeze(1) * right[:kept]
    lost = float((delta - up @ down).square().sum())
    return Cut(up, down, lost, float(delta.square().sum()), singular)


def rank_for(cuts: Sequence[Cut], tolerance: float) -> int:
    """The least rank at which no more than ``tolerance`` is lost of all matrices together.

    >>> rank_for([cut(torch.diag(torch.tensor([4.0, 3.0])), 1)], 0.61), rank_for([cut(torch.eye(2), 1)], 0.1)
    (1, 2)
    """
    longest = max(len(found.singular) for found in cuts)
    energy = torch.zeros(longest, dtype=torch.float64)
    for found in cuts:
        energy[: len(found.singular)] += found.singular.double().square().cpu()
    beyond = energy.sum() - energy.cumsum(0)
    within = (beyond <= tolerance**2 * energy.sum()).nonzero()
    return int(within[0]) + 1 if len(within) else longest


def convert(model: nn.Module, rank: int, tolerance: float = math.inf) -> tuple[PeftModel, LoraFit]:
    """``model`` as LoRA. Done in place: ``model`` is not to be used afterwards.

    Args:
        rank: of every matrix.
        tolerance: the relative error that is allowed over all matrices.

    Raises:
        UsageError: a rank below 1.
        ModelError: LoRA cannot hold what was tuned, or loses more than ``tolerance``; then ``model`` is as it was.
    """
    from peft import LoraConfig

    if rank < 1:
        raise UsageError(f"`rank >= 1` must hold, but got rank={rank}.")
    subset, network = whole_subset_of(model), cast("PreTrainedModel", model)
    parts = {part.name.removesuffix(".weight"): part for part in subset.parts if len(part.index)}
    if not parts:
        raise ModelError("No weight is away from the base, so LoRA has nothing to hold. Use `full`.")
    cuts = {name: cut(_delta(network, name, part), rank) for name, part in parts.items()}
    whole = sum(found.whole for found in cuts.values())
    error = math.sqrt(sum(found.lost for found in cuts.values()) / whole) if whole else 0.0
    if error > tolerance:
        raise ModelError(
            f"LoRA may lose {tolerance:g} of the delta, but rank {rank} loses {error:.3g} (relative Frobenius norm). "
            f"Use rank {rank_for(list(cuts.values()), tolerance)} or more, a larger `tolerance`, or `supertuning`, "
            "which holds a sparse delta as it is."
        )
    for part in parts.values():
        part.reset()
    del vars(network)[ATTRIBUTE]
    config = LoraConfig(
        r=rank,
        lora_alpha=rank,
        target_modules=written(network, list(parts)),
        fan_in_fan_out=transposed(network, list(parts)),
        task_type=_peft.task_type(network),
    )
    wrapped = _peft.wrap(network, config, subset.heads, ADAPTER)
    for name, found in cuts.items():
        layer = network.get_submodule(name)
        layer.lora_A[ADAPTER].weight.data.copy_(found.down)
        layer.lora_B[ADAPTER].weight.data.copy_(found.up)
    return wrapped, LoraFit(
        weights=sum(len(part.index) for part in parts.values()),
        rank=rank,
        parameters=sum(found.up.numel() + found.down.numel() for found in cuts.values()),
        relative_error=error,
        by_matrix={name: math.sqrt(found.lost / found.whole) if found.whole else 0.0 for name, found in cuts.items()},
    )


def _delta(network: nn.Module, name: str, part: Part) -> torch.Tensor:
    """What ``part`` adds to the base, fp32, ``(out, in)``."""
    owner, _, what = part.name.rpartition(".")
    module = network.get_submodule(owner)
    if what != "weight" or not is_linear(module):
        raise ModelError(
            f"LoRA holds changes of linear maps, but `{part.name}`, in a `{type(module).__name__}`, was tuned as well. "
            "Use `full`."
        )
    dense = torch.zeros(len(part), device=part.parameter.device)
    dense[part.index] = part.shadow.to(part.old.dtype).float() - part.old.float()
    dense = dense.view(part.parameter.shape)
    return dense.T.contiguous() if transposed(network, [name]) else dense
