"""Gathered gradients: of a weight matrix only those of its subset, without the product that gives all of them.

For y = x W^T the gradient of W[i, j] is the sum over tokens of dy[:, i] x[:, j]: for k weights k products of columns,
which for small k is far less than the matrix product (2 of the 6 FLOPs per weight and token that full fine-tuning
costs).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import nn
from torch.utils.hooks import RemovableHandle
from transformers.pytorch_utils import Conv1D

from foretune.tuners.subset.part import Part

CHUNK = 1 << 22
"""Products of a token's numbers held at a time."""
DEAR = 100
"""A gathered product takes as long as so many of a matrix product (measured on a CPU: equal at 1 % of the weights):
beyond that share the matrix product is made and the subset gathered from it."""


class Tap:
    """Catches the gradients of a part's subset while they are wanted.

    Attributes:
        part: the weight matrix of a linear layer.
        wanted: no gradient of the whole matrix is made, and that of the subset is added up here.
        grad: ``(k,)`` fp32, or None before a backward pass.
    """

    def __init__(self, part: Part, transposed: bool) -> None:
        self.part, self.transposed, self.wanted = part, transposed, False
        self.grad: torch.Tensor | None = None
        self._anchor = torch.zeros((), requires_grad=True)

    def before(self, module: nn.Module, inputs: tuple[Any, ...]) -> None:
        """A forward pre-hook: the layer is to compute with a constant."""
        if self.wanted and torch.is_grad_enabled():
            self.part.parameter.requires_grad_(False)

    def after(self, module: nn.Module, inputs: tuple[Any, ...], output: torch.Tensor) -> torch.Tensor | None:
        """A forward hook: the output, at which the backward pass is caught."""
        if not self.wanted or self.part.parameter.requires_grad:
            return None
        self.part.parameter.requires_grad_(True)
        if not isinstance(output, torch.Tensor):  # the layer raised
            return None
        caught: torch.Tensor = _Caught.apply(output, inputs[0].detach(), self._anchor.to(output.device), self)
        return caught

    def add(self, x: torch.Tensor, dy: torch.Tensor) -> None:
        """Add the gradients of one pass; ``(tokens, in)`` and ``(tokens, out)``."""
        width = self.part.parameter.shape[1]
        first, second = (x, dy) if self.transposed else (dy, x)
        index = self.part.index
        rows, columns = torch.div(index, width, rounding_mode="floor"), index % width
        if made(self.part) == len(self.part):
            found = first.t().mm(second).view(-1).index_select(0, index).float()
        else:
            some = max(1, CHUNK // max(1, len(x)))
            found = torch.cat(
                [
                    (first.index_select(1, i) * second.index_select(1, j)).sum(0, dtype=torch.float32)
                    for i, j in zip(rows.split(some), columns.split(some), strict=True)
                ]
            )
        self.grad = found if self.grad is None else self.grad + found


def made(part: Part) -> int:
    """Of how many weights of a matrix gradients are made where those of its subset are wanted."""
    return len(part) if DEAR * len(part.index) > len(part) else len(part.index)


def gatherable(network: nn.Module, part: Part) -> bool:
    """Whether ``part`` is the matrix of a linear layer."""
    owner, _, what = part.name.rpartition(".")
    module = network.get_submodule(owner)
    return what == "weight" and isinstance(module, nn.Linear | Conv1D) and module.weight is part.parameter


class _Caught(torch.autograd.Function):
    """The identity; on the way back the gradient passes by a tap."""

    @staticmethod
    def forward(ctx: Any, y: torch.Tensor, x: torch.Tensor, anchor: torch.Tensor, tap: Tap) -> torch.Tensor:
        """Args:
        anchor: makes the output need a gradient even where nothing below it does.
        """
        ctx.save_for_backward(x)
        ctx.tap = tap
        return y.view_as(y)

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> tuple[torch.Tensor | None, ...]:
        (dy,), (x,) = grads, ctx.saved_tensors
        ctx.tap.add(x.reshape(-1, x.shape[-1]).to(dy.dtype), dy.reshape(-1, dy.shape[-1]))
        return dy, None, None, None


def tapped(network: nn.Module, parts: Iterable[Part]) -> tuple[dict[str, Tap], list[RemovableHandle]]:
    """Put taps on those of ``parts`` that are matrices of linear layers, by the part's name; and what removes them."""
    taps, handles = {}, []
    for part in parts:
        if not gatherable(network, part):
            continue
        module = network.get_submodule(part.name.rpartition(".")[0])
        taps[part.name] = tap = Tap(part, transposed=isinstance(module, Conv1D))
        handles.append(module.register_forward_pre_hook(tap.before))
        handles.append(module.register_forward_hook(tap.after, always_call=True))
    return taps, handles
