"""What several processes may do to a subset, and what is refused because each would choose a subset of its own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import distributed, nn

from foretune.errors import UsageError
from foretune.tuners.subset.part import Part

EVERY = 50
"""Steps from one comparison of the processes' subsets to the next."""


def world() -> int:
    """How many processes train together."""
    spread = distributed.is_available() and distributed.is_initialized()
    return distributed.get_world_size() if spread else 1


def require_unpartitioned(network: nn.Module) -> None:
    """Raise ``UsageError`` where weights lie in pieces that no projection can work on: FSDP1's flat parameters and
    DeepSpeed ZeRO-3's partitions, by the marks that these leave on parameters."""
    marks = {"_fsdp_flattened": "FSDP1 has flattened", "ds_id": "DeepSpeed ZeRO-3 has partitioned"}
    for name, parameter in network.named_parameters():
        for mark, what in marks.items():
            if mark in vars(parameter):
                raise UsageError(
                    f"A subset needs tensors in their own shape, but {what} `{name}`. Use DDP, where every process "
                    "holds all of it, or `fully_shard`."
                )


def require_in_place(network: nn.Module, parts: Sequence[Part]) -> None:
    """Raise ``UsageError`` where ``network`` no longer holds the tensors that a subset was attached to."""
    require_unpartitioned(network)
    held = {id(parameter) for parameter in network.parameters()}
    for part in parts:
        if id(part.parameter) not in held:
            raise UsageError(
                f"A network must keep the tensors that a subset was attached to, but `{part.name}` was replaced "
                "afterwards. Call `fully_shard`, or whatever else replaces them, before the subset is attached."
            )


def require_one_process() -> None:
    """Raise ``UsageError`` where several processes would each choose a subset of their own under an overlay."""
    if (count := world()) > 1:
        raise UsageError(
            f"`backend=adapter` trains in one process, but there are {count}, whose gradients are not averaged. Use "
            "one, or a base that is not quantised with `backend=inplace`."
        )


def require_gathering_alone() -> None:
    """Raise ``UsageError`` where DDP would wait for gradients that are not computed, and nobody would average those of
    the subset."""
    if (count := world()) > 1:
        raise UsageError(
            f"Gradients of the subset alone are computed in one process, but there are {count}. Use `gather=false`, "
            "which computes and averages all of them, or `preset=exact`."
        )


def require_freeing(parts: Sequence[Part]) -> None:
    """Raise ``UsageError`` where a gradient is not yet the average over processes when the backward pass has made it:
    in a tensor that each of them holds whole."""
    if (count := world()) > 1 and (whole := [part for part in parts if not part.sharded]):
        raise UsageError(
            f"Gradients can be freed in the backward pass where it leaves their average, but there are {count} "
            f"processes and each holds all of `{whole[0].name}`. Use `free=False`, or `fully_shard` with more than one "
            "shard before the subset is attached."
        )


def require_uncompiled() -> None:
    """Stop ``torch.compile`` while it reads an optimizer's step: it would leave the step as it is in places, and round
    otherwise than written in others. It shows the sentence in an error of its own."""
    if torch.compiler.is_compiling():
        from torch._dynamo.comptime import comptime

        comptime(_refuse_compiling)


def _refuse_compiling(_: Any) -> None:
    raise UsageError(
        "The step of a subset's optimizer must run as it is written, but it was given to `torch.compile`. Compile the "
        "model alone."
    )


def require_unscaled(optimizer: object) -> None:
    """Raise ``UsageError`` where a ``GradScaler`` has left its mark on ``optimizer``, whose gradients are read before
    the scale can be taken out of them."""
    if "found_inf" in vars(optimizer):
        raise UsageError(
            "Gradients that are freed or gathered in the backward pass are read there, but a `GradScaler` takes its "
            "scale out of them only afterwards. Use bf16 in place of fp16, or `free=False` and `gather=false`."
        )


def require_agreement(parts: Sequence[Part], step: int) -> None:
    """Raise ``UsageError``, in every process, where processes that each hold whole tensors hold different subsets."""
    shared = [part for part in parts if not part.sharded]
    if world() == 1 or not shared:
        return
    mine = torch.stack([_hash(part) * (2 * i + 1) for i, part in enumerate(shared)]).sum().view(1)
    all_of_them = [torch.empty_like(mine) for _ in range(world())]
    distributed.all_gather(all_of_them, mine)
    hashes = torch.cat(all_of_them).tolist()
    if odd := [rank for rank, found in enumerate(hashes) if found != hashes[0]]:
        raise UsageError(
            f"Every process must hold the same subset, but after step {step} process {odd[0]} holds another than "
            "process 0. Begin with the same weights everywhere, and let DDP average the gradients."
        )


def _hash(part: Part) -> torch.Tensor:
    """Of the places of ``part``; nothing waits for the device."""
    mixed = (part.index + 1) * 0x2545F4914F6CDD1D
    mixed = (mixed ^ (mixed >> 29)) * 0x1B03738712FAD5C9
    return (mixed ^ (mixed >> 32)).sum()
