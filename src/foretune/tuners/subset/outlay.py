"""Outlay: what training a subset takes, in bytes and in gradients. Few weights train, but all of them compete."""

from __future__ import annotations

from typing import TYPE_CHECKING

from foretune.tuners.subset.gather import gatherable, made
from foretune.tuners.subset.model import network_of, subset_of

if TYPE_CHECKING:
    from torch import nn

HEAD = 12
"""Bytes per fp32 weight of a head: its gradient and two moments."""


def training_bytes(model: nn.Module, free: bool) -> int:
    """Bytes beside weights and activations: gradients (of the largest tensor alone where they are freed one by one),
    what rule and movement remember, the working memory of one tensor, and k places, values and old values.

    >>> from foretune.testing import toys
    >>> from foretune.tuners.dynamic_subset import DynamicSubset
    >>> model = DynamicSubset(density=0.01).attach(toys.network("bert"))
    >>> weights = sum(len(part) for part in subset_of(model).parts)
    >>> training_bytes(model, free=True) < 12 * weights / 3 < training_bytes(model, free=False)
    True
    """
    subset = subset_of(model)
    parts = subset.parts
    gradients = [part.parameter.element_size() * len(part) for part in parts]
    cast = max((4 * len(part) for part in parts if part.parameter.element_size() < 4), default=0)
    kept = sum(4 * subset.rule.remembered(part.parameter.shape) for part in parts)
    kept += sum(4 * len(part) for part in parts) if subset.movement.sums else 0
    each = 8 + 4 + max(part.old.element_size() for part in parts)
    head = sum(value.numel() for value in subset.head_base.values())
    spare = 4 * max(len(part) for part in parts)
    return (max(gradients) if free else sum(gradients)) + cast + spare + kept + each * subset.size + HEAD * head


def gradients_made(model: nn.Module) -> float:
    """Of how many weights a step computed the gradient, the head's included, as a mean over the steps so far."""
    subset, network = subset_of(model), network_of(model)
    total = float(sum(value.numel() for value in subset.head_base.values()))
    for silo in subset.silos:
        for part in silo.parts:
            few = made(part) if subset.movement.gathers and gatherable(network, part) else len(part)
            total += silo.change.dense * len(part) + (1 - silo.change.dense) * few
    return total
