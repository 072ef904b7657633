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
from functools import partial

import torch

from foretune.errors import DivergedError, UsageError
from foretune.tuners.subset.part import Part
from foretune.tuners.subset.relative import relative
from foretune.tuners.subset.rules import Proposal
from foretune.tuners.subset.still import exchange, unspoiled
from foretune.tuners.subset.topk import merged, places, reaching, smallest, threshold, top

Distance = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
"""(displacement, base) -> scores, elementwise, fp32, none negative; what lies at the base must score 0. The
displacement may be overwritten."""

Second = Callable[[], Sequence[torch.Tensor]]
"""The second half of a step, which changes weights; returns for each part flat places, all that went back among them,
any others still in the subset."""


def absolute(displacement: torch.Tensor, base: torch.Tensor) -> torch.Tensor:
    """|W - W0|."""
    return displacement.abs_()


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
        entered: weights that are new in the subset; as many left it. On its device, where asking would wait for it.
        dense: share of all steps so far in which all weights competed.
    """

    entered: int | torch.Tensor
    dense: float = 1.0


class Silo:
    """Tensors that share a budget.

    A step is in two halves: ``decide`` reads what the optimizer proposes and keeps of it a few numbers per part, so
    that gradients can be freed; what it returns changes weights.

    Attributes:
        parts: in a fixed order, by which ties are broken.
        k: weights that may be away from the base, or that may move in one step where others are left where they are.
        left: weights that leave the subset stay where they are. Not the method: the control for putting them back.
        change: what the last step did.
        certain: in the coming step no other weight can enter.
        finite: whether the last step was, where that is known on the device alone; if not, it moved nothing.
        groups: equal pieces, one behind the other, of which each has an equal share of ``k`` to itself.
    """

    groups: int = 1

    def __init__(
        self, name: str, parts: Sequence[Part], k: int, distance: Distance = absolute, left: bool = False
    ) -> None:
        total = sum(part.total for part in parts)
        if not 1 <= k <= total:
            raise UsageError(f"A silo must keep between 1 and all of its {total} weights, but `{name}` got k={k}.")
        self.name, self.parts, self.k, self.distance, self.left = name, tuple(parts), k, distance, left
        self.change, self.certain = Change(0), False
        self.finite: torch.Tensor | None = None
        self._least: tuple[list[int], float] | None = None
        self._largest: float | None = None

    @property
    def chosen(self) -> int:
        """Weights that may be away from the base now: none before the first step, then ``k``."""
        return sum(len(part.index) for part in self.parts)

    @property
    def still(self) -> bool:
        """Nothing may be asked of the device within a step, see the module ``still``. A silo of several tensors asks
        how many weights of each are in it."""
        return len(self.parts) == 1 and not self.left and self.parts[0].parameter.device.type != "cpu"

    def project(self, proposals: Sequence[Proposal]) -> Sequence[torch.Tensor]:
        """Move to the feasible point nearest to ``proposals``, one for each part: of all weights the ``k`` with the
        largest scores go there, every other one goes back to the base. Returns what went back, see ``Second``.

        Raises:
            DivergedError: a weight would become infinite or not a number; no weight of the silo was moved. Where the
                silo is ``still`` and its subset has ``k`` weights, ``finite`` says so instead.
        """
        return self.decide(proposals)()

    def decide(self, proposals: Sequence[Proposal]) -> Second:
        """``project`` but for its second half, which is returned.

        Raises:
            DivergedError: see ``project``.
        """
        if not self.still:
            return partial(self.move, self.judge(proposals))
        (part,), (proposal,) = self.parts, proposals
        own = proposal.own()
        scores = self._all_scores(part, proposal).scatter_(0, part.index, self._scores(part, own))
        made = exchange(part, proposal, own, scores.view(self.groups, -1), self.k // self.groups)
        if len(part.index) != self.k:  # the first step, or the first after a sum of subsets
            self._require_finite([scores, made.shadow])

        def move() -> Sequence[torch.Tensor]:
            self.change, self.finite = Change(made.entered), made.finite
            return [made.move()]

        return move

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
        leaving = min(int(self.change.entered) // 2, self.k // 5)
        entries = self._entries(proposals, own, scores, smallest(joined, len(joined) - self.k + leaving))
        if sum(len(entry.new) for entry in entries) < leaving:
            entries = self._entries(proposals, own, scores, smallest(joined, len(joined) - self.k))
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
        if self.still:
            hats, self.finite = unspoiled(self.parts, hats)
        else:
            self._require_finite(hats)
        return self._advance(hats)

    def nearest(self) -> torch.Tensor:
        """The smallest score in the subset, on its device; a tensor without sizes."""
        scores = torch.cat([self._scores(part, part.shadow) for part in self.parts])
        return scores.min() if len(scores) else scores.new_zeros(())

    def least(self) -> float:
        """The same as a number, for which the device is asked once as long as the subset stays as it is."""
        if self._least is None or self._least[0] != [part.moves for part in self.parts]:
            return self.remember(float(self.nearest()))
        return self._least[1]

    def remember(self, least: float) -> float:
        """Let ``least`` return that until the subset moves."""
        self._least = [part.moves for part in self.parts], least
        return least

    def largest(self) -> float:
        """The largest absolute value of the base, or one above it; the device is asked once for good."""
        if self._largest is None:
            self._largest = float(self.extent())
        return self._largest

    def extent(self) -> torch.Tensor:
        """The same on the device; a tensor without sizes."""
        found = [values.abs().max().float() for part in self.parts for values in (part.weight, part.old) if len(values)]
        return torch.stack(found).max()

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
            raise self.diverged()

    def diverged(self) -> DivergedError:
        """What to raise where a step of this silo is not finite."""
        return DivergedError(
            f"Weights must stay finite, but a step would make some of `{self.name}` infinite or not a number. Use a "
            "lower learning rate, or fp32."
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
    limit = smallest(joined, len(joined) - k)
    kept = joined >= limit
    if int(kept.sum()) > k:
        order = torch.cat([index.argsort() + start for index, start in zip(where(), _starts(sizes), strict=True)])
        kept = torch.empty_like(kept).scatter_(0, order, top(joined[order], k))
    return list(kept.split(sizes))


def _starts(sizes: Sequence[int]) -> list[int]:
    return [sum(sizes[:i]) for i in range(len(sizes))]


def budget(size: int, density: float, least: int = 1) -> int:
    """Weights of ``size`` that may be away: the share ``density``, rounded down, at least ``least``.

    The share is taken as it is written: 0.29 of 100 is 29, though the binary product lies below it.

    >>> budget(1000, 0.0019), budget(100, 0.001), budget(100, 0.29), budget(100, 1.0)
    (1, 1, 29, 100)
    """
    return min(size, max(least, int(Decimal(str(density)) * size)))
