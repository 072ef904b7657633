"""Engine: a model with its objective on a device. What training, evaluation and prediction have in common."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
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
        bf16: whether matrix products run in bf16: while training, never for a result that is recorded.
    """

    checkpoint: Checkpoint
    tuner: Tuner
    objective: Objective
    accelerator: Accelerator
    model: nn.Module
    bare: nn.Module
    virtual_tokens: int
    bf16: bool = False

    def autocast(self) -> torch.autocast:
        """bf16 where the schedule says so. Not accelerate's own: there the precision is a property of the process."""
        import torch

        return torch.autocast(self.accelerator.device.type, dtype=torch.bfloat16, enabled=self.bf16)

    @contextmanager
    def training(self) -> Iterator[None]:
        """Around the training steps: under autocast PEFT's layers need not widen their inputs, at a copy each."""
        from peft.helpers import disable_input_dtype_casting

        with disable_input_dtype_casting(self.bare, active=self.bf16):
            yield

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
        with torch.inference_mode(), self.autocast():
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


def make_accelerator() -> Accelerator:
    """Accelerate's view of devices and processes; mixed precision is ours, see ``Engine.autocast``."""
    import torch
    from accelerate import Accelerator
    from accelerate.state import is_initialized

    return Accelerator(mixed_precision=None if is_initialized() else "no", cpu=not torch.cuda.is_available())
