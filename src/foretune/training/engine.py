"""Engine: a model with its objective on a device. What training, evaluation and prediction have in common."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from foretune.errors import UsageError
from foretune.models import Checkpoint
from foretune.objectives import Encoded, Objective
from foretune.training.batches import by_length
from foretune.tuners import Ensemble, Tuner

if TYPE_CHECKING:
    import torch
    from accelerate import Accelerator
    from torch import nn


_SWITCH = "cast_input_dtype_enabled"

STACKED_ROWS = 512
"""Examples in one pass where members are stacked."""


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
        """Around the training steps: what bf16 would otherwise do again in every step is done once.

        PEFT's layers need not widen their inputs, at a copy each, and frozen matrices are rounded once, which gives the
        bits that autocast gives.
        """
        with unwidened(self.bare, self.bf16), rounded(self.bare, self.bf16):
            yield

    def batch(self, encoded: Encoded, rows: np.ndarray) -> dict[str, torch.Tensor]:
        """The examples ``rows`` padded and on the device."""
        batch = self.objective.batch(encoded, rows, self.checkpoint)
        return {name: tensor.to(self.accelerator.device, non_blocking=True) for name, tensor in batch.items()}

    def outputs(self, encoded: Encoded, labelled: bool = True) -> tuple[np.ndarray, float]:
        """Raw outputs ``(n, ...)`` in the order of the rows, and the mean loss (NaN when not ``labelled``)."""
        outputs, loss = self.member_outputs(encoded, None, labelled)
        return outputs[0], loss

    def member_outputs(
        self, encoded: Encoded, ensemble: Ensemble | None, labelled: bool = True
    ) -> tuple[np.ndarray, float]:
        """Raw outputs ``(members, n, ...)`` in the order of the rows, and the mean loss over all of them.

        Similar lengths run together; processes share the batches and each ends with all outputs. Members run one after
        another on a CPU, where a larger batch is slower, and stacked on a GPU (``benchmarks/prefix_subspace.py``).

        Args:
            encoded: the split.
            ensemble: for this split; None is the one model that is exported.
            labelled: whether there is a loss; NaN otherwise.
        """
        import torch

        device, objective = self.accelerator.device, self.objective
        world, rank = self.accelerator.num_processes, self.accelerator.process_index
        count = ensemble.count if ensemble else 1
        outputs: torch.Tensor | None = None
        loss = torch.zeros((), device=device)
        self.bare.eval()
        batches = list(by_length(encoded.lengths))
        with torch.inference_mode(), self.autocast():
            for rows in batches[rank::world] or batches[:1]:
                batch = self.batch(encoded, rows)
                for members in _stacks(count, len(rows), stacked=device.type != "cpu"):
                    with self._members(ensemble, members, encoded, rows):
                        part, part_loss = self._evaluate(_repeated(batch, len(members)), labelled)
                    part = objective.padded(part, encoded)
                    if outputs is None:
                        outputs = torch.zeros((count, len(encoded), part.shape[1]), dtype=part.dtype, device=device)
                    if rank < len(batches):
                        places = torch.from_numpy(rows).to(device)
                        outputs[members.start : members.stop, places] = part.view(len(members), len(rows), -1)
                        loss = loss + part_loss
        assert outputs is not None
        outputs, loss = self.accelerator.reduce(outputs, "sum"), self.accelerator.reduce(loss, "sum")
        weight = count * objective.weight(encoded, np.arange(len(encoded))) if labelled else 0
        return outputs.float().cpu().numpy(), float(loss) / weight if weight else float("nan")

    def members(self, encoded: Encoded, count: int) -> np.ndarray:
        """Raw outputs ``(count, n, ...)`` of as many of the tuner's models.

        Raises:
            UsageError: the method holds one model.
        """
        ensemble = self.tuner.ensemble(self.bare, len(encoded), count)
        if ensemble is None:
            raise UsageError(
                f"This model was tuned with `{self.tuner.name}` and is one, but {count} members were asked for. Leave "
                "`--members` out, or train a method that holds several models (`prefix-subspace`)."
            )
        return self.member_outputs(encoded, ensemble, labelled=False)[0]

    def answers(self, encoded: Encoded) -> np.ndarray:
        """Raw outputs ``(n, ...)`` of what answers in the end: the exported model, or a tuner's ensemble, pooled."""
        count = self.tuner.answering_members(self.bare)
        ensemble = self.tuner.ensemble(self.bare, len(encoded), count) if count > 1 else None
        outputs, _ = self.member_outputs(encoded, ensemble, labelled=False)
        return self.objective.pool(outputs, self.tuner.averaging) if ensemble else outputs[0]

    def _evaluate(self, batch: dict[str, torch.Tensor], labelled: bool) -> tuple[torch.Tensor, torch.Tensor]:
        import torch

        if labelled:
            return self.objective.evaluate(self.bare, batch, self.virtual_tokens)
        return self.objective.predict(self.bare, batch, self.virtual_tokens), torch.zeros(
            (), device=self.accelerator.device
        )

    def _members(
        self, ensemble: Ensemble | None, members: range, encoded: Encoded, rows: np.ndarray
    ) -> AbstractContextManager[None]:
        if ensemble is None:
            return nullcontext()
        return ensemble.at(members, np.repeat(rows, np.diff(encoded.groups)[rows]))


def _stacks(count: int, rows: int, stacked: bool) -> Iterator[range]:
    """The members that share a pass: one, or as many as keep it within ``STACKED_ROWS``.

    >>> list(_stacks(5, 100, stacked=True)), list(_stacks(2, 100, stacked=False))
    ([range(0, 5)], [range(0, 1), range(1, 2)])
    """
    size = max(1, STACKED_ROWS // rows) if stacked else 1
    for start in range(0, count, size):
        yield range(start, min(count, start + size))


def _repeated(batch: dict[str, torch.Tensor], times: int) -> dict[str, torch.Tensor]:
    if times == 1:
        return batch
    return {name: tensor.repeat(times, *(1,) * (tensor.dim() - 1)) for name, tensor in batch.items()}


@contextmanager
def unwidened(model: nn.Module, active: bool) -> Iterator[None]:
    """Inside the block PEFT's layers leave their inputs in the type in which they come.

    PEFT's own ``disable_input_dtype_casting`` fails on layers that have no such switch (0.21.2: IA3, LN-tuning).
    """
    from peft.tuners.tuners_utils import BaseTunerLayer

    layers = [each for each in model.modules() if active and isinstance(each, BaseTunerLayer) and _SWITCH in vars(each)]
    before = [getattr(layer, _SWITCH) for layer in layers]
    for layer in layers:
        setattr(layer, _SWITCH, False)
    try:
        yield
    finally:
        for layer, value in zip(layers, before, strict=True):
            setattr(layer, _SWITCH, value)


@contextmanager
def rounded(model: nn.Module, active: bool) -> Iterator[None]:
    """Inside the block the frozen fp32 matrices of linear layers are bf16, if ``active`` and memory is ample.

    Ample: half as much again as these matrices take is less than a quarter of what is free. They come back unchanged.
    One that another kind of layer reads too (an embedding, where they are tied) stays: autocast does not round it.
    """
    import psutil
    import torch

    linears = [m for m in model.modules() if isinstance(m, torch.nn.Linear) and active]
    frozen = {m.weight for m in linears if not m.weight.requires_grad and m.weight.dtype == torch.float32}
    frozen -= {p for m in model.modules() if not isinstance(m, torch.nn.Linear) for p in m.parameters(recurse=False)}
    extra = sum(weight.numel() * 2 for weight in frozen)
    if not frozen or next(iter(frozen)).device.type != "cpu" or extra * 4 > psutil.virtual_memory().available:
        yield
        return
    kept = {weight: weight.data for weight in frozen}
    try:
        for weight, exact in kept.items():
            weight.data = exact.to(torch.bfloat16)
        yield
    finally:
        for weight, exact in kept.items():
            weight.data = exact


def make_accelerator() -> Accelerator:
    """Accelerate's view of devices and processes; mixed precision is ours, see ``Engine.autocast``."""
    import torch
    from accelerate import Accelerator
    from accelerate.state import is_initialized

    return Accelerator(mixed_precision=None if is_initialized() else "no", cpu=not torch.cuda.is_available())
