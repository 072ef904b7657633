"""Frozen features of a checkpoint: the pooled last hidden state of the untouched model, for the embedding floor."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from foretune.errors import ModelError
from foretune.models.checkpoint import Checkpoint
from foretune.models.network import quiet

if TYPE_CHECKING:
    import torch


def features(checkpoint: Checkpoint, batches: Iterator[dict[str, torch.Tensor]], device: torch.device) -> np.ndarray:
    """Pooled hidden states ``(sequences, hidden)`` in fp32, in the order of ``batches``.

    Pooling follows the family, not the head: the mean over the attention mask for encoders and the encoders of
    encoder-decoders, the last token for decoders. These are what a linear probe has always been put on.

    Args:
        checkpoint: an opened checkpoint; its weights are loaded afresh, without any adapter.
        batches: right-padded ``input_ids`` and ``attention_mask`` (and ``token_type_ids``).
        device: where to run.
    """
    import torch
    import transformers

    try:
        with quiet():
            model = transformers.AutoModel.from_pretrained(
                checkpoint.folder,
                dtype="float32",
                use_safetensors=True,
                trust_remote_code=checkpoint.ref.trust_remote_code,
            )
    except (ValueError, OSError, RuntimeError) as error:
        raise ModelError(f"`{checkpoint.ref.name}` gives no hidden states: {str(error).splitlines()[0]}") from error
    if checkpoint.family == "encoder-decoder":
        model = model.get_encoder()
    model.to(device).eval()
    pooled: list[np.ndarray] = []
    with torch.inference_mode():
        for batch in batches:
            hidden = model(**{name: tensor.to(device) for name, tensor in batch.items()}).last_hidden_state
            mask = batch["attention_mask"].to(device)
            if checkpoint.family == "decoder":
                vectors = hidden[torch.arange(len(hidden), device=device), mask.sum(1) - 1]
            else:
                weights = mask.unsqueeze(-1).to(hidden.dtype)
                vectors = (hidden * weights).sum(1) / weights.sum(1)
            pooled.append(vectors.float().cpu().numpy())
    return np.concatenate(pooled)
