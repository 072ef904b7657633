"""ExpertSilo: fused experts, one tensor of three dimensions, each of which has a budget of its own.

Else experts that see many tokens would take the places of those that see few. All are judged at once: a layer may have
hundreds.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from foretune.tuners.subset.part import Part
from foretune.tuners.subset.rules import Proposal
from foretune.tuners.subset.silo import Change, Distance, Entry, Silo, absolute
from foretune.tuners.subset.topk import reaching


class ExpertSilo(Silo):
    """One part ``(experts, rows, columns)``; of each expert's weights ``each`` may be away from the base."""

    def __init__(
        self, name: str, parts: Sequence[Part], each: int, distance: Distance = absolute, left: bool = False
    ) -> None:
        (part,) = parts
        self.experts = self.groups = part.parameter.shape[0]
        self.each = each
        super().__init__(name, parts, self.experts * each, distance, left)

    def judge(self, proposals: Sequence[Proposal]) -> list[Entry]:
        """As ``Silo.judge``, with a floor for each expert: the least score in its subset, or at first, where it has
        none, its ``each``-th largest of all."""
        (part,), (proposal,) = self.parts, proposals
        own = proposal.own()
        mine = self._scores(part, own)
        scores = self._all_scores(part, proposal).view(self.experts, -1)
        floor = self._floors(part, mine, scores)
        new = reaching((scores - floor.unsqueeze(1)).view(-1), floor.new_zeros(()))
        entry = Entry(part, own, new, proposal.at(new), torch.cat([mine, scores.view(-1).index_select(0, new)]))
        self._require_finite([entry.scores])
        return [entry]

    def move(self, entries: Sequence[Entry]) -> list[torch.Tensor]:
        (entry,) = entries
        if len(entry.scores) == self.chosen == self.k:
            return self._advance([entry.own])
        gone, entered = entry.move(self._kept(entry), self.left)
        self.change = Change(entered)
        return [gone]

    def chosen_by(self, proposals: Sequence[Proposal], scores: Sequence[torch.Tensor]) -> list[Entry]:
        (part,), (proposal,) = self.parts, proposals
        each = scores[0].reshape(self.experts, -1).float()
        order = each.argsort(dim=1, descending=True, stable=True)[:, : self.each]
        size = each.shape[1]
        new = (order + torch.arange(self.experts, device=order.device).unsqueeze(1) * size).view(-1).sort().values
        hats = proposal.at(new)
        self._require_finite([hats])
        return [Entry(part, hats[:0], new, hats, torch.ones_like(hats))]

    def _floors(self, part: Part, mine: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """``(experts,)``: a score that the ``each``-th largest of every expert reaches."""
        if len(part.index) == self.k:
            return self._without_vain_ties(part, mine.view(self.experts, self.each))
        joined = scores.view(-1).scatter(0, part.index, mine).view_as(scores)
        return joined.kthvalue(joined.shape[1] - self.each + 1, dim=1).values

    def _without_vain_ties(self, part: Part, mine: torch.Tensor) -> torch.Tensor:
        """``(experts,)``: the least score in every subset or, where none that only equals it could enter, the next
        larger number.

        Of equal scores the first by place stay, so one enters where it lies before the last of the least in the subset.
        Where the subset holds every place before that, all ties are in vain: of an expert without tokens every weight
        ties, at 0, and would be a candidate in every step.

        Args:
            mine: ``(experts, each)``.
        """
        floor = mine.min(1, keepdim=True).values
        place = part.index.view_as(mine) % (len(part) // self.experts)
        last = place.where(mine == floor, -1).amax(1, keepdim=True)
        full = (place <= last).sum(1, keepdim=True) == last + 1
        return torch.where(full, floor.nextafter(floor.new_tensor(torch.inf)), floor).squeeze(1)

    def _kept(self, entry: Entry) -> torch.Tensor:
        """Which are the ``each`` largest of every expert; of equal ones the first by place."""
        places = torch.cat([entry.part.index, entry.new])
        order = places.argsort()
        order = order[entry.scores[order].argsort(descending=True, stable=True)]
        expert = torch.div(places[order], len(entry.part) // self.experts, rounding_mode="floor")
        by_expert = expert.argsort(stable=True)
        order, expert = order[by_expert], expert[by_expert]
        counts = torch.bincount(expert, minlength=self.experts)
        rank = torch.arange(len(order), device=order.device) - (counts.cumsum(0) - counts)[expert]
        return torch.zeros(len(order), dtype=torch.bool, device=order.device).scatter_(0, order, rank < self.each)
