"""Objective: what is minimised and how one predicts; with ``Encoded``, a split that was tokenised once."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from foretune.errors import DataError, UsageError
from foretune.models import Checkpoint
from foretune.records import Part, Seeds
from foretune.tasks import Task
from foretune.tasks.schema import Schema

if TYPE_CHECKING:
    import pyarrow as pa
    import torch
    from torch import nn

    from foretune.objectives.taught import Lesson, Taught

CHUNK = 1024


@dataclass(frozen=True)
class Ragged:
    """Integer sequences of different lengths in two flat arrays: 100,000 of them cost no more than their tokens.

    >>> r = Ragged.of([[1, 2], [3]])
    >>> r[0].tolist(), r[1].tolist(), r.lengths.tolist()
    ([1, 2], [3], [2, 1])
    """

    values: np.ndarray
    offsets: np.ndarray

    @classmethod
    def of(cls, sequences: Sequence[Sequence[int] | np.ndarray]) -> Ragged:
        """Pack ``sequences`` as int32."""
        lengths = np.fromiter((len(s) for s in sequences), dtype=np.int64, count=len(sequences))
        offsets = np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths)])
        values = np.fromiter((v for s in sequences for v in s), dtype=np.int32, count=int(offsets[-1]))
        return cls(values, offsets)

    @classmethod
    def join(cls, parts: Sequence[Ragged]) -> Ragged:
        """Put one behind the other."""
        lengths = [np.zeros(1, np.int64), *(part.lengths for part in parts)]
        values = [np.zeros(0, np.int32), *(part.values for part in parts)]
        return cls(np.concatenate(values), np.cumsum(np.concatenate(lengths)))

    def __getitem__(self, i: int) -> np.ndarray:
        return self.values[self.offsets[i] : self.offsets[i + 1]]

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @property
    def lengths(self) -> np.ndarray:
        """Tokens per sequence."""
        return np.diff(self.offsets)


@dataclass(frozen=True)
class Encoded:
    """One split, tokenised once.

    Attributes:
        tokens: input sequences; one per example, but one per candidate for multiple choice.
        targets: float64 or int64 ``(n,)``: class, number or right candidate; None for generation and unlabelled rows.
        groups: ``(n + 1,)``; example ``i`` owns the sequences ``groups[i]:groups[i + 1]``.
        types: token type ids, where the tokenizer makes them.
        responses: token sequences to be written (generation).
        cut: how many sequences were longer than the limit and lost tokens.
        limit: the limit in tokens.
        joined: prompt and response are one sequence, which the limit holds as a whole.
        taught: a teacher's answers, where there was one.
    """

    tokens: Ragged
    groups: np.ndarray
    limit: int
    targets: np.ndarray | None = None
    types: Ragged | None = None
    responses: Ragged | None = None
    cut: int = 0
    joined: bool = False
    taught: Taught | None = None

    def __len__(self) -> int:
        return len(self.groups) - 1

    @property
    def lengths(self) -> np.ndarray:
        """Tokens of the longest sequence of each example: what batches sort by and positions must hold."""
        longest = np.maximum.reduceat(self.tokens.lengths, self.groups[:-1]) if len(self) else np.zeros(0, np.int64)
        if self.responses is None:
            return longest
        return self.sizes if self.joined else np.maximum(longest, self.responses.lengths)

    @property
    def sizes(self) -> np.ndarray:
        """All tokens of an example, over its candidates and its response: what throughput is counted in."""
        total = np.add.reduceat(self.tokens.lengths, self.groups[:-1]) if len(self) else np.zeros(0, np.int64)
        if self.responses is not None:
            total = total + self.responses.lengths
        return np.minimum(total, self.limit) if self.joined else total


@dataclass(frozen=True)
class Objective(ABC):
    """What is minimised and how one predicts. The fields of a subclass are its options; the class is abstract or final.

    Attributes:
        name: what records, the command line and the registry call it.
        kinds: the kinds of task it serves (see ``records.KINDS``).
    """

    __pydantic_config__ = {"extra": "forbid"}  # noqa: RUF012 - read by Pydantic, not a field

    name: ClassVar[str]
    kinds: ClassVar[tuple[str, ...]]

    @property
    def pools(self) -> bool:
        """Whether several models may answer together and ``pool`` has an answer; otherwise it raises ``UsageError``."""
        return False

    @property
    def judges_members(self) -> bool:
        """Whether several models may be judged one by one in a pass over a split, be there a ``pool`` or not."""
        return True

    @property
    def language(self) -> bool:
        """Whether the language-model head answers, and no head of the task's own."""
        return self.outputs(2) == 0

    @property
    def fresh_head(self) -> bool:
        """Whether a language-model head that an encoder's checkpoint lacks may start at random, for it is trained."""
        return False

    @property
    def in_context(self) -> bool:
        """Whether examples are shown in the context: then nothing may be trained, and no text may be cut."""
        return False

    @property
    def bare(self) -> Part | None:
        """How an untrained language model that is shown nothing reads the same rows: the zero-shot floor beside this
        objective; None where a head of the task's own answers, which knows nothing untrained."""
        return None

    def _with(self, *names: str) -> Part:
        """This objective with those of its options alone that are not as usual."""
        usual = {
            field.name: field.default_factory() if callable(field.default_factory) else field.default
            for field in fields(self)
        }
        return Part(self.name, {n: value for n in names if (value := getattr(self, n)) != usual[n]})

    @abstractmethod
    def outputs(self, classes: int) -> int:
        """How many logits the head has, given the task's number of classes; 0 for a language model."""

    @abstractmethod
    def encode(self, table: pa.Table, targets: np.ndarray | None, checkpoint: Checkpoint) -> Encoded:
        """Tokenise ``table`` (columns of ``tasks.schema.SPLIT_COLUMNS``). ``targets`` is None for rows to predict."""

    @abstractmethod
    def batch(self, encoded: Encoded, indices: np.ndarray, checkpoint: Checkpoint) -> dict[str, torch.Tensor]:
        """Pad the examples ``indices`` to their longest; keys are what ``loss`` and ``predict`` read."""

    @abstractmethod
    def weight(self, encoded: Encoded, indices: np.ndarray) -> int:
        """What the summed loss of these examples is divided by: examples, or response tokens."""

    @abstractmethod
    def loss(self, model: nn.Module, batch: dict[str, torch.Tensor], virtual_tokens: int = 0) -> torch.Tensor:
        """The loss summed over the batch (a scalar in fp32); divide by ``weight``.

        Args:
            model: from ``Tuner.attach``, on the batch's device.
            batch: from ``batch``.
            virtual_tokens: positions that the tuner puts in front of every sequence and that count in the output.
        """

    @abstractmethod
    def predict(self, model: nn.Module, batch: dict[str, torch.Tensor], virtual_tokens: int = 0) -> torch.Tensor:
        """Raw outputs, one row per example: logits ``(b, C)``, candidate logits padded with -inf, standardised values
        ``(b, 1)``, or written token ids ``(b, new)`` padded with the padding id. ``decode`` makes answers of them."""

    def evaluate(
        self, model: nn.Module, batch: dict[str, torch.Tensor], virtual_tokens: int = 0
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """What ``predict`` and ``loss`` give, of a labelled batch; overridden where one forward pass serves both."""
        return self.predict(model, batch, virtual_tokens), self.loss(model, batch, virtual_tokens)

    def for_task(
        self, schema: Schema, tables: Mapping[str, pa.Table], seeds: Seeds, checkpoint: Checkpoint
    ) -> Objective:
        """A copy that knows the task: its labels, examples to show. Called once, before anything is encoded; what is
        kept of a run has been told already.

        Args:
            tables: split -> rows; ``train`` is what may be learned from or shown, the others must stay unseen.
            seeds: ``data`` draws, ``order`` orders.

        Raises:
            UsageError, DataError: the objective and the task do not fit.
        """
        return self

    def identified(self, schema: Schema, data_dir: str | None = None) -> Objective:
        """A copy that says what the files hold that its options name: a path is no identity of a run."""
        return self

    def lesson(
        self, task: Task, tables: Mapping[str, pa.Table], seeds: Seeds, checkpoint: Checkpoint, data_dir: str | None
    ) -> Lesson | None:
        """What the model is to be asked, before it is trained, about unlabelled texts; None for no teacher.

        Args:
            task: whole, with the training rows that were not drawn.
            tables, seeds: as for ``for_task``.
            data_dir: where catalog tasks lie.
        """
        return None

    def learning(self, labelled: Encoded, texts: Encoded) -> Encoded:
        """What the optimizer sees after a lesson: ``labelled`` are the training rows, ``texts`` were taught."""
        return labelled

    def fitted(self, encoded: Encoded, checkpoint: Checkpoint) -> Objective:
        """A copy that knows what only training rows and checkpoint tell: the scale of a regression, the length of a
        response. Options the user gave are kept. Called once, with the encoded training split."""
        return self

    def padded(self, outputs: torch.Tensor, encoded: Encoded) -> torch.Tensor:
        """The outputs of one batch with as many columns as any batch of the split ``encoded`` has."""
        return outputs

    def pool(self, outputs: np.ndarray, average: str = "probabilities") -> np.ndarray:
        """The raw outputs ``(members, n, ...)`` of several models as those of one, ``(n, ...)``.

        Args:
            average: ``probabilities`` or ``logits``; a number has but one mean.

        Raises:
            UsageError: texts have no mean.
        """
        raise UsageError(f"The objective `{self.name}` cannot average the answers of several models. Use the midpoint.")

    def longest(self, encoded: Encoded) -> int:
        """Positions that the longest sequence of the split takes, in training or in prediction."""
        return int(encoded.lengths.max(initial=0))

    def decode(self, outputs: np.ndarray, checkpoint: Checkpoint) -> Any:
        """Turn raw outputs into what ``evaluation.judge`` takes; logits stay logits."""
        return outputs


@dataclass(frozen=True)
class LogitObjective(Objective):
    """An objective whose loss and predictions both come from the pooled logits of one forward pass."""

    @property
    def pools(self) -> bool:
        return True

    @abstractmethod
    def arrange(self, logits: torch.Tensor, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        """Logits ``(sequences, C)`` as one row per example."""

    @abstractmethod
    def loss_of(self, arranged: torch.Tensor, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        """The summed loss, a scalar."""

    def weight(self, encoded: Encoded, indices: np.ndarray) -> int:
        return len(indices)

    def batch(self, encoded: Encoded, indices: np.ndarray, checkpoint: Checkpoint) -> dict[str, torch.Tensor]:
        import torch

        counts = np.diff(encoded.groups)[indices]
        rows = np.concatenate([np.arange(encoded.groups[i], encoded.groups[i + 1]) for i in indices])
        inputs = pad_inputs(encoded, rows, checkpoint)
        inputs["counts"] = torch.from_numpy(counts)
        if encoded.targets is not None:
            inputs["targets"] = torch.from_numpy(encoded.targets[indices])
        return inputs

    def loss(self, model: nn.Module, batch: dict[str, torch.Tensor], virtual_tokens: int = 0) -> torch.Tensor:
        return self.loss_of(self.predict(model, batch, virtual_tokens), batch)

    def predict(self, model: nn.Module, batch: dict[str, torch.Tensor], virtual_tokens: int = 0) -> torch.Tensor:
        return self.arrange(pooled_logits(model, batch, virtual_tokens), batch)

    def pool(self, outputs: np.ndarray, average: str = "probabilities") -> np.ndarray:
        return mean_answer(outputs, average)

    def evaluate(
        self, model: nn.Module, batch: dict[str, torch.Tensor], virtual_tokens: int = 0
    ) -> tuple[torch.Tensor, torch.Tensor]:
        arranged = self.predict(model, batch, virtual_tokens)
        return arranged, self.loss_of(arranged, batch)


def mean_answer(logits: np.ndarray, average: str) -> np.ndarray:
    """Logits ``(members, n, C)`` as those of one: the logarithms of the mean probabilities, or the mean logits.

    In a mean of logits one sure member can outvote the rest.
    """
    from scipy.special import log_softmax, logsumexp

    if average == "logits":
        mean: np.ndarray = logits.mean(0)
        return mean
    return logsumexp(log_softmax(logits.astype(np.float64), axis=-1), axis=0) - np.log(len(logits))


Texts = tuple[list[str], list[str] | None]


def tokenize(checkpoint: Checkpoint, chunks: Iterable[Texts]) -> tuple[Ragged, Ragged | None, int]:
    """Token ids, token types (or None) and the number of sequences that lost their end.

    Pairs lose tokens from the longer text first, so that neither disappears. Where a text is pooled at its end token,
    an end token written by the user is read as plain text: there may be but one per text.

    Args:
        chunks: texts with their second texts or None, some at a time, so that a large split is never unpacked whole.

    Raises:
        DataError: a text of which the tokenizer knows nothing at all.
    """
    ids: list[Ragged] = []
    types: list[Ragged] = []
    cut = 0
    tokenizer, limit = checkpoint.tokenizer, checkpoint.ref.max_length
    plain = {"split_special_tokens": True} if checkpoint.ref.pooling == "eos" else {}
    for texts, pairs in chunks:
        how = {"truncation": "longest_first" if pairs else True, "max_length": limit}
        chunk = tokenizer(texts, pairs, return_attention_mask=False, **how, **plain)
        ids.append(Ragged.of(chunk["input_ids"]))
        if not ids[-1].lengths.all():
            text = texts[int(np.argmin(ids[-1].lengths))]
            raise DataError(
                f"Every text must hold a token that the model knows, but `{text[:40]}` has none. Remove it."
            )
        if "token_type_ids" in chunk:
            types.append(Ragged.of(chunk["token_type_ids"]))
        if chunk.encodings is not None:
            cut += sum(bool(e.overflowing) for e in chunk.encodings)
        else:  # a tokenizer written in Python does not say what it cut
            cut += sum(len(whole) > limit for whole in tokenizer(texts, pairs, **plain)["input_ids"])
    return Ragged.join(ids), Ragged.join(types) if types else None, cut


def slices(table: pa.Table) -> Iterator[pa.Table]:
    """``table`` some rows at a time."""
    return (table.slice(start, CHUNK) for start in range(0, len(table), CHUNK))


def pad(sequences: list[np.ndarray], value: int, left: bool = False) -> torch.Tensor:
    """Stack sequences to ``(n, longest)`` int64, filled with ``value`` on the right (or left)."""
    import torch

    width = max((len(s) for s in sequences), default=0)
    out = np.full((len(sequences), width), value, dtype=np.int64)
    for row, sequence in zip(out, sequences, strict=True):
        if len(sequence):
            row[slice(width - len(sequence), None) if left else slice(0, len(sequence))] = sequence
    return torch.from_numpy(out)


def pad_inputs(encoded: Encoded, rows: np.ndarray, checkpoint: Checkpoint) -> dict[str, torch.Tensor]:
    """``input_ids``, ``attention_mask`` and, where there are any, ``token_type_ids`` for the sequences ``rows``."""
    import torch

    tokens = [encoded.tokens[i] for i in rows]
    inputs = {"input_ids": pad(tokens, int(checkpoint.tokenizer.pad_token_id or 0))}
    lengths = torch.tensor([len(t) for t in tokens])
    inputs["attention_mask"] = (torch.arange(inputs["input_ids"].shape[1])[None, :] < lengths[:, None]).long()
    if encoded.types is not None:
        inputs["token_type_ids"] = pad([encoded.types[i] for i in rows], 0)
    return inputs


def pooled_logits(model: nn.Module, batch: dict[str, torch.Tensor], virtual_tokens: int) -> torch.Tensor:
    """Logits ``(sequences, C)`` in fp32, whichever stock class the network is.

    Per-token logits ``(sequences, T, C)`` are averaged over the attention mask: a linear head commutes with the mean.
    """
    names = ("input_ids", "attention_mask", "token_type_ids")
    logits = model(**{name: batch[name] for name in names if name in batch}).logits.float()
    if logits.dim() == 2:
        return logits
    logits = logits[:, logits.shape[1] - batch["input_ids"].shape[1] :] if virtual_tokens else logits
    mask = batch["attention_mask"].unsqueeze(-1).to(logits.dtype)
    return (logits * mask).sum(1) / mask.sum(1)
