"""Adaptive fine-tuning: the last blocks train, the nearer to the output the faster; embeddings stay as they are.

Freezing from the input and a rate that falls with the distance from the output are both from Howard and Ruder 2018
(ULMFiT, arXiv 1801.06146, section 3.2: discriminative rates). With the blocks numbered 0, ..., L-1 from the input::

    rate of block l = lr * rate_decay^(L-1-l)        final norm: lr        fresh head: the schedule's own rate

Blocks are found by looking at the network, not by name: a rule that tests for ``layer`` where the modules are called
``layers`` never fires, and nothing says so. In an encoder-decoder the decoder's blocks follow the encoder's.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from foretune.errors import ModelError, UsageError
from foretune.records import Choice, Real, Schedule, Space
from foretune.tuners.heads import outermost, within
from foretune.tuners.patch import PatchTuner, patched, read_meta
from foretune.tuners.targets import is_linear, leaf

if TYPE_CHECKING:
    from torch import nn
    from torch.optim import Optimizer
    from transformers import PreTrainedModel

FINAL_NORMS = ("final_layer_norm", "final_layernorm", "final_norm", "layer_norm", "ln_f", "norm", "norm_f")
"""What architectures call the norm behind their last block."""


@dataclass(frozen=True)
class Adaptive(PatchTuner):
    """The last blocks, the final norm and the head, with rates that fall towards the input.

    ``lr`` 5e-5 in [1e-5, 1e-4]: as for full tuning, whose rates the last block keeps.

    Attributes:
        blocks: how many train, counted from the output.
        rate_decay: the ratio of the rates of two neighbouring blocks; 1 gives all the same.

    >>> Adaptive(blocks=4).part.options
    {'blocks': 4, 'rate_decay': 0.95}
    """

    blocks: int = 2
    rate_decay: float = 0.95

    name: ClassVar[str] = "adaptive"
    space: ClassVar[Space] = Space(
        {"lr": Real(1e-5, 1e-4, log=True), "blocks": Choice((1, 2, 4)), "rate_decay": Choice((0.8, 0.9, 0.95, 1.0))}
    )
    lr: ClassVar[float] = 5e-5

    def __post_init__(self) -> None:
        if self.blocks < 1 or not 0 < self.rate_decay <= 1:
            raise UsageError(
                "`blocks >= 1` and `0 < rate_decay <= 1` must hold, "
                f"but got blocks={self.blocks}, rate_decay={self.rate_decay:g}."
            )

    def chosen(self, network: PreTrainedModel, heads: Sequence[str]) -> set[str]:
        stack = block_names(network)
        if not stack:
            raise ModelError(f"`{self.name}` finds no stack of blocks in {type(network).__name__}. Use `full`.")
        last = min(self.blocks, len(stack))
        trained = (*stack[-last:], *final_norms(network, stack[-1]))
        shared = {id(p) for module in embeddings(network) for p in module.parameters()}
        return {n for n, p in network.named_parameters() if within(n, trained) and id(p) not in shared}

    def optimizer_for(
        self, model: nn.Module, groups: Sequence[dict[str, Any]], schedule: Schedule | None = None
    ) -> Optimizer:
        """AdamW over ``groups``, each split by block; ``lr`` and ``peak`` of a group, where it has them, are scaled."""
        network, _ = patched(model)
        scales = self.scales(network)
        split = [part for group in groups for part in _split(group, scales)]
        return super().optimizer_for(model, split, schedule)

    def scales(self, network: PreTrainedModel) -> dict[int, float]:
        """``id`` of each trained parameter of a block -> the share of the rate that it gets; others get all of it."""
        stack = block_names(network)
        return {
            id(parameter): self.rate_decay ** (len(stack) - 1 - depth)
            for depth, name in enumerate(stack)
            for parameter in network.get_submodule(name).parameters()
            if parameter.requires_grad
        }

    def restore(self, network: PreTrainedModel, folder: Path) -> PreTrainedModel:
        held = _held(block_names(network), read_meta(folder, self.name)["shapes"])
        return super(Adaptive, replace(self, blocks=max(1, held))).restore(network, folder)


def block_names(network: PreTrainedModel) -> list[str]:
    """The blocks of the backbone in the order in which a text passes them; those of a decoder after the encoder's.

    A stack is an outermost ``ModuleList`` of one class that holds linear maps.
    """
    from torch import nn

    lists = {name: module for name, module in network.named_modules() if isinstance(module, nn.ModuleList)}
    stacks = [
        name
        for name in outermost(lists)
        if len({type(block) for block in lists[name]}) == 1 and any(is_linear(m) for m in lists[name][0].modules())
    ]
    return [f"{name}.{i}" for name in stacks for i in range(len(lists[name]))]


def final_norms(network: PreTrainedModel, block: str) -> list[str]:
    """The norm behind the stack that ``block`` is of: beside the stack, under one of the names in ``FINAL_NORMS``."""
    beside = block.rpartition(".")[0].rpartition(".")[0]
    return [
        name
        for name, module in network.named_modules()
        if name.rpartition(".")[0] == beside and leaf(name) in FINAL_NORMS and "norm" in type(module).__name__.lower()
    ]


def embeddings(network: PreTrainedModel) -> Iterator[nn.Module]:
    """Every table that is looked up, the language model's tied output with it; frozen wherever it lies."""
    from torch import nn

    yield from (module for module in network.modules() if isinstance(module, nn.Embedding))


def _held(stack: Sequence[str], names: Mapping[str, Any]) -> int:
    """How many blocks a patch holds."""
    return sum(any(name.startswith(f"{block}.") for name in names) for block in stack)


def _split(group: dict[str, Any], scales: Mapping[int, float]) -> Iterator[dict[str, Any]]:
    parts: dict[float, list[nn.Parameter]] = {}
    for parameter in group["params"]:
        parts.setdefault(scales.get(id(parameter), 1.0), []).append(parameter)
    for scale, parameters in parts.items():
        yield {**group, "params": parameters, **{key: group[key] * scale for key in ("lr", "peak") if key in group}}
