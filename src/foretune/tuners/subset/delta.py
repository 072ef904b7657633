"""Delta: the two files of a saved subset, looked at before a weight is touched, so that nothing is applied by half."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from foretune.errors import ModelError
from foretune.tuners.subset.part import Part
from foretune.tuners.subset.silo import Silo

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
FORMAT = 1

Tensors = Mapping[str, torch.Tensor]


def _are(kind: type) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, list) and all(isinstance(one, kind) for one in value)


KINDS: dict[str, tuple[str, Callable[[Any], bool]]] = {
    "settings": ("options by name", lambda value: isinstance(value, dict)),
    "heads": ("a list of names", _are(str)),
    "tensors": ("shapes by name", lambda value: isinstance(value, dict) and all(map(_are(int), value.values()))),
    "base_hash": ("text", lambda value: isinstance(value, str)),
    "format": ("a number", lambda value: isinstance(value, int)),
}
"""What a configuration holds: what that is called, and whether a value is it."""


def read_config(folder: Path, tuner: str | None = None) -> dict[str, Any]:
    """The configuration of a sparse delta, which must have been written by ``tuner`` if that is given.

    Raises:
        ModelError: nothing readable is there, or it is of another type or of a newer format.
    """
    path = folder / CONFIG
    try:
        config: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        found, form, settings = config["peft_type"], config.get("format", 0), config.get("settings", {})
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ModelError(f"`{path}` is not a readable adapter configuration. Name the folder of an adapter.") from error
    writer = settings.get("tuner") if isinstance(settings, dict) else None
    if found != "DST" or (isinstance(form, int) and form > FORMAT) or tuner not in (None, writer):
        raise ModelError(
            f"`{path}` must be a delta of `{tuner or 'a subset'}` in format {FORMAT} or older, but it is {found} in "
            f"format {form}, written by `{writer}`. Restore it with what wrote it."
        )
    for key, (what, fits) in KINDS.items():
        if key not in config:
            raise ModelError(f"`{path}` lacks `{key}`. Restore it from a copy.")
        if not fits(config[key]):
            raise ModelError(
                f"`{key}` in `{path}` must be {what}, but it is {json.dumps(config[key])[:60]}. Restore it from a copy."
            )
    return config


def read_tensors(folder: Path) -> dict[str, torch.Tensor]:
    """What is learned, on the host.

    Raises:
        ModelError: there is no file, or it is not what safetensors wrote.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(folder / WEIGHTS)
    except (SafetensorError, OSError, ValueError) as error:
        raise ModelError(f"The delta in `{folder}` cannot be read: {error}. Restore it from a copy.") from error


def require_shapes(folder: Path, config: Mapping[str, Any], shapes: Mapping[str, list[int]]) -> None:
    """Raise ``ModelError`` unless the delta is of tensors of these ``shapes``, by name."""
    wanted = config["tensors"]
    if shapes != wanted:
        name = next(n for n in sorted({*shapes, *wanted}) if shapes.get(n) != wanted.get(n))
        raise ModelError(
            f"The delta in `{folder}` does not fit this network: `{name}` is {wanted.get(name, 'absent')} there, "
            f"{shapes.get(name, 'absent')} here. Load the checkpoint it was trained on."
        )


def require_head(folder: Path, tensors: Tensors, head: Tensors) -> None:
    """Raise ``ModelError`` unless ``tensors`` hold finite numbers for every tensor of ``head``, in its shape."""
    for name, here in head.items():
        if name not in tensors or tensors[name].shape != here.shape:
            raise ModelError(f"The delta in `{folder}` has no head that fits: `{name}`. Use as many labels.")
        if not (tensors[name].is_floating_point() and bool(torch.isfinite(tensors[name]).all())):
            raise ModelError(
                f"The delta in `{folder}` is spoiled: `{name}` of the head must hold finite numbers. Restore it from "
                "a copy."
            )


def require_part(folder: Path, part: Part, tensors: Tensors, base: torch.Tensor) -> None:
    """Raise ``ModelError`` unless ``tensors`` hold a subset of ``part`` whose ``base`` is the whole tensor, flat."""
    index, values, old = (_held(folder, tensors, f"{part.name}.dst_{what}") for what in ("indices", "values", "base"))
    counted = index.dtype in (torch.int32, torch.int64) and values.dtype == torch.float32
    alike = index.dim() == 1 and index.shape == values.shape == old.shape
    rising = len(index) < 2 or bool((index[1:] > index[:-1]).all())
    inside = not len(index) or (int(index[0]) >= 0 and int(index[-1]) < part.total)
    if not (counted and alike and rising and inside and bool(torch.isfinite(values).all())):
        raise ModelError(
            f"The delta in `{folder}` is spoiled: the places of `{part.name}` must be whole numbers that rise within "
            f"{part.total} weights, one finite fp32 value for each. Restore it from a copy."
        )
    own = base.cpu().index_select(0, index.long())
    if old.dtype != own.dtype or not torch.equal(old.view(torch.uint8), own.view(torch.uint8)):
        raise ModelError(
            f"The delta in `{folder}` is spoiled: what it keeps of the base of `{part.name}` is not what this base "
            "holds there. Restore it from a copy."
        )


def require_budget(folder: Path, silo: Silo, tensors: Tensors, room: int) -> None:
    """Raise ``ModelError`` where ``tensors`` hold more than ``room`` weights of ``silo``, or of one of its groups."""
    held = sum(len(tensors[f"{part.name}.dst_indices"]) for part in silo.parts)
    if silo.groups > 1:
        (part,) = silo.parts
        index = tensors[f"{part.name}.dst_indices"].long()
        held = silo.groups * int(torch.bincount(index // (part.total // silo.groups), minlength=1).max())
    if held > room:
        raise ModelError(
            f"The delta in `{folder}` is spoiled: of `{silo.name}` at most {room} weights may be away from the base, "
            f"but it holds {held}. Restore it from a copy."
        )


def _held(folder: Path, tensors: Tensors, key: str) -> torch.Tensor:
    if key not in tensors:
        raise ModelError(f"The delta in `{folder}` is not whole: `{key}` is missing. Restore it from a copy.")
    return tensors[key]
