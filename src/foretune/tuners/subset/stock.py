"""Stock formats: a subset as an adapter of Super-Tuning or SHiRA, which PEFT itself loads, without foretune.

Both add a sparse delta to the weights of linear maps, and both have one number (a sparsity, a rank) that says how many
entries every layer holds. It is the least that holds the subset; the entries left over are zeros outside it. They add
where a subset replaces: base + (tuned - base) may miss the tuned value by a rounding, which is counted.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, cast

import torch

from foretune.errors import ModelError
from foretune.tuners import _peft
from foretune.tuners.subset.model import ATTRIBUTE, whole_subset_of
from foretune.tuners.subset.part import Part
from foretune.tuners.targets import written

if TYPE_CHECKING:
    from peft import PeftConfig, PeftModel
    from torch import nn
    from transformers import PreTrainedModel

ADAPTER = "default"
WHOLE = "`--to merged` (in `export_to`: `full`)"


@dataclass(frozen=True)
class Fit:
    """How well a stock format holds a subset.

    Attributes:
        weights: those away from the base.
        padding: entries that are zeros, because the format wants as many.
        rounded: weights at which base + delta, in the model's type, is not the tuned value to the last bit.
        largest_rounding: the largest such difference.
    """

    weights: int
    padding: int
    rounded: int
    largest_rounding: float


def sentence(fit: Fit) -> str:
    """What ``fit`` says, for a reader."""
    return (
        f"{fit.weights} weights and {fit.padding} zeros that the format wants; base plus delta misses the tuned value "
        f"by rounding in {fit.rounded}, by at most {fit.largest_rounding:.2g}."
    )


class Form(ABC):
    """One of PEFT's formats for a sparse delta."""

    title: ClassVar[str]

    @abstractmethod
    def config(self, parts: Sequence[Part], **common: Any) -> PeftConfig:
        """PEFT's configuration with as few entries per layer as hold ``parts``, which are weights of linear maps.

        Raises:
            ModelError: no setting holds them.
        """

    @abstractmethod
    def entries(self, layer: Any) -> torch.nn.Parameter:
        """The values of PEFT's ``layer``, ``(entries,)``."""

    @abstractmethod
    def added(self, base: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
        """Base values plus fp32 ``values``, as PEFT adds them in the base's type."""

    @abstractmethod
    def place(self, layer: Any, index: torch.Tensor) -> None:
        """Make the flat places ``index``, ``(entries,)``, those of the values."""


class Supertuning(Form):
    """Flat places; every layer holds int(size * (1 - sparsity)) of them."""

    title: ClassVar[str] = "Super-Tuning"

    def config(self, parts: Sequence[Part], **common: Any) -> PeftConfig:
        from peft import SupertuningConfig

        if large := [part for part in parts if len(part) > 2**31]:
            raise ModelError(
                f"Super-Tuning holds places in 32 bits, but `{large[0].name}` has {len(large[0]):,} weights. Use "
                f"`--to shira` or {WHOLE}."
            )
        return SupertuningConfig(sparsity=sparsity([(len(part), len(part.index)) for part in parts]), **common)

    def entries(self, layer: Any) -> torch.nn.Parameter:
        return cast("torch.nn.Parameter", layer.supertuning_values[ADAPTER])

    def added(self, base: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
        return base + values.to(base.dtype)

    def place(self, layer: Any, index: torch.Tensor) -> None:
        layer.supertuning_indices[ADAPTER] = index.int()


class Shira(Form):
    """Rows and columns; every layer holds r * (rows + columns) of them, which must not exceed its size."""

    title: ClassVar[str] = "SHiRA"

    def config(self, parts: Sequence[Part], **common: Any) -> PeftConfig:
        from peft import ShiraConfig

        widths = {part.name: sum(part.parameter.shape) for part in parts}
        r, wants = max((math.ceil(len(part.index) / widths[part.name]), part.name) for part in parts)
        room, tight = min((len(part) // widths[part.name], part.name) for part in parts)
        if r > room:
            raise ModelError(
                f"SHiRA holds r * (rows + columns) entries in every matrix with one r for all of them, but `{wants}` "
                f"needs r={r}, and `{tight}` has room for r={room}. Use `--to supertuning` or {WHOLE}."
            )
        return ShiraConfig(r=r, **common)

    def entries(self, layer: Any) -> torch.nn.Parameter:
        return cast("torch.nn.Parameter", layer.shira_weight[ADAPTER])

    def added(self, base: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
        return (base + values).to(base.dtype)

    def place(self, layer: Any, index: torch.Tensor) -> None:
        columns = layer.in_features
        layer.shira_indices[ADAPTER] = torch.stack([index // columns, index % columns]).int()


FORMS: dict[str, Form] = {"supertuning": Supertuning(), "shira": Shira()}


def sparsity(parts: Sequence[tuple[int, int]]) -> float:
    """The largest for which int(size * (1 - sparsity)), PEFT's rounding, is at least ``needed`` for all
    ``(size, needed)``.

    >>> found = sparsity([(1000, 29), (500, 3)])
    >>> int(1000 * (1 - found)), int(500 * (1 - found))
    (29, 14)
    """
    found = 1 - max(needed / size for size, needed in parts)
    while any(int(size * (1 - found)) < needed for size, needed in parts):
        found = math.nextafter(found, 0)
    return found


def save(model: nn.Module, folder: Path, form: str) -> Fit:
    """Write ``model``, which holds a subset, into ``folder`` as an adapter of ``form``, one of ``FORMS``.

    Raises:
        ModelError: the format cannot hold what was tuned.
    """
    converted, fit = convert(model, form)
    _peft.save(converted, folder)
    return fit


def convert(model: nn.Module, form: str) -> tuple[PeftModel, Fit]:
    """``model`` as stock PEFT makes it, and how well that fits. Done in place: ``model`` is not to be used afterwards.

    Raises:
        ModelError: see ``save``; then ``model`` is as it was.
    """
    kind, subset = FORMS[form], whole_subset_of(model)
    network = cast("PreTrainedModel", model)
    parts = [part for part in subset.parts if len(part.index)]
    if not parts:
        raise ModelError(f"No weight is away from the base, so {kind.title} has nothing to hold. Use {WHOLE}.")
    for part in parts:
        _require_linear(network, part, kind)
    modules = {part.name.removesuffix(".weight"): part for part in parts}
    config = kind.config(parts, target_modules=written(network, list(modules)), task_type=_peft.task_type(network))
    tuned = [part.shadow.to(part.old.dtype).float() for part in parts]
    deltas = [values - part.old.float() for part, values in zip(parts, tuned, strict=True)]
    for part in parts:
        part.reset()
    del vars(network)[ATTRIBUTE]
    wrapped = _peft.wrap(network, config, subset.heads, ADAPTER)
    padding, missed = 0, []
    for name, part, there, delta in zip(modules, parts, tuned, deltas, strict=True):
        layer = network.get_submodule(name)
        entries = kind.entries(layer)
        places, entries.data = _padded(part.index, delta, len(entries), len(part))
        kind.place(layer, places)
        padding += len(entries) - len(delta)
        missed.append((kind.added(part.old, delta).float() - there).abs().cpu())
    off = torch.cat(missed)
    return wrapped, Fit(len(off), padding, int(off.count_nonzero()), float(off.max()))


def _require_linear(network: PreTrainedModel, part: Part, kind: Form) -> None:
    owner, _, what = part.name.rpartition(".")
    module = network.get_submodule(owner)
    if what != "weight" or not isinstance(module, torch.nn.Linear):
        raise ModelError(
            f"{kind.title} holds the `weight` of a `Linear` and nothing else, but `{part.name}`, in a "
            f"`{type(module).__name__}`, was tuned as well. Use {WHOLE}."
        )


def _padded(index: torch.Tensor, values: torch.Tensor, count: int, size: int) -> tuple[torch.Tensor, torch.Tensor]:
    """``index``, ``values`` and zeros at the first places outside, ``count`` in all, by rising place."""
    free = torch.ones(size, dtype=torch.bool, device=index.device)
    free[index] = False
    more = free.nonzero().squeeze(1)[: count - len(index)]
    places, order = torch.cat([index, more]).sort()
    return places, torch.cat([values, values.new_zeros(len(more))])[order]
