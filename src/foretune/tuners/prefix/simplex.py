"""The simplex of prefixes: drawing points on it, mixing its vertices, and the two modules that hold vertices.

Mathematics of Falissard et al. (2023, arXiv 2310.15793) after Wortsman et al. (2021, arXiv 2102.10472). Points are
data: a tensor ``alpha`` of weights ``(rows, slots, n)``, one slot per layer and one per linear layer of the head.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.nn import functional as F

if TYPE_CHECKING:
    from foretune.tuners.prefix.mixture import Mixture


def uniform(shape: tuple[int, ...], n: int, generator: torch.Generator | None = None) -> torch.Tensor:
    """Points drawn uniformly from the simplex with ``n`` vertices: ``(*shape, n)``, fp32, on the CPU.

    Exponential variables over their sum are Dirichlet(1, ..., 1); normalised uniforms or a softmax of normals are not,
    though their variance nearly is. The division is in fp64, so that rows sum to 1 as well as fp32 can say it.

    >>> points = uniform((2, 3), 4, torch.Generator().manual_seed(0))
    >>> points.shape, bool(((points.sum(-1) - 1).abs() < 1.2e-7).all())
    (torch.Size([2, 3, 4]), True)
    """
    draws = torch.empty(*shape, n, dtype=torch.float64).exponential_(generator=generator)
    return (draws / draws.sum(-1, keepdim=True)).float()


def mix(alpha: torch.Tensor, vertices: torch.Tensor) -> torch.Tensor:
    """Weighted sums of vertices, ``(..., rows, n), (..., n, k) -> (..., rows, k)``, in fp32 whatever autocast says.

    On a GPU a product and a sum instead of a matrix product: TF32 would round even a one-hot mix.

    >>> mix(torch.tensor([[0.0, 1.0]]), torch.tensor([[1.0, 2.0], [3.0, 4.0]]))
    tensor([[3., 4.]])
    """
    with torch.autocast(alpha.device.type, enabled=False):
        if alpha.is_cuda:
            return (alpha.unsqueeze(-1) * vertices.float().unsqueeze(-3)).sum(-2)
        return alpha @ vertices.float()


def pairwise_cosines(vertices: torch.Tensor) -> torch.Tensor:
    """Cosines of all pairs i < j of vertices, flattened, as ``(pairs,)``; empty for one vertex.

    >>> pairwise_cosines(torch.tensor([[1.0, 0.0, 0.0], [1.0, 1.0, 0.0]])).tolist()
    [0.7071...]
    """
    unit = F.normalize(vertices.float().flatten(1), dim=1)
    rows, columns = torch.triu_indices(len(unit), len(unit), offset=1, device=unit.device)
    return (unit[rows] * unit[columns]).sum(1)


def pairwise_distances(vertices: torch.Tensor) -> torch.Tensor:
    """Euclidean distances of all pairs i < j of vertices, flattened, as ``(pairs,)``.

    >>> pairwise_distances(torch.tensor([[0.0, 0.0], [3.0, 4.0]])).tolist()
    [5.0]
    """
    return torch.nn.functional.pdist(vertices.float().flatten(1))


def diversity(vertices: torch.Tensor) -> torch.Tensor:
    """Mean squared cosine over all pairs: 0 for orthogonal vertices, 1 for parallel ones (the root's regulariser).

    All pairs and not one at random: processes that train together cannot disagree on the pair.

    >>> float(diversity(torch.tensor([[1.0, 0.0, 0.0], [0.0, 2.0, 0.0]])))
    0.0
    """
    return pairwise_cosines(vertices).square().mean()


class Prefix(nn.Module):
    """The vertices, ``(n, P, L * 2 * d)``: each is laid out as one plain prefix of PEFT, ``(P, L, 2, heads, width)``.

    With a projection, embeddings ``(n, P, hidden)`` go through one MLP shared by all vertices, and what is mixed (and
    saved) is what comes out of it: the simplex is one of prefixes, not of embeddings.
    """

    def __init__(self, start: torch.Tensor, shape: tuple[int, int, int], projection: nn.Module | None = None) -> None:
        """Args:
        start: the vertices, or the embeddings that ``projection`` turns into them.
        shape: layers, key-value heads and their width.
        """
        super().__init__()
        self.vertices = nn.Parameter(start.float())
        self.projection = projection
        self.shape = shape

    @property
    def points(self) -> torch.Tensor:
        """The vertices of prefixes, ``(n, P, L * 2 * d)``."""
        return self.vertices if self.projection is None else self.projection(self.vertices)

    @property
    def midpoint(self) -> torch.Tensor:
        """The mean of the vertices, ``(P, L * 2 * d)``; for one vertex that vertex, to the bit."""
        return self.points.mean(0)

    def by_layer(self, flat: torch.Tensor) -> torch.Tensor:
        """``(rows, P, L * 2 * d)`` as ``(L, 2, rows, heads, P, width)``."""
        layers, heads, width = self.shape
        return flat.view(len(flat), -1, layers, 2, heads, width).permute(2, 3, 0, 4, 1, 5)

    def mixed(self, alpha: torch.Tensor) -> torch.Tensor:
        """Keys and values of every layer for ``alpha`` ``(rows, L or 2 L, n)``: ``(L, 2, rows, heads, P, width)``.

        With 2 L slots keys have the even and values the odd ones.
        """
        points = self.points
        n, length, _ = points.shape
        layers, heads, width = self.shape
        kinds = alpha.shape[1] // layers
        parts = points.view(n, length, layers * kinds, -1).permute(2, 0, 1, 3).reshape(layers * kinds, n, -1)
        mixed = mix(alpha.transpose(0, 1), parts)
        mixed = mixed.view(layers, kinds, len(alpha), length, 2 // kinds, heads, width)
        return mixed.permute(0, 1, 4, 2, 5, 3, 6).reshape(layers, 2, len(alpha), heads, length, width)

    def _load_adapter_state_dict(self, tensors: dict[str, torch.Tensor]) -> None:
        """PEFT's name for this: take what ``PrefixModel.save_pretrained`` wrote, or a plain prefix of PEFT.

        A projection is dropped, for what was saved had come out of it.
        """
        found = tensors.get("simplex_vertices", tensors["prompt_embeddings"].unsqueeze(0))
        if self.projection is not None:
            self.settle(found)
        with torch.no_grad():
            self.vertices.copy_(found)

    def settle(self, points: torch.Tensor) -> None:
        """Go on without a projection, with ``points`` ``(n, P, L * 2 * d)`` as the vertices."""
        self.vertices = nn.Parameter(points.detach().to(self.vertices, copy=True).contiguous())
        self.projection = None


class SimplexLinear(nn.Module):
    """A linear layer of the head as a simplex: ``n`` weights ``(n, C, H)`` and biases ``(n, C)``.

    Mixing its outputs equals mixing its weights, for it is linear. Its state holds the midpoint under the names of an
    ordinary layer, so that stock PEFT loads that, and the vertices beside it.
    """

    def __init__(self, layers: list[nn.Linear], mixture: Mixture, slot: int) -> None:
        super().__init__()
        first = layers[0]
        self.in_features, self.out_features = first.in_features, first.out_features
        self.simplex_weight = nn.Parameter(torch.stack([layer.weight.detach() for layer in layers]))
        biases = [layer.bias.detach() for layer in layers if layer.bias is not None]
        self.simplex_bias = nn.Parameter(torch.stack(biases)) if biases else None
        self.mixture, self.slot = mixture, slot

    @property
    def weight(self) -> torch.Tensor:
        """The weight at the midpoint, ``(C, H)``."""
        return self.simplex_weight.mean(0)

    @property
    def bias(self) -> torch.Tensor | None:
        """The bias at the midpoint, ``(C,)``."""
        return None if self.simplex_bias is None else self.simplex_bias.mean(0)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """``(rows, ..., H) -> (rows, ..., C)``, mixed in fp32; at a vertex what the layer of that vertex computes."""
        x = x.to(self.simplex_weight.dtype)
        alpha = self.mixture.head_weights(self.slot, len(x))
        if alpha is None:
            return F.linear(x, self.weight, self.bias)
        biases = [None] * len(self.simplex_weight) if self.simplex_bias is None else self.simplex_bias
        outputs = [F.linear(x, weight, bias) for weight, bias in zip(self.simplex_weight, biases, strict=True)]
        weights = alpha.view(len(x), *(1,) * (x.dim() - 2), -1, 1)
        return (torch.stack(outputs, -2) * weights).sum(-2).to(outputs[0].dtype)

    def at(self, alpha: torch.Tensor | None) -> nn.Linear:
        """The ordinary layer at one point ``(n,)``; None is the midpoint."""
        layer = nn.Linear(self.in_features, self.out_features, self.simplex_bias is not None)
        weights = None if alpha is None else alpha[None]
        with torch.no_grad():
            layer.weight.copy_(
                self.weight if weights is None else mix(weights, self.simplex_weight.flatten(1)).view_as(self.weight)
            )
            if self.simplex_bias is not None:
                layer.bias.copy_(
                    self.simplex_bias.mean(0) if weights is None else mix(weights, self.simplex_bias).squeeze(0)
                )
        return layer.to(self.simplex_weight.device)

    def _save_to_state_dict(self, destination: dict[str, Any], prefix: str, keep_vars: bool) -> None:
        super()._save_to_state_dict(destination, prefix, keep_vars)
        destination[f"{prefix}weight"] = self.weight.detach()
        if self.bias is not None:
            destination[f"{prefix}bias"] = self.bias.detach()

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        for name in ("weight", "bias"):
            state_dict.pop(f"{prefix}{name}", None)
        super()._load_from_state_dict(state_dict, prefix, *args)
