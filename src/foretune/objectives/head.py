"""A classification head on the pooled text: the plain baseline, for single texts and pairs."""

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
class Head(LogitObjective):
    """Cross-entropy on the head's logits.

    Attributes:
        label_smoothing: share of the probability mass spread over all classes.
    """

    label_smoothing: float = 0.0

    name: ClassVar[str] = "head"
    kinds: ClassVar[tuple[str, ...]] = ("classification",)

    def outputs(self, classes: int) -> int:
        return classes

    def encode(self, table: pa.Table, targets: np.ndarray | None, checkpoint: Checkpoint) -> Encoded:
        return encode_texts(table, targets, checkpoint)

    def arrange(self, logits: torch.Tensor, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        return logits

    def loss_of(self, arranged: torch.Tensor, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        from torch.nn.functional import cross_entropy

        return cross_entropy(arranged, batch["targets"], reduction="sum", label_smoothing=self.label_smoothing)


def encode_texts(table: pa.Table, targets: np.ndarray | None, checkpoint: Checkpoint) -> Encoded:
    """One sequence per row: the text, or the text and its pair as the tokenizer joins them."""
    pairs = table["pair"].to_pylist()
    limit = checkpoint.ref.max_length
    tokens, types, cut = tokenize(checkpoint, table["text"].to_pylist(), pairs if any(pairs) else None, limit)
    return Encoded(tokens, np.arange(len(tokens) + 1), limit, targets, types, cut=cut)
