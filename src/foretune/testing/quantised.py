"""A quantised linear layer for any machine: 8-bit numbers in blocks that share a scale, as bitsandbytes makes them."""

from __future__ import annotations

from typing import cast

import torch
from torch import nn
from transformers import PreTrainedModel

from foretune.tuners.heads import head_modules
from foretune.tuners.subset.quantised import QuantisedLinear
from foretune.tuners.targets import linears

BLOCK = 4


class Int8Linear(QuantisedLinear):
    """``layer`` with its weight rounded to 8 bits: int8 ``(out, in)``, and a scale for each ``BLOCK`` in a row.

    Attributes:
        scales: ``(out, in / BLOCK)``, in the type of the weight as it was.

    >>> layer = nn.Linear(4, 1)
    >>> made = Int8Linear(layer)
    >>> made.weight.dtype, bool((made.dequantize() - layer.weight).abs().max() <= made.scales.max() / 2)
    (torch.int8, True)
    """

    scales: torch.Tensor

    def __init__(self, layer: nn.Linear) -> None:
        super().__init__(layer.in_features, layer.out_features, bias=False, device="meta")
        blocks = layer.weight.detach().unflatten(1, (-1, BLOCK))
        scales = blocks.abs().amax(-1).clamp_(min=1e-12) / 127
        rounded = (blocks / scales.unsqueeze(-1)).round().to(torch.int8).flatten(1)
        self.weight = nn.Parameter(rounded, requires_grad=False)
        self.register_buffer("scales", scales)
        self.bias = layer.bias

    def dequantize(self) -> torch.Tensor:
        blocks = self.weight.to(self.scales.dtype).unflatten(1, (-1, BLOCK))
        return (blocks * self.scales.unsqueeze(-1)).flatten(1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return nn.functional.linear(x, self.dequantize().to(x.dtype), self.bias)


def quantised(network: PreTrainedModel) -> PreTrainedModel:
    """``network`` with every linear layer of its stack quantised, in place."""
    for name in linears(network, head_modules(network)):
        network.set_submodule(name, Int8Linear(cast("nn.Linear", network.get_submodule(name))))
    return network


def dequantised(network: PreTrainedModel) -> PreTrainedModel:
    """What ``quantised`` made, with ordinary linear layers that compute the same, in place."""
    for name, module in list(network.named_modules()):
        if isinstance(module, Int8Linear):
            plain = nn.Linear(module.in_features, module.out_features, module.bias is not None, device="meta")
            plain.weight, plain.bias = nn.Parameter(module.dequantize()), module.bias
            network.set_submodule(name, plain)
    return network
