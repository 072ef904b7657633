"""Subset: what ``attach`` leaves on a network whose weights are tuned in part; its silos, its file, its way back."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch

from foretune.errors import ModelError, UsageError
from foretune.tuners.heads import keep_float32, within
from foretune.tuners.subset.movement import Movement
from foretune.tuners.subset.optimizer import SubsetOptimizer
from foretune.tuners.subset.rules import Rule
from foretune.tuners.subset.silo import DISTANCES, Part, Silo, budget
from foretune.tuners.targets import leaf, linears, norms

if TYPE_CHECKING:
    from torch import nn
    from transformers import PreTrainedModel

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
ATTRIBUTE = "foretune_subset"
FORMAT = 1
SILOS = ("tensor", "layer", "module_type", "global")


@dataclass(frozen=True)
class Subset:
    """The silos of a network and the head beside them.

    Attributes:
        silos: every tensor tuned in part is in exactly one.
        heads: modules that are trained whole.
        head_base: host copies of the head's first values.
        rule, movement: how weights move, and which of them may.
    """

    silos: tuple[Silo, ...]
    heads: tuple[str, ...]
    head_base: Mapping[str, torch.Tensor]
    rule: Rule
    movement: Movement

    @property
    def parts(self) -> list[Part]:
        """Every tensor tuned in part."""
        return [part for silo in self.silos for part in silo.parts]

    @property
    def size(self) -> int:
        """Weights that may be away from the base, the head left out."""
        return sum(silo.k for silo in self.silos)


def targets(network: PreTrainedModel, heads: Sequence[str], scope: str, more: Sequence[str]) -> list[str]:
    """Names of the tensors to tune in part: matrices of linear maps (and of fused experts) in the layer stack, and by
    request ``embeddings``, ``norms`` and ``biases``. Tied weights are named once.

    Raises:
        ModelError: the network has none.
    """
    names = {f"{name}.weight" for name in linears(network, heads, scope)}
    parameters = dict(network.named_parameters())
    if scope == "all-linear":
        names |= {n for n, p in parameters.items() if p.dim() == 3 and re.search(r"\.\d+\.", n)}
    if "norms" in more:
        norm = set(norms(network, heads))
        names |= {n for n in parameters if n.rpartition(".")[0] in norm}
    if "biases" in more:
        names |= {n for n in parameters if leaf(n) == "bias"}
    if "embeddings" in more:
        names |= {f"{n}.weight" for n, m in network.named_modules() if isinstance(m, torch.nn.Embedding)}
    return [n for n in parameters if n in names and not within(n, heads)]


def silo_of(name: str, how: str) -> str:
    """The silo that the tensor ``name`` belongs to.

    >>> [silo_of("bert.encoder.layer.3.attention.query.weight", how) for how in SILOS]
    ['bert.encoder.layer.3.attention.query.weight', 'bert.encoder.layer.3', 'query', 'all']
    """
    if how == "tensor":
        return name
    if how == "layer":
        match = re.match(r"(.*?\.\d+)\.", name)
        return match[1] if match else "outside the layers"
    return leaf(name.rpartition(".")[0]) if how == "module_type" else "all"


def attach(
    network: PreTrainedModel,
    heads: Sequence[str],
    names: Sequence[str],
    *,
    density: float,
    silo: str,
    distance: str,
    least: int,
    rule: Rule,
    movement: Movement,
) -> PreTrainedModel:
    """Make ``names`` (in part) and ``heads`` (whole) trainable and nothing else.

    Raises:
        UsageError: the network carries a subset already.
    """
    if ATTRIBUTE in vars(network):
        raise UsageError("A network takes one tuner, but this one has a subset already. Load the checkpoint again.")
    network.requires_grad_(False)
    keep_float32(network.get_submodule(name) for name in heads)
    parameters = dict(network.named_parameters())
    for name, parameter in parameters.items():
        if name in names or within(name, heads):
            parameter.requires_grad_(True)
    groups: dict[str, list[Part]] = {}
    for name in names:
        groups.setdefault(silo_of(name, silo), []).append(Part(name, parameters[name]))
    silos = tuple(
        Silo(key, parts, budget(sum(map(len, parts)), density, least), DISTANCES[distance])
        for key, parts in groups.items()
    )
    base = {n: p.detach().cpu().clone() for n, p in parameters.items() if within(n, heads)}
    vars(network)[ATTRIBUTE] = Subset(silos, tuple(heads), base, rule, movement)
    return network


def subset_of(model: nn.Module) -> Subset:
    """What ``attach`` left on ``model``."""
    found = vars(model).get(ATTRIBUTE)
    if found is None:
        raise UsageError(f"Expected the model that `attach` returned, but got {type(model).__name__}. Unwrap it first.")
    return cast("Subset", found)


def dst_optimizer(model: nn.Module, lr: float = 3e-4) -> tuple[type[SubsetOptimizer], dict[str, Any]]:
    """What ``transformers.Trainer(optimizer_cls_and_kwargs=...)`` takes to train ``model``, a subset of its weights.

    Trainer's own AdamW would move every weight, and nothing would put them back.
    """
    subset = subset_of(model)
    return SubsetOptimizer, {"lr": lr, "silos": subset.silos, "rule": subset.rule, "movement": subset.movement}


def learned(model: nn.Module) -> dict[str, torch.Tensor]:
    """All that training has changed: places and values of every part, and the head."""
    subset = subset_of(model)
    tensors: dict[str, torch.Tensor] = {n: p for n, p in model.named_parameters() if within(n, subset.heads)}
    for part in subset.parts:
        tensors |= {f"{part.name}.dst_indices": part.index, f"{part.name}.dst_values": part.shadow}
    return tensors


def put(model: nn.Module, tensors: Mapping[str, torch.Tensor]) -> None:
    """The inverse of ``learned``, whatever the model holds now; the base lies below it."""
    subset, parameters = subset_of(model), dict(model.named_parameters())
    with torch.no_grad():
        for name in subset.head_base:
            parameters[name].copy_(tensors[name])
        for part in subset.parts:
            index, values = (tensors[f"{part.name}.{what}"] for what in ("dst_indices", "dst_values"))
            part.put(index.long(), values)


@contextmanager
def at_base(model: nn.Module) -> Iterator[None]:
    """Inside the block every weight is what it was before training, bit for bit."""
    subset, parameters = subset_of(model), dict(model.named_parameters())
    heads = {name: parameters[name].detach().clone() for name in subset.head_base}
    try:
        with torch.no_grad():
            for part in subset.parts:
                part.reset()
            for name, value in subset.head_base.items():
                parameters[name].copy_(value)
        yield
    finally:
        with torch.no_grad():
            for part in subset.parts:
                part.apply()
            for name, value in heads.items():
                parameters[name].copy_(value)


def base_hash(model: nn.Module) -> str:
    """A hash of the base's bits in every tensor that is tuned in part."""
    sha = hashlib.sha256()
    with at_base(model):
        for part in subset_of(model).parts:
            sha.update(part.name.encode())
            sha.update(part.weight.cpu().view(torch.uint8).numpy().tobytes())
    return sha.hexdigest()[:16]


def save(model: nn.Module, folder: Path, settings: Mapping[str, Any]) -> None:
    """Write the sparse delta: per tensor places (int32 where they fit), fp32 values, the base's bits; and the head."""
    from safetensors.torch import save_file

    subset = subset_of(model)
    tensors = learned(model) | {f"{part.name}.dst_base": part.old for part in subset.parts}
    plain = {
        key: (t.int() if key.endswith(".dst_indices") and _fits(t) else t).detach().cpu().contiguous()
        for key, t in sorted(tensors.items())
    }
    folder.mkdir(parents=True, exist_ok=True)
    save_file(plain, folder / WEIGHTS, metadata={"format": "pt"})
    config = {
        "peft_type": "DST",
        "format": FORMAT,
        "base_hash": base_hash(model),
        "heads": list(subset.heads),
        "tensors": {part.name: list(part.parameter.shape) for part in subset.parts},
        "settings": dict(settings),
    }
    (folder / CONFIG).write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def read_config(folder: Path, tuner: str) -> dict[str, Any]:
    """The configuration of a sparse delta, which must have been written by ``tuner``.

    Raises:
        ModelError: nothing readable is there, or it is of another type or of a newer format.
    """
    path = folder / CONFIG
    try:
        config: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        found, form = config["peft_type"], config.get("format", 0)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ModelError(f"`{path}` is not a readable adapter configuration. Name the folder of an adapter.") from error
    if found != "DST" or form > FORMAT or config["settings"].get("tuner") != tuner:
        raise ModelError(
            f"`{path}` must be a delta of `{tuner}` in format {FORMAT} or older, but it is {found} in format {form}, "
            f"written by `{config.get('settings', {}).get('tuner')}`. Restore it with what wrote it."
        )
    return config


def load(model: nn.Module, folder: Path, config: Mapping[str, Any]) -> None:
    """Put the delta in ``folder`` onto ``model``: all of it or, if anything is wrong, nothing.

    Raises:
        ModelError: the base is not the one that was tuned, or the delta is not whole.
    """
    from safetensors.torch import load_file

    tensors = load_file(folder / WEIGHTS)
    subset, parameters = subset_of(model), dict(model.named_parameters())
    shapes = {part.name: list(part.parameter.shape) for part in subset.parts}
    if shapes != config["tensors"]:
        name = next(n for n in sorted({*shapes, *config["tensors"]}) if shapes.get(n) != config["tensors"].get(n))
        raise ModelError(
            f"The delta in `{folder}` does not fit this network: `{name}` is {config['tensors'].get(name, 'absent')} "
            f"there, {shapes.get(name, 'absent')} here. Load the checkpoint it was trained on."
        )
    for name in subset.head_base:
        if name not in tensors or tensors[name].shape != parameters[name].shape:
            raise ModelError(f"The delta in `{folder}` has no head that fits: `{name}`. Use as many labels.")
    if (found := base_hash(model)) != config["base_hash"]:
        raise ModelError(
            f"The delta in `{folder}` was trained on a base with hash {config['base_hash']}, but this one has {found}. "
            "Load the checkpoint it was trained on."
        )
    for part in subset.parts:
        _require_whole(folder, part, tensors)
    put(model, tensors)


def _require_whole(folder: Path, part: Part, tensors: Mapping[str, torch.Tensor]) -> None:
    keys = [f"{part.name}.{what}" for what in ("dst_indices", "dst_values", "dst_base")]
    if missing := [key for key in keys if key not in tensors]:
        raise ModelError(f"The delta in `{folder}` is not whole: `{missing[0]}` is missing. Restore it from a copy.")
    index, values, old = (tensors[key] for key in keys)
    rising = len(index) < 2 or bool((index[1:] > index[:-1]).all())
    inside = not len(index) or (int(index[0]) >= 0 and int(index[-1]) < len(part))
    if not (len(index) == len(values) == len(old) and rising and inside):
        raise ModelError(
            f"The delta in `{folder}` is spoiled: the places of `{part.name}` must rise within {len(part)} weights, "
            "one value for each. Restore it from a copy."
        )


def _fits(index: torch.Tensor) -> bool:
    return not len(index) or int(index[-1]) < 2**31
