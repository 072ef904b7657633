"""Subset: what ``attach`` leaves on a network whose weights are tuned in part; its silos, its file, its way back."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch

from foretune.errors import ModelError, UsageError
from foretune.tuners.heads import keep_float32, within
from foretune.tuners.subset.churn import Churn
from foretune.tuners.subset.delta import (
    CONFIG,
    FORMAT,
    WEIGHTS,
    read_tensors,
    require_budget,
    require_head,
    require_part,
    require_shapes,
)
from foretune.tuners.subset.experts import ExpertSilo
from foretune.tuners.subset.guarded import GuardedOptimizer
from foretune.tuners.subset.movement import Movement
from foretune.tuners.subset.part import Part
from foretune.tuners.subset.quantised import described
from foretune.tuners.subset.rules import Rule
from foretune.tuners.subset.sharded import ShardedSilo, as_shards, copy_into, full, part_of
from foretune.tuners.subset.silo import Distance, Silo, budget
from foretune.tuners.targets import leaf, linears, norms

if TYPE_CHECKING:
    from torch import nn
    from transformers import PreTrainedModel

    from foretune.records import Schedule

ATTRIBUTE = "foretune_subset"


@dataclass(frozen=True)
class Subset:
    """The silos of a network and the head beside them.

    Attributes:
        silos: every tensor tuned in part is in exactly one.
        heads: modules that are trained whole.
        head_base: host copies of the head's first values.
        rule, movement: how weights move, and which of them may.
        room: how many weights of each silo, by name, a delta may hold.
        dropped: what becomes of the moments of weights that leave, see ``SubsetOptimizer``.
        churn: of the steps of foretune's own loop.
    """

    silos: tuple[Silo, ...]
    heads: tuple[str, ...]
    head_base: Mapping[str, torch.Tensor]
    rule: Rule
    movement: Movement
    room: Mapping[str, int]
    dropped: str = "keep"
    churn: Churn = field(default_factory=Churn)

    @property
    def parts(self) -> list[Part]:
        """Every tensor tuned in part."""
        return [part for silo in self.silos for part in silo.parts]

    @property
    def size(self) -> int:
        """Weights that may be away from the base, the head left out."""
        return sum(max(silo.k, silo.chosen) for silo in self.silos)


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

    >>> hows = ("tensor", "layer", "module_type", "global")
    >>> [silo_of("bert.encoder.layer.3.attention.query.weight", how) for how in hows]
    ['bert.encoder.layer.3.attention.query.weight', 'bert.encoder.layer.3', 'query', 'all']
    """
    if how in ("tensor", "expert"):
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
    distance: Distance,
    least: int,
    rule: Rule,
    movement: Movement,
    overlaid: Mapping[str, Part],
    left: bool = False,
    dropped: str = "keep",
) -> PreTrainedModel:
    """Make ``names`` (in part) and ``heads`` (whole) trainable and nothing else.

    Args:
        least: weights that every silo keeps; with 0 a silo whose share is less than one weight is not tuned.
        overlaid: the parts of those tensors that are not moved where they lie, see ``overlay``.
        left: weights that leave the subset stay where they are.
        dropped: what becomes of their moments, see ``SubsetOptimizer``.

    Raises:
        UsageError: the network carries a subset already, ``left`` with a weight that is overlaid, no silo is left, or
            nothing in one may move.
    """
    if left and overlaid:
        raise UsageError(
            f"Weights can be left where they are where they move in place, but `{next(iter(overlaid))}` is overlaid. "
            "Use `reset=true`."
        )
    if ATTRIBUTE in vars(network):
        raise UsageError("A network takes one tuner, but this one has a subset already. Load the checkpoint again.")
    network.requires_grad_(False)
    keep_float32(network.get_submodule(name) for name in heads)
    parameters = tensors_of(network)
    groups: dict[str, list[Part]] = {}
    for name in names:
        part = overlaid[name] if name in overlaid else part_of(name, parameters[name])
        groups.setdefault(silo_of(name, silo), []).append(part)
    apart = silo == "expert"
    groups = {key: parts for key, parts in groups.items() if budget(_sharing(parts, apart), density, least)}
    if not groups:
        raise UsageError(
            f"Some silo must get a weight, but the share density={density:g} of each is less than one. Use a larger "
            "density, `k_min=1`, or `silo=global`, where all share."
        )
    tuned = {part.name for parts in groups.values() for part in parts}
    for name, parameter in parameters.items():
        if name in tuned or within(name, heads):
            parameter.requires_grad_(True)
    budgets = {key: budget(_sharing(parts, apart), density, least) for key, parts in groups.items()}
    silos = tuple(
        _silo(
            key,
            parts,
            movement.granted(key, [part.total for part in parts], budgets[key]),
            apart,
            distance=distance,
            left=left,
        )
        for key, parts in groups.items()
    )
    room = {silo.name: _room(silo, budgets[silo.name], least) for silo in silos}
    base = {n: p.detach().cpu().clone() for n, p in parameters.items() if within(n, heads)}
    vars(network)[ATTRIBUTE] = Subset(silos, tuple(heads), base, rule, movement, room, dropped)
    return network


def _sharing(parts: Sequence[Part], apart: bool) -> int:
    """Weights that share a budget: all of ``parts``, or those of an expert if these are to be ``apart``."""
    total, first = sum(part.total for part in parts), parts[0].parameter
    return total // len(first) if apart and first.dim() == 3 else total


def _room(silo: Silo, k: int, least: int) -> int:
    """Weights of ``silo``, with a budget of ``k`` for each group, that a delta may hold: all where weights that leave
    stay away. A sum of adapters has the sum of their least budgets, and may hold that, less one, beside ``k``."""
    return sum(len(part) for part in silo.parts) if silo.left else (k + max(least - 1, 0)) * silo.groups


def _silo(name: str, parts: Sequence[Part], k: int, apart: bool, **settings: Any) -> Silo:
    """The silo of ``parts`` with ``k`` weights, or the silos of their experts if these are to be ``apart``."""
    sharded = any(part.sharded for part in parts)
    if apart and parts[0].parameter.dim() == 3:
        if sharded:
            raise UsageError(
                f"Experts have budgets of their own where a process holds them all, but `{name}` is sharded. Use "
                "`silo=tensor`, or one process."
            )
        return ExpertSilo(name, parts, k, **settings)
    kind = ShardedSilo if sharded else Silo
    return kind(name, parts, k, **settings)


def tensors_of(network: nn.Module) -> dict[str, nn.Parameter]:
    """The parameters by name; what FSDP2 has sharded is in shards."""
    as_shards(network)
    return dict(network.named_parameters())


def network_of(model: nn.Module) -> nn.Module:
    """The network that carries the subset: ``model`` itself, or what a ``SubsetModel`` is put around."""
    if ATTRIBUTE in vars(model):
        return model
    from peft import PeftModel

    return cast("nn.Module", model.get_base_model()) if isinstance(model, PeftModel) else model


def subset_of(model: nn.Module) -> Subset:
    """What ``attach`` left on ``model``, or the adapter of a ``SubsetModel`` that is in its weights now."""
    found = vars(network_of(model)).get(ATTRIBUTE)
    if found is None:
        raise UsageError(
            f"Expected a model whose weights hold a subset, but got {type(model).__name__}. Unwrap it first, leave "
            "`disable_adapter()`, or call `merge_adapter()` after `unmerge_adapter()`."
        )
    return cast("Subset", found)


def whole_subset_of(model: nn.Module) -> Subset:
    """The same, of tensors that this process holds whole.

    Raises:
        UsageError: some are sharded.
    """
    subset = subset_of(model)
    if sharded := [part.name for part in subset.parts if part.sharded]:
        raise UsageError(
            f"This process must hold the whole subset, but `{sharded[0]}` is sharded. Save the delta, and restore it "
            "in one process."
        )
    return subset


def lift(network: nn.Module) -> dict[str, torch.Tensor]:
    """Take the subset out of ``network``: the base is left, bit for bit, and carries nothing.

    Costs a write for every weight that is away, and a copy of the head.

    Returns:
        the head's values, for ``lay``.
    """
    subset, parameters = subset_of(network), tensors_of(network)
    heads = {name: parameters[name].detach().clone() for name in subset.head_base}
    with torch.no_grad():
        for part in subset.parts:
            part.reset()
        for name, value in subset.head_base.items():
            parameters[name].copy_(value)
    del vars(network)[ATTRIBUTE]
    return heads


def lay(network: nn.Module, subset: Subset, heads: Mapping[str, torch.Tensor]) -> None:
    """The inverse of ``lift``, bit for bit."""
    parameters = tensors_of(network)
    with torch.no_grad():
        for part in subset.parts:
            part.apply()
        for name, value in heads.items():
            parameters[name].copy_(value)
    vars(network)[ATTRIBUTE] = subset


def dst_optimizer(
    model: nn.Module, lr: float = 3e-4, *, steps: int | None = None, free: bool = False, unclipped: bool = False
) -> tuple[type[GuardedOptimizer], dict[str, Any]]:
    """What ``transformers.Trainer(optimizer_cls_and_kwargs=...)`` takes to train ``model``, a subset of its weights.

    Of several adapters it is for the active one. Trainer's own AdamW would move every weight, and nothing would put
    them back.

    Args:
        lr: the peak rate.
        steps: of the whole run; needed where not all weights compete in every step.
        free: look at every gradient in the backward pass and free it there, so that no more than the largest lives at
            once: for one process, one pass per step, no fp16 scaler, silos of one tensor.
        unclipped: free them also with a rule that does not limit its own steps. What is lost is ``clip_grad_norm_``
            (a Trainer's ``max_grad_norm``): it finds no gradient of the subset left, and clips the head by its own.

    Raises:
        UsageError: gradients would be freed that are to be clipped for all one knows.
    """
    network, subset = network_of(model), subset_of(model)
    if free and not (unclipped or subset.rule.bounds_itself):
        raise UsageError(
            "Gradients that are freed in the backward pass are gone before `clip_grad_norm_` could look at them, but "
            f"`{subset.rule.name}` does not limit its own steps, and got free={free}. Use `optimizer=adafactor`, "
            "`free=False`, or `unclipped=True` to train without clipping."
        )
    return GuardedOptimizer, {
        "lr": lr,
        "silos": subset.silos,
        "rule": subset.rule,
        "movement": subset.movement,
        "network": network,
        "steps": steps,
        "free": free,
        "dropped": subset.dropped,
        "in_place": lambda: vars(network).get(ATTRIBUTE) is subset,
    }


def freeable(model: nn.Module, schedule: Schedule) -> bool:
    """Whether gradients can be looked at one by one in the backward pass, to the same bits: nothing is to be added to
    them (by another pass, or another process), and nothing has to be known of all of them (a norm, a silo's rest)."""
    subset = subset_of(model)
    alone = not torch.distributed.is_available() or not torch.distributed.is_initialized()
    whole = schedule.micro_batch is None or schedule.micro_batch >= schedule.batch_size
    return alone and whole and subset.rule.bounds_itself and all(len(silo.parts) == 1 for silo in subset.silos)


def require_clipped(model: nn.Module, schedule: Schedule) -> None:
    """Raise ``UsageError`` where gradients are to be clipped that are not all there: a gathered one is in no norm."""
    subset = subset_of(model)
    if schedule.clip is not None and subset.movement.gathers and not subset.rule.bounds_itself:
        raise UsageError(
            f"Clipping needs the norm of all gradients, but got clip={schedule.clip:g} with gather=true and "
            f"optimizer={subset.rule.name}, which in most steps sees those of the subset alone. Use `gather=false`, "
            "`optimizer=adafactor`, which limits its own steps, or no clipping (`--clip 0`)."
        )


def learned(model: nn.Module) -> dict[str, torch.Tensor]:
    """All that training has changed: places and values of every part, and the head. Of what is sharded they are
    gathered, so all processes ask together."""
    subset = subset_of(model)
    tensors: dict[str, torch.Tensor] = {n: full(p) for n, p in tensors_of(model).items() if within(n, subset.heads)}
    for part in subset.parts:
        index, shadow, _ = part.gathered()
        tensors |= {f"{part.name}.dst_indices": index, f"{part.name}.dst_values": shadow}
    return tensors


def put(model: nn.Module, tensors: Mapping[str, torch.Tensor]) -> None:
    """The inverse of ``learned``, whatever the model holds now; the base lies below it."""
    subset, parameters = subset_of(model), tensors_of(model)
    with torch.no_grad():
        for name in subset.head_base:
            copy_into(parameters[name], tensors[name])
        for part in subset.parts:
            index, values = (tensors[f"{part.name}.{what}"] for what in ("dst_indices", "dst_values"))
            part.put(index.long().to(part.index.device), values.to(part.index.device))


@contextmanager
def at_base(model: nn.Module) -> Iterator[None]:
    """Inside the block every weight is what it was before training, bit for bit."""
    subset = subset_of(model)
    heads = lift(model)
    try:
        yield
    finally:
        lay(model, subset, heads)


def base_hash(model: nn.Module) -> str:
    """A hash of the base's bits in every tensor that is tuned in part."""
    sha, parts = hashlib.sha256(), subset_of(model).parts
    with at_base(model):
        for part in parts:
            sha.update(part.name.encode())
            sha.update(part.whole().cpu().view(torch.uint8).numpy().tobytes())
    return sha.hexdigest()[:16]


def save(model: nn.Module, folder: Path, settings: Mapping[str, Any]) -> bool:
    """Write the sparse delta: per tensor places (int32 where they fit), fp32 values, the base's bits; and the head.

    Where tensors are sharded all processes call it, and the first one writes.

    Returns:
        whether this process wrote.
    """
    from safetensors.torch import save_file

    subset = subset_of(model)
    tensors = learned(model) | {f"{part.name}.dst_base": part.gathered()[2] for part in subset.parts}
    base = base_hash(model)
    if any(part.sharded for part in subset.parts) and torch.distributed.get_rank():
        return False
    plain = {
        key: (t.int() if key.endswith(".dst_indices") and _fits(t) else t).detach().cpu().contiguous()
        for key, t in sorted(tensors.items())
    }
    folder.mkdir(parents=True, exist_ok=True)
    save_file(plain, folder / WEIGHTS, metadata={"format": "pt"})
    config = {
        "peft_type": "DST",
        "format": FORMAT,
        "base_hash": base,
        "heads": list(subset.heads),
        "tensors": {part.name: list(part.parameter.shape) for part in subset.parts},
        "quantization": described(model),
        "settings": dict(settings),
    }
    (folder / CONFIG).write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    return True


def load(model: nn.Module, folder: Path, config: Mapping[str, Any]) -> None:
    """Put the delta in ``folder`` onto ``model``: all of it or, if anything is wrong, nothing.

    Raises:
        ModelError: the base is not the one that was tuned, or the delta is not whole.
    """
    tensors = read_tensors(folder)
    subset, parameters = subset_of(model), tensors_of(model)
    require_shapes(folder, config, {part.name: list(part.parameter.shape) for part in subset.parts})
    require_head(folder, tensors, {name: parameters[name] for name in subset.head_base})
    if (found := base_hash(model)) != config["base_hash"]:
        raise ModelError(
            f"The delta in `{folder}` was trained on a base with hash {config['base_hash']}, but this one has {found}. "
            "Load the checkpoint it was trained on."
        )
    with at_base(model):
        for part in subset.parts:
            require_part(folder, part, tensors, part.whole())
    for silo in subset.silos:
        require_budget(folder, silo, tensors, subset.room[silo.name])
    put(model, tensors)


def _fits(index: torch.Tensor) -> bool:
    return not len(index) or int(index[-1]) < 2**31
