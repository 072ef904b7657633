"""The k largest of many scores, exactly, with ties to the lowest index.

A radix search over the bits of fp32 needs a fixed number of passes whatever k is, where a sort or ``torch.topk`` slow
down as k grows: non-negative floats are ordered as their bit patterns are, so two histograms (the upper 15 bits, then
the lower 16) find the k-th value.
"""

from __future__ import annotations

import torch

from foretune.errors import DivergedError

UPPER, LOWER = 1 << 15, 1 << 16


def threshold(scores: torch.Tensor, k: int) -> torch.Tensor:
    """The ``k``-th largest of ``scores`` ``(n,)``, fp32, none of them negative; a tensor without sizes.

    Raises:
        DivergedError: a score is infinite or not a number.

    >>> float(threshold(torch.tensor([3.0, 1.0, 2.0, 2.0]), 2))
    2.0
    """
    if not torch.isfinite(scores).all():
        raise DivergedError(
            "Scores must be finite, but some displacement is infinite or not a number. Use a lower learning rate, or "
            "fp32."
        )
    bits = scores.contiguous().view(torch.int32)
    upper, above = _bin(torch.bincount(bits >> 16, minlength=UPPER), k)
    inside = bits[(bits >> 16) == upper] & (LOWER - 1)
    lower, _ = _bin(torch.bincount(inside, minlength=LOWER), k - above)
    return torch.tensor((upper << 16) | lower, dtype=torch.int32, device=scores.device).view(torch.float32)


def top(scores: torch.Tensor, k: int) -> torch.Tensor:
    """Which are the ``k`` largest of ``scores`` ``(n,)``, ``(n,)`` bool; of equal ones the first.

    >>> top(torch.tensor([2.0, 5.0, 2.0, 2.0]), 3).tolist()
    [True, True, True, False]
    """
    if k >= len(scores):
        return torch.ones(len(scores), dtype=torch.bool, device=scores.device)
    limit = threshold(scores, k)
    kept = scores > limit
    equal = (scores == limit).nonzero().squeeze(1)
    kept[equal[: k - int(kept.sum())]] = True
    return kept


def _bin(counts: torch.Tensor, k: int) -> tuple[int, int]:
    """The bin that holds the ``k``-th entry from the top, and how many entries lie in the bins above it."""
    running = counts.flip(0).cumsum(0)
    place = int(torch.searchsorted(running, k))
    return len(counts) - 1 - place, int(running[place - 1]) if place else 0
