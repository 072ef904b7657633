"""Overlay: a subset of weights laid over a linear layer whose own weight stays as it is stored, such as in 4 bits.

The backend ``adapter``. A pass reads the stored weight into fresh memory, puts the k values of the subset into it and
multiplies; the backward pass reads it again instead of keeping a copy. The base, from which displacement is measured,
is the weight as it is read, so steps and selection are those of ``silo`` to the last bit.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal, cast

import torch
from torch import nn

from foretune.errors import ModelError, UsageError
from foretune.tuners.heads import within
from foretune.tuners.subset.model import ATTRIBUTE, network_of
from foretune.tuners.subset.part import Part
from foretune.tuners.subset.processes import require_one_process
from foretune.tuners.subset.quantised import Reader, reader_of
from foretune.tuners.targets import leaf

if TYPE_CHECKING:
    from transformers import PreTrainedModel

Backend = Literal["auto", "inplace", "adapter"]


class OverlayLinear(nn.Linear):
    """A linear layer, and over it the subset of its weights that is away from what is stored.

    Attributes:
        base_layer: computes what the base computes; no step writes to it.
        reader: of its weight.
        weight: receives the gradient of the whole weight, and holds none: one infinity, seen from every place.
        bias: that of ``base_layer``.
        part: the subset that lies over it now; None leaves the base.
    """

    def __init__(self, layer: Any, reader: Reader) -> None:
        super().__init__(layer.in_features, layer.out_features, bias=False, device="meta")
        reader.prepare(layer)
        self.base_layer, self.reader, self.part = layer, reader, cast("OverlayPart | None", None)
        self.bias = layer.bias
        self.weight = nn.Parameter(self.dense().new_full((1, 1), torch.inf).expand(self.out_features, self.in_features))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """``(..., in_features)`` -> ``(..., out_features)``; where no subset lies, as the layer itself does it."""
        if self.part is None:
            own: torch.Tensor = self.base_layer(x)
            return own
        kind = x.device.type
        if torch.is_autocast_enabled(kind):
            dtype = given = torch.get_autocast_dtype(kind)
        else:
            dtype, given = self.reader.computes_in(self.base_layer, x.dtype), x.dtype
        bias = None if self.bias is None else self.bias.to(dtype)
        index, values = self.part.settled()
        made: torch.Tensor = _Product.apply(x.to(dtype), self.weight, bias, index, values, self)
        return made.to(given)

    def dense(self) -> torch.Tensor:
        """The stored weight as it is read, in fresh memory."""
        return self.reader.dense(self.base_layer)

    def _apply(self, fn: Any, recurse: bool = True) -> OverlayLinear:
        """Conversions and moves, which would write the gradient's place out in full."""
        shape = self.weight.shape
        self.weight.data = self.weight.data[:1, :1]
        super()._apply(fn, recurse)
        self.weight.data = self.weight.data.expand(shape)
        return self

    def __setstate__(self, state: dict[str, Any]) -> None:
        """After a copy, which does the same."""
        super().__setstate__(state)
        self.weight.data = self.weight.data[:1, :1].clone().expand(self.weight.shape)


class OverlayPart(Part):
    """A subset of a stored weight.

    Attributes:
        layer: what it lies over while it is applied.
    """

    def __init__(self, name: str, layer: OverlayLinear) -> None:
        self.layer = layer
        super().__init__(name, layer.dense())
        self.parameter = layer.weight

    def settled(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Places and fp32 values, where the layer is."""
        device = self.layer.weight.device
        if self.index.device != device:
            self.index, self.shadow, self.old = (kept.to(device) for kept in (self.index, self.shadow, self.old))
        return self.index, self.shadow

    @property
    def weight(self) -> torch.Tensor:
        """The weight that the layer multiplies with, flat, in fresh memory: writing to it changes nothing."""
        index, values = self.settled()
        made = _laid(self.layer, index, values) if self.layer.part is self else self.layer.dense()
        return made.view(-1)

    def exact(self) -> torch.Tensor:
        return self.base().scatter_(0, self.index, self.shadow)

    def base(self) -> torch.Tensor:
        self.settled()
        return self.layer.dense().view(-1).float()

    def reset(self) -> None:
        if self.layer.part is self:
            self.layer.part = None

    def apply(self) -> None:
        self.layer.part = self


class _Product(torch.autograd.Function):
    """x W^T + b with the overlaid W; of W nothing is kept for the backward pass but the subset."""

    @staticmethod
    def forward(
        ctx: Any,
        x: torch.Tensor,
        weight: torch.Tensor,
        bias: torch.Tensor | None,
        index: torch.Tensor,
        values: torch.Tensor,
        layer: OverlayLinear,
    ) -> torch.Tensor:
        """Args:
        weight: where the gradient of W goes; its numbers are not read.
        """
        ctx.save_for_backward(x, index, values)
        ctx.layer = layer
        return nn.functional.linear(x, _laid(layer, index, values).to(x.dtype), bias)

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> tuple[torch.Tensor | None, ...]:
        (grad,) = grads
        x, index, values = ctx.saved_tensors
        rows = grad.reshape(-1, grad.shape[-1])
        of_x = of_weight = of_bias = None
        if ctx.needs_input_grad[0]:
            of_x = rows.mm(_laid(ctx.layer, index, values).to(x.dtype)).view(x.shape)
        if ctx.needs_input_grad[1]:
            require_one_process()
            of_weight = rows.t().mm(x.reshape(-1, x.shape[-1]))
        if ctx.needs_input_grad[2]:
            of_bias = rows.sum(0)
        return of_x, of_weight, of_bias, None, None, None


def _laid(layer: OverlayLinear, index: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
    """The stored weight with ``values``, rounded to its type, at flat places ``index``."""
    dense = layer.dense()
    dense.view(-1).scatter_(0, index, values.to(dense.dtype))
    return dense


def overlaid(
    network: PreTrainedModel, heads: Sequence[str], names: Sequence[str], backend: Backend
) -> dict[str, OverlayPart]:
    """Wrap the layers of ``network`` whose weights are to be overlaid: all of ``names``, or those stored in a quantised
    form (``auto``), or none (``inplace``).

    Returns:
        The part of each of those weights, by name. Nothing is wrapped when an error is raised.

    Raises:
        UsageError: the network carries a subset already, or its weights lie where no step can move them.
        ModelError: a weight cannot be tuned this way.
    """
    if ATTRIBUTE in vars(network):
        raise UsageError("A network takes one tuner, but this one has a subset already. Load the checkpoint again.")
    for name, module in network.named_modules():
        if within(name, heads) and (reader := reader_of(module)) is not None and reader.quantised:
            raise ModelError(
                f"A head is trained whole, but `{name}` is quantised ({type(module).__name__}). Load the model with "
                f"`llm_int8_skip_modules={list(heads)}`."
            )
    chosen = {}
    for name in names:
        owner = _owner(network, name)
        layer = owner.base_layer if isinstance(owner, OverlayLinear) else owner
        reader = _overlay_reader(name, layer, backend)
        if isinstance(owner, OverlayLinear) and leaf(name) == "weight":
            chosen[name] = owner
        elif reader is not None:
            chosen[name] = OverlayLinear(layer, reader)
    if chosen:
        require_one_process()
    parts = {name: OverlayPart(name, layer) for name, layer in chosen.items()}
    for name, part in parts.items():
        network.set_submodule(name.removesuffix(".weight"), part.layer)
        part.apply()
    return parts


def _overlay_reader(name: str, layer: nn.Module, backend: Backend) -> Reader | None:
    """By what ``name``, of ``layer``, is read under its overlay; None where it is moved in place."""
    reader = reader_of(layer) if name.endswith(".weight") else None
    floating = layer.get_parameter(leaf(name)).is_floating_point()
    stored = not floating or (reader is not None and reader.quantised)
    kind = type(layer).__name__
    if not stored and backend != "adapter":
        return None
    if stored and backend == "inplace":
        raise ModelError(
            f"`backend=inplace` moves weights where they lie, but `{name}` is quantised ({kind}). Use "
            "`backend=auto`, or `backend=adapter`."
        )
    if reader is None:
        raise ModelError(
            f"`backend=adapter` lies over linear layers that it can read, but `{name}` belongs to a `{kind}`. "
            + ("Load the model without quantisation, or with bitsandbytes." if stored else "Use `backend=auto`.")
        )
    return reader


def _owner(network: nn.Module, name: str) -> nn.Module:
    return network.get_submodule(name.rpartition(".")[0])


def overlays(model: nn.Module) -> dict[str, OverlayLinear]:
    """The overlaid layers of ``model``, by name."""
    return {name: module for name, module in model.named_modules() if isinstance(module, OverlayLinear)}


def taken_off(model: nn.Module) -> None:
    """Put the layers themselves in the places of their overlays; the subsets are gone with these."""
    for name, layer in overlays(model).items():
        model.set_submodule(name, layer.base_layer)


def merged(model: PreTrainedModel) -> PreTrainedModel:
    """Merge the subsets into the weights that they lie over, in place and to the last bit; the overlays are gone.

    Raises:
        ModelError: such a weight is quantised.
    """
    for name, layer in overlays(model).items():
        if layer.reader.quantised:
            raise ModelError(
                "A subset cannot go into a quantised weight, for requantising would move the weights around it too, "
                f"but `{name}` is a {type(layer.base_layer).__name__}. Merge into 16 bits: "
                "`foretune.tuners.subset.overlay.to_dense(model, torch.bfloat16)`."
            )
    for name, layer in overlays(model).items():
        if layer.part is not None:
            layer.base_layer.weight.data = layer.part.weight.view(layer.weight.shape)
        model.set_submodule(name, layer.base_layer)
    return model


def to_dense(model: nn.Module, dtype: torch.dtype | None = None) -> PreTrainedModel:
    """Merge into an unquantised model: every overlaid and every quantised layer becomes an ordinary ``Linear`` that
    holds the weight as it is read, with the subset in it. Done in place; the result carries no subset.

    Args:
        model: the network, or what ``foretune.get_peft_model`` put around it, which is not to be used afterwards.
        dtype: of these layers, such as ``torch.bfloat16``; by default that of the weight as it is read, which is exact.
            Everything else keeps its type.
    """
    network = cast("PreTrainedModel", network_of(model))
    for name, layer in overlays(network).items():
        dense = layer.dense() if layer.part is None else layer.part.weight.view(layer.weight.shape)
        network.set_submodule(name, _linear(dense, layer.bias, dtype))
    for name, module in list(network.named_modules()):
        if (reader := reader_of(module)) is not None and reader.quantised:
            network.set_submodule(name, _linear(reader.dense(module), module.bias, dtype))
    vars(network).pop(ATTRIBUTE, None)
    if (quantiser := vars(network).get("hf_quantizer")) is not None:
        quantiser.remove_quantization_config(network)
    return network


def _linear(weight: torch.Tensor, bias: Any, dtype: torch.dtype | None) -> nn.Linear:
    made = nn.Linear(weight.shape[1], weight.shape[0], bias is not None, device="meta")
    made.weight = nn.Parameter(weight.to(dtype or weight.dtype))
    if bias is not None:
        made.bias = nn.Parameter(bias.detach().to(dtype or bias.dtype))
    return made
