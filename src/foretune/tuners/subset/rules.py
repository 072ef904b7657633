"""Update rules: where an optimizer would put every weight of a tensor. The projection comes after, see ``silo``."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

import torch

State = dict[str, Any]
"""What a rule remembers of one tensor, by name: tensors, and the step as a tensor."""


class Proposal(ABC):
    """Where a rule would put the weights of one tensor, all of them or only those that are asked for."""

    @abstractmethod
    def dense(self) -> torch.Tensor:
        """All of them, fp32, in the tensor's shape."""

    @abstractmethod
    def at(self, index: torch.Tensor) -> torch.Tensor:
        """Those at flat places ``index``, fp32: the bits that ``dense`` has there."""

    def beyond(self, distance: torch.Tensor, without: torch.Tensor) -> torch.Tensor | None:
        """Flat places, ascending, of every weight but ``without`` that would move by at least ``distance``, and perhaps
        of a few that would move by a little less; None where all would have to be computed for it."""
        return None


class Whole(Proposal):
    """A proposal that was computed for all weights."""

    def __init__(self, hat: torch.Tensor) -> None:
        self.hat = hat

    def dense(self) -> torch.Tensor:
        return self.hat

    def at(self, index: torch.Tensor) -> torch.Tensor:
        return self.hat.reshape(-1)[index]


class Weights(Protocol):
    """A tensor whose exact values may be away from those in the model, see ``silo.Part``.

    Attributes:
        magnitude: the largest absolute value of the base.
    """

    magnitude: float

    def exact(self) -> torch.Tensor:
        """All of it in fp32, a copy."""

    def exact_at(self, index: torch.Tensor) -> torch.Tensor:
        """Its values at flat places, fp32."""


@dataclass(frozen=True)
class Rule(ABC):
    """An optimizer for one tensor.

    Attributes:
        weight_decay: decoupled; it counts as displacement, so it favours large weights.
    """

    weight_decay: float = 0.0

    name: ClassVar[str]

    @abstractmethod
    def propose(
        self, weights: Weights, grad: torch.Tensor, state: State, lr: float, spare: torch.Tensor | None = None
    ) -> Proposal:
        """Where the step would lead; ``state`` is changed in place.

        Args:
            grad: the mean gradient over the global batch, clipped; any floating type. It may be overwritten: fresh
                memory for every tensor costs more than the arithmetic.
            state: empty before the first step.
            lr: the rate of this step.
            spare: fp32 memory of the shape of ``grad`` that may be written to until the proposal is done with.
        """

    def _decayed(self, weights: Weights, lr: float) -> torch.Tensor:
        exact = weights.exact()
        return exact.mul_(1 - lr * self.weight_decay) if self.weight_decay else exact


@dataclass(frozen=True)
class SGD(Rule):
    """W - lr g: no state."""

    name: ClassVar[str] = "sgd"

    def propose(
        self, weights: Weights, grad: torch.Tensor, state: State, lr: float, spare: torch.Tensor | None = None
    ) -> Proposal:
        return Whole(self._decayed(weights, lr).add_(grad.float(), alpha=-lr))


@dataclass(frozen=True)
class AdamW(Rule):
    """Dense AdamW (Loshchilov and Hutter 2019), bit for bit ``torch.optim.AdamW(foreach=False)``: two moments of every
    weight, in or out of the subset."""

    beta1: float = 0.9
    beta2: float = 0.999
    eps: float = 1e-8

    name: ClassVar[str] = "adamw"

    def propose(
        self, weights: Weights, grad: torch.Tensor, state: State, lr: float, spare: torch.Tensor | None = None
    ) -> Proposal:
        grad = grad.float()
        if "step" not in state:
            state |= {"step": torch.zeros(()), "exp_avg": torch.zeros_like(grad), "exp_avg_sq": torch.zeros_like(grad)}
        state["step"] += 1
        step = float(state["step"])
        state["exp_avg"].lerp_(grad, 1 - self.beta1)
        state["exp_avg_sq"].mul_(self.beta2).addcmul_(grad, grad, value=1 - self.beta2)
        scale = (1 - self.beta2**step) ** 0.5
        denominator = (state["exp_avg_sq"].sqrt() / scale).add_(self.eps)
        rate = -lr / (1 - self.beta1**step)
        return Whole(self._decayed(weights, lr).addcdiv_(state["exp_avg"], denominator, value=rate))


@dataclass(frozen=True)
class Adafactor(Rule):
    """Adafactor without momentum (Shazeer and Stern 2018, arXiv 1804.04235, alg. 4), rate given, not relative.

    The second moment of a matrix is the product of its row and column means over their mean, so the state is
    O(rows + columns); of a vector it is kept whole. ``beta2`` rises as 1 - t^-0.8, and a step whose root mean square
    exceeds ``clip`` is scaled down to it. Tensors with more than two dimensions are factored over the last two.
    """

    clip: float = 1.0
    decay: float = -0.8
    eps: float = 1e-30

    name: ClassVar[str] = "adafactor"

    def propose(
        self, weights: Weights, grad: torch.Tensor, state: State, lr: float, spare: torch.Tensor | None = None
    ) -> Proposal:
        grad = grad.float()
        if "step" not in state:
            state["step"] = torch.zeros(())
            shape = grad.shape
            if grad.dim() >= 2:
                state |= {"row": grad.new_zeros(shape[:-1]), "column": grad.new_zeros((*shape[:-2], shape[-1]))}
            else:
                state["square"] = torch.zeros_like(grad)
        state["step"] += 1
        beta2 = 1 - float(state["step"]) ** self.decay
        square = torch.mul(grad, grad, out=torch.empty_like(grad) if spare is None else spare)
        if grad.dim() >= 2:
            state["row"].lerp_(square.mean(-1).add_(self.eps), 1 - beta2)
            state["column"].lerp_(square.mean(-2).add_(self.eps), 1 - beta2)
            scaled = grad.mul_(state["column"].rsqrt().unsqueeze(-2))
            by_row = (state["row"] / state["row"].mean(-1, keepdim=True)).rsqrt_()
        else:
            state["square"].lerp_(square.add_(self.eps), 1 - beta2)
            scaled, by_row = grad.mul_(state["square"].rsqrt()), grad.new_ones(())
        lengths = torch.mul(scaled, scaled, out=square).sum(-1).sqrt_() * by_row
        size = lengths.square().sum().div(grad.numel()).sqrt()
        step = Factored(weights, scaled, by_row, lr * self.clip / size.clamp(min=self.clip), square)
        if self.weight_decay:
            return Whole(self._decayed(weights, lr).sub_(step.update()))
        return step


class Factored(Proposal):
    """W - rate * scaled * by_row: a proposal of which single weights are cheap to compute, and large moves to find."""

    def __init__(
        self, weights: Weights, scaled: torch.Tensor, by_row: torch.Tensor, rate: torch.Tensor, spare: torch.Tensor
    ) -> None:
        """Args:
        spare: memory of the shape of ``scaled`` that may be written to.
        """
        self.weights, self.scaled, self.by_row, self.rate, self.spare = weights, scaled, by_row, rate, spare

    def update(self) -> torch.Tensor:
        """What is subtracted, in the tensor's shape."""
        return (self.scaled * self.by_row.unsqueeze(-1)).mul_(self.rate)

    def dense(self) -> torch.Tensor:
        return self.weights.exact().sub_(self.update())

    def at(self, index: torch.Tensor) -> torch.Tensor:
        rows = self.by_row.expand(self.scaled.shape[:-1]).reshape(-1)
        factor = rows[torch.div(index, self.scaled.shape[-1], rounding_mode="floor")]
        return self.weights.exact_at(index).sub_((self.scaled.view(-1)[index] * factor).mul_(self.rate))

    def beyond(self, distance: torch.Tensor, without: torch.Tensor) -> torch.Tensor | None:
        """By rows: a row moves by ``rate * by_row`` times what it is scaled to, so every row has a bound of its own,
        and a row whose largest entry stays below it is not looked at again.

        A weight plus its move is rounded, so its displacement may exceed the move by half a unit in its last place.
        """
        least = (distance - self.weights.magnitude * 2.0**-23) * SLACK
        width = self.scaled.shape[-1]
        sizes = torch.abs(self.scaled, out=self.spare).view(-1, width)
        sizes.view(-1)[without] = -torch.inf
        bound = (least / (self.rate * self.by_row)).expand(self.scaled.shape[:-1]).reshape(-1)
        rows = (sizes.amax(1) >= bound).nonzero().squeeze(1)
        if not len(rows):
            return rows
        found = (sizes[rows] >= bound[rows].unsqueeze(1)).nonzero()
        return rows[found[:, 0]] * width + found[:, 1]


SLACK = 1 - 1e-5
"""Bounds are this much too low for the rounding of the move itself: no weight that must be compared may be hidden."""

RULES: dict[str, type[Rule]] = {rule.name: rule for rule in (Adafactor, AdamW, SGD)}
