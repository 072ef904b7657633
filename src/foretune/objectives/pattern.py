"""Patterns: a row is written as a sentence, and the language-model head says which label's word fits (PET's idea).

With z the logits where the answer stands and v_c the word of class c, the score of c is the log-probability of v_c, and
the softmax over the classes is the prediction: no new weight has to be learned (Schick and Schuetze 2021, arXiv
2001.07676). Trained, this is pattern-based fine-tuning; untrained and with demonstrations before the row it is
in-context learning (Brown et al. 2020); with none it is the zero-shot scorer. All three are one code, so that they
differ in nothing else.

A row that does not fit loses the end of its texts, never of its pattern. With demonstrations nothing is cut:
``in_context`` has such rows refused.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, ClassVar, Literal

import numpy as np

from foretune.errors import ModelError, UsageError
from foretune.models import Checkpoint
from foretune.objectives.base import Encoded, Objective, Ragged, mean_answer, pad, pad_inputs, slices
from foretune.objectives.prompting import Prompter
from foretune.objectives.verbalizers import (
    Frame,
    answer_tokens,
    causal_frames,
    masked_frames,
    require_distinct,
)
from foretune.records import Part, Seeds
from foretune.tasks.prompts import Pattern, check_unseen, context, draw_shown, find_pattern, words_for
from foretune.tasks.schema import Schema

if TYPE_CHECKING:
    import pyarrow as pa
    import torch
    from torch import nn

CONTENT_FREE = ("N/A", "[MASK]", "")
"""Texts that say nothing (Zhao et al. 2021, section 5)."""


@dataclass(frozen=True)
class PatternObjective(Objective):
    """Cross-entropy over the labels' words, scored by the language-model head.

    Attributes:
        pattern: a name of ``tasks.prompts.PATTERNS``, a text with {text} and {answer}, or ``auto``.
        words: label -> word; in place of the pattern's.
        tokens: ``all`` tokens of a word are scored, or the ``first``.
        normalise: of a prediction's log-probabilities: ``none``; by ``length`` in tokens (the loss too); by the
            ``prior`` of the word after the bare question (PMI_DC: Holtzman et al. 2021, arXiv 2104.08315, eq. 3).
        calibrate: contextual calibration of predictions: the probabilities are divided by those of texts that say
            nothing, in the same context (Zhao et al. 2021, arXiv 2102.09690).
        full_vocabulary: the loss is that of the right word among all words, as in Mosbach et al. 2023; predictions are
            over the labels' words still.
        demonstrations: training rows to show before each row, as many of each label; then nothing is trained.
        separator: between rows; None is the pattern's.
        template, context, shown, labels, answers, family, mask_id, keeps: what is used, set by ``for_task``: ``shown``
            are the row numbers of the demonstrations, ``context`` their text, ``answers`` the tokens that are scored;
            ``keeps``: whether the network computes the logits of some places only when asked.
    """

    pattern: str = "auto"
    words: Mapping[str, str] = field(default_factory=dict, hash=False)
    tokens: Literal["all", "first"] = "all"
    normalise: Literal["none", "length", "prior"] = "none"
    calibrate: bool = False
    full_vocabulary: bool = False
    demonstrations: int = 0
    separator: str | None = None
    template: str = ""
    context: str = ""
    shown: tuple[int, ...] = ()
    labels: tuple[str, ...] = ()
    answers: tuple[tuple[int, ...], ...] = ()
    family: str = ""
    mask_id: int = -1
    keeps: bool = False

    name: ClassVar[str] = "pattern"
    kinds: ClassVar[tuple[str, ...]] = ("classification",)

    def __post_init__(self) -> None:
        if self.demonstrations < 0:
            raise UsageError(f"`demonstrations >= 0` must hold, but got {self.demonstrations}.")
        if self.calibrate and self.normalise == "prior":
            raise UsageError(
                "`calibrate` and `normalise=prior` both divide by what the words score without a text. Use one of them."
            )

    @property
    def pools(self) -> bool:
        """Not where a pass of its own measures what the words score without a text: it is of one model."""
        return not self._contrasted

    @property
    def judges_members(self) -> bool:
        return self.pools

    @property
    def in_context(self) -> bool:
        return self.demonstrations > 0

    @property
    def bare(self) -> Part:
        return self._with("pattern", "words", "tokens", "normalise", "calibrate")

    def outputs(self, classes: int) -> int:
        return 0

    def for_task(
        self, schema: Schema, tables: Mapping[str, pa.Table], seeds: Seeds, checkpoint: Checkpoint
    ) -> PatternObjective:
        train = tables["train"]
        found = find_pattern(self.pattern, train["pair"].null_count < len(train))
        if self.separator is not None:
            found = replace(found, separator=self.separator)
        self._require_family(found, checkpoint)
        words = words_for(found, schema.labels, self.words)
        answers = answer_tokens(checkpoint, schema.labels, words, self._lead(found))
        answers = tuple(answer[:1] for answer in answers) if self.tokens == "first" else answers
        require_distinct(
            schema.labels,
            words,
            answers,
            first=self.tokens == "first",
            nested=checkpoint.family != "encoder" and self.normalise == "none" and not self.calibrate,
        )
        shown = draw_shown(train, schema.labels, self.demonstrations, seeds.data, seeds.order)
        check_unseen(shown, tables)
        return replace(
            self,
            template=found.template,
            separator=found.separator,
            context=context(found, shown, dict(zip(schema.labels, words, strict=True))),
            shown=tuple(shown["row"].to_pylist()),
            labels=schema.labels,
            answers=answers,
            family=checkpoint.family,
            mask_id=-1 if checkpoint.tokenizer.mask_token_id is None else int(checkpoint.tokenizer.mask_token_id),
            keeps=keeps_logits(checkpoint),
        )

    def encode(self, table: pa.Table, targets: np.ndarray | None, checkpoint: Checkpoint) -> Encoded:
        prompter = self._prompter(checkpoint)
        parts, cut = [], 0
        for part in slices(table):
            rows = list(zip(part["text"].to_pylist(), part["pair"].to_pylist(), strict=True))
            sequences, long = prompter.sequences(rows)
            cut += long
            parts.append(Ragged.of(sequences))
        groups = np.arange(len(table) + 1) * len(prompter.frames)
        return Encoded(Ragged.join(parts), groups, checkpoint.ref.max_length, targets, cut=cut)

    def batch(self, encoded: Encoded, indices: np.ndarray, checkpoint: Checkpoint) -> dict[str, torch.Tensor]:
        import torch

        count = len(self._frames[0])
        inputs = self._inputs(encoded, (indices[:, None] * count + np.arange(count)).ravel(), checkpoint)
        if encoded.targets is not None:
            inputs["targets"] = torch.from_numpy(encoded.targets[indices])
        return inputs | self._nothing_inputs(checkpoint) if self._contrasted else inputs

    def weight(self, encoded: Encoded, indices: np.ndarray) -> int:
        return len(indices)

    def loss(self, model: nn.Module, batch: dict[str, torch.Tensor], virtual_tokens: int = 0) -> torch.Tensor:
        return self._loss(self._log_probabilities(model, batch), batch)

    def predict(self, model: nn.Module, batch: dict[str, torch.Tensor], virtual_tokens: int = 0) -> torch.Tensor:
        return self._scores(self._log_probabilities(model, batch), model, batch)

    def evaluate(
        self, model: nn.Module, batch: dict[str, torch.Tensor], virtual_tokens: int = 0
    ) -> tuple[torch.Tensor, torch.Tensor]:
        found = self._log_probabilities(model, batch)
        return self._scores(found, model, batch), self._loss(found, batch)

    def pool(self, outputs: np.ndarray, average: str = "probabilities") -> np.ndarray:
        return mean_answer(outputs, average) if self.pools else super().pool(outputs, average)

    def offsets(self, model: nn.Module, checkpoint: Checkpoint) -> torch.Tensor:
        """What ``predict`` subtracts from the score of each answer, ``(C,)``: the same for every text.

        Args:
            model: on the CPU, in evaluation mode.
        """
        import torch

        if not self._contrasted:
            return torch.zeros(len(self.answers))
        with torch.inference_mode():
            return self._offsets(model, self._nothing_inputs(checkpoint))[0]

    @property
    def _contrasted(self) -> bool:
        return self.calibrate or self.normalise == "prior"

    @cached_property
    def _frames(self) -> tuple[tuple[Frame, ...], tuple[int, ...]]:
        if not self.answers:
            raise UsageError("The objective `pattern` must be told of its task first: call `for_task`.")
        masked = self.family == "encoder"
        return masked_frames(self.answers, self.mask_id) if masked else causal_frames(self.answers)

    def _require_family(self, pattern: Pattern, checkpoint: Checkpoint) -> None:
        """Raise where the family cannot read the pattern."""
        after = pattern.template.partition("{answer}")[2]
        if checkpoint.family == "encoder" and checkpoint.tokenizer.mask_token_id is None:
            raise ModelError(
                f"The objective `pattern` has an encoder fill its mask token, but the tokenizer of "
                f"`{checkpoint.ref.name}` has none. Name a masked language model such as `FacebookAI/roberta-base`."
            )
        if checkpoint.family != "encoder" and ("{text}" in after or "{pair}" in after):
            raise UsageError(
                f"A model that reads from left to right answers before it has read `{after}` of the pattern "
                f"`{pattern.template}`. Put {{answer}} after the texts."
            )

    def _lead(self, pattern: Pattern) -> str:
        """What stands right before the answer, whatever the row: a text's last word is taken to be ``x``."""
        before = pattern.template.partition("{answer}")[0]
        if "{" in before:
            return pattern.lead if pattern.lead.strip() else f"x{pattern.lead}"
        return before or (pattern.separator if self.in_context else "")

    def _prompter(self, checkpoint: Checkpoint) -> Prompter:
        return Prompter(Pattern(self.template), self.context, self._frames[0], checkpoint)

    def _nothing(self, checkpoint: Checkpoint) -> Encoded:
        """The prompts without a text: the bare question, or the pattern around texts that say nothing."""
        texts = () if self.normalise == "prior" else CONTENT_FREE
        tokens = Ragged.of(self._prompter(checkpoint).without_text(texts))
        count = len(self._frames[0])
        return Encoded(tokens, np.arange(len(tokens) // count + 1) * count, checkpoint.ref.max_length)

    def _nothing_inputs(self, checkpoint: Checkpoint) -> dict[str, torch.Tensor]:
        nothing = self._nothing(checkpoint)
        plain = self._inputs(nothing, np.arange(len(nothing.tokens)), checkpoint)
        return {f"nothing_{name}": tensor for name, tensor in plain.items()}

    def _inputs(self, encoded: Encoded, rows: np.ndarray, checkpoint: Checkpoint) -> dict[str, torch.Tensor]:
        """Padded sequences, and ``places`` ``(sequences, K)``: where the logits of an answer's k-th token stand."""
        import torch

        frames = self._frames[0]
        inputs = pad_inputs(encoded, rows, checkpoint)
        own = [frames[i % len(frames)] for i in rows]
        width = max(frame.reads for frame in frames)
        places = np.zeros((len(rows), width), np.int64)
        for k, (row, frame) in enumerate(zip(rows, own, strict=True)):
            places[k] = np.pad(self._places(encoded.tokens[row], frame), (0, width - frame.reads), mode="edge")
        inputs["places"] = torch.from_numpy(places)
        if self.family == "encoder-decoder":
            begin = checkpoint.config.decoder_start_token_id
            started = [np.array([begin, *frame.tokens]) for frame in own]
            inputs["decoder_input_ids"] = pad(started, int(checkpoint.tokenizer.pad_token_id or 0))
        return inputs

    def _places(self, tokens: np.ndarray, frame: Frame) -> np.ndarray:
        if self.family == "encoder":
            return np.flatnonzero(tokens == self.mask_id)
        first = 0 if self.family == "encoder-decoder" else len(tokens) - frame.reads
        return np.arange(first, first + frame.reads)

    def _log_probabilities(self, model: nn.Module, batch: Mapping[str, torch.Tensor], of: str = "") -> torch.Tensor:
        """Sums of log-probabilities ``(examples, C)`` over the tokens of each answer, in fp32.

        Args:
            of: what the names of the inputs begin with.
        """
        import torch

        frames, where = self._frames
        names = ("input_ids", "attention_mask", "decoder_input_ids")
        inputs = {name: batch[f"{of}{name}"] for name in names if f"{of}{name}" in batch}
        places = batch[f"{of}places"]
        first = int(places.min()) if self.keeps else 0
        length = inputs["decoder_input_ids" if self.family == "encoder-decoder" else "input_ids"].shape[1] - first
        logits = model(**inputs, **({"logits_to_keep": length} if self.keeps else {})).logits
        logits = logits[:, logits.shape[1] - length :]
        rows = torch.arange(len(places), device=logits.device)[:, None]
        found = logits[rows, places - first].float().log_softmax(-1)
        found = found.view(-1, len(frames), places.shape[1], found.shape[-1])
        words = torch.zeros((len(self.answers), places.shape[1]), dtype=torch.long, device=logits.device)
        real = torch.zeros_like(words, dtype=torch.bool)
        for i, answer in enumerate(self.answers):
            words[i, : len(answer)] = torch.tensor(answer)
            real[i, : len(answer)] = True
        frame = torch.tensor(where, device=logits.device)[:, None]
        each = found[:, frame, torch.arange(places.shape[1], device=logits.device)[None, :], words]
        return each.masked_fill(~real, 0.0).sum(-1)

    def _measured(self, sums: torch.Tensor) -> torch.Tensor:
        """The sums, or their means over the tokens of each answer."""
        return sums / sums.new_tensor([len(a) for a in self.answers]) if self.normalise == "length" else sums

    def _scores(self, sums: torch.Tensor, model: nn.Module, batch: Mapping[str, torch.Tensor]) -> torch.Tensor:
        scores = self._measured(sums)
        return scores - self._offsets(model, batch) if self._contrasted else scores

    def _offsets(self, model: nn.Module, batch: Mapping[str, torch.Tensor]) -> torch.Tensor:
        nothing = self._log_probabilities(model, batch, "nothing_")
        if self.normalise == "prior":
            return nothing[:1]
        return self._measured(nothing).softmax(-1).mean(0, keepdim=True).log()

    def _loss(self, sums: torch.Tensor, batch: Mapping[str, torch.Tensor]) -> torch.Tensor:
        from torch.nn.functional import cross_entropy, nll_loss

        if self.full_vocabulary:
            return nll_loss(sums, batch["targets"], reduction="sum")
        return cross_entropy(self._measured(sums), batch["targets"], reduction="sum")


def keeps_logits(checkpoint: Checkpoint) -> bool:
    """Whether the causal network of ``checkpoint`` takes ``logits_to_keep``: of a long context one place is read."""
    import inspect

    from transformers import MODEL_FOR_CAUSAL_LM_MAPPING

    if checkpoint.family != "decoder" or type(checkpoint.config) not in MODEL_FOR_CAUSAL_LM_MAPPING:
        return False
    network = MODEL_FOR_CAUSAL_LM_MAPPING[type(checkpoint.config)]
    return "logits_to_keep" in inspect.signature(network.forward).parameters
