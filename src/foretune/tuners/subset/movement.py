"""Movement: which weights may be away from the base, given where an optimizer would put all of them.

``Moving`` is the method, the static masks are the controls it must beat: the same silos, budgets and update rules, with
a subset that is chosen once.
"""

from __future__ import annotations

import zlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from foretune.tuners.subset.rules import Proposal, State
from foretune.tuners.subset.silo import Part, Silo


class Movement(ABC):
    """How the subset of a silo goes from step to step."""

    def watch(self, part: Part, state: State) -> None:
        """Look at the gradient of ``part`` before the rule overwrites it; ``state`` is kept by checkpoints."""
        return None

    @abstractmethod
    def step(self, silo: Silo, states: Sequence[State], proposals: Sequence[Proposal]) -> None:
        """Move the weights of ``silo``.

        Args:
            states: what is remembered of each part, by name: checkpoints keep it.
            proposals: where the optimizer would put the weights of each part.
        """


class Moving(Movement):
    """The farthest stay, all others go back: chosen anew in every step."""

    def step(self, silo: Silo, states: Sequence[State], proposals: Sequence[Proposal]) -> None:
        silo.project(proposals)


@dataclass(frozen=True)
class Static(Movement):
    """A mask that is chosen by ``score`` and then kept.

    Attributes:
        score: one of ``SCORES``.
        seed: of the random mask.
        warmup: steps whose gradients are summed before the mask is chosen; until then these weights stay.
    """

    score: str
    seed: int = 0
    warmup: int = 1

    def step(self, silo: Silo, states: Sequence[State], proposals: Sequence[Proposal]) -> None:
        if silo.chosen:
            silo.follow(proposals)
            return
        if int(states[0]["mask_steps"]) < self.warmup:
            return
        noise = torch.Generator().manual_seed(zlib.crc32(f"{self.seed} {silo.name}".encode()))
        scores = [
            SCORES[self.score](part, state["mask_sum"], noise) for part, state in zip(silo.parts, states, strict=True)
        ]
        silo.choose(proposals, scores)
        for state in states:
            del state["mask_sum"]

    def watch(self, part: Part, state: State) -> None:
        """Add the gradient of ``part`` to what the mask will be chosen by."""
        if len(part.index) or int(state.get("mask_steps", 0)) >= self.warmup:
            return
        gradient = part.parameter.grad
        assert gradient is not None
        power = gradient.float().square() if self.score == "fisher" else gradient.float()
        state["mask_sum"] = state["mask_sum"] + power if "mask_sum" in state else power.clone()
        state["mask_steps"] = state.get("mask_steps", torch.zeros(())) + 1


Score = Callable[[Part, torch.Tensor, torch.Generator], torch.Tensor]
"""(part, summed gradients or their squares, source of chance) -> scores."""

SCORES: dict[str, Score] = {
    "random": lambda part, power, noise: torch.rand(part.parameter.shape, generator=noise).to(power.device),
    "gradient": lambda part, power, noise: power.abs(),
    "fisher": lambda part, power, noise: power,
    "largest": lambda part, power, noise: part.parameter.detach().float().abs(),
    "smallest": lambda part, power, noise: 1.0 / (part.parameter.detach().float().abs() + 1e-12),
}
"""What a static mask may be chosen by: chance, |sum of g|, sum of g^2, the largest or the smallest |W0|."""
