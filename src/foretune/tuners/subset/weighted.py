"""One subset out of several: weighted displacements, with a rule for weights that more than one has moved."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from decimal import Decimal

import torch

from foretune.errors import UsageError
from foretune.tuners.subset.config import SubsetConfig

OVERLAPS = ("sum", "first", "error")

Learned = Mapping[str, torch.Tensor]
"""What ``model.learned`` gives, and ``.dst_base`` of every tensor."""


def settings_of(configs: Mapping[str, SubsetConfig]) -> SubsetConfig:
    """The configuration that has room for all of ``configs``: densities and least budgets are added.

    Raises:
        UsageError: they differ in anything else, or freeze silos, by their own densities.
    """
    tuners = {name: config.tuner for name, config in configs.items()}
    first, one = next(iter(tuners.items()))
    density = float(min(Decimal(1), sum((Decimal(str(t.density)) for t in tuners.values()), Decimal(0))))
    least = 0
    for name, tuner in tuners.items():
        if tuner.k_min == "freeze":
            raise UsageError(
                f"Adapters can be added where each holds every silo, but `{name}` has k_min=freeze, which leaves out "
                "what its density is too small for. Train it with `k_min=1`."
            )
        least += tuner.k_min
    for name, tuner in tuners.items():
        alike = type(tuner) is type(one) and replace(tuner, density=one.density, k_min=one.k_min) == one
        if not alike or configs[name].heads != configs[first].heads:
            raise UsageError(
                f"Adapters can be added where their options (the density apart) and heads are the same, but `{first}` "
                f"is {one}, `{name}` is {tuner}. Train them with the same options."
            )
    return SubsetConfig.of(replace(one, density=density, k_min=least), configs[first].heads)


def combine(found: Mapping[str, Learned], weights: Sequence[float], head_base: Learned, overlap: str) -> Learned:
    """What ``model.put`` takes for base + sum of weight x (tuned - base).

    A weight that one adapter alone has moved, with weight 1, keeps its value to the last bit.

    Args:
        found: adapter -> what it has learned.
        overlap: one of ``OVERLAPS``.

    Raises:
        UsageError: weights that several have moved, where that is to be refused.
    """
    several = list(found.values())
    combined: dict[str, torch.Tensor] = {}
    for key in several[0]:
        if key.endswith(".dst_indices"):
            name = key.removesuffix(".dst_indices")
            combined |= _places(name, found, weights, overlap)
    for name, base in head_base.items():
        if overlap == "error" and len(several) > 1:
            raise UsageError(
                f"Every adapter has a head of its own (`{name}`), so they overlap there. Use overlap='sum' or 'first'."
            )
        used = list(zip(several, weights, strict=True))[: 1 if overlap == "first" else None]
        values = [_moved(each[name], base.to(each[name].device), weight) for each, weight in used]
        start = base.to(values[0].device)
        combined[name] = values[0] if len(values) == 1 else start + sum(value - start for value in values)
    return combined


def _places(name: str, found: Mapping[str, Learned], weights: Sequence[float], overlap: str) -> Learned:
    def joined(what: str) -> torch.Tensor:
        return torch.cat([each[f"{name}.{what}"] for each in found.values()])

    index, old = joined("dst_indices"), joined("dst_base").float()
    scale = [torch.full_like(each[f"{name}.dst_values"], w) for each, w in zip(found.values(), weights, strict=True)]
    values = _moved(joined("dst_values"), old, torch.cat(scale))
    index, order = index.sort(stable=True)
    values, old = values[order], old[order]
    places, inverse, times = index.unique_consecutive(return_inverse=True, return_counts=True)
    first = times.cumsum(0) - times
    if overlap == "error" and bool((times > 1).any()):
        raise UsageError(
            f"{int((times > 1).sum())} weights of `{name}` were moved by more than one of {', '.join(found)}. "
            "Use overlap='sum' or 'first'."
        )
    kept = values[first]
    if overlap == "sum":
        total = old[first].index_add(0, inverse, values - old)
        kept = torch.where(times > 1, total, kept)
    return {f"{name}.dst_indices": places, f"{name}.dst_values": kept}


def _moved(values: torch.Tensor, base: torch.Tensor, weight: torch.Tensor | float) -> torch.Tensor:
    """base + weight x (values - base); the values themselves where the weight is 1."""
    scale = torch.as_tensor(weight, dtype=torch.float32, device=values.device)
    return torch.where(scale == 1, values, base + scale * (values - base))
