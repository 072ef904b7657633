"""Around a pass of the base network: the point it is computed at, what is refused, and what proves that it works."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from foretune.errors import ModelError, UsageError
from foretune.tuners.limits import too_long
from foretune.tuners.prefix.attention import Unserved, logits_of
from foretune.tuners.prefix.config import PrefixSubspaceConfig
from foretune.tuners.prefix.mixture import Mixture, Rebound

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from foretune.tuners.prefix.model import PrefixModel


class Passes:
    """Before and after every pass of the base network: the point of the pass, refusals, bindings."""

    def __init__(self, mixture: Mixture, config: PrefixSubspaceConfig, table: int | None) -> None:
        self.mixture, self.config, self.table = mixture, config, table

    def before(self, network: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        mixture = self.mixture
        if not mixture.enabled:
            return
        self._require_room(args, kwargs)
        training = network.training and torch.is_grad_enabled()
        alpha = mixture.draw(batch_rows(args, kwargs)) if training and not mixture.fixed else mixture.point.alpha
        mixture.point = mixture.prepare(alpha, training)
        if training:
            for module in network.modules():
                if vars(module).get("gradient_checkpointing"):
                    self._bind(module)

    def after(self, network: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        point = self.mixture.point
        self.mixture.point = type(point)(point.alpha if self.mixture.fixed else None)

    def _require_room(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if self.table is None or self.config.position_mode != "shift":
            return
        own, cache = self.config.num_virtual_tokens, kwargs.get("past_key_values")
        given = (kwargs.get("input_ids"), kwargs.get("inputs_embeds"), *args)
        length = next((int(v.shape[1]) for v in given if v is not None), 0)
        length += 0 if cache is None else int(cache.get_seq_length())
        if length + own > self.table:
            tuner = "prefix-tuning" if self.mixture.law.n == 1 else "prefix-subspace"
            raise UsageError(too_long(tuner, length, own, self.table))

    def _bind(self, layer: Any) -> None:
        function = layer._gradient_checkpointing_func
        if isinstance(function, Rebound):
            return
        if not isinstance(function, partial) or function.keywords.get("use_reentrant", True):
            raise UsageError(
                "A prefix cannot be trained with reentrant activation checkpointing, torch's default: it would get no "
                'gradient. Use activation_checkpointing_enable({"use_reentrant": False}).'
            )
        layer._gradient_checkpointing_func = Rebound(function, self.mixture)


def batch_rows(args: tuple[Any, ...], kwargs: dict[str, Any]) -> int:
    """The number of sequences in a pass: the first size of its first tensor."""
    return next(len(v) for v in (*args, *kwargs.values()) if isinstance(v, torch.Tensor) and v.dim())


def probe_inputs(network: PreTrainedModel) -> dict[str, torch.Tensor]:
    """Inputs of a smallest pass: three tokens, the last of them the end token where there is one."""
    config = network.config
    pad, end = config.pad_token_id, config.to_dict().get("eos_token_id")
    token = 1 if pad == 0 else 0
    last = end if isinstance(end, int) and end != pad else token
    ids = torch.tensor([[token, token, last]], device=network.device)
    inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    if config.is_encoder_decoder and network.can_generate():
        inputs["decoder_input_ids"] = ids[:, :2]
    return inputs


def require_reach(model: PrefixModel, probe: dict[str, torch.Tensor]) -> None:
    """Raise ``ModelError`` unless the logits change when the prefix is switched off."""
    with_prefix = logits_of(model, probe)
    with model.disable_adapter():
        without = logits_of(model, probe)
    if torch.equal(with_prefix, without):
        raise Unserved("its logits do not depend on the prefix. Use `lora` or `ia3`.")


def require_gradients(model: PrefixModel) -> None:
    """Raise ``ModelError`` where a vertex has no gradient after a backward pass: it would never move.

    To be called when processes that train together have exchanged their gradients.
    """
    gradient = model.mixture.prefix.vertices.grad
    if gradient is None:
        dead = list(range(model.mixture.law.n))
    else:
        dead = (~gradient.flatten(1).any(1)).nonzero().flatten().tolist()
    if dead:
        raise ModelError(
            f"All {model.mixture.law.n} vertices must get a gradient, but after the first backward pass "
            f"{', '.join(f'vertex {i}' for i in dead)} had none. Something detaches the prefix: use `lora`, or "
            "report the architecture."
        )
