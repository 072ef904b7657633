"""Selection in tensors whose sizes are known beforehand, for devices that work behind the program's back.

How many weights enter a subset is known on the device alone, and a program that asks waits for all that it has queued
there. Here nothing is asked: the ``k`` places are found among all scores at once, the whole subset goes back, the new
one is laid down, and whether a number was spoiled stays on the device until the step is over. The bits are those of
``Silo.judge`` and ``Silo.move``, which on a CPU, where asking costs nothing, look at the few newcomers alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from foretune.tuners.subset.part import Part
    from foretune.tuners.subset.rules import Proposal


def largest(scores: torch.Tensor, k: int) -> torch.Tensor:
    """Flat places of the ``k`` largest in every row of ``scores`` ``(groups, n)``, none of them negative:
    ``(groups * k,)``, ascending; of equal ones the first. Any places where not all are finite.

    >>> largest(torch.tensor([[2.0, 5.0, 2.0, 2.0], [0.0, 0.0, 1.0, 0.0]]), 2).tolist()
    [0, 1, 4, 6]
    """
    counts = torch.int32 if scores.shape[1] < 2**31 else torch.int64
    limit = scores.topk(k, dim=1, sorted=False).values.amin(1, keepdim=True)
    kept = scores > limit
    missing = k - kept.sum(1, keepdim=True)
    equal = scores == limit
    kept |= equal & (equal.cumsum(1, dtype=counts) <= missing)
    return torch.nonzero_static(kept.view(-1), size=len(scores) * k, fill_value=0).squeeze(1)


@dataclass(frozen=True)
class Exchange:
    """What a step does to a part, decided on its device.

    Attributes:
        part: the tensor.
        index, shadow, old: ``(k,)``: its subset after the step, see ``Part``.
        entered: how many weights are new in it; without sizes.
        finite: whether all numbers were; if not, the subset is what it was, where that has as many weights.
    """

    part: Part
    index: torch.Tensor
    shadow: torch.Tensor
    old: torch.Tensor
    entered: torch.Tensor
    finite: torch.Tensor

    def move(self) -> torch.Tensor:
        """Lay the new subset down; returns the flat places of the one that went back."""
        gone = self.part.index
        self.part.reset()
        self.part.index, self.part.shadow, self.part.old = self.index, self.shadow, self.old
        self.part.apply()
        return gone


def exchange(part: Part, proposal: Proposal, own: torch.Tensor, scores: torch.Tensor, k: int) -> Exchange:
    """What ``proposal`` does to ``part``.

    Args:
        own: ``(k,)`` fp32: where its subset would go.
        scores: ``(groups, n / groups)`` fp32: of all weights.
        k: weights of each group that may be away from the base.
    """
    index = largest(scores, k)
    shadow, old = proposal.at(index), part.weight.index_select(0, index)
    stays = torch.zeros_like(index, dtype=torch.bool)
    if len(part.index):
        place = torch.searchsorted(part.index, index).clamp_(max=len(part.index) - 1)
        stays = part.index.index_select(0, place) == index
        shadow = torch.where(stays, own.index_select(0, place), shadow)
        old = torch.where(stays, part.old.index_select(0, place), old)
    finite = _finite([scores, shadow])
    if len(part.index) == len(index):
        index, shadow, old = (
            torch.where(finite, new, kept)
            for new, kept in ((index, part.index), (shadow, part.shadow), (old, part.old))
        )
    return Exchange(part, index, shadow, old, stays.logical_not().sum(), finite)


def unspoiled(parts: Sequence[Part], hats: Sequence[torch.Tensor]) -> tuple[list[torch.Tensor], torch.Tensor]:
    """``hats``, or where one of them is not finite what ``parts`` have; and whether all were."""
    finite = _finite(hats)
    return [torch.where(finite, hat, part.shadow) for part, hat in zip(parts, hats, strict=True)], finite


def _finite(values: Sequence[torch.Tensor]) -> torch.Tensor:
    return torch.stack([value.isfinite().all() for value in values]).all()
