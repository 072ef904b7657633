"""Multiple choice by scoring: one logit per candidate, softmax over the candidates of a question.

Every (question, candidate) pair goes through the same network (as GPT and BERT did on SWAG and RACE), so the number of
candidates may differ from row to row and a candidate's place in the list cannot matter.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from foretune.models import Checkpoint
from foretune.objectives.base import Encoded, LogitObjective, Texts, slices, tokenize

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
        import pyarrow.compute as pc

        def chunks() -> Iterator[Texts]:
            for part in slices(table):
                rows = part.select(["text", "pair", "choices"]).to_pylist()
                questions = [r["text"] if r["pair"] is None else f"{r['text']} {r['pair']}" for r in rows]
                firsts = [q for q, row in zip(questions, rows, strict=True) for _ in row["choices"]]
                yield firsts, [candidate for row in rows for candidate in row["choices"]]

        tokens, types, cut = tokenize(checkpoint, chunks())
        counts = pc.list_value_length(table["choices"]).to_numpy()
        groups = np.concatenate([np.zeros(1, np.int64), np.cumsum(counts, dtype=np.int64)])
        return Encoded(tokens, groups, checkpoint.ref.max_length, targets, types, cut=cut)

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
