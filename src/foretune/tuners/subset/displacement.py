"""Displacement of a subset: what of its budget each matrix holds, how far it is from the base, in which rows it lies.

Only what is in the subset is looked at, never a whole matrix: this costs next to nothing beside one step.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

import numpy as np
import torch
from torch import nn

from foretune.records import OUTSIDE, Displacement, Spread
from foretune.tuners.subset.model import network_of, silo_of, whole_subset_of
from foretune.tuners.subset.part import Part
from foretune.tuners.targets import transposed

if TYPE_CHECKING:
    from transformers import PreTrainedModel

PER_DECADE = 4


def measure(model: nn.Module) -> Displacement | None:
    """What ``records.Displacement`` says, of the subset that ``model`` holds now; None while no weight is chosen."""
    subset = whole_subset_of(model)
    parts = subset.parts
    if not any(len(part.index) for part in parts):
        return None
    places = [place(part.name) for part in parts]
    layers, kinds = (list(dict.fromkeys(names)) for names in zip(*places, strict=True))
    weights, chosen = np.zeros((2, len(layers), len(kinds)), dtype=np.int64)
    moved = np.zeros(weights.shape)
    bins: Counter[int] = Counter()
    lost: Counter[int] = Counter()
    for part, (layer, kind) in zip(parts, places, strict=True):
        size, same = _changes(part)
        cell = layers.index(layer), kinds.index(kind)
        weights[cell] += len(part)
        chosen[cell] += len(size)
        moved[cell] += size.sum()
        away = size > 0
        found = np.floor(np.log10(size[away]) * PER_DECADE).astype(int)
        bins.update(found.tolist())
        lost.update(found[same[away]].tolist())
    first, last = (min(bins), max(bins)) if bins else (0, -1)
    rows, columns = _spreads(network_of(model), parts)
    return Displacement(
        layers=tuple(layers),
        kinds=tuple(kinds),
        weights=tuple(map(tuple, weights.tolist())),
        chosen=tuple(map(tuple, chosen.tolist())),
        moved=tuple(tuple(float(f"{value:.6g}") for value in row) for row in moved),
        tensors=len(parts),
        silos=len(subset.silos),
        first_bin=first,
        counts=tuple(bins[i] for i in range(first, last + 1)),
        lost=tuple(lost[i] for i in range(first, last + 1)),
        at_base=int(chosen.sum()) - bins.total(),
        rows=rows,
        columns=columns,
        per_decade=PER_DECADE,
    )


def place(name: str) -> tuple[str, str]:
    """The layer of a tensor and what kind of tensor it is there; numbers below a layer (experts) make no other kind.

    >>> place("bert.encoder.layer.3.attention.self.query.weight")
    ('bert.encoder.layer.3', 'attention.self.query')
    >>> place("model.layers.0.mlp.experts.7.w1.bias"), place("bert.embeddings.word_embeddings.weight")
    (('model.layers.0', 'mlp.experts.w1.bias'), ('outside the layers', 'bert.embeddings.word_embeddings'))
    """
    layer, kind = silo_of(name, "layer"), name.removesuffix(".weight")
    if layer == OUTSIDE:
        return layer, kind
    return layer, ".".join(word for word in kind.removeprefix(f"{layer}.").split(".") if not word.isdigit())


def _changes(part: Part) -> tuple[np.ndarray, np.ndarray]:
    """|W - W0| of the subset, fp64, and which of these weights are the base's own value in bf16."""
    new, old = part.shadow.detach(), part.old.float()
    size = (new - old).abs().double()
    return size.cpu().numpy(), (new.bfloat16() == old.bfloat16()).cpu().numpy()


@dataclass(frozen=True)
class Lines:
    """The rows, or the columns, of one matrix: how many of the subset each holds, of ``length`` places."""

    counts: np.ndarray
    length: int


def _spreads(network: nn.Module, parts: Sequence[Part]) -> tuple[Spread | None, Spread | None]:
    """Over rows and over columns of the linear maps, those that lie as (in, out) turned round."""
    both: tuple[list[Lines], list[Lines]] = [], []
    for part in parts:
        owner = part.name.removesuffix(".weight")
        if part.parameter.dim() != 2 or isinstance(network.get_submodule(owner), nn.Embedding):
            continue
        height, width = part.parameter.shape
        pair = Lines(_counts(part.index // width, height), width), Lines(_counts(part.index % width, width), height)
        turned = transposed(cast("PreTrainedModel", network), [owner])
        for listed, lines in zip(both, reversed(pair) if turned else pair, strict=True):
            listed.append(lines)
    return spread(both[0]), spread(both[1])


def _counts(lines: torch.Tensor, number: int) -> np.ndarray:
    return torch.bincount(lines, minlength=number).cpu().numpy()


def spread(matrices: Sequence[Lines]) -> Spread | None:
    """How few lines hold half of the subset, and how few would by chance; None of nothing.

    By chance a line of ``length`` places holds a binomial number of them, at the density of its matrix.

    >>> spread([Lines(np.array([4, 0, 0, 0]), 100)])
    Spread(lines=4, half=1, by_chance=1)
    """
    total = sum(int(m.counts.sum()) for m in matrices)
    if not total:
        return None
    counts = np.sort(np.concatenate([m.counts for m in matrices]))[::-1]
    half = int(np.searchsorted(counts.cumsum(), total / 2)) + 1
    return Spread(len(counts), half, _by_chance(matrices, total / 2))


def _by_chance(matrices: Sequence[Lines], wanted: float) -> int:
    from scipy.stats import binom

    expected = np.zeros(max(m.length for m in matrices) + 1)
    for m in matrices:
        density = m.counts.sum() / (len(m.counts) * m.length)
        expected[: m.length + 1] += len(m.counts) * binom.pmf(np.arange(m.length + 1), m.length, density)
    fullest = expected[::-1]
    held = (fullest * np.arange(len(expected))[::-1]).cumsum()
    at = min(int(np.searchsorted(held, wanted)), len(expected) - 2)
    before = held[at - 1] if at else 0.0
    return max(1, round(float(fullest[:at].sum() + (wanted - before) / (len(expected) - 1 - at))))
