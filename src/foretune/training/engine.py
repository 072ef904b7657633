"""Engine: a model with its objective on a device. What training, evaluation and prediction have in common."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from foretune.models import Checkpoint
from foretune.objectives import Encoded, Objective
from foretune.training.batches import by_length
from foretune.tuners import Tuner

if TYPE_CHECKING:
    import torch
    from accelerate import Accelerator
    from torch import nn


@dataclass(frozen=True)
class Engine:
    """A model with its objective on a device.

    Attributes:
        model: what the training step calls: ``bare``, or its DDP wrapper where there are several processes.
        bare: the tuned model itself: for evaluation, generation and saving.
        virtual_tokens: positions that the tuner puts in front of every sequence.
    """

    checkpoint: Checkpoint
    tuner: Tuner
    objective: Objective
    accelerator: Accelerator
    model: nn.Module
    bare: nn.Module
    virtual_tokens: int

    def batch(self, encoded: Encoded, rows: np.ndarray) -> dict[str, torch.Tensor]:
        """The examples ``rows`` padded and on the device."""
        batch = self.objective.batch(encoded, rows, self.checkpoint)
        return {name: tensor.to(self.accelerator.device, non_blocking=True) for name, tensor in batch.items()}

    def outputs(self, encoded: Encoded, labelled: bool = True) -> tuple[np.ndarray, float]:
        """Raw outputs ``(n, ...)`` in the order of the rows, and the mean loss (NaN when not ``labelled``).

        Similar lengths run together; processes share the batches and each ends with all outputs.
        """
        import torch

        device, objective = self.accelerator.device, self.objective
        world, rank = self.accelerator.num_processes, self.accelerator.process_index
        outputs: torch.Tensor | None = None
        loss = torch.zeros((), device=device)
        self.bare.eval()
        batches = list(by_length(encoded.lengths))
        with torch.inference_mode(), self.accelerator.autocast():
            for rows in batches[rank::world] or batches[:1]:
                batch = self.batch(encoded, rows)
                if labelled:
                    part, part_loss = objective.evaluate(self.bare, batch, self.virtual_tokens)
                else:
                    part, part_loss = objective.predict(self.bare, batch, self.virtual_tokens), loss
                part = objective.padded(part, encoded)
                if outputs is None:
                    outputs = torch.zeros((len(encoded), part.shape[1]), dtype=part.dtype, device=device)
                if rank < len(batches):
                    outputs[torch.from_numpy(rows).to(device)] = part
                    loss = loss + part_loss
        assert outputs is not None
        outputs, loss = self.accelerator.reduce(outputs, "sum"), self.accelerator.reduce(loss, "sum")
        weight = objective.weight(encoded, np.arange(len(encoded))) if labelled else 0
        return outputs.float().cpu().numpy(), float(loss) / weight if weight else float("nan")
