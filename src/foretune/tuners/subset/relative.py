"""Displacement relative to the base, with a floor of one's own. Of weights near zero it decides how easily they enter:
with a small one hardly more than their size does, with one far above all of them ``rel`` chooses as ``abs``."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

REL_TAU = 1e-8


def relative(displacement: torch.Tensor, base: torch.Tensor, tau: float = REL_TAU) -> torch.Tensor:
    """|W - W0| / (|W0| + tau); the displacement is overwritten.

    >>> import torch
    >>> relative(torch.tensor([1.0, -3.0]), torch.tensor([0.0, 1.0]), tau=0.5).tolist()
    [2.0, 2.0]
    """
    return displacement.abs_().div_(base.abs() + tau)
