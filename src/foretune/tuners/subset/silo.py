"""Silo: a group of tensors with a budget of k weights that may be away from where they began; and the projection.

After an optimizer's step on all weights the k that lie farthest from the base stay, every other goes back (Stahlberg
et al. 2024, arXiv 2411.08610; the closed form: the cost is separable and zero for a weight that stays). Weights outside
the subset *are* the base, so beside the model only k places, k fp32 values and k old values are kept.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import ClassVar

import torch

from foretune.errors import DivergedError, UsageError
from foretune.tuners.subset.rules import Proposal
from foretune.tuners.subset.topk import merged, places, reaching, threshold, top

Distance = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
"""(displacement, base) -> scores, elementwise, fp32, none negative; what lies at the base must score 0. The
displacement may be overwritten."""

REL_TAU = 1e-8


def absolute(displacement: torch.Tensor, base: torch.Tensor) -> torch.Tensor:
    """|W - W0|."""
    return displacement.abs_()


def relative(displacement: torch.Tensor, base: torch.Tensor) -> torch.Tensor:
    """|W - W0| / (|W0| + tau)."""
    return displacement.abs_().div_(base.abs() + REL_TAU)


DISTANCES: dict[str, Distance] = {"abs": absolute, "rel": relative}


def register_distance(name: str, distance: Distance) -> None:
    """Let ``DynamicSubset(distance=name)`` choose by ``distance``. A process that restores such a run does it first.

    >>> register_distance("squared", lambda displacement, base: displacement.square())
    >>> "squared" in DISTANCES
    True
    """
    DISTANCES[name] = distance


def distance_named(name: str) -> Distance:
    """The distance registered as ``name``.

    Raises:
        UsageError: there is none.
    """
    if name not in DISTANCES:
        raise UsageError(
            f"A distance must be one of {', '.join(DISTANCES)}, but got `{name}`. Give yours a name with "
            "`foretune.tuners.subset.silo.register_distance`."
        )
    return DISTANCES[name]


class Part:
    """One tensor of a silo and what of it is away from the base.

    Attributes:
        index: ``(k,)`` int64, ascending: the places that are away.
        shadow: ``(k,)`` fp32: their values, of which the model holds the rounding.
        old: ``(k,)`` in the model's type: the base's values there, bit for bit.
        sharded: other rows of the tensor lie in other processes.
    """

    sharded: ClassVar[bool] = False

    def __init__(self, name: str, parameter: torch.Tensor) -> None:
        if not parameter.is_contiguous():
            raise UsageError(f"A tensor must be contiguous in memory to be tuned in part, but `{name}` is not.")
        self.name, self.parameter = name, parameter
        self.index = torch.empty(0, dtype=torch.int64)
        self.shadow = torch.empty(0, dtype=torch.float32)
        self.old = torch.empty(0, dtype=parameter.dtype)

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
        return self._flat()

    def _flat(self) -> torch.Tensor:
        return self.parameter.detach().view(-1)

    def __len__(self) -> int:
        return self.parameter.numel()

    @property
    def total(self) -> int:
        """Weights of the whole tensor, of which ``len`` lie in this process."""
        return len(self)

    @property
    def grad(self) -> torch.Tensor:
        """The gradient of what lies here."""
        assert self.parameter.grad is not None
        return self.parameter.grad

    def mean(self, values: torch.Tensor, dim: int, keepdim: bool = False) -> torch.Tensor:
        """Over the dimension ``dim`` < 0 of ``values``, which begin with the tensor's first: in the whole tensor."""
        return values.mean(dim, keepdim=keepdim)

    def summed(self, value: torch.Tensor) -> torch.Tensor:
        """``value``, added up over all that holds a piece of the tensor."""
        return value

    def whole(self) -> torch.Tensor:
        """The weights of the whole tensor, flat."""
        return self.weight

    def gathered(self) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """``index``, ``shadow`` and ``old`` of the whole tensor."""
        return self.index, self.shadow, self.old

    def exact(self) -> torch.Tensor:
        """The tensor in fp32, flat, with the values of the subset unrounded: of an fp32 tensor its own memory."""
        weight = self.weight
        return weight if weight.dtype == torch.float32 else weight.float().scatter_(0, self.index, self.shadow)

    def base(self) -> torch.Tensor:
        """The base in fp32, flat; a copy."""
        return self.weight.to(torch.float32, copy=True).scatter_(0, self.index, self.old.float())

    def reset(self) -> None:
        """Put the base back."""
        self.weight.scatter_(0, self.index, self.old)

    def put(self, index: torch.Tensor, values: torch.Tensor) -> None:
        """Put the base back, then ``values`` (fp32) at ``index``, ascending."""
        self.reset()
        device = self.parameter.device
        self.index, self.shadow = index.to(device), values.to(device)
        self.old = self.weight.index_select(0, self.index)
        self.apply()

    def apply(self) -> None:
        """Write the subset's values, rounded to the model's type."""
        weight = self.weight
        weight.scatter_(0, self.index, self.shadow.to(weight.dtype))


@dataclass(frozen=True)
class Entry:
    """What a step would do to one part.

    Attributes:
        part: the tensor.
        own: ``(k,)`` fp32: where its subset would go.
        new: ``(m,)`` flat places, ascending, outside the subset: all that may have to enter it.
        hats: ``(m,)`` fp32: where those would go.
        scores: ``(k + m,)`` fp32: of the subset, then of the others.
    """

    part: Part
    own: torch.Tensor
    new: torch.Tensor
    hats: torch.Tensor
    scores: torch.Tensor

    def move(self, kept: torch.Tensor, left: bool) -> tuple[torch.Tensor, int]:
        """Make those of ``kept`` ``(k + m,)`` the subset of the part.

        Args:
            left: the others stay where they are; if not, they go back to the base.

        Returns:
            The flat places that went back, and how many weights are new.
        """
        part, k = self.part, len(self.own)
        weight, stays = part.weight, kept[:k]
        dropped = places(~stays)
        entered = places(kept[k:])
        own = self.own if not left else torch.where(stays, self.own, part.shadow)
        new, hats = self.new.index_select(0, entered), self.hats.index_select(0, entered)
        gone = part.index[:0] if left else part.index.index_select(0, dropped)
        weight.scatter_(0, gone, part.old.index_select(0, dropped[: len(gone)]))
        if len(new) or len(gone):
            index, order = merged(part.index, new, without=dropped[: len(gone)])
            part.shadow = torch.cat([own, hats]).index_select(0, order)
            part.old = torch.cat([part.old, weight.index_select(0, new)]).index_select(0, order)
            part.index = index
        else:
            part.shadow = own
        part.apply()
        return gone, len(new)


@dataclass(frozen=True)
class Change:
    """What a step did.

    Attributes:
        entered: weights that are new in the subset; as many left it.
        dense: share of all steps so far in which all weights competed.
    """

    entered: int
    dense: float = 1.0


class Silo:
    """Tensors that share a budget.

    A step is in two halves: ``judge`` reads what the optimizer proposes and keeps of it a few numbers per part, so that
    gradients can be freed; ``move`` changes weights.

    Attributes:
        parts: in a fixed order, by which ties are broken.
        k: weights that may be away from the base, or that may move in one step where others are left where they are.
        left: weights that leave the subset stay where they are. Not the method: the control for putting them back.
        change: what the last step did.
        certain: in the coming step no other weight can enter.
    """

    def __init__(
        self, name: str, parts: Sequence[Part], k: int, distance: Distance = absolute, left: bool = False
    ) -> None:
        total = sum(part.total for part in parts)
        if not 1 <= k <= total:
            raise UsageError(f"A silo must keep between 1 and all of its {total} weights, but `{name}` got k={k}.")
        self.name, self.parts, self.k, self.distance, self.left = name, tuple(parts), k, distance, left
        self.change, self.certain = Change(0), False

    @property
    def chosen(self) -> int:
        """Weights that may be away from the base now: none before the first step, then ``k``."""
        return sum(len(part.index) for part in self.parts)

    def project(self, proposals: Sequence[Proposal]) -> list[torch.Tensor]:
        """Move to the feasible point nearest to ``proposals``, one for each part: of all weights the ``k`` with the
        largest scores go there, every other one goes back to the base. Returns what went back, see ``move``.

        Raises:
            DivergedError: a weight would become infinite or not a number; no weight of the silo was moved.
        """
        return self.move(self.judge(proposals))

    def judge(self, proposals: Sequence[Proposal]) -> list[Entry]:
        """What ``proposals`` would do to the subset, and every other weight that may have to enter it.

        The k-th largest score of all is at least the k-th largest in the subset, so only newcomers that reach that are
        looked at: after the first steps a handful, or none. It is at least the (k - d)-th largest if d newcomers or
        more reach that, which spares most of them; d is half of what entered in the last step, and if too few come,
        all are looked at. This is exact, not an estimate.

        Raises:
            DivergedError: see ``project``.
        """
        own = [proposal.own() for proposal in proposals]
        scores = [self._scores(part, values) for part, values in zip(self.parts, own, strict=True)]
        if self.chosen < self.k:
            return self._entries(proposals, own, scores, self._first_floor(proposals))
        joined = torch.cat(scores)
        leaving = min(self.change.entered // 2, self.k // 5)
        entries = self._entries(proposals, own, scores, _smallest(joined, len(joined) - self.k + leaving))
        if sum(len(entry.new) for entry in entries) < leaving:
            entries = self._entries(proposals, own, scores, _smallest(joined, len(joined) - self.k))
        return entries

    def _entries(
        self,
        proposals: Sequence[Proposal],
        own: Sequence[torch.Tensor],
        scores: Sequence[torch.Tensor],
        floor: torch.Tensor,
    ) -> list[Entry]:
        found = []
        for part, proposal, mine, scored in zip(self.parts, proposals, own, scores, strict=True):
            new, theirs = self._newcomers(part, proposal, floor)
            if len(new):
                found.append(Entry(part, mine, new, proposal.at(new), torch.cat([scored, theirs])))
            else:
                found.append(Entry(part, mine, new, mine[:0], scored))
        self._require_finite([entry.scores for entry in found])
        return found

    def move(self, entries: Sequence[Entry]) -> list[torch.Tensor]:
        """Make the ``k`` with the largest scores the subset; returns for each part the flat places that went back."""
        if sum(len(entry.scores) for entry in entries) == self.chosen == self.k:
            return self._advance([entry.own for entry in entries])
        kept = top_of(
            [entry.scores for entry in entries], lambda: [torch.cat([e.part.index, e.new]) for e in entries], self.k
        )
        moved = [entry.move(own, self.left) for entry, own in zip(entries, kept, strict=True)]
        self.change = Change(sum(new for _, new in moved))
        return [gone for gone, _ in moved]

    def chosen_by(self, proposals: Sequence[Proposal], scores: Sequence[torch.Tensor]) -> list[Entry]:
        """The ``k`` weights with the largest ``scores``, for ``move``: a static mask, chosen once and for all.

        Raises:
            DivergedError: see ``project``.
        """
        joined = torch.cat([score.reshape(-1).float() for score in scores])
        entries = []
        for part, proposal, mine in zip(
            self.parts, proposals, top(joined, self.k).split([len(part) for part in self.parts]), strict=True
        ):
            new = mine.nonzero().squeeze(1)
            hats = proposal.at(new)
            entries.append(Entry(part, hats[:0], new, hats, torch.ones_like(hats)))
        self._require_finite([entry.hats for entry in entries])
        return entries

    def follow(self, hats: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        """Move the subset as it is to ``hats``, one ``(k,)`` for each part, selecting nothing: nothing goes back.

        Raises:
            DivergedError: see ``project``.
        """
        self._require_finite(hats)
        return self._advance(hats)

    def least(self) -> float:
        """The smallest score in the subset."""
        scores = torch.cat([self._scores(part, part.shadow) for part in self.parts])
        return float(scores.min()) if len(scores) else 0.0

    def _advance(self, hats: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        for part, hat in zip(self.parts, hats, strict=True):
            part.shadow = hat
            part.apply()
        self.change = Change(0)
        return [part.index[:0] for part in self.parts]

    def _scores(self, part: Part, values: torch.Tensor) -> torch.Tensor:
        base = part.old.float()
        return self.distance(values - base, base)

    def _all_scores(self, part: Part, proposal: Proposal) -> torch.Tensor:
        """Scores of every weight outside the subset; of those inside -1."""
        weight = part.weight
        return self.distance(proposal.displacement(), weight.float()).scatter_(0, part.index, -1.0)

    def _first_floor(self, proposals: Sequence[Proposal]) -> torch.Tensor:
        """A score that the ``k``-th largest of all reaches, while nothing is chosen yet."""
        total = sum(len(part) for part in self.parts)
        shares = [min(len(part), -(-self.k * len(part) // total)) for part in self.parts]
        found = [
            threshold(self._all_scores(part, proposal).clamp_(min=0.0), share)
            for part, proposal, share in zip(self.parts, proposals, shares, strict=True)
        ]
        return torch.stack(found).min()

    def _newcomers(self, part: Part, proposal: Proposal, floor: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Flat places, ascending, outside the subset, of every weight whose score reaches ``floor``; and the scores."""
        scores = self._all_scores(part, proposal)
        new = reaching(scores, floor)
        return new, scores.index_select(0, new)

    def _require_finite(self, values: Sequence[torch.Tensor]) -> None:
        if not all(math.isfinite(float(value.abs().max())) for value in values if len(value)):
            raise DivergedError(
                f"Weights must stay finite, but a step would make some of `{self.name}` infinite or not a number. Use "
                "a lower learning rate, or fp32."
            )


def top_of(scores: Sequence[torch.Tensor], where: Callable[[], Sequence[torch.Tensor]], k: int) -> list[torch.Tensor]:
    """Which are the ``k`` largest of ``scores``, a mask for each; of equal ones the first by part, then by place.

    Args:
        where: the flat places of each part's scores, asked for where there are ties.
    """
    joined = torch.cat(list(scores))
    sizes = [len(score) for score in scores]
    if len(joined) == k:
        return [torch.ones(size, dtype=torch.bool, device=joined.device) for size in sizes]
    limit = joined.kthvalue(len(joined) - k + 1).values
    kept = joined >= limit
    if int(kept.sum()) > k:
        order = torch.cat([index.argsort() + start for index, start in zip(where(), _starts(sizes), strict=True)])
        kept = torch.empty_like(kept).scatter_(0, order, top(joined[order], k))
    return list(kept.split(sizes))


def _smallest(scores: torch.Tensor, more: int) -> torch.Tensor:
    """The smallest but ``more`` of ``scores``."""
    return scores.kthvalue(more + 1).values if more else scores.min()


def _starts(sizes: Sequence[int]) -> list[int]:
    return [sum(sizes[:i]) for i in range(len(sizes))]


def budget(size: int, density: float, least: int = 1) -> int:
    """Weights of ``size`` that may be away: the share ``density``, rounded down, at least ``least``.

    The share is taken as it is written: 0.29 of 100 is 29, though the binary product lies below it.

    >>> budget(1000, 0.0019), budget(100, 0.001), budget(100, 0.29), budget(100, 1.0)
    (1, 1, 29, 100)
    """
    return min(size, max(least, int(Decimal(str(density)) * size)))
