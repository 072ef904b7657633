"""Silo: a group of tensors with a budget of k weights that may be away from where they began; and the projection.

After an optimizer's step on all weights the k that lie farthest from the base stay, every other goes back (Stahlberg
et al. 2024, arXiv 2411.08610; the closed form: the cost is separable and zero for a weight that stays). Weights outside
the subset *are* the base, so beside the model only k places, k fp32 values and k old values are kept.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from foretune.errors import UsageError
from foretune.tuners.subset.rules import Proposal
from foretune.tuners.subset.select import largest

Distance = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
"""(displacement, base) -> scores, elementwise, none negative; what lies at the base must score 0."""

REL_TAU = 1e-8


def absolute(displacement: torch.Tensor, base: torch.Tensor) -> torch.Tensor:
    """|W - W0|."""
    return displacement.abs()


def relative(displacement: torch.Tensor, base: torch.Tensor) -> torch.Tensor:
    """|W - W0| / (|W0| + tau)."""
    return displacement.abs() / (base.abs() + REL_TAU)


DISTANCES: dict[str, Distance] = {"abs": absolute, "rel": relative}


class Part:
    """One tensor of a silo and what of it is away from the base.

    Attributes:
        magnitude: the largest absolute value of the base.
        index: ``(k,)`` int64, ascending: the places that are away.
        shadow: ``(k,)`` fp32: their values, of which the model holds the rounding.
        old: ``(k,)`` in the model's type: the base's values there, bit for bit.
    """

    def __init__(self, name: str, parameter: torch.Tensor) -> None:
        if not parameter.is_contiguous():
            raise UsageError(f"A tensor must be contiguous in memory to be tuned in part, but `{name}` is not.")
        self.name, self.parameter = name, parameter
        self.magnitude = float(self.weight.abs().max())
        self.index = torch.empty(0, dtype=torch.int64)
        self.shadow = torch.empty(0, dtype=torch.float32)
        self.old = torch.empty(0, dtype=parameter.dtype)

    @property
    def weight(self) -> torch.Tensor:
        """The parameter, flat; it shares memory with the model, wherever that was moved or copied to."""
        return self.parameter.detach().view(-1)

    def __len__(self) -> int:
        return self.parameter.numel()

    def exact(self) -> torch.Tensor:
        """The tensor in fp32, with the values of the subset unrounded, in the parameter's shape; always a copy."""
        whole = self.weight.to(torch.float32, copy=True)
        if self.weight.dtype != torch.float32:
            whole[self.index] = self.shadow
        return whole.view(self.parameter.shape)

    def exact_at(self, index: torch.Tensor) -> torch.Tensor:
        """The values at flat places ``index`` in fp32, those of the subset unrounded."""
        values = self.weight[index].to(torch.float32, copy=True)
        if self.weight.dtype != torch.float32 and len(self.index):
            place = torch.searchsorted(self.index, index).clamp_(max=len(self.index) - 1)
            values = torch.where(self.index[place] == index, self.shadow[place], values)
        return values

    def base_at(self, index: torch.Tensor) -> torch.Tensor:
        """The base's values at flat places ``index``, fp32."""
        values = self.weight[index].to(torch.float32, copy=True)
        if len(self.index):
            place = torch.searchsorted(self.index, index).clamp_(max=len(self.index) - 1)
            values = torch.where(self.index[place] == index, self.old[place].float(), values)
        return values

    def base(self) -> torch.Tensor:
        """The base in fp32, flat; a copy."""
        values = self.weight.to(torch.float32, copy=True)
        values[self.index] = self.old.float()
        return values

    def reset(self) -> None:
        """Put the base back."""
        self.weight[self.index] = self.old

    def put(self, index: torch.Tensor, values: torch.Tensor) -> None:
        """Put the base back, then ``values`` (fp32) at ``index``."""
        self.reset()
        device = self.parameter.device
        self.index, self.shadow = index.to(device), values.to(device)
        self.old = self.weight[self.index].clone()
        self.apply()

    def apply(self) -> None:
        """Write the subset's values, rounded to the model's type."""
        self.weight[self.index] = self.shadow.to(self.weight.dtype)


@dataclass(frozen=True)
class Change:
    """What a projection did: weights that entered (as many left), and the smallest score that stayed."""

    entered: int
    least: float


class Silo:
    """Tensors that share a budget.

    Attributes:
        parts: in a fixed order, by which ties are broken.
        k: weights that may be away from the base.
        change: what the last step did.
    """

    def __init__(self, name: str, parts: Sequence[Part], k: int, distance: Distance = absolute) -> None:
        total = sum(len(part) for part in parts)
        if not 1 <= k <= total:
            raise UsageError(f"A silo must keep between 1 and all of its {total} weights, but `{name}` got k={k}.")
        self.name, self.parts, self.k, self.distance = name, tuple(parts), k, distance
        self.change = Change(0, 0.0)

    @property
    def chosen(self) -> int:
        """Weights that are away from the base: ``k``, or none before the first step."""
        return sum(len(part.index) for part in self.parts)

    def project(self, proposals: Sequence[Proposal]) -> None:
        """Keep the ``k`` weights that would lie farthest from the base, put everything else back.

        Args:
            proposals: where the optimizer would put the weights of each part.

        A weight of the subset scores at least as much as the subset's least, and the k-th largest score of all is at
        least that. So only newcomers that reach it are compared: after the first steps a handful of candidates. This is
        exact, not an estimate.
        """
        pools = self._pools(proposals)
        hats = [proposal.at(pool) for proposal, pool in zip(proposals, pools, strict=True)]
        bases = [part.base_at(pool) for part, pool in zip(self.parts, pools, strict=True)]
        scores = torch.cat([self.distance(hat - base, base) for hat, base in zip(hats, bases, strict=True)])
        picked = largest(scores, self.k)
        self.change = Change(self._put(hats, pools, picked), float(scores[picked].min()))

    def _pools(self, proposals: Sequence[Proposal]) -> list[torch.Tensor]:
        """Flat places of each part among which the ``k`` are: all at first, then the subset and who reaches it."""
        device = self.parts[0].parameter.device
        if self.chosen < self.k:
            return [torch.arange(len(part), device=device) for part in self.parts]
        own = [
            self.distance(proposal.at(part.index) - part.old.float(), part.old.float())
            for part, proposal in zip(self.parts, proposals, strict=True)
        ]
        floor = torch.cat(own).min()
        return [self._reaching(part, proposal, floor) for part, proposal in zip(self.parts, proposals, strict=True)]

    def _reaching(self, part: Part, proposal: Proposal, floor: torch.Tensor) -> torch.Tensor:
        found = proposal.beyond(floor) if self.distance is absolute else None
        if found is None:
            base = part.base()
            return (self.distance(proposal.dense().reshape(-1) - base, base) >= floor).nonzero().squeeze(1)
        new = found[~torch.isin(found, part.index, assume_unique=True)]
        return torch.cat([part.index, new]).sort().values

    def choose(self, proposals: Sequence[Proposal], scores: Sequence[torch.Tensor]) -> None:
        """Make the ``k`` weights with the largest ``scores`` the subset, once and for all: a static mask."""
        pools = [torch.arange(len(part), device=s.device) for part, s in zip(self.parts, scores, strict=True)]
        picked = largest(torch.cat([s.reshape(-1).float() for s in scores]), self.k)
        hats = [proposal.dense().reshape(-1) for proposal in proposals]
        self.change = Change(self._put(hats, pools, picked), 0.0)

    def _put(self, hats: Sequence[torch.Tensor], pools: Sequence[torch.Tensor], picked: torch.Tensor) -> int:
        """Make ``picked``, places in the joined ``pools``, the subset, with their ``hats``; how many are new in it."""
        entered, start = 0, 0
        for part, hat, pool in zip(self.parts, hats, pools, strict=True):
            mine = picked[(picked >= start) & (picked < start + len(pool))] - start
            start += len(pool)
            index = pool[mine]
            entered += int(len(index) - torch.isin(index, part.index.to(index.device), assume_unique=True).sum())
            part.put(index, hat[mine])
        return entered

    def follow(self, proposals: Sequence[Proposal]) -> None:
        """Move the subset as it is, selecting nothing: a static mask."""
        for part, proposal in zip(self.parts, proposals, strict=True):
            part.shadow = proposal.at(part.index)
            part.apply()
        self.change = Change(0, 0.0)


def budget(size: int, density: float, least: int = 1) -> int:
    """Weights of ``size`` that may be away: the share ``density``, rounded down, at least ``least``.

    >>> budget(1000, 0.0019), budget(100, 0.001), budget(100, 1.0)
    (1, 1, 100)
    """
    return min(size, max(least, int(density * size)))
