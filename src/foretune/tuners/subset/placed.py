"""Placed: whole tensors by chance until the budget is spent, the control for where a budget lies.

After APET (Su et al. 2023, arXiv 2306.02320): tensors in an order drawn by the seed, of which each is taken whole if it
fits into what is left of the budget. A method that chooses weights must beat it.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import torch

from foretune.errors import UsageError
from foretune.tuners.subset.movement import Movement
from foretune.tuners.subset.part import Part
from foretune.tuners.subset.rules import Proposal, State
from foretune.tuners.subset.silo import Second, Silo

ENOUGH = 0.95
"""Share of the budget that is spent, where one of ``ORDERS`` spends it; if none does, the order that spends most."""
ORDERS = 100


@dataclass(frozen=True)
class Placed(Movement):
    """The subset is some tensors, whole, for good.

    Attributes:
        seed: of the order in which tensors are taken.
    """

    seed: int = 0

    def granted(self, silo: str, sizes: Sequence[int], k: int) -> int:
        """What the tensors hold that are taken.

        Raises:
            UsageError: none fits.
        """
        if min(sizes) > k:
            share = min(1.0, 1.06 * min(sizes) / sum(sizes))  # rounded to two digits not too little
            raise UsageError(
                f"Whole tensors are taken as long as they fit, but the smallest of the silo `{silo}` has "
                f"{min(sizes):,} weights, and its budget is {k:,} of {sum(sizes):,}. Use `--density {share:.2g}` or "
                "more, or let smaller tensors take part (`more`: biases, norms)."
            )
        return sum(sizes[i] for i in self._taken(silo, sizes, k, ENOUGH))

    def judge(self, silo: Silo, states: Sequence[State], proposals: Sequence[Proposal]) -> Second:
        if silo.chosen:
            return partial(silo.follow, [proposal.own() for proposal in proposals])
        taken = self._taken(silo.name, [part.total for part in silo.parts], silo.k, 1.0)
        scores = [_all_or_none(part, i in taken) for i, part in enumerate(silo.parts)]
        return partial(silo.move, silo.chosen_by(proposals, scores))

    def _taken(self, silo: str, sizes: Sequence[int], k: int, enough: float) -> list[int]:
        """The places of the tensors that are taken: the first order that spends the share ``enough`` of ``k`` decides.

        Of what was granted the same orders take the same tensors: none that was left out fits into less.
        """
        chance = torch.Generator().manual_seed(zlib.crc32(f"{self.seed} {silo}".encode()))
        best: list[int] = []
        for _ in range(ORDERS):
            taken, spent = [], 0
            for i in torch.randperm(len(sizes), generator=chance).tolist():
                if spent + sizes[i] <= k:
                    taken.append(i)
                    spent += sizes[i]
            if spent > sum(sizes[i] for i in best):
                best = taken
            if spent >= enough * k:
                break
        return best


def _all_or_none(part: Part, taken: bool) -> torch.Tensor:
    return torch.full_like(part.weight, float(taken), dtype=torch.float32)
