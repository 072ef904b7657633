"""A classification head on the pooled text: the plain baseline, for single texts and pairs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from foretune.errors import UsageError
from foretune.models import Checkpoint
from foretune.objectives.base import Encoded, LogitObjective, Texts, slices, tokenize

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

    def __post_init__(self) -> None:
        if not 0 <= self.label_smoothing < 1:
            raise UsageError(f"`0 <= label_smoothing < 1` must hold, but got {self.label_smoothing:g}.")

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
    paired = table["pair"].null_count < len(table)

    def chunks() -> Iterator[Texts]:
        for part in slices(table):
            yield part["text"].to_pylist(), [p or "" for p in part["pair"].to_pylist()] if paired else None

    tokens, types, cut = tokenize(checkpoint, chunks())
    return Encoded(tokens, np.arange(len(tokens) + 1), checkpoint.ref.max_length, targets, types, cut=cut)
