"""Prompt tuning: trained vectors in front of the text, with PEFT's silent failures made loud.

Before training the network is checked by its signature and by one pass over two tokens: vectors that do not reach the
logits are an error, whatever the architecture is called. During training a guard refuses what is only known then.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from foretune.errors import ModelError, UsageError, require
from foretune.records import Choice, Real, Space
from foretune.tuners import _peft
from foretune.tuners.heads import classifies, pools
from foretune.tuners.limits import table_positions, too_long
from foretune.tuners.peft_tuner import PeftTuner

if TYPE_CHECKING:
    from peft import PeftConfig, PeftModel
    from torch import nn
    from transformers import PreTrainedModel


@dataclass(frozen=True)
class PromptTuning(PeftTuner):
    """``length`` trained embeddings in front of the text (Lester et al. 2021, arXiv 2104.08691).

    Per-token logits have as many extra rows in front: see ``virtual_tokens``. A pooled encoder reads its first
    position, which is now the first virtual token. ``lr`` 1e-2 is the middle of the range (no published value for AdamW
    on small encoders).

    Attributes:
        length: how many.
        init: ``vocabulary``: embeddings of random tokens of the vocabulary (34.3 against 23.4 % in PEFT's suite);
            ``normal``: standard normal.
    """

    length: int = 20
    init: Literal["vocabulary", "normal"] = "vocabulary"

    name: ClassVar[str] = "prompt-tuning"
    space: ClassVar[Space] = Space({"lr": Real(1e-3, 1e-1, log=True), "length": Choice((5, 10, 20, 50))})
    lr: ClassVar[float] = 1e-2
    mergeable: ClassVar[bool] = False
    peft_type: ClassVar[str] = "PROMPT_TUNING"

    def __post_init__(self) -> None:
        require({"length >= 1": self.length >= 1}, vars(self))

    def virtual_tokens(self, model: nn.Module) -> int:
        return int(_peft.as_peft(model).active_peft_config.num_virtual_tokens)

    def check(self, network: PreTrainedModel) -> None:
        kind = type(network).__name__
        if _peft.task_type(network) is None:
            raise ModelError(
                f"`{self.name}` serves classification and text generation, but got {kind}. Use `lora` for this class."
            )
        if pools(network) and (network.config.is_encoder_decoder or takes_cache(network)):
            raise ModelError(
                f"`{self.name}` does not serve {kind}: it finds the pooled token by its id, which virtual tokens do "
                "not have, so the result would depend on padding. Use mean pooling (ModelRef(pooling='mean')) or "
                "`lora`."
            )

    def peft_config(self, network: PreTrainedModel, fresh: Sequence[str] = ()) -> PeftConfig:
        from peft import PromptTuningConfig

        return PromptTuningConfig(
            task_type=_peft.task_type(network),
            num_virtual_tokens=self.length,
            prompt_tuning_init="SAMPLE_VOCAB" if self.init == "vocabulary" else "RANDOM",
            num_transformer_submodules=1,
            token_dim=network.config.hidden_size,
            num_layers=network.config.num_hidden_layers,
            num_attention_heads=network.config.num_attention_heads,
        )

    def _wrap(self, network: PreTrainedModel, config: PeftConfig, heads: Sequence[str], adapter: str) -> PeftModel:
        try:
            model = super()._wrap(network, config, heads, adapter)
        except ValueError as error:
            raise ModelError(f"`{self.name}` does not serve {type(network).__name__}: {error}. Use `lora`.") from error
        guard = Guard(self.name, config.num_virtual_tokens, table_positions(network))
        model.register_forward_pre_hook(guard, with_kwargs=True)
        if config.task_type == "CAUSAL_LM":
            model.prepare_inputs_for_generation = _peft.WritingInputs(model, guard.limit, guard.too_long)
        require_reach(self.name, model)
        return model


@dataclass(frozen=True)
class Guard:
    """Called before every forward pass: raises on what would fail opaquely or train nothing.

    Attributes:
        tuner: its name, for the message.
        own: virtual tokens.
        limit: rows of the model's position table, None without one.
    """

    tuner: str
    own: int
    limit: int | None

    def __call__(self, model: PeftModel, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if _peft.is_disabled(model):
            return
        network = model.get_base_model()
        tokens = kwargs.get("input_ids", args[0] if args else None)
        length = 0 if tokens is None else int(tokens.shape[1])
        if self.limit is not None and length + self.own > self.limit:
            raise UsageError(self.too_long(length + self.own))
        if kwargs.get("labels") is not None and classifies(network) and not pools(network):
            raise UsageError(
                f"`{self.tuner}` puts {self.own} positions in front of the per-token logits, so PEFT's loss cannot "
                "match `labels` to them. Drop the first positions of `logits` and compute the loss from the rest."
            )

    def too_long(self, total: int) -> str:
        """The message for ``total`` positions, virtual ones included, on a model that has fewer."""
        return too_long(self.tuner, total - self.own, self.own, self.limit or 0)


def takes_cache(network: nn.Module) -> bool:
    """Whether the forward pass takes past keys and values."""
    return "past_key_values" in inspect.signature(network.forward).parameters


def require_reach(tuner: str, model: PeftModel) -> None:
    """Raise ``ModelError`` unless the logits of a two-token text depend on the trained vectors."""
    import torch

    network = model.get_base_model()
    modes = [(module, module.training) for module in model.modules()]
    token = 1 if network.config.pad_token_id == 0 else 0
    ids = torch.full((1, 2), token, device=network.device)
    inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    if network.config.is_encoder_decoder and not classifies(network):
        inputs["decoder_input_ids"] = ids
    vectors = model.prompt_encoder[model.active_adapter].embedding.weight
    try:
        model.eval()
        with torch.enable_grad():
            logits = model(**inputs).logits
        (gradient,) = torch.autograd.grad(logits.float().sum(), vectors, allow_unused=True)
    except (RuntimeError, ValueError, TypeError, LookupError, AttributeError) as error:
        if isinstance(error, UsageError):
            raise
        reason = f"a first pass fails ({str(error).splitlines()[0] if str(error) else type(error).__name__})"
        raise ModelError(f"`{tuner}` does not serve {type(network).__name__}: {reason}. Use `lora`.") from error
    finally:
        for module, mode in modes:
            module.training = mode
    if gradient is None:
        raise ModelError(
            f"`{tuner}` does not serve {type(network).__name__}: its logits do not depend on the virtual tokens. "
            "Use `lora`."
        )
