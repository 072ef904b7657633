"""Tensors that FSDP2's ``fully_shard`` has cut along their first dimension: the subset is that of the whole tensor.

Each process steps on its shard. What has to be known of the whole tensor is exchanged: the scores that may be among
the k largest (k of the subset and the newcomers: O(k) numbers, not O(n)), Adafactor's column means, mean row mean and
size of the step. Ranks hold rows in order, so ties go to the lowest flat place as in one process. A silo is a tensor.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, ClassVar, TypeVar

import torch
from torch import distributed, nn
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor, Replicate, Shard

from foretune.errors import DivergedError, UsageError
from foretune.tuners.subset.part import Part
from foretune.tuners.subset.rules import Proposal
from foretune.tuners.subset.silo import Change, Entry, Silo, top_of
from foretune.tuners.subset.topk import smallest, threshold

Made = TypeVar("Made")


class Ranks:
    """The processes that hold the shards of a tensor, in the order of its rows; every method is called by all."""

    def __init__(self, group: Any, device: torch.device) -> None:
        self.group, self.device = group, device
        self.rank, self.size = distributed.get_rank(group), distributed.get_world_size(group)

    def gather(self, values: torch.Tensor) -> tuple[torch.Tensor, int]:
        """All ranks' ``values`` ``(n,)``, one rank's behind the other's, and where this one's begin."""
        sizes = self._all(torch.tensor([len(values)], device=self.device)).flatten().tolist()
        padded = values.new_zeros(max(sizes))
        padded[: len(values)] = values
        pieces = self._all(padded)
        joined = torch.cat([piece[:size] for piece, size in zip(pieces, sizes, strict=True)])
        return joined, sum(sizes[: self.rank])

    def sum(self, values: torch.Tensor) -> torch.Tensor:
        """The sum over ranks, in place."""
        distributed.all_reduce(values, group=self.group)
        return values

    def count(self, number: int) -> int:
        """The sum over ranks."""
        return int(self.sum(torch.tensor(number, device=self.device)))

    def least(self, value: torch.Tensor) -> torch.Tensor:
        """The smallest over ranks, in place."""
        distributed.all_reduce(value, distributed.ReduceOp.MIN, group=self.group)
        return value

    def together(self, make: Callable[[], Made]) -> Made:
        """What ``make`` returns; if it raises in one rank, it raises in all, so that none waits for another."""
        made, error = [], None
        try:
            made.append(make())
        except DivergedError as found:
            error = found
        if self.count(error is not None):
            raise error or DivergedError(
                "Weights must stay finite, but a step would make some infinite or not a number in another process. Use "
                "a lower learning rate, or fp32."
            )
        return made[0]

    def _all(self, values: torch.Tensor) -> torch.Tensor:
        made = values.new_empty((self.size, len(values)))
        distributed.all_gather(list(made), values, group=self.group)
        return made


class ShardedPart(Part):
    """The rows of a tensor that lie in this process. Places are counted from the first of them.

    Attributes:
        start: flat place of the first in the whole tensor.
        chosen: weights of the whole tensor that are away from the base.
    """

    sharded: ClassVar[bool] = True

    parameter: DTensor

    def __init__(self, name: str, parameter: DTensor) -> None:
        super().__init__(name, parameter)
        cut = [i for i, placement in enumerate(parameter.placements) if not isinstance(placement, Replicate)]
        if len(cut) != 1 or parameter.placements[cut[0]] != Shard(0):
            raise UsageError(
                f"A tensor that is tuned in part may be sharded along its first dimension, once, but `{name}` is "
                f"placed {list(parameter.placements)}. Use `fully_shard` as it is, or one process."
            )
        self._mesh_dim, self.chosen = cut[0], 0
        row, rows = max(1, parameter.numel() // max(1, len(parameter))), len(parameter)
        self.start = min(rows, self.ranks.rank * -(-rows // self.ranks.size)) * row

    @property
    def ranks(self) -> Ranks:
        """Who holds the other rows."""
        return Ranks(self.parameter.device_mesh.get_group(self._mesh_dim), self.parameter.device)

    def _flat(self) -> torch.Tensor:
        local: torch.Tensor = self.parameter.to_local()
        return local.detach().view(-1)

    def __len__(self) -> int:
        return self.parameter.to_local().numel()

    @property
    def total(self) -> int:
        return self.parameter.numel()

    @property
    def grad(self) -> torch.Tensor:
        grad = self.parameter.grad
        assert isinstance(grad, DTensor)
        return grad.to_local()

    def mean(self, values: torch.Tensor, dim: int, keepdim: bool = False) -> torch.Tensor:
        if values.dim() + dim:
            return values.mean(dim, keepdim=keepdim)
        return self.ranks.sum(values.sum(dim, keepdim=keepdim)).div_(len(self.parameter))

    def summed(self, value: torch.Tensor) -> torch.Tensor:
        return self.ranks.sum(value)

    def whole(self) -> torch.Tensor:
        gathered: torch.Tensor = self.parameter.full_tensor()
        return gathered.detach().view(-1)

    def gathered(self) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        weight, ranks = self.weight, self.ranks
        index, shadow, old = (ranks.gather(kept)[0] for kept in (self.index + self.start, self.shadow, self.old))
        return index, shadow, old.to(weight.dtype)

    def put(self, index: torch.Tensor, values: torch.Tensor) -> None:
        """Args:
        index: in the whole tensor, of which this takes what lies here.
        """
        here = (index >= self.start) & (index < self.start + len(self))
        super().put(index[here] - self.start, values[here])
        self.chosen = len(index)


class ShardedSilo(Silo):
    """A silo of one tensor in shards. It moves as ``Silo`` does, and every process through the same exchanges.

    Raises:
        UsageError: there are several tensors.
    """

    def __init__(self, name: str, parts: Sequence[Part], *settings: Any, **more: Any) -> None:
        super().__init__(name, parts, *settings, **more)
        if len(parts) > 1:
            raise UsageError(
                f"The silo of a sharded tensor is that tensor, but `{name}` would hold {len(parts)}. Use `silo=tensor`."
            )

    @property
    def part(self) -> ShardedPart:
        """Its one part."""
        (part,) = self.parts
        assert isinstance(part, ShardedPart)
        return part

    @property
    def chosen(self) -> int:
        return self.part.chosen

    @property
    def still(self) -> bool:
        return False

    def judge(self, proposals: Sequence[Proposal]) -> list[Entry]:
        ranks, own = self.part.ranks, [proposals[0].own()]
        scores = [self._scores(self.part, own[0])]
        if self.chosen < self.k:
            floor = ranks.least(ranks.together(lambda: self._first_floor(proposals)))
            return ranks.together(lambda: self._entries(proposals, own, scores, floor))
        joined, _ = ranks.gather(scores[0])
        leaving, more = min(int(self.change.entered) // 2, self.k // 5), len(joined) - self.k
        entries = ranks.together(lambda: self._entries(proposals, own, scores, smallest(joined, more + leaving)))
        if leaving and ranks.count(len(entries[0].new)) < leaving:
            entries = ranks.together(lambda: self._entries(proposals, own, scores, smallest(joined, more)))
        return entries

    def move(self, entries: Sequence[Entry]) -> list[torch.Tensor]:
        (entry,), part, ranks = entries, self.part, self.part.ranks
        joined, begin = ranks.gather(entry.scores)
        if len(joined) == part.chosen == self.k:
            return self._advance([entry.own])

        def places() -> list[torch.Tensor]:
            return [ranks.gather(torch.cat([part.index, entry.new]) + part.start)[0]]

        (kept,) = top_of([joined], places, self.k)
        gone, new = entry.move(kept[begin : begin + len(entry.scores)], self.left)
        entered = ranks.count(new)
        self.change = Change(entered)
        part.chosen = part.chosen + entered if self.left else self.k
        return [gone]

    def follow(self, hats: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        self.part.ranks.together(lambda: self._require_finite(hats))
        return self._advance(hats)

    def chosen_by(self, proposals: Sequence[Proposal], scores: Sequence[torch.Tensor]) -> list[Entry]:
        raise UsageError(
            f"A static mask is chosen where a process holds the whole tensor, but `{self.name}` is sharded. Use DDP, "
            "or one process."
        )

    def nearest(self) -> torch.Tensor:
        part = self.part
        scores = self._scores(part, part.shadow)
        nearest = scores.min() if len(scores) else scores.new_full((), torch.inf)
        return part.ranks.least(nearest) if part.chosen else scores.new_zeros(())

    def extent(self) -> torch.Tensor:
        part = self.part
        own = super().extent() if len(part) else torch.zeros((), device=part.parameter.device)
        return part.ranks.least(own.neg()).neg()

    def _first_floor(self, proposals: Sequence[Proposal]) -> torch.Tensor:
        part = self.part
        if not len(part):
            return torch.tensor(torch.inf, device=part.parameter.device)
        share = min(len(part), -(-self.k * len(part) // part.total))
        return threshold(self._all_scores(part, proposals[0]).clamp_(min=0.0), share)

    def _newcomers(self, part: Part, proposal: Proposal, floor: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        if not len(part):
            return part.index[:0], part.shadow[:0]
        return super()._newcomers(part, proposal, floor)


def part_of(name: str, parameter: torch.Tensor) -> Part:
    """The part that moves ``parameter`` where it lies: here, or in shards."""
    return ShardedPart(name, parameter) if isinstance(parameter, DTensor) else Part(name, parameter)


def as_shards(network: nn.Module) -> None:
    """Let FSDP2 drop what a pass without a backward pass has left gathered: a change of shards would not reach it."""
    for module in network.modules():
        if isinstance(module, FSDPModule):
            module.reshard()


def full(tensor: torch.Tensor) -> torch.Tensor:
    """All of ``tensor``, wherever its shards lie."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def copy_into(parameter: torch.Tensor, value: torch.Tensor) -> None:
    """Write ``value``, whole or in shards like those of ``parameter``."""
    if isinstance(parameter, DTensor) and not isinstance(value, DTensor):
        from torch.distributed.tensor import distribute_tensor

        value = distribute_tensor(value.to(parameter.device), parameter.device_mesh, parameter.placements)
    parameter.copy_(value)
