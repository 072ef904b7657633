"""How long a sequence may be, and what a tuner takes of that length for itself."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from foretune.errors import UsageError

if TYPE_CHECKING:
    from torch import nn

    from foretune.tuners.base import Tuner

POSITION_TABLES = ("position_embeddings", "wpe", "embed_positions")


def table_positions(network: nn.Module) -> int | None:
    """Rows of the learned position table that tokens can use, None without a table: beyond it the forward pass fails.

    RoBERTa leaves the rows up to its padding id unused, OPT the rows of its offset.
    """
    from torch import nn

    for name, module in network.named_modules():
        if name.rpartition(".")[2] in POSITION_TABLES and isinstance(module, nn.Embedding):
            unused = 0 if module.padding_idx is None else module.padding_idx + 1
            return module.num_embeddings - unused - int(vars(module).get("offset", 0))
    return None


def positions(network: nn.Module) -> int | None:
    """How many positions ``network`` has for tokens: its table, else the length that rotary positions were trained for.

    None where positions are relative and length is not limited (T5, DeBERTa-v2).
    """
    config = text_config(network)
    nominal = None if config.get("relative_attention") else config.get("max_position_embeddings")
    return table_positions(network) or nominal


def text_config(network: nn.Module) -> dict[str, Any]:
    """The language part of the configuration of a transformers or PEFT model."""
    plain: dict[str, Any] = network.config.get_text_config().to_dict()  # type: ignore[union-attr, operator]
    return plain


def check_length(tuner: Tuner, model: nn.Module, max_length: int) -> None:
    """Refuse sequences of ``max_length`` tokens that, with the tuner's own positions, are longer than the model.

    Args:
        model: what ``tuner.attach`` returned.

    Raises:
        UsageError: names the length, the tuner's positions and the model's.
    """
    limit, own = positions(model), tuner.virtual_tokens(model)
    if limit is not None and max_length + own > limit:
        raise UsageError(too_long(tuner.name, max_length, own, limit))


def too_long(tuner: str, length: int, own: int, limit: int) -> str:
    """The sentence that both the check before a run and the guard inside the forward pass say."""
    taken = f" and {own} virtual tokens of `{tuner}`" if own else ""
    way_out = f"a maximum length of {limit - own} or less" if own < limit else f"fewer than {limit} virtual tokens"
    return f"Sequences must fit the model's {limit} positions, but got {length} tokens{taken}. Use {way_out}."
