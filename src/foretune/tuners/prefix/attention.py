"""Keys and values in front of a network's own, inside its attention: what a prefix is, for every architecture alike.

transformers lets a model name its attention function. Ours puts the prefix in front of the keys and values that the
layer has just made (after rotation, after its cache) and calls the function the model had. So caches, beams, sliding
windows and activation checkpointing stay the network's own business. DeBERTa-v2 computes attention itself and gets the
same through hooks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from sys import modules
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.nn import functional as F

from foretune.errors import ModelError
from foretune.tuners.limits import POSITION_TABLES

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from foretune.tuners.prefix.mixture import Mixture

SLOT = "foretune_prefix"
"""The attribute of an attention module that holds its ``Slot``."""

CROSS = ("crossattention", "cross_attn", "encoder_attn", "EncDecAttention")
"""Names of modules in which a decoder attends to its encoder: they get no prefix."""


class Unserved(ModelError):
    """A prefix cannot be put into a network: why, and the way out; ``attach`` puts the names in front."""


@dataclass(frozen=True)
class Site:
    """An attention module that will get a prefix: its key-value heads and their width."""

    module: nn.Module
    heads: int
    width: int


@dataclass(eq=False)
class Slot:
    """What an attention module knows: which layer of which mixture is its own."""

    mixture: Mixture
    layer: int
    length: int


_seen: ContextVar[list[tuple[Site, torch.Tensor, torch.Tensor]] | None] = ContextVar("seen", default=None)
"""Where passes are watched: who attended, with which keys and values."""


def attend(
    inner: Callable[..., Any],
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    **kwargs: Any,
) -> Any:
    """An attention function of transformers with the module's prefix in front; ``(batch, heads, tokens, width)``."""
    if (seen := _seen.get()) is not None:
        seen.append((Site(module, key.shape[1], key.shape[3]), key, value))
    slot: Slot | None = vars(module).get(SLOT)
    if slot is None or not slot.mixture.enabled:
        return inner(module, query, key, value, attention_mask, **kwargs)
    causal = kwargs.get("is_causal")
    if (
        attention_mask is None
        and query.shape[2] > 1
        and (vars(module).get("is_causal", True) if causal is None else causal)
    ):
        ones = torch.ones(query.shape[2], key.shape[2], dtype=torch.bool, device=key.device)
        attention_mask = ones.tril()[None, None]
    keys, values = slot.mixture.keys_values(slot.layer, key.shape[0], key)
    if kwargs.get("position_bias") is not None:
        kwargs["position_bias"] = F.pad(kwargs["position_bias"], (slot.length, 0))
    return inner(
        module,
        query,
        torch.cat([keys, key], 2),
        torch.cat([values, value], 2),
        widened(attention_mask, slot.length),
        **kwargs,
    )


def widened(mask: torch.Tensor | None, length: int) -> torch.Tensor | None:
    """A mask ``(batch, heads, queries, keys)``, boolean or additive, with ``length`` visible keys in front.

    >>> widened(torch.tensor([[[[True, False]]]]), 1).tolist()
    [[[[True, True, False]]]]
    """
    if mask is None:
        return None
    return F.pad(mask, (length, 0), value=True if mask.dtype == torch.bool else 0.0)


def _with_sdpa(module: nn.Module, *args: Any, **kwargs: Any) -> Any:
    from transformers.integrations.sdpa_attention import sdpa_attention_forward

    return attend(sdpa_attention_forward, module, *args, **kwargs)


def _with_eager(module: nn.Module, *args: Any, **kwargs: Any) -> Any:
    return attend(vars(modules[type(module).__module__])["eager_attention_forward"], module, *args, **kwargs)


SERVED = {"sdpa": ("foretune_prefix", _with_sdpa), "eager": ("foretune_prefix_eager", _with_eager)}
"""Attention functions that take a prefix: the name under which transformers knows ours, and ours."""


def register() -> None:
    """Tell transformers of our functions and of the masks they want; once or often."""
    from transformers import AttentionInterface, AttentionMaskInterface
    from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS

    for own, (name, function) in SERVED.items():
        AttentionInterface.register(name, function)
        AttentionMaskInterface.register(name, ALL_MASK_ATTENTION_FUNCTIONS[own])


def open_sites(network: PreTrainedModel, probe: dict[str, torch.Tensor]) -> list[Site]:
    """The self-attention modules of ``network`` in the order in which they run, made ready for a prefix.

    Args:
        network: its attention function is exchanged for ours, which without a prefix computes the same.
        probe: inputs of one pass.

    Raises:
        Unserved: this architecture cannot be served; why, and the way out.
    """
    own = network.config.model_type == "deberta-v2"
    sites = _deberta_sites(network) if own else _interface_sites(network, probe)
    if not sites:
        raise Unserved("none of its attention can be reached. Use `lora` or `ia3`.")
    if len({id(site.module) for site in sites}) < len(sites):
        raise Unserved("its layers share one attention module. Use `lora` or `ia3`.")
    if len(shapes := {(site.heads, site.width) for site in sites}) > 1:
        found = " and ".join(f"{heads} x {width}" for heads, width in sorted(shapes))
        raise Unserved(f"its layers have different key-value heads ({found}). Use `lora` or `ia3`.")
    return sites


def _interface_sites(network: PreTrainedModel, probe: dict[str, torch.Tensor]) -> list[Site]:
    used = str(network.config._attn_implementation)
    names = {own: name for own, (name, _) in SERVED.items()}
    if used not in names and used not in names.values():
        raise Unserved(
            f"its attention implementation must be {' or '.join(SERVED)}, but it was loaded with `{used}`. "
            'Load it with attn_implementation="sdpa".'
        )
    register()
    cross = {id(module) for name, module in network.named_modules() if set(name.split(".")) & set(CROSS)}
    try:
        before = logits_of(network, probe)
        network.set_attn_implementation(names.get(used, used))
        with watched() as seen:
            after = logits_of(network, probe)
    except (RuntimeError, ValueError, TypeError, LookupError, AttributeError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise Unserved(f"a first pass fails ({reason}). Use `lora`.") from error
    if not torch.allclose(before, after, atol=1e-5, equal_nan=True):
        raise Unserved("its attention cannot be exchanged. Use `lora` or `ia3`.")
    return [site for site, _, _ in seen if id(site.module) not in cross]


@contextmanager
def watched() -> Iterator[list[tuple[Site, torch.Tensor, torch.Tensor]]]:
    """Inside the block the list grows by what every attention gets: module, keys, values."""
    seen: list[tuple[Site, torch.Tensor, torch.Tensor]] = []
    token = _seen.set(seen)
    try:
        yield seen
    finally:
        _seen.reset(token)


def recorded_keys_values(
    network: PreTrainedModel, inputs: dict[str, torch.Tensor], sites: list[Site]
) -> list[torch.Tensor]:
    """The keys and values ``(2, tokens, heads, width)`` of every site for one text of one row.

    Raises:
        Unserved: this network computes attention itself.
    """
    with watched() as seen:
        network(**inputs)
    found = {id(site.module): torch.stack([key[0], value[0]]).transpose(1, 2) for site, key, value in seen}
    if any(id(site.module) not in found for site in sites):
        raise Unserved('init="text" needs an attention function that can be watched. Use init="normal".')
    return [found[id(site.module)] for site in sites]


def logits_of(network: nn.Module, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
    """One pass in evaluation mode without gradients; the modes of all modules are left as they were."""
    with evaluating(network), torch.no_grad():
        logits: torch.Tensor = network(**inputs).logits
    return logits


@contextmanager
def evaluating(network: nn.Module) -> Iterator[None]:
    """Inside the block every module of ``network`` is in evaluation mode."""
    modes = [(module, module.training) for module in network.modules()]
    network.eval()
    try:
        yield
    finally:
        for module, mode in modes:
            module.training = mode


def _deberta_sites(network: PreTrainedModel) -> list[Site]:
    from transformers.models.deberta_v2.modeling_deberta_v2 import DisentangledSelfAttention

    found = [module for module in network.modules() if isinstance(module, DisentangledSelfAttention)]
    return [Site(module, module.num_attention_heads, module.attention_head_size) for module in found]


def connect(site: Site, slot: Slot) -> None:
    """From now on the module of ``site`` has the prefix of ``slot``."""
    vars(site.module)[SLOT] = slot
    if "disentangled_attention_bias" in dir(type(site.module)):
        _Disentangled(site.module, slot).connect()


class _Disentangled:
    """DeBERTa-v2's attention: longer keys, values and mask; its position terms are for the text alone.

    The virtual tokens have no position, so content meets content only and the scale stays the layer's own.
    """

    def __init__(self, module: Any, slot: Slot) -> None:
        self.module, self.slot = module, slot
        self.bias, self.paused = module.disentangled_attention_bias, False

    def connect(self) -> None:
        module = self.module
        module.register_forward_pre_hook(self.mask, with_kwargs=True)
        module.key_proj.register_forward_hook(self.keys)
        module.value_proj.register_forward_hook(self.values)
        module.disentangled_attention_bias = self.position_terms

    def active(self) -> bool:
        return self.slot.mixture.enabled and not self.paused

    def mask(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if not self.active():
            return None
        hidden, mask, *rest = args
        return (hidden, widened(mask.bool(), self.slot.length), *rest), kwargs

    def keys(self, module: nn.Module, args: tuple[Any, ...], output: torch.Tensor) -> torch.Tensor:
        return self.longer(0, output)

    def values(self, module: nn.Module, args: tuple[Any, ...], output: torch.Tensor) -> torch.Tensor:
        return self.longer(1, output)

    def longer(self, which: int, output: torch.Tensor) -> torch.Tensor:
        """``(batch, tokens, heads * width)`` with the prefix in front."""
        if not self.active():
            return output
        own = self.slot.mixture.keys_values(self.slot.layer, output.shape[0], output)[which]
        return torch.cat([own.transpose(1, 2).flatten(2), output], 1)

    def position_terms(self, query: Any, key: Any, *args: Any) -> torch.Tensor:
        if not self.slot.mixture.enabled:
            return self.bias(query, key, *args)
        self.paused = True
        try:
            terms = self.bias(query, key[:, self.slot.length :], *args)
        finally:
            self.paused = False
        return F.pad(terms, (self.slot.length, 0)) if isinstance(terms, torch.Tensor) else terms


@dataclass(eq=False)
class Shift:
    """Moves every position by the length of the prefix, as PEFT's way through the cache does: a hook on the modules
    that turn positions into embeddings or rotations. A padding position stays."""

    mixture: Mixture
    length: int

    def __call__(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if not self.mixture.enabled:
            return None
        if isinstance(module, nn.Embedding):
            return (self.moved(args[0], module.padding_idx), *args[1:]), kwargs
        if "position_ids" in kwargs:
            return args, {**kwargs, "position_ids": self.moved(kwargs["position_ids"])}
        return (args[0], self.moved(args[1]), *args[2:]), kwargs

    def moved(self, positions: torch.Tensor, padding: int | None = None) -> torch.Tensor:
        """``positions`` plus the length, where they are not ``padding``."""
        if padding is None:
            return positions + self.length
        return torch.where(positions == padding, positions, positions + self.length)


def position_modules(network: PreTrainedModel) -> list[nn.Module]:
    """The modules that turn positions into embeddings or rotations; none where positions are relative.

    Raises:
        Unserved: the position table has a class of its own, whose arguments are not known here.
    """
    found: list[nn.Module] = []
    for name, module in network.named_modules():
        last = name.rpartition(".")[2]
        if last == "rotary_emb":
            found.append(module)
        elif last in POSITION_TABLES:
            if type(module) is not nn.Embedding:
                raise Unserved(
                    f'its positions ({type(module).__name__}) cannot be shifted. Use position_mode="no_shift".'
                )
            found.append(module)
    return found
