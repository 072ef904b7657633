"""Context distillation: the model learns to answer without a context what it answers with one.

The teacher is the model itself before training, with demonstrations before the text; the student sees the text alone.
For an unlabelled text u and several sets of demonstrations C_j

    q_u = mean_j softmax(teacher(C_j, pattern(u)) / tau)    at the answer's first token: the 50 most probable, the rest
    loss = tau^2 KL(q_u || softmax(student(pattern(u)) / tau))    [+ labelled * cross-entropy of labelled rows]

(Askell et al. 2021, arXiv 2112.00861; Snell et al. 2022, arXiv 2209.15189). The texts need no labels; the labels that
are paid for are those of the demonstrations. The mean over sets costs no more than one set to train on, and has (but
for the bucket of the rest) the gradient that a loss against every set in turn would have on average.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from foretune.errors import UsageError, require
from foretune.models import Checkpoint
from foretune.objectives.base import Encoded, Objective, Ragged
from foretune.objectives.pattern import PatternObjective
from foretune.objectives.taught import Lesson, divergence
from foretune.records import Part, Seeds
from foretune.tasks import Task
from foretune.tasks.keys import hash64
from foretune.tasks.schema import Schema
from foretune.tasks.unlabelled import open_texts, require_same, undrawn

if TYPE_CHECKING:
    import pyarrow as pa
    import torch
    from torch import nn


@dataclass(frozen=True)
class Distillation(Objective):
    """Kullback-Leibler divergence from the teacher's answer, in nats per text.

    Attributes:
        demonstrations: training rows in each context, as many of each label.
        sets: contexts: other rows where there are more, in another order. The first is that of ``pattern`` with as many
            demonstrations and the same seeds.
        texts: unlabelled texts to learn on, as for ``--pretrain``; empty: the task's training rows that ``--shots`` did
            not draw, without their labels.
        fingerprint: of the contents of ``texts``, when they are read from somewhere else than the task.
        tau: temperature of both sides.
        labelled: weight of the cross-entropy of the labelled training rows beside the unlabelled; 0: they are not used.
        top: tokens that are told apart.
        pattern, words, separator: as for ``pattern``.
        student: how the student reads a row; set by ``for_task``.
    """

    demonstrations: int = 4
    sets: int = 4
    texts: str = ""
    fingerprint: str = ""
    tau: float = 1.0
    labelled: float = 0.0
    top: int = 50
    pattern: str = "auto"
    words: Mapping[str, str] = field(default_factory=dict, hash=False)
    separator: str | None = None
    student: PatternObjective | None = None

    name: ClassVar[str] = "distillation"
    kinds: ClassVar[tuple[str, ...]] = ("classification",)

    def __post_init__(self) -> None:
        require(
            {
                "demonstrations >= 0": self.demonstrations >= 0,
                "sets >= 1": self.sets >= 1,
                "tau > 0": self.tau > 0,
                "labelled >= 0": self.labelled >= 0,
                "top >= 1": self.top >= 1,
            },
            vars(self),
        )

    @property
    def pools(self) -> bool:
        return True

    @property
    def bare(self) -> Part:
        return self._reader(0).bare

    def outputs(self, classes: int) -> int:
        return 0

    def for_task(
        self, schema: Schema, tables: Mapping[str, pa.Table], seeds: Seeds, checkpoint: Checkpoint
    ) -> Distillation:
        return replace(self, student=self._reader(0).for_task(schema, tables, seeds, checkpoint))

    def identified(self, schema: Schema, data_dir: str | None = None) -> Distillation:
        return replace(self, fingerprint=open_texts(self.texts, schema, data_dir).fingerprint) if self.texts else self

    def lesson(
        self, task: Task, tables: Mapping[str, pa.Table], seeds: Seeds, checkpoint: Checkpoint, data_dir: str | None
    ) -> Lesson:
        teachers = []
        for j in range(self.sets):
            drawn = replace(seeds, data=hash64("context", seeds.data, j), order=hash64("context", seeds.order, j))
            made = self._reader(self.demonstrations)
            teachers.append(made.for_task(task.schema, tables, drawn if j else seeds, checkpoint))
        judged = [table for name, table in tables.items() if name != "train"]
        if self.texts:
            found = open_texts(self.texts, task.schema, data_dir)
            require_same(found, self.fingerprint or None)
            found = found.without([*judged, tables["train"]])
        else:
            found = undrawn(task, tables)
        return Lesson(self._student, tuple(teachers), found.table, len(found.left_out), self.tau, self.top)

    def learning(self, labelled: Encoded, texts: Encoded) -> Encoded:
        """The texts with their teacher's answers, and behind them the labelled rows, where they have a weight."""
        assert texts.taught is not None
        assert labelled.targets is not None
        if not self.labelled:
            return texts
        tokens = Ragged.join([texts.tokens, labelled.tokens])
        return Encoded(
            tokens,
            np.arange(len(tokens) + 1),
            texts.limit,
            np.concatenate([np.zeros(len(texts), np.int64), labelled.targets]),
            cut=texts.cut + labelled.cut,
            taught=texts.taught.and_labelled(len(labelled)),
        )

    def encode(self, table: pa.Table, targets: np.ndarray | None, checkpoint: Checkpoint) -> Encoded:
        return self._student.encode(table, targets, checkpoint)

    def batch(self, encoded: Encoded, indices: np.ndarray, checkpoint: Checkpoint) -> dict[str, torch.Tensor]:
        import torch

        inputs = self._student.batch(encoded, indices, checkpoint)
        if encoded.taught is None:
            return inputs
        taught = {"ids": encoded.taught.ids, "shares": encoded.taught.shares, "given": encoded.taught.given}
        return {**inputs, **{f"taught_{name}": torch.from_numpy(each[indices]) for name, each in taught.items()}}

    def weight(self, encoded: Encoded, indices: np.ndarray) -> int:
        return len(indices)

    def loss(self, model: nn.Module, batch: dict[str, torch.Tensor], virtual_tokens: int = 0) -> torch.Tensor:
        """The divergence of texts that were taught, and the weighted cross-entropy of the others; of a split without a
        teacher's answers, such as dev, the plain cross-entropy."""
        if "taught_given" not in batch:
            return self._student.loss(model, batch, virtual_tokens)
        logits, given = answer_logits(model, batch), batch["taught_given"]
        each = divergence(logits[given], batch["taught_ids"][given], batch["taught_shares"][given], self.tau)
        return each.sum() + self.labelled * self._cross_entropy(logits, batch, ~given)

    def predict(self, model: nn.Module, batch: dict[str, torch.Tensor], virtual_tokens: int = 0) -> torch.Tensor:
        return self._student.predict(model, batch, virtual_tokens)

    def pool(self, outputs: np.ndarray, average: str = "probabilities") -> np.ndarray:
        return self._student.pool(outputs, average)

    @property
    def _student(self) -> PatternObjective:
        if self.student is None:
            raise UsageError("The objective `distillation` must be told of its task first: call `for_task`.")
        return self.student

    def _reader(self, demonstrations: int) -> PatternObjective:
        return PatternObjective(
            pattern=self.pattern,
            words=self.words,
            tokens="first",
            separator=self.separator,
            demonstrations=demonstrations,
        )

    def _cross_entropy(
        self, logits: torch.Tensor, batch: Mapping[str, torch.Tensor], places: torch.Tensor
    ) -> torch.Tensor:
        from torch.nn.functional import cross_entropy

        if not bool(places.any()):
            return logits.new_zeros((), dtype=logits.float().dtype)
        words = [answer[0] for answer in self._student.answers]
        return cross_entropy(logits[places][:, words].float(), batch["targets"][places], reduction="sum")


def answer_logits(model: nn.Module, batch: Mapping[str, torch.Tensor]) -> torch.Tensor:
    """Logits ``(b, vocabulary)`` where the first token of the answer stands; ``batch`` is from ``PatternObjective``."""
    import torch

    inputs = {n: batch[n] for n in ("input_ids", "attention_mask", "decoder_input_ids") if n in batch}
    logits = model(**inputs).logits
    length = inputs.get("decoder_input_ids", inputs["input_ids"]).shape[1]
    logits = logits[:, logits.shape[1] - length :]
    return logits[torch.arange(len(logits), device=logits.device), batch["places"][:, 0]]
