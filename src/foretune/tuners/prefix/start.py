"""Where the vertices start: independent draws, or the keys and values of a text. Identical vertices never part."""

from __future__ import annotations

import copy
from itertools import combinations
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from foretune.errors import ModelError, UsageError
from foretune.tuners.prefix.attention import Site, evaluating, recorded_keys_values

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from foretune.tuners.prefix.config import PrefixSubspaceConfig


def prefix_start(network: PreTrainedModel, config: PrefixSubspaceConfig, sites: list[Site]) -> torch.Tensor:
    """The vertices ``(n, P, L * 2 * d)``, or with a projection the embeddings ``(n, P, hidden)``; from torch's
    global generator, as PEFT draws a plain prefix."""
    n, length = config.n_vertices, config.num_virtual_tokens
    size = 2 * sum(site.heads * site.width for site in sites)
    if config.prefix_projection:
        if config.init == "text":
            raise UsageError('init="text" gives keys and values, which no projection has made. Leave one of them out.')
        size = config.encoder_hidden_size or network.config.hidden_size
        config.encoder_hidden_size = size
    std = config.init_std if config.init_std is not None else (1.0 if config.init == "normal" else 0.02)
    config.start_std = std * (((n + 1) / 2) ** 0.5 if config.init_scale == "hold_rms" else 1.0)
    start = torch.empty(n, length, size).normal_() * config.start_std
    if config.init == "text":
        texts = [text_start(network, text, length, sites) for text in config.init_text]
        start = start + torch.stack(texts)
    _require_apart(start, config.start_std)
    return start


def _require_apart(start: torch.Tensor, std: float) -> None:
    """Raise ``UsageError`` where two vertices are equal: they would get one gradient for ever."""
    for i, j in combinations(range(len(start)), 2):
        if torch.equal(start[i], start[j]):
            raise UsageError(
                f"{len(start)} vertices must start apart, for identical ones stay together, but vertices {i} and {j} "
                f"are equal at a start of standard deviation {std:g}. Give `init_std` a larger value, or texts that "
                "differ in their first tokens."
            )


def projection(config: PrefixSubspaceConfig) -> nn.Module | None:
    """The shared MLP of a reparametrised prefix (Li and Liang 2021), None without one."""
    if not config.prefix_projection:
        return None
    hidden = config.encoder_hidden_size
    return nn.Sequential(
        nn.Linear(hidden, hidden), nn.Tanh(), nn.Linear(hidden, config.num_layers * 2 * config.token_dim)
    )


def text_start(network: PreTrainedModel, text: str, length: int, sites: list[Site]) -> torch.Tensor:
    """The keys and values that ``text`` leaves in every layer, ``(P, L * 2 * d)``: its first ``length`` tokens.

    Raises:
        ModelError: the network has no tokenizer beside it, or does not compute through an attention function.
        UsageError: the text has fewer tokens.
    """
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(network.config._name_or_path)
    except (OSError, ValueError) as error:
        raise ModelError(
            f'init="text" needs the tokenizer of `{network.config._name_or_path}`, which does not load. '
            'Use init="normal".'
        ) from error
    ids = tokenizer(text, return_tensors="pt", add_special_tokens=False)["input_ids"][:, :length]
    if ids.shape[1] < length:
        raise UsageError(
            f"A text must have at least {length} tokens to start {length} virtual tokens, but `{text[:40]}` has "
            f"{ids.shape[1]}. Write a longer one, or use fewer virtual tokens."
        )
    inputs: dict[str, Any] = {"input_ids": ids.to(network.device), "attention_mask": torch.ones_like(ids)}
    if network.config.is_encoder_decoder:
        inputs["decoder_input_ids"] = inputs["input_ids"]
    with evaluating(network), torch.no_grad():
        kept = recorded_keys_values(network, inputs, sites)
    return torch.stack(kept).permute(2, 0, 1, 3, 4).reshape(length, -1).cpu()


def head_start(network: PreTrainedModel, linear: nn.Linear, n: int) -> list[nn.Linear]:
    """``n`` copies of a layer of the head that start apart: its weights for the first vertex, a draw of the network's
    own initialiser for each of the others, biases zero as there."""
    made = [copy.deepcopy(linear) for _ in range(n)]
    for layer in made[1:]:
        for part in layer.parameters():
            vars(part).pop("_is_hf_initialized", None)
        network._init_weights(layer)
    if n > 1 and any(torch.equal(made[0].weight, other.weight) for other in made[1:]):
        raise ModelError(
            f"Vertices of the head must start apart, but {type(network).__name__} initialises its linear layers to one "
            "value. Use head_subspace=False."
        )
    return made
