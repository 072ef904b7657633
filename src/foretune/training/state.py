"""The state of an unfinished run on disk, so that a kill at any moment costs time and nothing else.

Each save is a new folder ``step-000120``; the file ``latest`` is then swapped to name it (an atomic rename), and older
folders are removed. A reader follows ``latest`` and so never meets a half-written save.
"""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from foretune.errors import StoreError
from foretune.records import LearningCurve, Point

if TYPE_CHECKING:
    import torch


@dataclass
class State:
    """Everything that training changes, except the weights and the optimizer's moments.

    Attributes:
        run: the identity of the run this belongs to.
        step: optimizer steps done.
        points: measured so far.
        best: (metric, negative loss, negative step) of the best evaluation: compared as a tuple, so ties are broken by
            the lower loss and then by the earlier step. None before the first evaluation.
        stale: evaluations since the best one.
        tokens: training tokens seen.
        seconds: seconds by phase.
    """

    run: str = ""
    step: int = 0
    points: list[Point] = field(default_factory=list)
    best: tuple[float, float, int] | None = None
    stale: int = 0
    tokens: int = 0
    seconds: dict[str, float] = field(default_factory=dict)

    @property
    def curve(self) -> LearningCurve:
        """The points as a record keeps them."""
        return LearningCurve(tuple(self.points))

    def to_json(self) -> dict[str, Any]:
        return {**vars(self), "points": [vars(p) for p in self.points]}

    @classmethod
    def from_json(cls, plain: dict[str, Any]) -> State:
        plain["points"] = [Point(**p) for p in plain["points"]]
        plain["best"] = tuple(plain["best"]) if plain["best"] else None
        return cls(**plain)


Tensors = dict[str, "torch.Tensor"]


def save(folder: Path, state: State, weights: Tensors, best: Tensors, moments: Tensors) -> None:
    """Write one save and make it the latest.

    Raises:
        StoreError: the disk is full or the folder cannot be written; the previous save stays valid.
    """
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    target = folder / f"step-{state.step:08d}"
    try:
        shutil.rmtree(target, ignore_errors=True)
        target.mkdir(parents=True)
        for name, tensors in (("weights", weights), ("best", best), ("moments", moments)):
            save_file({k: v.contiguous() for k, v in tensors.items()}, target / f"{name}.safetensors")
        (target / "state.json").write_text(json.dumps(state.to_json()), encoding="utf-8")
        for file in target.iterdir():
            _sync(file)
        pointer = folder / "latest.new"
        pointer.write_text(target.name, encoding="utf-8")
        _sync(pointer)
        os.replace(pointer, folder / "latest")
    except (OSError, SafetensorError) as error:
        raise StoreError(
            f"The checkpoint could not be written to `{folder}` ({error}). "
            "Free some space or give another folder with `--out`; the run goes on from its last checkpoint."
        ) from error
    for old in folder.glob("step-*"):
        if old != target:
            shutil.rmtree(old, ignore_errors=True)


def load(folder: Path) -> tuple[State, Tensors, Tensors, Tensors] | None:
    """The latest save: state, weights, best weights, optimizer moments; None when there is none."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    pointer = folder / "latest"
    if not pointer.exists():
        return None
    source = folder / pointer.read_text(encoding="utf-8").strip()
    try:
        state = State.from_json(json.loads((source / "state.json").read_text(encoding="utf-8")))
        weights, best, moments = (load_file(source / f"{n}.safetensors") for n in ("weights", "best", "moments"))
    except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
        raise StoreError(
            f"The checkpoint in `{source}` cannot be read ({error}). Delete `{folder}` to start this run again."
        ) from error
    return state, weights, best, moments


def _sync(file: Path) -> None:
    with file.open("rb") as stream:
        os.fsync(stream.fileno())
