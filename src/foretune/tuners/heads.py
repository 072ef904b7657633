"""Which modules are the head: trained and saved in full by every tuner, so that methods differ in nothing else.

PEFT trains ``classifier`` and ``score`` of a classification network whatever it is told, and matches names by their end
(``classifier`` also means DistilBERT's ``pre_classifier``). One rule for all tuners is therefore PEFT's own rule.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from foretune.errors import ModelError

if TYPE_CHECKING:
    from torch import nn
    from transformers import PreTrainedModel

OUTPUT_LAYERS = ("classifier", "score", "classification_head")


def pools(network: PreTrainedModel) -> bool:
    """Whether the class gives one row of logits per text (``...ForSequenceClassification``)."""
    return type(network).__name__.endswith("ForSequenceClassification")


def classifies(network: PreTrainedModel) -> bool:
    """Whether the class ends in a classification layer, per text or per token."""
    return pools(network) or type(network).__name__.endswith("ForTokenClassification")


def head_modules(network: PreTrainedModel, fresh: Sequence[str] = ()) -> tuple[str, ...]:
    """The outermost modules to train in full: ``fresh`` and, in a classification network, its output layer.

    Raises:
        ModelError: ``fresh`` names a module that ``network`` does not have.
    """
    names = [name for name, _ in network.named_modules() if name]
    for name in fresh:
        if name not in names:
            raise ModelError(f"`fresh` must name modules of {type(network).__name__}, but it has no `{name}`.")
    wanted = (*fresh, *(OUTPUT_LAYERS if classifies(network) else ()))
    return outermost(name for name in names if wanted and name.endswith(wanted))


def modules_outside_backbone(network: PreTrainedModel) -> tuple[str, ...]:
    """Every module with weights beside the backbone of a classification network: its head as far as a class can tell.

    For callers who do not know which weights their checkpoint lacked.
    """
    if not classifies(network):
        return ()
    backbone = network.base_model
    children = network.named_children()
    return tuple(name for name, child in children if child is not backbone and any(True for _ in child.parameters()))


def outermost(names: Iterable[str]) -> tuple[str, ...]:
    """``names`` without those that lie inside another.

    >>> outermost(["classifier", "classifier.dense", "bert.pooler"])
    ('classifier', 'bert.pooler')
    """
    known = list(dict.fromkeys(names))
    return tuple(name for name in known if not any(name.startswith(f"{other}.") for other in known))


def within(name: str, modules: Iterable[str]) -> bool:
    """Whether ``name`` is one of ``modules`` or lies inside one.

    >>> within("classifier.bias", ["classifier"]), within("classifier2", ["classifier"])
    (True, False)
    """
    return any(name == module or name.startswith(f"{module}.") for module in modules)


def keep_float32(modules: Iterable[nn.Module]) -> None:
    """Hold ``modules`` in fp32 inside a bf16 or fp16 network; their floating inputs are widened on the way in.

    A fresh head in pure bf16 has 8 bits of mantissa: small updates round to nothing. No-op for fp32 modules.
    """
    import torch

    for module in modules:
        if any(p.dtype in (torch.bfloat16, torch.float16) for p in module.parameters()):
            module.float()
            module.register_forward_pre_hook(_widen)


def _widen(module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
    import torch

    return tuple(a.float() if isinstance(a, torch.Tensor) and a.is_floating_point() else a for a in args)
