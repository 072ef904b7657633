"""Supervised response loss: a language model learns to write the response; the prompt is read but not learned.

The prompt goes through the tokenizer's chat template when it has one, otherwise it is followed by a newline. Only
response tokens, the end token included, carry loss: the mask is built from lengths, never by searching for text.

A causal model holds prompt and response in one length limit. A prompt that is too long loses its beginning: in the loss
as much as its response needs, in writing as much as ``max_new_tokens`` needs. What is written therefore does not depend
on whether the right response is known.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from foretune.errors import DataError, UsageError
from foretune.models import Checkpoint
from foretune.objectives.base import Encoded, Objective, Ragged, pad, slices
from foretune.records import Part

if TYPE_CHECKING:
    import pyarrow as pa
    import torch
    from torch import nn
    from transformers import PreTrainedTokenizerBase

IGNORED = -100


@dataclass(frozen=True)
class Response(Objective):
    """Mean negative log-likelihood per response token; greedy decoding.

    Attributes:
        max_new_tokens: longest response to write; 0 = half as long again as the longest in training (set by
            ``fitted``), but for a causal model not beyond half the length limit unless a training response is.
        chat: wrap the prompt in the tokenizer's chat template when it has one.
        separator: what follows the prompt otherwise.
        references: separator between several accepted responses in one row; the first is the one learned.
        seq2seq, pad_id: what the checkpoint is; set by ``fitted``.
    """

    max_new_tokens: int = 0
    chat: bool = True
    separator: str = "\n"
    references: str | None = None
    seq2seq: bool = False
    pad_id: int = 0

    name: ClassVar[str] = "response"
    kinds: ClassVar[tuple[str, ...]] = ("generation",)

    def __post_init__(self) -> None:
        if self.max_new_tokens < 0 or self.references == "":
            raise UsageError(
                "`max_new_tokens >= 0` and a separator of references that is not empty must hold, "
                f"but got max_new_tokens={self.max_new_tokens}, references={self.references!r}."
            )

    def fitted(self, encoded: Encoded, checkpoint: Checkpoint) -> Response:
        assert encoded.responses is not None
        longest, limit = int(encoded.responses.lengths.max(initial=1)), encoded.limit
        ample = int(np.ceil(1.5 * max(longest, 8)))
        new = self.max_new_tokens or (min(ample, max(longest, limit // 2)) if encoded.joined else ample)
        if encoded.joined and new >= limit:
            raise UsageError(
                f"`max_new_tokens` must leave room for a prompt within {limit} tokens, but got {new}. Use less, or a "
                "larger `--max-length`."
            )
        seq2seq = checkpoint.family == "encoder-decoder"
        return replace(self, max_new_tokens=new, seq2seq=seq2seq, pad_id=int(checkpoint.tokenizer.pad_token_id or 0))

    @property
    def bare(self) -> Part:
        return self._with("max_new_tokens", "chat", "separator")

    def outputs(self, classes: int) -> int:
        return 0

    def encode(self, table: pa.Table, targets: np.ndarray | None, checkpoint: Checkpoint) -> Encoded:
        limit, joined = checkpoint.ref.max_length, checkpoint.family != "encoder-decoder"
        parts = [self._encode(part, checkpoint) for part in slices(table)]
        tokens = Ragged.join([prompts for prompts, _ in parts])
        _require_tokens(tokens, table, "prompt")
        known = [written for _, written in parts if written is not None]
        responses = Ragged.join(known) if len(known) == len(parts) else None
        needed = np.full(len(tokens), self.max_new_tokens)
        too_long = np.zeros(len(tokens), bool)
        if responses is not None:
            _require_tokens(responses, table, "response")
            too_long = responses.lengths > limit - 1
            responses = _cut(responses, np.full(len(responses), limit - 1), keep_end=False)
            needed = np.maximum(needed, responses.lengths)
        cut = int((too_long | (tokens.lengths > limit - needed * joined)).sum())
        tokens = _cut(tokens, np.full(len(tokens), limit), keep_end=joined)
        return Encoded(tokens, np.arange(len(tokens) + 1), limit, responses=responses, cut=cut, joined=joined)

    def batch(self, encoded: Encoded, indices: np.ndarray, checkpoint: Checkpoint) -> dict[str, torch.Tensor]:
        import torch

        prompts = [encoded.tokens[i] for i in indices]
        writing = self._writing_inputs(prompts, encoded.limit)
        if encoded.responses is None:
            return writing
        responses = [encoded.responses[i] for i in indices]
        if self.seq2seq:
            return {**writing, "labels": pad(responses, IGNORED)}
        prompts = [p[-(encoded.limit - len(r)) :] for p, r in zip(prompts, responses, strict=True)]
        joined = [np.concatenate([p, r]) for p, r in zip(prompts, responses, strict=True)]
        masked = [np.concatenate([np.full(len(p), IGNORED), r]) for p, r in zip(prompts, responses, strict=True)]
        input_ids = pad(joined, self.pad_id)
        lengths = torch.tensor([len(j) for j in joined])
        mask = (torch.arange(input_ids.shape[1])[None, :] < lengths[:, None]).long()
        return {**writing, "input_ids": input_ids, "attention_mask": mask, "labels": pad(masked, IGNORED)}

    def longest(self, encoded: Encoded) -> int:
        if not encoded.joined:
            return super().longest(encoded)
        writing = min(int(encoded.tokens.lengths.max(initial=0)) + self.max_new_tokens, encoded.limit)
        return max(super().longest(encoded), writing)

    def weight(self, encoded: Encoded, indices: np.ndarray) -> int:
        assert encoded.responses is not None
        return int(encoded.responses.lengths[indices].sum())

    def loss(self, model: nn.Module, batch: dict[str, torch.Tensor], virtual_tokens: int = 0) -> torch.Tensor:
        from torch.nn.functional import cross_entropy

        labels = batch["labels"]
        if self.seq2seq:
            logits = model(input_ids=batch["prompt_ids"], attention_mask=batch["prompt_mask"], labels=labels).logits
        else:
            logits = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits
            logits = logits[:, logits.shape[1] - labels.shape[1] : -1]
            labels = labels[:, 1:]
        return cross_entropy(logits.float().transpose(1, 2), labels, ignore_index=IGNORED, reduction="sum")

    def predict(self, model: nn.Module, batch: dict[str, torch.Tensor], virtual_tokens: int = 0) -> torch.Tensor:
        import torch

        prompt, mask = batch["prompt_ids"], batch["prompt_mask"]
        written = model.generate(  # type: ignore[operator]
            input_ids=prompt,
            attention_mask=mask,
            max_new_tokens=self.max_new_tokens,
            do_sample=False,
            num_beams=1,
            pad_token_id=self.pad_id,
            use_cache=True,
        )
        written = written[:, 1:] if self.seq2seq else written[:, prompt.shape[1] :]
        rest = max(0, self.max_new_tokens - written.shape[1])
        out: torch.Tensor = torch.nn.functional.pad(written, (0, rest), value=self.pad_id)
        return out[:, : self.max_new_tokens]

    def decode(self, outputs: np.ndarray, checkpoint: Checkpoint) -> list[str]:
        texts = checkpoint.tokenizer.batch_decode(outputs.astype(np.int64), skip_special_tokens=True)
        return [str(text).strip() for text in texts]

    def _writing_inputs(self, prompts: list[np.ndarray], limit: int) -> dict[str, torch.Tensor]:
        """Inputs of ``generate``: padded on the left, so that writing starts right after every prompt."""
        import torch

        if not self.seq2seq:
            prompts = [p[-(limit - self.max_new_tokens) :] for p in prompts]
        ids = pad(prompts, self.pad_id, left=not self.seq2seq)
        lengths = torch.tensor([len(p) for p in prompts])[:, None]
        places = torch.arange(ids.shape[1])[None, :]
        mask = (places < lengths) if self.seq2seq else (places >= ids.shape[1] - lengths)
        return {"prompt_ids": ids, "prompt_mask": mask.long()}

    def _encode(self, table: pa.Table, checkpoint: Checkpoint) -> tuple[Ragged, Ragged | None]:
        """Whole prompts and, where every row has one, whole responses."""
        tokenizer, seq2seq = checkpoint.tokenizer, checkpoint.family == "encoder-decoder"
        rows = table.select(["text", "pair", "label"]).to_pylist()
        prompts = [
            self._prompt(r["text"] if r["pair"] is None else f"{r['text']}\n{r['pair']}", tokenizer, seq2seq)
            for r in rows
        ]
        tokens = self._ids(tokenizer, prompts, special=seq2seq or not self._chats(tokenizer), end=seq2seq)
        if table["label"].null_count:
            return tokens, None
        first = [r["label"] if self.references is None else r["label"].split(self.references)[0] for r in rows]
        return tokens, self._ids(tokenizer, first, special=False, end=True)

    def _chats(self, tokenizer: PreTrainedTokenizerBase) -> bool:
        return bool(self.chat and tokenizer.chat_template)

    def _prompt(self, text: str, tokenizer: PreTrainedTokenizerBase, seq2seq: bool) -> str:
        if self._chats(tokenizer):
            turns = [{"role": "user", "content": text}]
            return str(tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True))
        return text if seq2seq else text + self.separator

    def _ids(self, tokenizer: PreTrainedTokenizerBase, texts: list[str], *, special: bool, end: bool) -> Ragged:
        """Token ids; ``special`` adds what the tokenizer puts in front, ``end`` makes the end token the last one.

        A tokenizer may close what it opens; then its end token goes, for a prompt is to be continued. A chat template
        puts in place itself what belongs there.
        """
        eos = tokenizer.eos_token_id
        sequences = tokenizer(texts, add_special_tokens=special, return_attention_mask=False)["input_ids"]
        if special or end:
            sequences = [ids[:-1] if ids and ids[-1] == eos else ids for ids in sequences]
        return Ragged.of([[*ids, eos] if end and eos is not None else ids for ids in sequences])


def _require_tokens(ragged: Ragged, table: pa.Table, what: str) -> None:
    if not ragged.lengths.all():
        row = int(table["row"][int(np.argmin(ragged.lengths))].as_py())
        raise DataError(
            f"Every {what} must hold at least one token, but that of row {row} has none. Fill it or drop it."
        )


def _cut(ragged: Ragged, limits: np.ndarray, *, keep_end: bool) -> Ragged:
    """Shorten each sequence to its limit (at least 1); a causal prompt keeps its end, where the question stands."""
    if (ragged.lengths <= limits).all():
        return ragged
    rows = (ragged[i] for i in range(len(ragged)))
    return Ragged.of([row[-limit:] if keep_end else row[:limit] for row, limit in zip(rows, limits, strict=True)])
