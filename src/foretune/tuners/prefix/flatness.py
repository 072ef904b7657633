"""Flatness: how the scores of a prefix fall inside its simplex and under noise (after Wortsman et al. 2021).

Noise moves all vertices alike, and with them every point of the simplex. Noise of their own would partly cancel in the
midpoint, by the root of their number, and a simplex would look flat for that alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch

from foretune.errors import UsageError
from foretune.records import Flatness
from foretune.tuners.prefix.attention import evaluating

if TYPE_CHECKING:
    from foretune.tuners.prefix.mixture import Mixture
    from foretune.tuners.prefix.model import PrefixModel
    from foretune.tuners.prefix.simplex import Prefix


def flatness(
    model: PrefixModel,
    score: Callable[[], Mapping[str, float]],
    *,
    points: int = 10,
    sizes: Sequence[float] = (0.25, 0.5, 1.0),
    draws: int = 5,
    seed: int = 0,
) -> Flatness:
    """The scores of the midpoint, of points drawn as in training, and of the midpoint under noise on the prefix.

    A point is the same for every text, so each score is that of one model. The noise is that of ``seed`` whatever the
    number of vertices: two models of one prefix length are moved in the same directions.

    Args:
        model: in evaluation mode while ``score`` runs, and as before afterwards.
        score: metric -> score of the model as it is when this is called.
        points: drawn inside the simplex; a model with one vertex has none.
        sizes: standard deviations of the noise on the prefix; 1.0 is that of the usual start. The head is not moved.
        draws: of noise, for each size.
        seed: of points and noise.

    Raises:
        UsageError: no points, no draws, or a size that is not positive.
    """
    if points < 1 or draws < 1 or any(size <= 0 for size in sizes):
        raise UsageError(
            "`points >= 1`, `draws >= 1` and sizes above 0 must hold, but got "
            f"points={points}, draws={draws}, sizes={tuple(sizes)}."
        )
    mixture, generator = model.mixture, torch.Generator().manual_seed(seed)
    inside = [mixture.law.draw(1, generator) for _ in range(points)] if mixture.law.n > 1 else []
    directions = torch.Generator().manual_seed(seed)
    with evaluating(model), torch.no_grad(), model.at("midpoint"):
        middle = mixture.prefix.midpoint
        rest, drawn = dict(score()), []
        for alpha in inside:
            with mixture.at(alpha):
                drawn.append(dict(score()))
        moved: dict[float, list[dict[str, float]]] = {float(size): [] for size in sizes}
        for _ in range(draws):
            direction = torch.randn(middle.shape, generator=directions).to(middle.device)
            for size, found in moved.items():
                with _shifted(mixture.prefix, size * direction):
                    found.append(dict(score()))
        reach = _reach(mixture, inside) if inside else None
    rms = float(middle.square().mean().sqrt())
    return Flatness(rest, tuple(drawn), {size: tuple(found) for size, found in moved.items()}, reach, rms)


def _reach(mixture: Mixture, points: Sequence[torch.Tensor]) -> float:
    """Root mean square over ``points`` and numbers of what lies between them and the midpoint, in the prefix."""
    middle = torch.stack(mixture.prepare(None).layers)
    away = [(torch.stack(mixture.prepare(alpha).layers) - middle).square().mean() for alpha in points]
    return float(torch.stack(away).mean().sqrt())


@contextmanager
def _shifted(prefix: Prefix, by: torch.Tensor) -> Iterator[None]:
    """Inside the block every vertex of a prefix is moved by ``by`` ``(P, L * 2 * d)``."""
    before = prefix.vertices, prefix.projection
    prefix.settle(prefix.points + by)
    try:
        yield
    finally:
        prefix.vertices, prefix.projection = before
