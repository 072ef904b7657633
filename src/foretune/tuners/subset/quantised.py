"""Readers: what a linear layer computes with, whatever form its weight is stored in.

A quantised weight is bytes and scales, and there is no way back into them: requantising one changed value moves the
largest value of its block, and with it the whole block. So these weights are read, never written.
"""

from __future__ import annotations

import sys
from abc import ABC, abstractmethod
from typing import Any, ClassVar, cast

import torch
from torch import nn

from foretune.errors import ModelError


class QuantisedLinear(nn.Linear, ABC):
    """A linear layer with a storage of its own. Subclass it, and a subset of its weights can be tuned."""

    @abstractmethod
    def dequantize(self) -> torch.Tensor:
        """The weight that ``forward`` multiplies with, ``(out_features, in_features)``: floating, fresh memory, and the
        same bits in every call."""


class Reader(ABC):
    """How the weight of one kind of linear layer is read.

    Attributes:
        quantised: whether the stored weight cannot be moved by a step.
    """

    quantised: ClassVar[bool] = True

    @abstractmethod
    def reads(self, layer: nn.Module) -> bool:
        """Whether ``layer`` is of this kind."""

    @abstractmethod
    def dense(self, layer: Any) -> torch.Tensor:
        """The weight, ``(out_features, in_features)``, floating, in fresh memory."""

    def prepare(self, layer: Any) -> None:
        """Called once, before ``layer`` is overlaid.

        Raises:
            ModelError: the weight is not in a form that can be read.
        """
        return None

    def computes_in(self, layer: Any, given: torch.dtype) -> torch.dtype:
        """The type in which ``layer`` multiplies an input of type ``given``."""
        return given


class FourBit(Reader):
    """bitsandbytes ``Linear4bit`` (NF4 and FP4, scales quantised again or not)."""

    def reads(self, layer: nn.Module) -> bool:
        return isinstance(layer, bitsandbytes("Linear4bit"))

    def prepare(self, layer: Any) -> None:
        state = layer.weight.quant_state
        _require_quantised(state is not None)
        if vars(state).get("packing_format_for_cpu"):
            raise ModelError(
                "bitsandbytes repacks 4-bit weights for inference on a CPU, and not without loss; these were. Load the "
                "model again, and tune it before it is used."
            )
        layer.support_avx512bf16_for_cpu = False  # so that they are not, while the base is evaluated

    def dense(self, layer: Any) -> torch.Tensor:
        weight = layer.weight
        dense: torch.Tensor = sys.modules["bitsandbytes"].functional.dequantize_4bit(weight.data, weight.quant_state)
        return dense

    def computes_in(self, layer: Any, given: torch.dtype) -> torch.dtype:
        return layer.compute_dtype or given


class EightBit(Reader):
    """bitsandbytes ``Linear8bitLt``, which also rounds activations to 8 bits; under an overlay they are not rounded."""

    def reads(self, layer: nn.Module) -> bool:
        return isinstance(layer, bitsandbytes("Linear8bitLt")) and not cast("Any", layer).state.has_fp16_weights

    def prepare(self, layer: Any) -> None:
        _require_quantised(layer.weight.dtype == torch.int8)

    def dense(self, layer: Any) -> torch.Tensor:
        scales = layer.state.SCB if layer.state.SCB is not None else layer.weight.SCB
        dense: torch.Tensor = sys.modules["bitsandbytes"].functional.int8_vectorwise_dequant(layer.weight.data, scales)
        return dense


class Own(Reader):
    """Layers that say themselves what they compute with."""

    def reads(self, layer: nn.Module) -> bool:
        return isinstance(layer, QuantisedLinear)

    def dense(self, layer: QuantisedLinear) -> torch.Tensor:
        return layer.dequantize()


class Floating(Reader):
    """An ordinary linear layer, whose weight could be moved but shall not be."""

    quantised: ClassVar[bool] = False

    def reads(self, layer: nn.Module) -> bool:
        return type(layer) is nn.Linear and layer.weight.is_floating_point()

    def dense(self, layer: nn.Linear) -> torch.Tensor:
        return layer.weight.detach().clone()


READERS: tuple[Reader, ...] = (FourBit(), EightBit(), Own(), Floating())


def reader_of(layer: nn.Module) -> Reader | None:
    """The first of ``READERS`` that reads ``layer``.

    >>> type(reader_of(nn.Linear(2, 2))).__name__, reader_of(nn.LayerNorm(2))
    ('Floating', None)
    """
    return next((reader for reader in READERS if reader.reads(layer)), None)


def _require_quantised(done: bool) -> None:
    if not done:
        raise ModelError("bitsandbytes quantises a layer when it is moved to its device, but one was not. Do so first.")


def bitsandbytes(name: str) -> type | tuple[()]:
    """The class ``bitsandbytes.nn.<name>``, or no class while bitsandbytes is not imported: then no layer is of it."""
    found = sys.modules.get("bitsandbytes")
    return getattr(found.nn, name) if found is not None else ()


def described(network: Any) -> dict[str, Any]:
    """How ``network`` was quantised, as its configuration has it; empty where it has nothing on it."""
    config = vars(network.config).get("quantization_config")
    if config is None:
        return {}
    return dict(config if isinstance(config, dict) else config.to_dict())
