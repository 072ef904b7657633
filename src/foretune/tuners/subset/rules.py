"""Update rules: where an optimizer would put every weight of a tensor. The projection comes after, see ``silo``."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

import torch

from foretune.errors import UsageError

State = dict[str, Any]
"""What a rule remembers of one tensor, by name: tensors, and the step as a tensor."""


class Weights(Protocol):
    """A tensor of which some values are kept unrounded beside the model, see ``part.Part``.

    Attributes:
        index: ``(k,)`` flat places, ascending, of the subset.
        shadow: ``(k,)`` fp32: the exact values there.
    """

    index: torch.Tensor
    shadow: torch.Tensor

    @property
    def weight(self) -> torch.Tensor:
        """The tensor, flat, in the model's type."""

    def exact(self) -> torch.Tensor:
        """All of it in fp32, flat; perhaps the model's own memory, so it is not to be written to."""

    @property
    def total(self) -> int:
        """Weights of the whole tensor, a piece of which this may be."""

    def mean(self, values: torch.Tensor, dim: int, keepdim: bool = False) -> torch.Tensor:
        """Over a dimension, counted from the last, in the whole tensor."""

    def summed(self, value: torch.Tensor) -> torch.Tensor:
        """``value``, added up over all pieces."""


class Proposal(ABC):
    """Where a rule would put the weights of one tensor, all of them or only those that are asked for. Flat, fp32."""

    def __init__(self, weights: Weights, spare: torch.Tensor | None = None) -> None:
        """Args:
        spare: fp32 memory of the tensor's size that ``displacement`` may write to.
        """
        self.weights, self.weight, self.spare = weights, weights.weight, spare

    @abstractmethod
    def dense(self) -> torch.Tensor:
        """All of them."""

    @abstractmethod
    def own(self) -> torch.Tensor:
        """Those of the subset, ``(k,)``: the bits that ``dense`` has there."""

    @abstractmethod
    def at(self, index: torch.Tensor) -> torch.Tensor:
        """Those at flat places ``index``, none of them in the subset: the bits that ``dense`` has there."""

    @abstractmethod
    def displacement(self) -> torch.Tensor:
        """How far from the base every weight outside the subset would be; of those inside it says nothing."""


class Whole(Proposal):
    """A proposal that was computed for all weights."""

    def __init__(self, weights: Weights, hat: torch.Tensor, spare: torch.Tensor | None = None) -> None:
        super().__init__(weights, spare)
        self.hat = hat.reshape(-1)

    def dense(self) -> torch.Tensor:
        return self.hat

    def own(self) -> torch.Tensor:
        return self.hat.index_select(0, self.weights.index)

    def at(self, index: torch.Tensor) -> torch.Tensor:
        return self.hat.index_select(0, index)

    def displacement(self) -> torch.Tensor:
        return torch.sub(self.hat, self.weight, out=self.spare)


class Step(Proposal):
    """W - u, of which single weights are cheap to compute."""

    def __init__(self, weights: Weights, update: torch.Tensor, spare: torch.Tensor | None = None) -> None:
        super().__init__(weights, spare)
        self.update = update.reshape(-1)

    def dense(self) -> torch.Tensor:
        return self.weights.exact() - self.update

    def own(self) -> torch.Tensor:
        return self.weights.shadow - self.update.index_select(0, self.weights.index)

    def at(self, index: torch.Tensor) -> torch.Tensor:
        return self.weight.index_select(0, index).float() - self.update.index_select(0, index)

    def displacement(self) -> torch.Tensor:
        return torch.sub(self.weight, self.update, out=self.spare).sub_(self.weight)


@dataclass(frozen=True)
class Rule(ABC):
    """An optimizer for one tensor.

    Attributes:
        weight_decay: decoupled; it counts as displacement, so it favours large weights.
        bound: no weight moves by more than ``bound * lr`` in one step; None sets no bound.
        bounds_itself: gradients need no clipping: the rule limits the size of its steps.
        follows: whether single weights can be moved by their gradients alone, see ``follow``.
    """

    weight_decay: float = 0.0
    bound: float | None = None

    name: ClassVar[str]
    bounds_itself: ClassVar[bool] = False
    follows: ClassVar[bool] = False
    per_weight: ClassVar[tuple[str, ...]] = ()
    """Names in the state that hold a number for every weight."""

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
            spare: fp32 memory of the size of ``grad`` that may be written to until the proposal is done with.
        """

    def follow(self, weights: Weights, grad: torch.Tensor, state: State, lr: float) -> torch.Tensor:
        """Where the subset would go, ``(k,)``, given its gradients ``(k,)`` alone.

        Raises:
            UsageError: the rule cannot say it.
        """
        raise UsageError(f"`{self.name}` needs all gradients in every step. Use `adafactor` or `sgd`, or all of them.")

    def remembered(self, shape: torch.Size) -> int:
        """Numbers in the state of a tensor of ``shape``."""
        return len(self.per_weight) * shape.numel()

    def _limited(self, update: torch.Tensor, lr: float) -> torch.Tensor:
        return update if self.bound is None else update.clamp_(-self.bound * lr, self.bound * lr)

    def _decayed(self, weights: Weights, lr: float, out: torch.Tensor) -> torch.Tensor:
        """W (1 - lr decay), written to ``out``."""
        out.copy_(weights.exact().view(out.shape))
        return out.mul_(1 - lr * self.weight_decay) if self.weight_decay else out


@dataclass(frozen=True)
class SGD(Rule):
    """W - lr g: its state is the step."""

    name: ClassVar[str] = "sgd"
    follows: ClassVar[bool] = True

    def propose(
        self, weights: Weights, grad: torch.Tensor, state: State, lr: float, spare: torch.Tensor | None = None
    ) -> Proposal:
        state["step"] = state.get("step", torch.zeros(())) + 1
        update = self._limited(grad.float().mul_(lr), lr)
        if self.weight_decay:
            return Whole(weights, self._decayed(weights, lr, torch.empty_like(update)).sub_(update), spare)
        return Step(weights, update, spare)

    def follow(self, weights: Weights, grad: torch.Tensor, state: State, lr: float) -> torch.Tensor:
        state["step"] += 1
        return weights.shadow * (1 - lr * self.weight_decay) - self._limited(grad.float().mul(lr), lr)


@dataclass(frozen=True)
class AdamW(Rule):
    """Dense AdamW (Loshchilov and Hutter 2019), bit for bit ``torch.optim.AdamW(foreach=False)``: two moments of every
    weight, in or out of the subset."""

    beta1: float = 0.9
    beta2: float = 0.999
    eps: float = 1e-8

    name: ClassVar[str] = "adamw"
    per_weight: ClassVar[tuple[str, ...]] = ("exp_avg", "exp_avg_sq")

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
        room = None if spare is None else spare.view(grad.shape)
        denominator = torch.sqrt(state["exp_avg_sq"], out=room).div_(scale).add_(self.eps)
        rate = lr / (1 - self.beta1**step)
        if self.bound is not None:
            update = self._limited(torch.div(state["exp_avg"], denominator, out=denominator).mul_(rate), lr)
            return Whole(weights, self._decayed(weights, lr, grad).sub_(update), spare)
        return Whole(
            weights, self._decayed(weights, lr, grad).addcdiv_(state["exp_avg"], denominator, value=-rate), spare
        )


@dataclass(frozen=True)
class Adafactor(Rule):
    """Adafactor without momentum (Shazeer and Stern 2018, arXiv 1804.04235, alg. 4), rate given, not relative.

    The second moment of a matrix is the product of its row and column means over their mean, so the state is
    O(rows + columns); of a vector it is kept whole. ``beta2`` rises as 1 - t^-0.8, and a step whose root mean square
    exceeds ``clip`` is scaled down to it, which takes the place of clipping gradients. Tensors with more than two
    dimensions are factored over the last two.

    Between steps that see all gradients (``follow``) every weight of the subset has a second moment of its own, which
    begins as the factored one; when all gradients are seen again, the factored one takes them in with the weight of
    all the steps that it missed. ``clip`` then is of the root mean square over the subset, and what the last whole step
    was scaled down by counts on, if that is less: second moments that are old make steps too large.
    """

    clip: float = 1.0
    decay: float = -0.8
    eps: float = 1e-30

    name: ClassVar[str] = "adafactor"
    bounds_itself: ClassVar[bool] = True
    follows: ClassVar[bool] = True

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
        news = self._news(state)
        square = torch.mul(grad, grad, out=None if spare is None else spare.view(grad.shape))
        if grad.dim() >= 2:
            row = state["row"].lerp_(weights.mean(square, -1).add_(self.eps), news)
            column = state["column"].lerp_(weights.mean(square, -2).add_(self.eps), news)
            by_row, by_column = weights.mean(row, -1, keepdim=True) / row, column.reciprocal()
            energy = torch.matmul(square, by_column.unsqueeze(-1)).squeeze(-1) * by_row
            scale = self._scale(weights, energy, lr, state)
            update = grad.mul_(by_column.sqrt_().unsqueeze(-2)).mul_((by_row.sqrt_() * scale).unsqueeze(-1))
        else:
            factor = state["square"].lerp_(square.add_(self.eps), news).rsqrt()
            update = grad.mul_(factor)
            update.mul_(self._scale(weights, update.square(), lr, state))
        update = self._limited(update, lr)
        if self.weight_decay:
            return Whole(weights, self._decayed(weights, lr, torch.empty_like(update)).sub_(update), spare)
        return Step(weights, update, spare)

    def follow(self, weights: Weights, grad: torch.Tensor, state: State, lr: float) -> torch.Tensor:
        if "own" not in state:
            state["own"], state["missed"] = self._factored(weights, state), torch.zeros(())
        state["step"] += 1
        state["missed"] += 1
        grad = grad.float()
        state["own"].lerp_(grad.square().add_(self.eps), float(state["step"]) ** self.decay)
        update = grad * state["own"].rsqrt()
        square = update.square().sum()
        total, count = weights.summed(torch.stack([square, square.new_full((), len(update))])).unbind()
        size = total.div_(count.clamp_(min=1.0)).sqrt_()
        shrink = torch.minimum(self.clip / size.clamp_(min=self.clip), state["shrink"])
        update = self._limited(update.mul_(lr * shrink), lr)
        return weights.shadow * (1 - lr * self.weight_decay) - update

    def remembered(self, shape: torch.Size) -> int:
        return shape[:-1].numel() + torch.Size((*shape[:-2], shape[-1])).numel() if len(shape) > 1 else shape.numel()

    def _news(self, state: State) -> float:
        """The weight of this gradient in the means: that of all the steps since the last one that was seen."""
        state.pop("own", None)
        state["step"] += 1
        return 1 - (1 - float(state["step"]) ** self.decay) ** (1 + int(state.pop("missed", 0)))

    def _scale(self, weights: Weights, energy: torch.Tensor, lr: float, state: State) -> torch.Tensor:
        """The rate, less what the size of the step exceeds ``clip`` by."""
        size = weights.summed(energy.sum()).div_(weights.total).sqrt_()
        state["shrink"] = self.clip / size.clamp_(min=self.clip)
        return state["shrink"] * lr

    def _factored(self, weights: Weights, state: State) -> torch.Tensor:
        """Second moments of the subset."""
        index = weights.index
        if "square" in state:
            return state["square"].index_select(0, index)
        row, column = state["row"], state["column"]
        width, height = column.shape[-1], row.shape[-1]
        rows = torch.div(index, width, rounding_mode="floor")
        blocks = torch.div(rows, height, rounding_mode="floor")
        by_row = (row / weights.mean(row, -1, keepdim=True)).view(-1).index_select(0, rows)
        return by_row * column.view(-1).index_select(0, blocks * width + index % width)


RULES: dict[str, type[Rule]] = {rule.name: rule for rule in (Adafactor, AdamW, SGD)}
