"""Networks of the deep kernels: settings, task and curve to 32 numbers. torch.

Sizes and activations are those of the two programs (releaunifreiburg/QuickTune at f9f0e17, automl/quicktunetool at
0ce6fe1), so that parameters can be counted against them; a layer of ``qt`` that nothing calls is left out. A part
without columns is left out too.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

OUT = 32


class Columns(nn.Module):
    """Splits ``(m, width)`` columns among its parts and joins what they say."""

    def __init__(self, parts: Mapping[str, nn.Module], widths: Mapping[str, int]) -> None:
        super().__init__()
        self.parts, self.widths = nn.ModuleDict(parts), list(widths.values())

    def forward(self, columns: Tensor) -> list[Tensor]:
        pieces = torch.split(columns, self.widths, dim=1) if self.widths else ()
        return [part(piece) for part, piece in zip(self.parts.values(), pieces, strict=True)]


class QTFeatures(nn.Module):
    """The research code: one hidden layer of 32 for the model and for the rest, convolutions over the curve.

    Args:
        widths: columns of ``model``, ``settings`` and ``task``, those that are there. Four task columns become 4, and
            7,684 become 16, in the program; any other number becomes itself, at most 16.
        cells: length of the curve.
    """

    def __init__(self, widths: Mapping[str, int], cells: int) -> None:
        super().__init__()
        described = min(widths.get("task", 0), 16)
        parts: dict[str, nn.Module] = {
            name: nn.Sequential(nn.Linear(width, 32), nn.ReLU(), nn.Linear(32, 32))
            for name, width in widths.items()
            if name != "task"
        }
        joined = 32 * len(parts) + 16 + 1 + described
        if described:
            parts["task"] = nn.Linear(widths["task"], described)
        self.columns = Columns(parts, widths)
        self.curve = nn.Sequential(
            nn.Conv1d(1, 8, 3, padding="same"),
            nn.ReLU(),
            nn.Conv1d(8, 8, 3, padding="same"),
            nn.MaxPool1d(2),
            nn.Dropout1d(0.25),
            nn.Flatten(),
            nn.ReLU(),
            nn.Linear(8 * (cells // 2), 16),
            nn.ReLU(),
        )
        self.head = nn.Sequential(nn.Linear(joined, 32), nn.LeakyReLU(), nn.Linear(32, OUT))

    def forward(self, columns: Tensor, curve: Tensor, progress: Tensor) -> Tensor:
        """``(m, 32)`` of ``(m, width)``, ``(m, cells)`` and ``(m, 1)``."""
        told = [*self.columns(columns), self.curve(curve[:, None]), progress]
        out: Tensor = self.head(torch.cat(told, dim=1))
        return out


class Bottleneck(nn.Module):
    """128, 128, 8, divided by their norm, then ``out``."""

    def __init__(self, width: int, out: int, activation: type[nn.Module]) -> None:
        super().__init__()
        layers = (nn.Linear(width, 128), activation(), nn.Linear(128, 128), activation(), nn.Linear(128, 8))
        self.narrow, self.wide = nn.Sequential(*layers), nn.Linear(8, out)

    def forward(self, values: Tensor) -> Tensor:
        out: Tensor = self.wide(nn.functional.normalize(self.narrow(values), dim=1))
        return out


class QTTFeatures(nn.Module):
    """The tool: three such bottlenecks and one more over them; how far a run is, it sees from the curve alone.

    Args:
        widths: columns of ``numbers`` and ``levels``, those that are there.
        cells: length of the curve.
    """

    def __init__(self, widths: Mapping[str, int], cells: int) -> None:
        super().__init__()
        self.columns = Columns({name: Bottleneck(width, 32, nn.ReLU) for name, width in widths.items()}, widths)
        self.curve = Bottleneck(cells, 16, nn.ReLU)
        self.head = Bottleneck(32 * len(widths) + 16, OUT, nn.GELU)

    def forward(self, columns: Tensor, curve: Tensor, progress: Tensor) -> Tensor:
        """``(m, 32)`` of ``(m, width)`` and ``(m, cells)``."""
        out: Tensor = self.head(torch.cat([*self.columns(columns), self.curve(curve)], dim=1))
        return out
