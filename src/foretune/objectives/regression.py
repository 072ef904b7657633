"""A number per text: squared error on the standardised target."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from foretune.models import Checkpoint
from foretune.objectives.base import Encoded, LogitObjective
from foretune.objectives.head import encode_texts

if TYPE_CHECKING:
    import pyarrow as pa
    import torch


@dataclass(frozen=True)
class Regression(LogitObjective):
    """Squared error in units of the training targets' standard deviation, so that no learning rate depends on the unit.

    Attributes:
        center, scale: mean and standard deviation of the training targets; set by ``fitted``.
    """

    center: float = 0.0
    scale: float = 1.0

    name: ClassVar[str] = "regression"
    kinds: ClassVar[tuple[str, ...]] = ("regression",)

    def fitted(self, encoded: Encoded, checkpoint: Checkpoint) -> Regression:
        assert encoded.targets is not None
        return replace(self, center=float(np.mean(encoded.targets)), scale=float(np.std(encoded.targets)) or 1.0)

    def outputs(self, classes: int) -> int:
        return 1

    def encode(self, table: pa.Table, targets: np.ndarray | None, checkpoint: Checkpoint) -> Encoded:
        return encode_texts(table, targets, checkpoint)

    def arrange(self, logits: torch.Tensor, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        return logits

    def loss_of(self, arranged: torch.Tensor, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        wanted = (batch["targets"] - self.center) / self.scale
        return (arranged.squeeze(-1) - wanted.float()).square().sum()

    def pool(self, outputs: np.ndarray, average: str = "probabilities") -> np.ndarray:
        return outputs.mean(0)

    def decode(self, outputs: np.ndarray, checkpoint: Checkpoint) -> np.ndarray:
        """Values ``(n,)`` in the unit of the targets; in fp64, for a large mean would eat the digits of fp32."""
        return outputs[:, 0].astype(np.float64) * self.scale + self.center
