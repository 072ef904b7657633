"""Displacement relative to the base, with a floor of one's own. Of weights near zero it decides how easily they enter:
with a small one hardly more than their size does, with one far above all of them ``rel`` chooses as ``abs``."""

from __future__ import annotations

from functools import partial

import torch

from foretune.tuners.subset.silo import Distance


def relative_beyond(tau: float) -> Distance:
    """|W - W0| / (|W0| + tau).

    >>> relative_beyond(0.5)(torch.tensor([1.0, -3.0]), torch.tensor([0.0, 1.0])).tolist()
    [2.0, 2.0]
    """
    return partial(_relative, tau=tau)


def _relative(displacement: torch.Tensor, base: torch.Tensor, tau: float) -> torch.Tensor:
    return displacement.abs_().div_(base.abs() + tau)
