"""How long a sequence may be, and what a tuner takes of that length for itself."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import nn

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


def too_long(tuner: str, length: int, own: int, limit: int) -> str:
    """The sentence that the guards inside the forward pass and inside generation say."""
    taken = f" and {own} virtual tokens of `{tuner}`" if own else ""
    way_out = f"a maximum length of {limit - own} or less" if own < limit else f"fewer than {limit} virtual tokens"
    return f"Sequences must fit the model's {limit} positions, but got {length} tokens{taken}. Use {way_out}."
