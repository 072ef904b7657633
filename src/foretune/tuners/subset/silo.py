"""Silo: a group of tensors with a budget of k weights that may be away from where they began; and the projection.

After an optimizer's step on all weights the k that lie farthest from the base stay, every other goes back (Stahlberg
et al. 2024, arXiv 2411.08610; the closed form: the cost is separable and zero for a weight that stays). Weights outside
the subset *are* the base, so beside the model only k places, k fp32 values and k old values are kept.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from decimal import Decimal

import torch

from foretune.errors import DivergedError, UsageError
from foretune.tuners.subset.rules import Proposal
from foretune.tuners.subset.topk import top

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
        self.index = torch.empty(0, dtype=torch.int64)
        self.shadow = torch.empty(0, dtype=torch.float32)
        self.old = torch.empty(0, dtype=parameter.dtype)
        self.magnitude = float(self.weight.abs().max())

    @property
    def weight(self) -> torch.Tensor:
        """The parameter, flat; it shares memory with the model, and what is kept beside it follows to its device.

        Raises:
            UsageError: the model was converted to another type, from which no rounding leads back to its base.
        """
        if self.parameter.dtype != self.old.dtype:
            raise UsageError(
                f"A model must keep the type it had at `attach`, but `{self.name}` was {self.old.dtype} and is now "
                f"{self.parameter.dtype}. Convert it before `attach` or after `merge`."
            )
        device = self.parameter.device
        if self.index.device != device:
            self.index, self.shadow, self.old = (kept.to(device) for kept in (self.index, self.shadow, self.old))
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

    def base(self) -> torch.Tensor:
        """The base in fp32, flat; a copy."""
        values = self.weight.to(torch.float32, copy=True)
        values[self.index] = self.old.float()
        return values

    def reset(self) -> None:
        """Put the base back."""
        weight = self.weight
        weight[self.index] = self.old

    def put(self, index: torch.Tensor, values: torch.Tensor) -> None:
        """Put the base back, then ``values`` (fp32) at ``index``."""
        self.reset()
        device = self.parameter.device
        self.index, self.shadow = index.to(device), values.to(device)
        self.old = self.weight[self.index]
        self.apply()

    def apply(self) -> None:
        """Write the subset's values, rounded to the model's type."""
        weight = self.weight
        weight[self.index] = self.shadow.to(weight.dtype)


class Pool:
    """Weights of one part that may be in the subset after a step: those in it now, and newcomers.

    Attributes:
        index: ``(n,)`` flat places, ascending.
        hats: ``(n,)`` fp32: where the step would put them.
        old: ``(n,)`` in the model's type: the base's values.
        new: ``(n,)`` bool: who is not in the subset now.
    """

    def __init__(self, part: Part, hats: torch.Tensor) -> None:
        """The subset as it is, at ``hats``."""
        self.part, self.hats, self.index, self.old = part, hats, part.index, part.old
        self.new = torch.zeros(len(hats), dtype=torch.bool, device=hats.device)

    @classmethod
    def whole(cls, part: Part, proposal: Proposal) -> Pool:
        """Every weight of ``part``."""
        base = part.weight.clone()
        base[part.index] = part.old
        made = cls(part, proposal.dense().reshape(-1))
        made.index, made.old = torch.arange(len(part), device=base.device), base
        made.new = torch.ones(len(part), dtype=torch.bool, device=base.device)
        made.new[part.index] = False
        return made

    def add(self, index: torch.Tensor, hats: torch.Tensor) -> None:
        """Newcomers at flat places ``index``, ascending and none of them here."""
        if not len(index):
            return
        own, more = len(self.index), len(index)
        there = torch.searchsorted(self.index, index)
        before = torch.zeros(own + 1, dtype=torch.int64, device=index.device)
        before.scatter_add_(0, there, torch.ones_like(there))
        places = torch.arange(own, device=index.device) + before.cumsum(0)[:own]
        others = there + torch.arange(more, device=index.device)

        def joined(mine: torch.Tensor, theirs: torch.Tensor) -> torch.Tensor:
            made = mine.new_empty(own + more)
            made[places], made[others] = mine, theirs
            return made

        self.old = joined(self.old, self.part.weight[index])
        self.index, self.hats = joined(self.index, index), joined(self.hats, hats)
        self.new = joined(self.new, torch.ones_like(index, dtype=torch.bool))

    def keep(self, kept: torch.Tensor) -> int:
        """Make those of ``kept`` ``(n,)`` the subset of the part, put the others back; how many are new in it."""
        part, weight = self.part, self.part.weight
        gone = (~kept & ~self.new).nonzero().squeeze(1)
        weight[self.index[gone]] = self.old[gone]
        mine = kept.nonzero().squeeze(1)
        part.index, part.shadow, part.old = self.index[mine], self.hats[mine], self.old[mine]
        part.apply()
        return int((kept & self.new).sum())


@dataclass(frozen=True)
class Change:
    """What a projection did: weights that entered (as many left), and the smallest score in the subset."""

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
        least that. So only newcomers that reach it are compared: after the first steps a handful, or none, and then the
        subset moves as it is. This is exact, not an estimate.

        Raises:
            DivergedError: a weight would become infinite or not a number; no weight of the silo was moved.
        """
        if self.chosen < self.k:
            self._keep([Pool.whole(part, proposal) for part, proposal in zip(self.parts, proposals, strict=True)])
            return
        pools = [Pool(part, proposal.at(part.index)) for part, proposal in zip(self.parts, proposals, strict=True)]
        self._require_finite([pool.hats for pool in pools])
        floor = torch.cat([self._scores(pool) for pool in pools]).min()
        found = [self._newcomers(part, proposal, floor) for part, proposal in zip(self.parts, proposals, strict=True)]
        if not any(map(len, found)):
            self._move([pool.hats for pool in pools])
            return
        for pool, proposal, new in zip(pools, proposals, found, strict=True):
            pool.add(new, proposal.at(new))
        self._keep(pools)

    def _scores(self, pool: Pool) -> torch.Tensor:
        base = pool.old.float()
        return self.distance(pool.hats - base, base)

    def _newcomers(self, part: Part, proposal: Proposal, floor: torch.Tensor) -> torch.Tensor:
        """Flat places, ascending, outside the subset, of every weight whose score may reach ``floor``."""
        if self.distance is absolute and (found := proposal.beyond(floor, part.index)) is not None:
            return found
        base = part.base()
        below = self.distance(proposal.dense().reshape(-1) - base, base) < floor
        below[part.index] = True
        return below.logical_not_().nonzero().squeeze(1)  # what is not a number is not below

    def choose(self, proposals: Sequence[Proposal], scores: Sequence[torch.Tensor]) -> None:
        """Make the ``k`` weights with the largest ``scores`` the subset, once and for all: a static mask."""
        pools = [Pool.whole(part, proposal) for part, proposal in zip(self.parts, proposals, strict=True)]
        self._keep(pools, [score.reshape(-1).float() for score in scores])

    def _keep(self, pools: Sequence[Pool], scores: Sequence[torch.Tensor] | None = None) -> None:
        """Make the ``k`` of ``pools`` with the largest scores (by distance, if not given) the subset; the rest of them
        goes back to the base."""
        joined = torch.cat(list(scores) if scores is not None else [self._scores(pool) for pool in pools])
        mine = top(joined, self.k).split([len(pool.hats) for pool in pools])
        self._require_finite([torch.where(own, pool.hats, 0.0) for pool, own in zip(pools, mine, strict=True)])
        entered = sum(pool.keep(own) for pool, own in zip(pools, mine, strict=True))
        self.change = Change(entered, self._least())

    def follow(self, proposals: Sequence[Proposal]) -> None:
        """Move the subset as it is, selecting nothing: a static mask."""
        hats = [proposal.at(part.index) for part, proposal in zip(self.parts, proposals, strict=True)]
        self._require_finite(hats)
        self._move(hats)

    def _move(self, hats: Sequence[torch.Tensor]) -> None:
        for part, hat in zip(self.parts, hats, strict=True):
            part.shadow = hat
            part.apply()
        self.change = Change(0, self._least())

    def _least(self) -> float:
        bases = [part.old.float() for part in self.parts]
        scores = [self.distance(part.shadow - base, base) for part, base in zip(self.parts, bases, strict=True)]
        return float(torch.cat(scores).min())

    def _require_finite(self, values: Sequence[torch.Tensor]) -> None:
        if not torch.isfinite(torch.cat(list(values))).all():
            raise DivergedError(
                f"Weights must stay finite, but a step would make some of `{self.name}` infinite or not a number. Use "
                "a lower learning rate, or fp32."
            )


def budget(size: int, density: float, least: int = 1) -> int:
    """Weights of ``size`` that may be away: the share ``density``, rounded down, at least ``least``.

    The share is taken as it is written: 0.29 of 100 is 29, though the binary product lies below it.

    >>> budget(1000, 0.0019), budget(100, 0.001), budget(100, 0.29), budget(100, 1.0)
    (1, 1, 29, 100)
    """
    return min(size, max(least, int(Decimal(str(density)) * size)))
