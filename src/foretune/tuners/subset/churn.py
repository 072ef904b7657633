"""Churn: what share of a subset each step exchanged, kept where it is known until somebody asks.

On a device that works behind the program's back, reading a number in every step would wait for the device in each.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from foretune.tuners.subset.silo import Silo


class Churn:
    """The steps since it was last asked; steps before a subset is chosen are not among them."""

    def __init__(self) -> None:
        self._kept: list[tuple[int, int, list[int | torch.Tensor]]] = []

    def keep(self, step: int, silos: Sequence[Silo]) -> None:
        """Note what ``step`` has done to ``silos``; of each device one number, which stays there."""
        chosen = [silo for silo in silos if silo.chosen]
        if not chosen:
            return
        there: dict[torch.device | None, list[int | torch.Tensor]] = {}
        for silo in chosen:
            entered = silo.change.entered
            there.setdefault(entered.device if isinstance(entered, torch.Tensor) else None, []).append(entered)
        self._kept.append((step, sum(silo.k for silo in chosen), [_sum(found) for found in there.values()]))

    def told(self) -> dict[int, float]:
        """Step -> share; of every device in one transfer. Afterwards nothing is kept."""
        kept, self._kept = self._kept, []
        sums, waiting = [0.0] * len(kept), dict[torch.device, list[tuple[int, torch.Tensor]]]()
        for i, (_, _, numbers) in enumerate(kept):
            for number in numbers:
                if isinstance(number, torch.Tensor):
                    waiting.setdefault(number.device, []).append((i, number))
                else:
                    sums[i] += number
        for own in waiting.values():
            for (i, _), value in zip(own, torch.stack([number for _, number in own]).tolist(), strict=True):
                sums[i] += value
        return {step: entered / k for (step, k, _), entered in zip(kept, sums, strict=True)}


def _sum(values: Sequence[int | torch.Tensor]) -> int | torch.Tensor:
    tensors = [value for value in values if isinstance(value, torch.Tensor)]
    return torch.stack(tensors).sum() if tensors else sum(value for value in values if isinstance(value, int))
