"""Supervised response loss: a language model learns to write the response; the prompt is read but not learned.

The prompt goes through the tokenizer's chat template when it has one, otherwise it is followed by a newline. Only response
tokens, the end token included, carry loss: the mask is built from lengths, never by searching for text.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from foretune.errors import DataError
from foretune.models import Checkpoint
from foretune.objectives.base import CHUNK, Encoded, Objective, Ragged, pad

if TYPE_CHECKING:
    import pyarrow as pa
    import torch
    from torch import nn

IGNORED = -100


@dataclass(frozen=True)
class Response(Objective):
    """Mean negative log-likelihood per response token; greedy decoding.

    Attributes:
        max_new_tokens: longest response to write; 0 = half as long again as the longest in training (set by ``fitted``).
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

    def fitted(self, encoded: Encoded, checkpoint: Checkpoint) -> Response:
        assert encoded.responses is not None
        longest = int(encoded.responses.lengths.max(initial=8))
        return replace(
            self,
            max_new_tokens=self.max_new_tokens or int(np.ceil(1.5 * longest)),
            seq2seq=checkpoint.family == "encoder-decoder",
            pad_id=int(checkpoint.tokenizer.pad_token_id or 0),
        )

    def outputs(self, classes: int) -> int:
        return 0

    def encode(self, table: pa.Table, targets: np.ndarray | None, checkpoint: Checkpoint) -> Encoded:
        tokenizer, limit = checkpoint.tokenizer, checkpoint.ref.max_length
        seq2seq = checkpoint.family == "encoder-decoder"
        prompts = [
            self._prompt(text if pair is None else f"{text}\n{pair}", tokenizer, seq2seq)
            for text, pair in zip(table["text"].to_pylist(), table["pair"].to_pylist(), strict=True)
        ]
        tokens = self._ids(tokenizer, prompts, special=seq2seq or not self._chats(tokenizer), end=seq2seq)
        labels = table["label"].to_pylist()
        if any(label is None for label in labels):
            cut = int((tokens.lengths > limit).sum())
            tokens = _cut(tokens, np.full(len(tokens), limit), keep_end=not seq2seq)
            return Encoded(tokens, np.arange(len(tokens) + 1), limit, cut=cut)
        written = [label if self.references is None else label.split(self.references)[0] for label in labels]
        responses = self._ids(tokenizer, written, special=False, end=True)
        room = limit if seq2seq else limit - np.minimum(responses.lengths, limit - 1)
        cut = int((tokens.lengths > room).sum() + (responses.lengths > limit - 1).sum())
        tokens = _cut(tokens, np.broadcast_to(room, len(tokens)), keep_end=not seq2seq)
        responses = _cut(responses, np.full(len(responses), limit - 1), keep_end=False)
        if not responses.lengths.all():
            row = int(table["row"][int(np.argmin(responses.lengths))].as_py())
            raise DataError(f"Every response must hold at least one token, but row {row} has none. Fill it or drop it.")
        return Encoded(tokens, np.arange(len(tokens) + 1), limit, responses=responses, cut=cut)

    def batch(self, encoded: Encoded, indices: np.ndarray, checkpoint: Checkpoint) -> dict[str, torch.Tensor]:
        import torch

        prompts = [encoded.tokens[i] for i in indices]
        writing = self._writing_inputs(prompts)
        if encoded.responses is None:
            return writing
        responses = [encoded.responses[i] for i in indices]
        if self.seq2seq:
            return {**writing, "labels": pad(responses, IGNORED)}
        joined = [np.concatenate([p, r]) for p, r in zip(prompts, responses, strict=True)]
        input_ids = pad(joined, self.pad_id)
        labels = pad([np.concatenate([np.full(len(p), IGNORED), r]) for p, r in zip(prompts, responses, strict=True)], IGNORED)
        lengths = torch.tensor([len(j) for j in joined])
        mask = (torch.arange(input_ids.shape[1])[None, :] < lengths[:, None]).long()
        return {**writing, "input_ids": input_ids, "attention_mask": mask, "labels": labels}

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

    def _writing_inputs(self, prompts: list[np.ndarray]) -> dict[str, torch.Tensor]:
        """Inputs of ``generate``: padded on the left, so that writing starts right after every prompt."""
        import torch

        ids = pad(prompts, self.pad_id, left=not self.seq2seq)
        lengths = torch.tensor([len(p) for p in prompts])[:, None]
        places = torch.arange(ids.shape[1])[None, :]
        mask = (places < lengths) if self.seq2seq else (places >= ids.shape[1] - lengths)
        return {"prompt_ids": ids, "prompt_mask": mask.long()}

    def _chats(self, tokenizer: object) -> bool:
        return bool(self.chat and getattr(tokenizer, "chat_template", None))

    def _prompt(self, text: str, tokenizer: object, seq2seq: bool) -> str:
        if self._chats(tokenizer):
            turns = [{"role": "user", "content": text}]
            return str(tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True))  # type: ignore[attr-defined]
        return text if seq2seq else text + self.separator

    def _ids(self, tokenizer: object, texts: list[str], *, special: bool, end: bool) -> Ragged:
        """Token ids; ``special`` adds what the tokenizer puts in front, ``end`` makes the end token the last one."""
        eos = tokenizer.eos_token_id  # type: ignore[attr-defined]
        parts = []
        for start in range(0, len(texts), CHUNK):
            chunk = tokenizer(texts[start : start + CHUNK], add_special_tokens=special, return_attention_mask=False)  # type: ignore[operator]
            sequences = [ids[:-1] if ids and ids[-1] == eos else ids for ids in chunk["input_ids"]]
            parts.append(Ragged.of([[*ids, eos] if end and eos is not None else ids for ids in sequences]))
        return Ragged.join(parts)


def _cut(ragged: Ragged, limits: np.ndarray, *, keep_end: bool) -> Ragged:
    """Shorten each sequence to its limit; a causal prompt keeps its end, where the question stands."""
    if (ragged.lengths <= limits).all():
        return ragged
    rows = (ragged[i] for i in range(len(ragged)))
    kept = [row[len(row) - limit :] if keep_end and len(row) > limit else row[:limit] for row, limit in zip(rows, limits, strict=True)]
    return Ragged.of([row.tolist() for row in kept])
