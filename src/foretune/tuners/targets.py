"""Which modules of a network a method acts on, found by looking at the network.

PEFT's tables of target names lack DistilBERT, ModernBERT and others. Here a module is described by what it is (a linear
map inside the layer stack, inside attention, a norm), and the result is written the way PEFT reads it: short names
where they fit exactly these modules and no others, otherwise one regular expression. Either is exact on reload.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from foretune.errors import ModelError
from foretune.tuners.heads import within

if TYPE_CHECKING:
    from torch import nn
    from transformers import PreTrainedModel

FUSED = ("c_attn", "Wqkv", "qkv_proj", "query_key_value")
QUERIES = ("query", "q_proj", "q_lin", "q", "query_proj", *FUSED)
KEYS = ("key", "k_proj", "k_lin", "k", "key_proj", *FUSED)
VALUES = ("value", "v_proj", "v_lin", "v", "value_proj", *FUSED)

UNDER = "base_layer"
"""What a wrapper calls the layer that it lies over: not a layer of its own."""


def linears(network: PreTrainedModel, heads: Sequence[str], scope: str = "all-linear") -> list[str]:
    """Linear maps (GPT-2's transposed ones included) inside the layer stack and outside ``heads``.

    Args:
        scope: ``all-linear``; ``attention``: all of attention's; ``qv``: its query and value projections, and fused
            projections that contain them.
    """
    names = [
        name
        for name, module in network.named_modules()
        if is_linear(module) and re.search(r"\.\d+\.", name) and not within(name, heads) and leaf(name) != UNDER
    ]
    keep: dict[str, Callable[[str], bool]] = {
        "all-linear": lambda name: True,
        "attention": in_attention,
        "qv": lambda name: in_attention(name) and leaf(name) in (*QUERIES, *VALUES),
    }
    return require([n for n in names if keep[scope](n)], f"linear layer ({scope})", network)


def keys_and_values(network: PreTrainedModel, heads: Sequence[str]) -> list[str]:
    """Key and value projections of every attention; where the three are fused, the fused one."""
    names = [n for n in linears(network, heads, "attention") if leaf(n) in (*KEYS, *VALUES)]
    return require(names, "key or value projection", network)


def feedforward_outputs(network: PreTrainedModel, heads: Sequence[str]) -> list[str]:
    """The maps from a feed-forward block's inner width back to the hidden size."""
    hidden = network.config.hidden_size
    names = []
    for name in linears(network, heads):
        inner, outer = widths(network.get_submodule(name))
        if not in_attention(name) and outer == hidden and inner != hidden:
            names.append(name)
    return require(names, "feed-forward output", network)


def norms(network: PreTrainedModel, heads: Sequence[str]) -> list[str]:
    """Every LayerNorm and RMSNorm outside ``heads``, those of queries and keys included."""
    names = [
        name
        for name, module in network.named_modules()
        if "norm" in type(module).__name__.lower() and dict(module.named_parameters(recurse=False))
    ]
    return require([n for n in names if not within(n, heads)], "normalisation layer", network)


def written(network: PreTrainedModel, names: Sequence[str]) -> list[str] | str:
    """``names`` as PEFT's ``target_modules``: endings that match these modules and no others, else a pattern.

    The pattern (a regular expression) stands for any layer number, so it stays short on deep networks.
    """
    everything = [name for name, _ in network.named_modules() if name]
    endings = {_ending(name, set(names), everything) for name in names}
    if None not in endings:
        return sorted(e for e in endings if e is not None)
    pattern = "|".join(sorted({re.sub(r"(?<=\\\.)\d+(?=\\\.)", r"\\d+", re.escape(name)) for name in names}))
    if {n for n in everything if re.fullmatch(pattern, n)} == set(names):
        return pattern
    return "|".join(sorted(re.escape(name) for name in names))


def _ending(name: str, wanted: set[str], everything: Sequence[str]) -> str | None:
    parts = name.split(".")
    for start in range(len(parts) - 1, -1, -1):
        if parts[start].isdigit():
            return None
        ending = ".".join(parts[start:])
        if all(n in wanted for n in everything if n.endswith(ending)):
            return ending
    return None


def require(names: list[str], what: str, network: PreTrainedModel) -> list[str]:
    """``names``, or a ``ModelError`` that says what was looked for and not found."""
    if not names:
        raise ModelError(f"{type(network).__name__} has no {what} to tune. Choose another tuner, such as `full`.")
    return names


def is_linear(module: nn.Module) -> bool:
    """A linear map, either way round."""
    from torch import nn
    from transformers.pytorch_utils import Conv1D

    return isinstance(module, nn.Linear | Conv1D)


def transposed(network: PreTrainedModel, names: Sequence[str]) -> bool:
    """Whether the weights lie as (in, out), which PEFT calls ``fan_in_fan_out``."""
    from transformers.pytorch_utils import Conv1D

    return any(isinstance(network.get_submodule(name), Conv1D) for name in names)


def widths(module: nn.Module) -> tuple[int, int]:
    """Input and output width of a linear map."""
    from transformers.pytorch_utils import Conv1D

    rows, columns = dict(module.named_parameters())["weight"].shape
    return (rows, columns) if isinstance(module, Conv1D) else (columns, rows)


def leaf(name: str) -> str:
    """The last part of a dotted name."""
    return name.rpartition(".")[2]


def in_attention(name: str) -> bool:
    """Whether a module of this name lies inside an attention block.

    >>> in_attention("bert.encoder.layer.0.attention.self.query"), in_attention("h.0.mlp.c_attn")
    (True, False)
    """
    return any("attn" in part.lower() or "attention" in part.lower() for part in name.split(".")[:-1])
