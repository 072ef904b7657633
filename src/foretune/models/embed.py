"""Frozen features of a checkpoint: the pooled last hidden state of the untouched model, for the embedding floor."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from foretune.errors import ModelError
from foretune.models.checkpoint import Checkpoint
from foretune.models.network import quiet

if TYPE_CHECKING:
    import torch


class FrozenModel:
    """The untouched model of a checkpoint, without any adapter: loaded when it is first asked, and then kept.

    Attributes:
        checkpoint: an opened checkpoint.
        device: where to run.
    """

    def __init__(self, checkpoint: Checkpoint, device: torch.device) -> None:
        self.checkpoint, self.device = checkpoint, device

    def features(self, batches: Iterable[dict[str, torch.Tensor]]) -> np.ndarray:
        """Pooled hidden states ``(sequences, hidden)`` in fp32, in the order of ``batches``.

        Pooling follows the family, not the head: the mean over the attention mask for encoders and the encoders of
        encoder-decoders, the last token for decoders. These are what a linear probe has always been put on.

        Args:
            batches: right-padded ``input_ids`` and ``attention_mask`` (and ``token_type_ids``).

        Raises:
            ModelError: its weights give no hidden states.
        """
        import torch

        pooled: list[np.ndarray] = []
        with torch.inference_mode():
            for batch in batches:
                placed = {name: tensor.to(self.device) for name, tensor in batch.items()}
                hidden = self._model(**placed).last_hidden_state
                mask = placed["attention_mask"]
                if self.checkpoint.family == "decoder":
                    vectors = hidden[torch.arange(len(hidden), device=self.device), mask.sum(1) - 1]
                else:
                    weights = mask.unsqueeze(-1).to(hidden.dtype)
                    vectors = (hidden * weights).sum(1) / weights.sum(1)
                pooled.append(vectors.float().cpu().numpy())
        return np.concatenate(pooled)

    @cached_property
    def _model(self) -> Any:
        import transformers

        ref = self.checkpoint.ref
        try:
            with quiet():
                model = transformers.AutoModel.from_pretrained(
                    self.checkpoint.folder,
                    dtype="float32",
                    use_safetensors=True,
                    trust_remote_code=ref.trust_remote_code,
                )
        except (ValueError, OSError, RuntimeError) as error:
            raise ModelError(f"`{ref.name}` gives no hidden states: {str(error).splitlines()[0]}") from error
        if self.checkpoint.family == "encoder-decoder":
            model = model.get_encoder()
        return model.to(self.device).eval()
