"""Mixture: which point of the simplex every row of the current pass is computed at. One object per model.

The weights travel beside the network, not through its arguments, for no two architectures pass extra arguments on. What
a layer is to see when activation checkpointing computes it a second time is therefore bound to it the first time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from foretune.errors import UsageError
from foretune.tuners.prefix.simplex import uniform

if TYPE_CHECKING:
    from foretune.tuners.prefix.simplex import Prefix


@dataclass(frozen=True)
class Law:
    """How weights are drawn.

    Attributes:
        n, layers, heads: vertices, layers with a prefix, linear layers of the head that are a simplex.
        observation: every row has a draw of its own; otherwise the batch shares one.
        layerwise: every layer has a draw of its own; otherwise they share one. The head's are always their own.
        kv_shared: keys and values of a layer share theirs.
    """

    n: int
    layers: int
    heads: int = 0
    observation: bool = True
    layerwise: bool = True
    kv_shared: bool = True

    @property
    def slots(self) -> int:
        """Second size of alpha: prefix slots, then the head's."""
        return self.prefix_slots + self.heads

    @property
    def prefix_slots(self) -> int:
        """One slot per layer, two where keys and values do not share."""
        return self.layers * (1 if self.kv_shared else 2)

    def draw(self, rows: int, generator: torch.Generator) -> torch.Tensor:
        """Weights ``(rows, slots, n)`` on the CPU.

        >>> Law(n=3, layers=2, heads=1).draw(4, torch.Generator().manual_seed(0)).shape
        torch.Size([4, 3, 3])
        """
        drawn = rows if self.observation else 1
        kinds = 1 if self.kv_shared else 2
        prefix = uniform((drawn, self.layers if self.layerwise else 1, kinds), self.n, generator)
        prefix = prefix.expand(-1, self.layers, -1, -1).flatten(1, 2)
        alpha = torch.cat([prefix, uniform((drawn, self.heads), self.n, generator)], dim=1)
        return alpha.expand(rows, -1, -1).contiguous()

    def point(self, where: Any) -> torch.Tensor | None:
        """Weights ``(rows or 1, slots, n)``; None where they are the midpoint, so that this is computed as it is saved.

        Args:
            where: weights ``(rows, slots, n)``, ``(slots, n)`` or ``(n,)``, or ``"midpoint"``, or ``"vertex:2"``.

        Raises:
            UsageError: no such point.

        >>> Law(n=2, layers=1).point("vertex:1"), Law(n=2, layers=1).point([0.5, 0.5])
        (tensor([[[0., 1.]]]), None)
        """
        if isinstance(where, str) and where == "midpoint":
            return None
        weights = self._corner(where) if isinstance(where, str) else where
        try:
            found = torch.as_tensor(weights, dtype=torch.float32)
        except (TypeError, ValueError, RuntimeError) as error:
            raise UsageError(f"`alpha` must be weights or the name of a point, but got {where!r}.") from error
        full = found[(None,) * (3 - found.dim())]
        if full.dim() != 3 or full.shape[2] != self.n or full.shape[1] not in (1, self.slots) or not len(full):
            raise UsageError(
                f"`alpha` must be (rows, {self.slots}, {self.n}): {self.layers} layers and {self.heads} linear layers "
                f"of the head, {self.n} vertices; but got {tuple(found.shape)}."
            )
        sums, least = full.sum(-1), float(full.min())
        if not torch.allclose(sums, torch.ones_like(sums), atol=1e-4) or least < 0:
            raise UsageError(
                f"Weights must be at least 0 and sum to 1, but got sums from {sums.min():.4g} to {sums.max():.4g} and "
                f"a smallest weight of {least:.4g}."
            )
        if bool((full == full.new_tensor(1.0 / self.n)).all()):
            return None
        return full.expand(-1, self.slots, -1)

    def _corner(self, name: str) -> torch.Tensor:
        kind, _, index = name.partition(":")
        if kind != "vertex" or not index.isdecimal() or int(index) >= self.n:
            raise UsageError(
                f"A point is `midpoint`, `vertex:0` to `vertex:{self.n - 1}` or weights, but got `{name}`."
            )
        return torch.eye(self.n)[int(index)]


@dataclass(frozen=True)
class Point:
    """Where a pass is computed.

    Attributes:
        alpha: ``(rows, slots, n)``; None is the midpoint.
        layers: keys and values already mixed, one ``(2, rows, heads, P, width)`` per layer; empty where not yet.
    """

    alpha: torch.Tensor | None = None
    layers: tuple[torch.Tensor, ...] = ()


class Mixture:
    """The state that the injected attention and the head read.

    Attributes:
        prefix: the vertices.
        law: how weights are drawn.
        enabled: False: the network computes what it did before.
        point: where the current pass is computed.
        fixed: inside ``at``: ``point`` was given, nothing is drawn.
        dropout: of the mixed prefix, in training.
    """

    def __init__(self, prefix: Prefix, law: Law, dropout: float, seed: int) -> None:
        self.prefix, self.law, self.dropout = prefix, law, dropout
        self.enabled, self.point, self.fixed = True, Point(), False
        self.sizes: tuple[int, ...] | None = None
        self.seed(seed)

    def seed(self, seed: int) -> None:
        """Restart the private generator: the global one is left where plain prefix tuning leaves it."""
        self.generator = torch.Generator().manual_seed(seed)

    def draw(self, rows: int) -> torch.Tensor | None:
        """Weights for a training pass over ``rows`` sequences; those of one observation share a draw (``sizes``)."""
        if self.law.n == 1:
            return None
        if self.sizes is None or sum(self.sizes) != rows:
            return self.law.draw(rows, self.generator)
        alpha = self.law.draw(len(self.sizes), self.generator)
        return alpha.repeat_interleave(torch.tensor(self.sizes), 0)

    def prepare(self, alpha: torch.Tensor | None, training: bool = False) -> Point:
        """The point with the keys and values of all layers mixed at once."""
        prefix = self.prefix
        if alpha is None:
            mixed = prefix.by_layer(prefix.midpoint[None])
        else:
            alpha = alpha.to(prefix.vertices.device)
            mixed = prefix.mixed(alpha[:, : self.law.prefix_slots])
        if training and self.dropout:
            mixed = torch.nn.functional.dropout(mixed, self.dropout)
        return Point(alpha, mixed.unbind(0))

    def keys_values(self, layer: int, rows: int, like: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Keys and values of ``layer``, ``(rows, heads, P, width)`` each, in the type of ``like``."""
        point = self.point if self.point.layers else self.prepare(self.point.alpha)
        found = point.layers[layer].to(like.dtype)
        times = self._times(rows, found.shape[1])
        if found.shape[1] == 1:
            found = found.expand(-1, rows, -1, -1, -1)
        elif times > 1:
            found = found.repeat_interleave(times, 1)
        return found[0], found[1]

    def head_weights(self, slot: int, rows: int) -> torch.Tensor | None:
        """Weights ``(rows, n)`` of a layer of the head; None is the midpoint."""
        if not self.enabled or self.point.alpha is None:
            return None
        alpha = self.point.alpha[:, self.law.prefix_slots + slot]
        if len(alpha) == 1:
            return alpha.expand(rows, -1)
        return alpha.repeat_interleave(self._times(rows, len(alpha)), 0)

    @contextmanager
    def at(self, alpha: torch.Tensor | None) -> Iterator[None]:
        """Inside the block every pass is computed at ``alpha`` ``(rows, slots, n)``, or at the midpoint."""
        before = self.point, self.fixed
        device = self.prefix.vertices.device
        self.point, self.fixed = Point(None if alpha is None else alpha.to(device)), True
        try:
            yield
        finally:
            self.point, self.fixed = before

    def _times(self, rows: int, known: int) -> int:
        if rows % known:
            raise UsageError(
                f"The pass has {rows} rows, which must be a multiple of the {known} rows of `alpha`. Give one row of "
                "weights for each text, or one for all."
            )
        return rows // known


class Rebound:
    """Stands in for a layer's checkpointing function: the second computation sees the point of the first."""

    def __init__(self, function: Callable[..., Any], mixture: Mixture) -> None:
        self.function, self.mixture = function, mixture

    def __call__(self, layer: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        return self.function(_Held(layer, self.mixture), *args, **kwargs)


class _Held:
    def __init__(self, layer: Callable[..., Any], mixture: Mixture) -> None:
        self.layer, self.mixture, self.point = layer, mixture, mixture.point

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        before, self.mixture.point = self.mixture.point, self.point
        try:
            return self.layer(*args, **kwargs)
        finally:
            self.mixture.point = before
