"""Adapters: several subsets of one network, of which one at a time is in its weights.

A subset replaces weights and keeps the base's bits, so putting one in the place of another is an exact swap of a few
values, however often. For the same reason two cannot be active at once: ``add_weighted_adapter`` makes one of them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import nn

from foretune.errors import UsageError
from foretune.tuners.subset import model as subsets
from foretune.tuners.subset.config import SubsetConfig
from foretune.tuners.subset.model import ATTRIBUTE, Subset
from foretune.tuners.subset.overlay import taken_off
from foretune.tuners.subset.weighted import OVERLAPS, combine, settings_of

if TYPE_CHECKING:
    from transformers import PreTrainedModel


@dataclass
class Kept:
    """An adapter.

    Attributes:
        subset: its silos; they hold what is away from the base.
        heads: the values of its head while it is out of the weights.
        trainable: whether it is to be trained while it is in them.
        blank: made for a folder that is not read yet.
    """

    subset: Subset
    heads: Mapping[str, torch.Tensor]
    trainable: bool
    blank: bool


class Adapters(nn.Module):
    """What a ``SubsetModel`` holds: the network and its adapters by name. PEFT's place for a tuner.

    Attributes:
        model: the network.
        peft_config: name -> configuration.
        active_adapter: the name of the one that is in the weights, or will be.
    """

    prefix: ClassVar[str] = "dst_"
    uses_shared_state: ClassVar[bool] = True
    """PEFT injects no such tuner into a bare network (transformers' own ``load_adapter``), and says so."""

    def __init__(
        self, model: PreTrainedModel, peft_config: Mapping[str, SubsetConfig], adapter_name: str, **unused: Any
    ) -> None:
        super().__init__()
        self.model = model
        self.peft_config: dict[str, SubsetConfig] = {}
        self.active_adapter = adapter_name
        self._kept: dict[str, Kept] = {}
        self._placed = self._merged = self._disabled = False
        for name, config in peft_config.items():
            self.add(name, config)
        self.set_adapter(adapter_name, inference_mode=peft_config[adapter_name].inference_mode)

    def __getattr__(self, name: str) -> Any:
        """What is not here is the network's."""
        try:
            return super().__getattr__(name)
        except AttributeError:
            if name == "model":
                raise
            return getattr(self.model, name)

    @property
    def active_adapters(self) -> list[str]:
        """The one that is active, as PEFT asks for it."""
        return [self.active_adapter]

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """The network's."""
        return self.model(*args, **kwargs)

    def add(self, name: str, config: SubsetConfig) -> None:
        """Make room for another adapter, with nothing learned; which one is active does not change.

        Raises:
            UsageError: the name is taken, or would be no name of a folder.
        """
        if name in self._kept or not re.fullmatch(r"[\w-]+", name):
            raise UsageError(
                f"An adapter's name must be new, of letters, digits, - and _, but got `{name}`. Known: "
                f"{', '.join(self._kept) or 'none'}."
            )
        flags = {parameter: parameter.requires_grad for parameter in self.model.parameters()}
        tuner = config.tuner
        with self._at_base():
            tuner.attach(self.model, config.heads)
            subset = vars(self.model).pop(ATTRIBUTE)
            for part in subset.parts:
                part.reset()
        if self._kept:
            for parameter, flag in flags.items():
                parameter.requires_grad_(flag)
        config.tensors = {part.name: list(part.parameter.shape) for part in subset.parts}
        self.peft_config[name] = config
        self._kept[name] = Kept(subset, subset.head_base, not config.inference_mode, config.base_hash is not None)

    def set_adapter(self, adapter_name: str | Sequence[str], inference_mode: bool = False) -> None:
        """Put ``adapter_name`` into the weights in place of the one that is there.

        Args:
            inference_mode: do not train it.

        Raises:
            UsageError: no such adapter, or several.
        """
        name = self._one(adapter_name)
        self._take_out()
        if name != self.active_adapter:
            self.model.zero_grad()
        self.active_adapter, self._merged = name, False
        self._kept[name].trainable = not inference_mode
        if not self._disabled:
            self._put_in()

    def set_requires_grad(self, adapter_names: str | Sequence[str], requires_grad: bool = True) -> None:
        """Train ``adapter_names``, one, or do not."""
        name = self._one(adapter_names)
        self._kept[name].trainable = requires_grad
        if name == self.active_adapter:
            self._flag()

    def delete_adapter(self, adapter_name: str) -> None:
        """Forget an adapter. Where it was active the first of the others becomes so.

        Raises:
            UsageError: no such adapter, or the only one.
        """
        name = self._one(adapter_name)
        if len(self._kept) == 1:
            raise UsageError(f"`{name}` is the only adapter. `unload()` gives the base network back.")
        if name == self.active_adapter:
            self.set_adapter(next(other for other in self._kept if other != name))
        del self._kept[name], self.peft_config[name]

    def disable_adapter_layers(self) -> None:
        """Put the base back, bit for bit, until ``enable_adapter_layers``."""
        self._resume = self._placed
        self._take_out()
        self._disabled = True

    def enable_adapter_layers(self) -> None:
        """Put the active adapter into the weights again."""
        self._disabled = False
        if self._resume:
            self._put_in()

    def merge_adapter(self, adapter_names: Sequence[str] | None = None, safe_merge: bool = False) -> None:
        """Have the active adapter in the weights. It is there from the start, so outputs and weights stay as they are,
        unless ``unmerge_adapter`` had taken it out.

        Args:
            adapter_names: the active one, if given.
            safe_merge: for PEFT's sake: what goes in was checked already.

        Raises:
            UsageError: another adapter, several, or inside ``disable_adapter``.
        """
        self._require_enabled()
        if adapter_names is not None and (name := self._one(adapter_names)) != self.active_adapter:
            raise UsageError(f"Only the active adapter can be merged, but got `{name}`. Call `set_adapter` first.")
        self._merged = self._placed
        self._put_in()

    def unmerge_adapter(self) -> None:
        """Undo ``merge_adapter``; where there is none to undo, take the active adapter out: the base is left, bit for
        bit, until ``merge_adapter`` or ``set_adapter``."""
        self._require_enabled()
        if not self._merged:
            self._take_out()
        self._merged = False

    def merge_and_unload(
        self, progressbar: bool = False, safe_merge: bool = False, adapter_names: Sequence[str] | None = None
    ) -> PreTrainedModel:
        """The network with the active adapter in its weights and nothing of foretune around it; arguments as PEFT's.

        Raises:
            UsageError: see ``merge_adapter``.
        """
        self.merge_adapter(adapter_names)
        return self.peft_config[self.active_adapter].tuner.merge(self.model)

    def unload(self) -> PreTrainedModel:
        """The base network as it was, bit for bit."""
        self._take_out()
        taken_off(self.model)
        return self.model

    def add_weighted_adapter(
        self, adapters: Sequence[str], weights: Sequence[float], adapter_name: str, overlap: str = "error"
    ) -> None:
        """Make one adapter out of several: base + sum of weight x (tuned - base), head included.

        Args:
            adapters: of the same tuner with the same options, the density apart.
            adapter_name: of the new one; it is not made active. Its density is the sum of theirs.
            overlap: what to do with a weight that several have moved: ``sum``, the ``first`` of ``adapters``, or
                ``error``, which refuses. A head is one thing, so two adapters with a head overlap there.

        Raises:
            UsageError: unknown names, as many weights as adapters, options that differ, or an overlap to be refused.
        """
        names = [self._one(name) for name in adapters]
        if not names or len(names) != len(weights) or len(set(names)) != len(names) or overlap not in OVERLAPS:
            raise UsageError(
                f"One weight for each of one or more different adapters, and `overlap` one of {', '.join(OVERLAPS)}, "
                f"must be given, but got {len(names)} adapters, {len(weights)} weights and overlap={overlap!r}."
            )
        config = settings_of({name: self.peft_config[name] for name in names})
        found = {}
        for name in names:
            with self.holding(name):
                tensors = {key: value.detach().clone() for key, value in subsets.learned(self.model).items()}
                found[name] = tensors | {f"{p.name}.dst_base": p.gathered()[2] for p in self._kept[name].subset.parts}
        base = self._kept[names[0]].subset.head_base
        combined = combine(found, list(weights), base, overlap)
        self.add(adapter_name, config)
        with self.holding(adapter_name):
            subsets.put(self.model, combined)

    @contextmanager
    def holding(self, name: str) -> Iterator[PreTrainedModel]:
        """Inside the block ``name`` is in the weights, whatever is active; afterwards all is as before."""
        active, placed = self.active_adapter, self._placed
        if placed and name == active:
            yield self.model
            return
        self._take_out()
        self.active_adapter = name
        self._put_in()
        try:
            yield self.model
        finally:
            self._take_out()
            self.active_adapter = active
            if placed:
                self._put_in()
            self._flag()

    def is_blank(self, name: str) -> bool:
        """Whether ``name`` was made for a folder that is not read yet."""
        return self._kept[name].blank

    def filled(self, name: str) -> None:
        """The folder that ``name`` was made for has been read."""
        self._kept[name].blank = False

    @contextmanager
    def _at_base(self) -> Iterator[None]:
        placed = self._placed
        self._take_out()
        try:
            yield
        finally:
            if placed:
                self._put_in()

    def _take_out(self) -> None:
        if self._placed:
            self._kept[self.active_adapter].heads = subsets.lift(self.model)
            self._placed = False

    def _put_in(self) -> None:
        if not self._placed:
            kept = self._kept[self.active_adapter]
            subsets.lay(self.model, kept.subset, kept.heads)
            self._placed = True
            self._flag()

    def _flag(self) -> None:
        """Let gradients flow to the active adapter's tensors and head alone, where it is to be trained."""
        kept = self._kept[self.active_adapter]
        parts = {id(part.parameter) for part in kept.subset.parts}
        self.model.requires_grad_(False)
        for name, parameter in subsets.tensors_of(self.model).items():
            if kept.trainable and (id(parameter) in parts or name in kept.subset.head_base):
                parameter.requires_grad_(True)

    def _one(self, names: str | Sequence[str]) -> str:
        listed = [names] if isinstance(names, str) else list(names)
        if len(listed) != 1:
            raise UsageError(
                f"One adapter at a time can be in the weights, but got {len(listed)}: {', '.join(listed)}. "
                "`add_weighted_adapter` makes one of several."
            )
        if listed[0] not in self._kept:
            raise UsageError(f"There is no adapter `{listed[0]}`. Known: {', '.join(self._kept)}.")
        return listed[0]

    def _require_enabled(self) -> None:
        if self._disabled:
            raise UsageError("Inside `disable_adapter()` nothing can be merged or unmerged. Leave the block first.")
