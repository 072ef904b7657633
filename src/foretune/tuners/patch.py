"""Full tuning, linear probe and BitFit: methods that train the model's own parameters, for which PEFT has no format.

What was learned is a *patch*: ``patch.safetensors`` holds the trained parameters under their stock names, so that
``network.load_state_dict(load_file(path), strict=False)`` restores them without foretune. ``patch.json`` says what for.
"""

from __future__ import annotations

import json
from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, cast

from foretune.errors import ModelError, UsageError
from foretune.records import Real, Space, digest
from foretune.tuners.base import Tuner
from foretune.tuners.heads import head_modules, keep_float32, within

if TYPE_CHECKING:
    import torch
    from torch import nn
    from transformers import PreTrainedModel

META, WEIGHTS = "patch.json", "patch.safetensors"
FORMAT = 1


@dataclass(frozen=True)
class Patch:
    """What ``attach`` leaves on the network: which parameters are trained, which modules are the head, how all began.

    Attributes:
        base: host copies of the first values; empty when the method is not reversible.
    """

    names: tuple[str, ...]
    heads: tuple[str, ...]
    base: Mapping[str, torch.Tensor]


@dataclass(frozen=True)
class PatchTuner(Tuner):
    """Trains the chosen parameters and the head in place; the model to train is the network itself."""

    @abstractmethod
    def chosen(self, network: PreTrainedModel, heads: Sequence[str]) -> set[str]:
        """Names of the parameters to train besides ``heads``.

        Raises:
            ModelError: there is nothing to train; the message names the way out.
        """

    def attach(self, network: PreTrainedModel, fresh: Sequence[str] = ()) -> PreTrainedModel:
        heads = head_modules(network, fresh)
        chosen = self.chosen(network, heads)
        network.requires_grad_(False)
        keep_float32(network.get_submodule(name) for name in heads)
        parameters = {n: p for n, p in network.named_parameters() if n in chosen or within(n, heads)}
        for parameter in parameters.values():
            parameter.requires_grad_(True)
        base = {n: p.detach().cpu().clone() for n, p in parameters.items()} if self.reversible else {}
        network.foretune_patch = Patch(tuple(parameters), heads, base)
        return network

    def save(self, model: nn.Module, folder: Path) -> None:
        from safetensors.torch import save_file

        network, patch = patched(model)
        parameters = dict(network.named_parameters())
        tensors = {name: parameters[name].detach().cpu().contiguous() for name in patch.names}
        folder.mkdir(parents=True, exist_ok=True)
        save_file(tensors, folder / WEIGHTS, metadata={"format": "pt"})
        meta = {
            "format": FORMAT,
            "tuner": self.name,
            "architecture": type(network).__name__,
            "base_config": config_digest(network),
            "heads": list(patch.heads),
            "shapes": {name: list(tensor.shape) for name, tensor in tensors.items()},
        }
        (folder / META).write_text(json.dumps(meta, indent=2) + "\n", encoding="utf-8")

    def restore(self, network: PreTrainedModel, folder: Path) -> PreTrainedModel:
        from safetensors.torch import load_file

        meta = read_meta(folder, self.name)
        check_fit(folder, meta, network)
        self.attach(network, meta["heads"])
        network.load_state_dict(load_file(folder / WEIGHTS), strict=False)
        return network

    def merge(self, model: nn.Module) -> PreTrainedModel:
        network, _ = patched(model)
        del network.foretune_patch
        return network

    @contextmanager
    def disabled(self, model: nn.Module) -> Iterator[PreTrainedModel]:
        import torch

        network, patch = patched(model)
        if not self.reversible:
            raise ModelError(
                f"`{self.name}` overwrites the base model. Load the checkpoint again to evaluate the base."
            )
        parameters = dict(network.named_parameters())
        learned = {name: parameters[name].detach().clone() for name in patch.names}
        try:
            with torch.no_grad():
                for name, value in patch.base.items():
                    parameters[name].copy_(value)
            yield network
        finally:
            with torch.no_grad():
                for name, value in learned.items():
                    parameters[name].copy_(value)


@dataclass(frozen=True)
class Full(PatchTuner):
    """Every parameter; tied weights are trained and saved once.

    ``lr`` 5e-5: the upper end of the grid of Devlin et al. 2019 (2e-5, 3e-5, 5e-5), for few examples mean few steps.
    Not reversible: a second copy of the model would be held in memory for it.
    """

    name: ClassVar[str] = "full"
    space: ClassVar[Space] = Space({"lr": Real(5e-6, 1e-4, log=True)})
    lr: ClassVar[float] = 5e-5
    reversible: ClassVar[bool] = False

    def chosen(self, network: PreTrainedModel, heads: Sequence[str]) -> set[str]:
        return {name for name, _ in network.named_parameters()}


@dataclass(frozen=True)
class Head(PatchTuner):
    """Linear probe: the head alone, on frozen features. ``lr`` 5e-3, our choice: a convex problem bears a high rate."""

    name: ClassVar[str] = "head"
    space: ClassVar[Space] = Space({"lr": Real(1e-4, 1e-1, log=True)})
    lr: ClassVar[float] = 5e-3

    def chosen(self, network: PreTrainedModel, heads: Sequence[str]) -> set[str]:
        if not heads:
            raise ModelError(f"`{self.name}` trains a fresh head, but {type(network).__name__} has none. Use `lora`.")
        return set()


@dataclass(frozen=True)
class BitFit(PatchTuner):
    """All bias vectors and the head (Ben Zaken et al. 2022, arXiv 2106.10199, whose grid is 1e-4 to 4e-3).

    ``lr`` 1e-3 in [1e-4, 1e-2].
    """

    name: ClassVar[str] = "bitfit"
    space: ClassVar[Space] = Space({"lr": Real(1e-4, 1e-2, log=True)})
    lr: ClassVar[float] = 1e-3

    def chosen(self, network: PreTrainedModel, heads: Sequence[str]) -> set[str]:
        names = [n for n, _ in network.named_parameters() if n.rpartition(".")[2] == "bias" and not within(n, heads)]
        if not names:
            raise ModelError(
                f"`{self.name}` trains bias vectors, but {type(network).__name__} has none. "
                "Use `ln-tuning` or `ia3`, which are as small."
            )
        return set(names)


def patched(model: nn.Module) -> tuple[PreTrainedModel, Patch]:
    """The network and what ``attach`` left on it."""
    patch = vars(model).get("foretune_patch")
    if patch is None:
        raise UsageError(f"Expected the model that `attach` returned, but got {type(model).__name__}. Unwrap it first.")
    return cast("PreTrainedModel", model), patch


ARCHITECTURE = ("model_type", "vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads", "hidden_act")


def config_digest(network: PreTrainedModel) -> str:
    """What the shapes do not tell of the base: family, sizes, heads; nothing that a release may add or rename."""
    plain = network.config.get_text_config()
    return digest({key: getattr(plain, key, None) for key in ARCHITECTURE})


def read_meta(folder: Path, tuner: str) -> dict[str, Any]:
    """``patch.json``, which must have been written by ``tuner``."""
    path = folder / META
    try:
        meta: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        found, form = meta["tuner"], meta["format"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ModelError(f"`{path}` is not a readable patch. Name the folder of an adapter.") from error
    if found != tuner or form != FORMAT:
        raise ModelError(
            f"`{path}` must be a patch of `{tuner}` in format {FORMAT}, but it is one of `{found}` in format {form}."
        )
    return meta


def check_fit(folder: Path, meta: Mapping[str, Any], network: PreTrainedModel) -> None:
    """Raise ``ModelError`` unless every tensor of the patch has its place in ``network``."""
    shapes = {name: list(p.shape) for name, p in network.named_parameters()}
    for name, shape in meta["shapes"].items():
        if shapes.get(name) != shape:
            raise ModelError(
                f"The patch in `{folder}` does not fit this network: `{name}` is {shape} there, "
                f"{shapes.get(name, 'absent')} here. Load the checkpoint it was trained on, with as many labels."
            )
    if meta["base_config"] != config_digest(network):
        raise ModelError(
            f"The patch in `{folder}` was trained on a {meta['architecture']} with another configuration. "
            "Load the checkpoint it was trained on."
        )
