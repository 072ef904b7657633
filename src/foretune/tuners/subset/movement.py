"""Movement: which weights may be away from the base, given where an optimizer would put all of them.

``Moving`` is the method, the static masks are the controls it must beat: the same silos, budgets and update rules, with
a subset that is chosen once.
"""

from __future__ import annotations

import zlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import torch

from foretune.tuners.subset.cadence import PRESETS, Cadence
from foretune.tuners.subset.part import Part
from foretune.tuners.subset.rules import Proposal, State
from foretune.tuners.subset.silo import Second, Silo

EPS = torch.finfo(torch.float32).eps


class Movement(ABC):
    """How the subset of a silo goes from step to step."""

    def watch(self, part: Part, state: State) -> None:
        """Look at the gradient of ``part`` before the rule overwrites it; ``state`` is kept by checkpoints."""
        return None

    sums: ClassVar[bool] = False
    """Whether ``watch`` keeps a number for every weight, at least for a while."""

    @property
    def steady(self) -> bool:
        """All weights compete in every step, or none after the first."""
        return True

    @property
    def gathers(self) -> bool:
        """Where they do not, only gradients of the subset are computed."""
        return False

    @property
    def certifies(self) -> bool:
        """Whether ``follows`` wants to know how near to the base a weight of the subset lies."""
        return False

    def follows(self, silo: Silo, step: int, steps: int, reach: float | None) -> bool:
        """Whether the subset of ``silo`` stays what it is in ``step``, so that no other weight competes.

        Args:
            step: counted from 1; in the first one the rule has seen no gradients yet, so it cannot follow.
            steps: of the whole run.
            reach: how far a weight may move in this step; None if there is no bound.
        """
        return False

    def monitor(self, silos: Sequence[Silo]) -> dict[str, float]:
        """Numbers of the run so far, by name, for the curve."""
        return {}

    def granted(self, silo: str, sizes: Sequence[int], k: int) -> int:
        """How many weights the subset of ``silo`` will hold, of a budget of ``k``.

        Args:
            sizes: weights of each of its tensors.
        """
        return k

    @abstractmethod
    def judge(self, silo: Silo, states: Sequence[State], proposals: Sequence[Proposal]) -> Second:
        """Decide what the step does to ``silo``, changing nothing yet.

        Args:
            states: what is remembered of each part, by name: checkpoints keep it.
            proposals: where the optimizer would put the weights of each part; not used after this call.
        """


@dataclass(frozen=True)
class Moving(Movement):
    """The farthest stay, all others go back: chosen anew in every step, or, to save gradients, in some.

    Attributes:
        cadence: in which steps.
        gather: in the others only gradients of the subset are computed.
    """

    cadence: Cadence = PRESETS["exact"]
    gather: bool = True

    @property
    def steady(self) -> bool:
        return self.cadence.exact

    @property
    def gathers(self) -> bool:
        return self.gather and not self.steady

    @property
    def certifies(self) -> bool:
        return self.cadence.certify

    def follows(self, silo: Silo, step: int, steps: int, reach: float | None) -> bool:
        if step == 1 or silo.chosen < silo.k:
            silo.certain = False
            return False
        silo.certain = self.cadence.certify and certified(silo, reach)
        return silo.certain or not self.cadence.competes(step, steps)

    def judge(self, silo: Silo, states: Sequence[State], proposals: Sequence[Proposal]) -> Second:
        return silo.decide(proposals)

    def monitor(self, silos: Sequence[Silo]) -> dict[str, float]:
        if self.steady:
            return {}
        found = {"dense": sum(silo.change.dense for silo in silos) / len(silos)}
        if self.cadence.certify:
            found["certified"] = sum(silo.certain for silo in silos) / len(silos)
        return found


def certified(silo: Silo, reach: float | None) -> bool:
    """No weight outside the subset can enter it in one step: the nearest inside may come nearer to the base by
    ``reach`` while the farthest outside goes as far, and it still is the farther one.

    Both are rounded to fp32 on the way, as weights by up to half a unit in the last place and as differences by as much
    of these: one unit of the largest weight and three of the least displacement, to which some room is given.
    """
    if reach is None:
        return False
    least = silo.least()
    return least > 2 * reach and least - 2 * reach > 2 * EPS * (silo.largest() + 2 * least)


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

    sums: ClassVar[bool] = True

    def judge(self, silo: Silo, states: Sequence[State], proposals: Sequence[Proposal]) -> Second:
        if silo.chosen:
            return partial(silo.follow, [proposal.own() for proposal in proposals])
        if int(states[0]["mask_steps"]) < self.warmup:
            return list
        noise = torch.Generator().manual_seed(zlib.crc32(f"{self.seed} {silo.name}".encode()))
        scores = [
            SCORES[self.score](part, state["mask_sum"], noise) for part, state in zip(silo.parts, states, strict=True)
        ]
        for state in states:
            del state["mask_sum"]
        return partial(silo.move, silo.chosen_by(proposals, scores))

    def watch(self, part: Part, state: State) -> None:
        """Add the gradient of ``part`` to what the mask will be chosen by."""
        if len(part.index) or int(state.get("mask_steps", 0)) >= self.warmup:
            return
        gradient = part.grad.float()
        power = gradient.square() if self.score == "fisher" else gradient
        state["mask_sum"] = state["mask_sum"] + power if "mask_sum" in state else power.clone()
        state["mask_steps"] = state.get("mask_steps", torch.zeros(())) + 1


Score = Callable[[Part, torch.Tensor, torch.Generator], torch.Tensor]
"""(part, summed gradients or their squares, source of chance) -> scores, in the tensor's shape."""

SCORES: dict[str, Score] = {
    "random": lambda part, power, noise: torch.rand(power.shape, generator=noise).to(power.device),
    "gradient": lambda part, power, noise: power.abs(),
    "fisher": lambda part, power, noise: power,
    "largest": lambda part, power, noise: part.weight.float().abs(),
    "smallest": lambda part, power, noise: 1.0 / (part.weight.float().abs() + 1e-12),
}
"""What a static mask may be chosen by: chance, |sum of g|, sum of g^2, the largest or the smallest |W0|."""
