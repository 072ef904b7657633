"""Which networks stock PEFT can give a prefix to: what a hand-over to it must know beforehand.

PEFT puts a prefix into the cache and moves the text behind it. Where a network has no cache in its forward pass, or an
encoder that never sees it, PEFT raises, or loads the adapter and computes something else in silence (T5).
"""

from __future__ import annotations

from inspect import signature
from typing import TYPE_CHECKING

from foretune.errors import ModelError

if TYPE_CHECKING:
    from transformers import PreTrainedConfig

ONLY_HERE = "Use it with foretune (`foretune predict`, `foretune.load`), or train with `lora`, which PEFT loads there."


def require_stock(tuner: str, position_mode: str, config: PreTrainedConfig) -> None:
    """Raise ``ModelError`` where stock PEFT would not compute the same for a network of this configuration.

    A class that transformers does not list is let through: what it computes shows when it is tried.
    """
    from transformers import MODEL_MAPPING

    if position_mode != "shift":
        raise ModelError(
            f"Stock PEFT moves the text behind the prefix, but this `{tuner}` was trained with "
            f"position_mode={position_mode}. {ONLY_HERE}"
        )
    if config.is_encoder_decoder:
        raise ModelError(f"Stock PEFT gives no prefix to the encoder of `{config.model_type}`. {ONLY_HERE}")
    if type(config) in MODEL_MAPPING:
        forward = signature(MODEL_MAPPING[type(config)].forward)
        if "past_key_values" not in forward.parameters:
            raise ModelError(f"Stock PEFT has no prefix for `{config.model_type}`, which has no cache. {ONLY_HERE}")
