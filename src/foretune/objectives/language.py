"""Language modelling on texts without labels: causal for a decoder, masked for an encoder.

Texts are not packed. One text is one sequence, so that its loss does not hang on its neighbours, and batches are made
of texts of similar length, so that little of them is padding. A text longer than the limit goes on in further windows,
each of them an example of its own: nothing of it is lost. A causal text ends with the end token, where there is one,
and its first token is read but not predicted.

Masking is BERT's (Devlin et al. 2019, arXiv 1810.04805, section 3.1 and appendix A.1): 15 % of the tokens of a
sequence, at least one, special tokens never; of these 80 % become the mask token, 10 % a random token, 10 % stay. Which
ones is a pure function of the sequence and, in training, of the seed that the loop sets for each pass (named
``dropout``, with the step), so a resumed run draws the same masks. In evaluation it is the same mask every time: two
losses of the same texts differ by the weights alone.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from foretune.errors import DataError, ModelError, UsageError
from foretune.models import Checkpoint
from foretune.objectives.base import Encoded, Objective, Ragged, pad_inputs, slices
from foretune.records import UNLABELLED

if TYPE_CHECKING:
    import pyarrow as pa
    import torch
    from torch import nn
    from transformers import BatchEncoding

MASKED, RANDOM = 0.8, 0.1
"""Of the chosen tokens: the share that becomes the mask token, and the share that becomes any token."""


@dataclass(frozen=True)
class Language(Objective):
    """Mean negative log-likelihood per predicted token, in nats; a prediction is its sum over a text.

    Attributes:
        mask_rate: the share of the tokens that a masked model predicts.
        mask_id: id of the mask token, -1 for a causal model; set by ``fitted``.
        vocabulary: ids that a random token is drawn from; set by ``fitted``.
    """

    mask_rate: float = 0.15
    mask_id: int = -1
    vocabulary: int = 0

    name: ClassVar[str] = "language"
    kinds: ClassVar[tuple[str, ...]] = (UNLABELLED,)

    def __post_init__(self) -> None:
        if not 0 < self.mask_rate < 1:
            raise UsageError(f"`0 < mask_rate < 1` must hold, but got {self.mask_rate:g}.")

    @property
    def fresh_head(self) -> bool:
        return True

    def outputs(self, classes: int) -> int:
        return 0

    def fitted(self, encoded: Encoded, checkpoint: Checkpoint) -> Language:
        if checkpoint.family == "decoder":
            return self
        vocabulary = min(len(checkpoint.tokenizer), int(checkpoint.config.vocab_size))
        return replace(self, mask_id=int(checkpoint.tokenizer.mask_token_id), vocabulary=vocabulary)

    def encode(self, table: pa.Table, targets: np.ndarray | None, checkpoint: Checkpoint) -> Encoded:
        causal = _is_causal(checkpoint)
        tokens: list[Ragged] = []
        types: list[Ragged] = []
        cut = 0
        for part in slices(table):
            rows = part.select(["text", "pair"]).to_pylist()
            texts = [r["text"] if r["pair"] is None else f"{r['text']} {r['pair']}" for r in rows]
            found, lost = _windows(checkpoint, texts, causal)
            cut += lost
            ids = _ended(found, checkpoint) if causal else found["input_ids"]
            counts = [self._predicted(np.asarray(window), checkpoint) for window in ids]
            tokens.append(Ragged.of([window for window, n in zip(ids, counts, strict=True) if n]))
            if "token_type_ids" in found and not causal:
                kept = [window for window, n in zip(found["token_type_ids"], counts, strict=True) if n]
                types.append(Ragged.of(kept))
        joined = Ragged.join(tokens)
        if not len(joined):
            raise DataError("The texts must hold tokens that can be predicted, but none has any. Give longer texts.")
        predicted = np.array([self._predicted(joined[i], checkpoint) for i in range(len(joined))], np.int64)
        return Encoded(
            joined,
            np.arange(len(joined) + 1),
            checkpoint.ref.max_length,
            predicted,
            Ragged.join(types) if types else None,
            cut=cut,
        )

    def batch(self, encoded: Encoded, indices: np.ndarray, checkpoint: Checkpoint) -> dict[str, torch.Tensor]:
        """Padded sequences; for a masked model ``maskable`` ``(b, t)`` and the ``text_seed`` ``(b,)`` of its masks."""
        import torch

        inputs = pad_inputs(encoded, indices, checkpoint)
        if self.mask_id < 0:
            return inputs
        seeds = [zlib.crc32(encoded.tokens[i].tobytes()) for i in indices]
        special = torch.tensor(sorted(_special(checkpoint)))
        maskable = inputs["attention_mask"].bool() & ~torch.isin(inputs["input_ids"], special)
        return {**inputs, "maskable": maskable, "text_seed": torch.tensor(seeds)}

    def weight(self, encoded: Encoded, indices: np.ndarray) -> int:
        assert encoded.targets is not None
        return int(encoded.targets[indices].sum())

    def loss(self, model: nn.Module, batch: dict[str, torch.Tensor], virtual_tokens: int = 0) -> torch.Tensor:
        return self.predict(model, batch, virtual_tokens).sum()

    def predict(self, model: nn.Module, batch: dict[str, torch.Tensor], virtual_tokens: int = 0) -> torch.Tensor:
        """Negative log-likelihood of the predicted tokens of each sequence, summed, ``(b, 1)``."""
        import torch
        from torch.nn.functional import cross_entropy

        ids, labels, places = batch["input_ids"], batch["input_ids"][:, 1:], batch["attention_mask"][:, 1:].bool()
        if self.mask_id >= 0:
            labels = ids
            ids, places = self._masked(batch, torch.initial_seed() if model.training else 0)
        names = ("attention_mask", "token_type_ids")
        logits = model(input_ids=ids, **{name: batch[name] for name in names if name in batch}).logits
        logits = logits[:, logits.shape[1] - ids.shape[1] :][:, : labels.shape[1]]
        each = cross_entropy(logits[places].float(), labels[places], reduction="none")
        sums = torch.zeros(len(ids), dtype=torch.float32, device=each.device)
        return sums.index_add(0, places.nonzero()[:, 0], each)[:, None]

    def evaluate(
        self, model: nn.Module, batch: dict[str, torch.Tensor], virtual_tokens: int = 0
    ) -> tuple[torch.Tensor, torch.Tensor]:
        each = self.predict(model, batch, virtual_tokens)
        return each, each.sum()

    def decode(self, outputs: np.ndarray, checkpoint: Checkpoint) -> np.ndarray:
        return outputs[:, 0]

    def _predicted(self, window: np.ndarray, checkpoint: Checkpoint) -> int:
        """How many tokens of a sequence are predicted: known before any mask is drawn."""
        if checkpoint.family == "decoder":
            return len(window) - 1
        return self._chosen(int((~np.isin(window, list(_special(checkpoint)))).sum()))

    def _chosen(self, maskable: int) -> int:
        return max(1, round(self.mask_rate * maskable)) if maskable else 0

    def _masked(self, batch: dict[str, torch.Tensor], seed: int) -> tuple[torch.Tensor, torch.Tensor]:
        """The sequences with their masks, and the places to predict, ``(b, t)`` each."""
        import torch

        ids, maskable = batch["input_ids"].cpu().numpy().copy(), batch["maskable"].cpu().numpy()
        places = np.zeros_like(maskable)
        for row, (text, free) in enumerate(zip(batch["text_seed"].tolist(), maskable, strict=True)):
            rng = np.random.Generator(np.random.PCG64([seed, text]))
            chosen = rng.permutation(np.flatnonzero(free))
            chosen = chosen[: self._chosen(len(chosen))]
            fate, anything = rng.random(len(chosen)), rng.integers(0, self.vocabulary, len(chosen))
            hidden = np.where(fate < MASKED, self.mask_id, anything)
            ids[row, chosen] = np.where(fate < MASKED + RANDOM, hidden, ids[row, chosen])
            places[row, chosen] = True
        device = batch["input_ids"].device
        return torch.from_numpy(ids).to(device), torch.from_numpy(places).to(device)


def _is_causal(checkpoint: Checkpoint) -> bool:
    name = checkpoint.ref.name
    if checkpoint.family == "encoder-decoder":
        raise ModelError(
            f"Unlabelled texts train an encoder (masked) or a decoder (causal), but `{name}` is an encoder-decoder. "
            "Name another model with `--model`."
        )
    if checkpoint.family == "encoder" and checkpoint.tokenizer.mask_token_id is None:
        raise ModelError(
            f"A masked language model needs a mask token, but the tokenizer of `{name}` has none. Add one to it, or "
            "name another model with `--model`."
        )
    return checkpoint.family == "decoder"


def _special(checkpoint: Checkpoint) -> set[int]:
    """Ids that are never masked; what the tokenizer does not know is a token like any other."""
    return set(checkpoint.tokenizer.all_special_ids) - {checkpoint.tokenizer.unk_token_id}


def _windows(checkpoint: Checkpoint, texts: list[str], causal: bool) -> tuple[BatchEncoding, int]:
    """Token ids in windows of at most the limit, and the number of texts that lost their end for want of windows.

    A tokenizer written in Python gives one window per text.
    """
    tokenizer, limit = checkpoint.tokenizer, checkpoint.ref.max_length - causal
    how = {"truncation": True, "max_length": limit, "return_attention_mask": False}
    if tokenizer.is_fast:
        return tokenizer(texts, return_overflowing_tokens=True, **how), 0
    return tokenizer(texts, **how), sum(len(whole) > limit for whole in tokenizer(texts)["input_ids"])


def _ended(found: BatchEncoding, checkpoint: Checkpoint) -> list[list[int]]:
    """The windows of ``found``, the last one of each text closed by the end token."""
    windows, eos = found["input_ids"], checkpoint.tokenizer.eos_token_id
    owners = found.get("overflow_to_sample_mapping", range(len(windows)))
    last = dict(zip(owners, range(len(windows)), strict=True)).values()
    closed = {i for i in last if eos is not None and windows[i][-1:] != [eos]}
    return [[*window, eos] if i in closed else window for i, window in enumerate(windows)]
