"""Overlap: how much two subsets have in common, beside what chance would give them.

Whether seeds agree on a subset tells whether it is a property of the task. Two subsets of the same matrices overlap by
chance too, and the more so the larger they are: a Jaccard index alone says nothing.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from foretune.errors import ModelError

if TYPE_CHECKING:
    import numpy as np


@dataclass(frozen=True)
class Overlap:
    """What two subsets of the same weights have in common.

    Attributes:
        first, second: their sizes.
        shared: weights that are in both.
        shared_by_chance: how many would be, if in every matrix each were drawn at random, as many as they are.

    >>> found = Overlap(10, 10, 5, 1.0)
    >>> round(found.jaccard, 3), round(found.jaccard_by_chance, 3)
    (0.333, 0.053)
    """

    first: int
    second: int
    shared: int
    shared_by_chance: float

    @property
    def jaccard(self) -> float:
        """Shared weights over those in either; NaN where both are empty."""
        return self._over_union(self.shared)

    @property
    def jaccard_by_chance(self) -> float:
        """The same of ``shared_by_chance``."""
        return self._over_union(self.shared_by_chance)

    def _over_union(self, shared: float) -> float:
        union = self.first + self.second - shared
        return shared / union if union else math.nan


Places = Mapping[str, "np.ndarray"]
"""Tensor -> the flat places of a subset in it, each once."""


def overlap_of(first: Places, second: Places, sizes: Mapping[str, int]) -> Overlap:
    """Compare two subsets.

    Args:
        first, second: for every tensor; one that is left out has none.
        sizes: tensor -> how many weights it has.

    >>> import numpy as np
    >>> overlap_of({"w": np.array([1, 2, 3])}, {"w": np.array([3, 4])}, {"w": 12})
    Overlap(first=3, second=2, shared=1, shared_by_chance=0.5)
    """
    import numpy as np

    nothing = np.empty(0, dtype=np.int64)
    pairs = [(first.get(name, nothing), second.get(name, nothing), size) for name, size in sizes.items()]
    return Overlap(
        sum(len(a) for a, _, _ in pairs),
        sum(len(b) for _, b, _ in pairs),
        sum(len(np.intersect1d(a, b, assume_unique=True)) for a, b, _ in pairs),
        sum(len(a) * len(b) / size for a, b, size in pairs),
    )


def overlap(first: Path | str, second: Path | str) -> Overlap:
    """Compare the subsets in two folders: of runs, or of adapters.

    Raises:
        ModelError: one of them holds no subset, or they are of different matrices or bases.
    """
    folders = [_adapter(Path(folder)) for folder in (first, second)]
    configs = [_config(folder) for folder in folders]
    for what, name in (("tensors", "the same matrices"), ("base_hash", "the same base")):
        if configs[0][what] != configs[1][what]:
            raise ModelError(
                f"Only subsets of {name} can overlap, but `{folders[0]}` and `{folders[1]}` differ in `{what}`. "
                "Compare runs of one model with the same `targets` and `more`."
            )
    sizes = {name: math.prod(shape) for name, shape in configs[0]["tensors"].items()}
    return overlap_of(_places(folders[0], sizes), _places(folders[1], sizes), sizes)


def _adapter(folder: Path) -> Path:
    for found in (folder, folder / "adapter"):
        if (found / "adapter_config.json").is_file():
            return found
    raise ModelError(f"`{folder}` holds no adapter: no `adapter_config.json` is there. Name a run's folder.")


def _config(folder: Path) -> dict[str, Any]:
    path = folder / "adapter_config.json"
    try:
        config: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        kind = config["peft_type"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ModelError(f"`{path}` is not a readable adapter configuration. Name the folder of an adapter.") from error
    if kind != "DST":
        raise ModelError(
            f"`{folder}` must hold a subset of weights, but it holds {kind}. Name a run of `dynamic-subset` or "
            "`static-subset`."
        )
    return config


def _places(folder: Path, names: Mapping[str, int]) -> Places:
    from safetensors import SafetensorError, safe_open

    path = folder / "adapter_model.safetensors"
    try:
        with safe_open(path, framework="np") as file:
            return {name: file.get_tensor(f"{name}.dst_indices") for name in names}
    except (OSError, SafetensorError) as error:
        raise ModelError(f"`{path}` is not whole ({error}). Restore it from a copy.") from error
