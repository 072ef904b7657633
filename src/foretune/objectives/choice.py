"""Multiple choice by scoring: one logit per candidate, softmax over the candidates of a question.

Every (question, candidate) pair goes through the same network (as GPT and BERT did on SWAG and RACE), so the number of
candidates may differ from row to row and a candidate's place in the list cannot matter.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from foretune.models import Checkpoint
from foretune.objectives.base import Encoded, LogitObjective, tokenize

if TYPE_CHECKING:
    import pyarrow as pa
    import torch


@dataclass(frozen=True)
class MultipleChoice(LogitObjective):
    """Cross-entropy over the candidates of each question."""

    name: ClassVar[str] = "choice"
    kinds: ClassVar[tuple[str, ...]] = ("choice",)

    def outputs(self, classes: int) -> int:
        return 1

    def encode(self, table: pa.Table, targets: np.ndarray | None, checkpoint: Checkpoint) -> Encoded:
        choices = table["choices"].to_pylist()
        questions = [
            text if pair is None else f"{text} {pair}"
            for text, pair in zip(table["text"].to_pylist(), table["pair"].to_pylist(), strict=True)
        ]
        groups = np.concatenate([[0], np.cumsum([len(c) for c in choices])]).astype(np.int64)
        firsts = [question for question, row in zip(questions, choices, strict=True) for _ in row]
        limit = checkpoint.ref.max_length
        tokens, types, cut = tokenize(checkpoint, firsts, [c for row in choices for c in row], limit)
        return Encoded(tokens, groups, limit, targets, types, cut=cut)

    def arrange(self, logits: torch.Tensor, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        import torch

        counts = batch["counts"]
        real = torch.arange(int(counts.max()), device=logits.device)[None, :] < counts[:, None]
        return logits.new_full(real.shape, -torch.inf).masked_scatter(real, logits.squeeze(-1))

    def padded(self, outputs: torch.Tensor, encoded: Encoded) -> torch.Tensor:
        import torch

        widest = int(np.diff(encoded.groups).max())
        return torch.nn.functional.pad(outputs, (0, widest - outputs.shape[1]), value=-torch.inf)

    def loss_of(self, arranged: torch.Tensor, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        from torch.nn.functional import cross_entropy

        return cross_entropy(arranged, batch["targets"], reduction="sum")
