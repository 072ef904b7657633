"""Prompt tuning and prefix tuning: trained vectors in front of the text, with PEFT's silent failures made loud.

Before training the network is checked by its signature and by one pass over two tokens: vectors that do not reach the
logits are an error, whatever the architecture is called. During training a guard refuses what is only known then.
"""

from __future__ import annotations

import inspect
import warnings
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from foretune.errors import ModelError, UsageError
from foretune.records import Choice, Real, Space
from foretune.tuners import _peft
from foretune.tuners.heads import classifies, pools
from foretune.tuners.limits import table_positions, text_config, too_long
from foretune.tuners.peft_tuner import PeftTuner

if TYPE_CHECKING:
    from peft import PeftConfig, PeftModel
    from torch import nn
    from transformers import PreTrainedModel


@dataclass(frozen=True)
class SoftPrompt(PeftTuner):
    """Common to both: refusals, the check that the vectors reach the logits, the guard."""

    length: int

    mergeable: ClassVar[bool] = False

    def __post_init__(self) -> None:
        if self.length < 1:
            raise UsageError(f"`length >= 1` must hold, but got length={self.length}.")

    def virtual_tokens(self, model: nn.Module) -> int:
        return int(_peft.as_peft(model).active_peft_config.num_virtual_tokens)

    @abstractmethod
    def refusal(self, network: PreTrainedModel) -> str | None:
        """Why this architecture is not served, and what serves instead; None where it is."""

    def check(self, network: PreTrainedModel) -> None:
        if _peft.task_type(network) is None:
            raise ModelError(
                f"`{self.name}` serves classification and text generation, but got {type(network).__name__}. "
                "Use `lora` for this class."
            )
        if reason := self.refusal(network):
            raise ModelError(f"`{self.name}` does not serve {type(network).__name__}: {reason}")

    def _wrap(self, network: PreTrainedModel, config: PeftConfig, heads: Sequence[str], adapter: str) -> PeftModel:
        try:
            model = super()._wrap(network, config, heads, adapter)
        except ValueError as error:
            raise ModelError(f"`{self.name}` does not serve {type(network).__name__}: {error}. Use `lora`.") from error
        guard = Guard(
            self.name, config.peft_type == "PREFIX_TUNING", config.num_virtual_tokens, table_positions(network)
        )
        model.register_forward_pre_hook(guard, with_kwargs=True)
        if config.task_type == "CAUSAL_LM":
            model.prepare_inputs_for_generation = _peft.WritingInputs(model, guard.limit, guard.too_long)
        require_reach(self.name, model)
        return model


@dataclass(frozen=True)
class PromptTuning(SoftPrompt):
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
    peft_type: ClassVar[str] = "PROMPT_TUNING"

    def refusal(self, network: PreTrainedModel) -> str | None:
        if not pools(network) or not (network.config.is_encoder_decoder or takes_cache(network)):
            return None
        return (
            "it finds the pooled token by its id, which virtual tokens do not have, so the result would depend on "
            "padding. Use mean pooling (ModelRef(pooling='mean')) or `lora`."
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


@dataclass(frozen=True)
class PrefixTuning(SoftPrompt):
    """``length`` trained keys and values in front of every attention (Li and Liang 2021, arXiv 2101.00190;
    without reparametrisation, as Liu et al. 2022, arXiv 2110.07602). ``lr`` 5e-3: PEFT's suite, and the latter paper.

    Attributes:
        length: how many, in every layer.
        init: ``normal``: standard normal, PEFT's default. ``small``: standard deviation 0.02, near the zero start that
            PEFT's suite favours; exact zeros would give all virtual tokens the same gradient for ever.
    """

    length: int = 10
    init: Literal["normal", "small"] = "normal"

    name: ClassVar[str] = "prefix-tuning"
    space: ClassVar[Space] = Space(
        {
            "lr": Real(1e-3, 3e-2, log=True),
            "length": Choice((5, 10, 20)),
            "init": Choice(("normal", "small")),
        }
    )
    lr: ClassVar[float] = 5e-3
    peft_type: ClassVar[str] = "PREFIX_TUNING"

    def check(self, network: PreTrainedModel) -> None:
        super().check(network)
        refuse_checkpointing(self.name, network)

    def refusal(self, network: PreTrainedModel) -> str | None:
        if network.config.is_encoder_decoder:
            return "PEFT puts the prefix into the decoder only, the encoder never sees it. Use `lora` or `ia3`."
        if not (takes_cache(network) or takes_cache(network.base_model)):
            return "its attention takes no past keys and values. Use `lora`, `ia3` or `prompt-tuning`."
        return None

    def peft_config(self, network: PreTrainedModel, fresh: Sequence[str] = ()) -> PeftConfig:
        from peft import PrefixTuningConfig

        return PrefixTuningConfig(task_type=_peft.task_type(network), num_virtual_tokens=self.length)

    def attach(self, network: PreTrainedModel, fresh: Sequence[str] = (), adapter_name: str = "default") -> PeftModel:
        model = super().attach(network, fresh, adapter_name)
        if self.init == "small":
            from torch.nn.init import normal_

            normal_(model.prompt_encoder[adapter_name].embedding.weight, std=0.02)
        return model


@dataclass(frozen=True)
class Guard:
    """Called before every forward pass: raises on what would fail opaquely or train nothing.

    Attributes:
        tuner: its name, for the message.
        prefix: prefix rather than prompt tuning.
        own: virtual tokens.
        limit: rows of the model's position table, None without one.
    """

    tuner: str
    prefix: bool
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
        if self.prefix:
            self._check_prefix(network, length, kwargs)
        elif kwargs.get("labels") is not None and classifies(network) and not pools(network):
            raise UsageError(
                f"`{self.tuner}` puts {self.own} positions in front of the per-token logits, so PEFT's loss cannot "
                "match `labels` to them. Drop the first positions of `logits` and compute the loss from the rest."
            )

    def too_long(self, total: int) -> str:
        """The message for ``total`` positions, virtual ones included, on a model that has fewer."""
        return too_long(self.tuner, total - self.own, self.own, self.limit or 0)

    def _check_prefix(self, network: PreTrainedModel, length: int, kwargs: dict[str, Any]) -> None:
        refuse_checkpointing(self.tuner, network)
        asked = [
            k for k in ("output_hidden_states", "output_attentions") if kwargs.get(k) or vars(network.config).get(k)
        ]
        pooled = pools(network) and not takes_cache(network)
        if asked and pooled and "pooler" not in dict(network.base_model.named_children()):
            raise UsageError(
                f"`{self.tuner}` on {type(network).__name__} cannot return more than logits: PEFT would take the extra "
                f"output for the pooled text. Leave out `{asked[0]}`."
            )
        window = sliding_window(network)
        if window is not None and length + self.own > window:
            seen = max(window - self.own, 0)
            warnings.warn(
                f"Layers with a sliding window of {window} tokens see the whole prefix of {self.own} only before token "
                f"{seen}, but got {length} tokens. Use a maximum length of {seen}.",
                stacklevel=2,
            )


def refuse_checkpointing(tuner: str, network: PreTrainedModel) -> None:
    """Raise ``UsageError`` where a prefix would be lost: transformers drops the cache it travels in."""
    if _peft.checkpoints(network):
        raise UsageError(
            f"`{tuner}` cannot be trained with gradient (activation) checkpointing: the prefix would be "
            "dropped. Switch it off, or use `lora`."
        )


def takes_cache(network: nn.Module) -> bool:
    """Whether the forward pass takes past keys and values."""
    return "past_key_values" in inspect.signature(network.forward).parameters


def sliding_window(network: PreTrainedModel) -> int | None:
    """The window of the network's sliding-attention layers; None when it has none."""
    config = text_config(network)
    window, types = config.get("sliding_window"), config.get("layer_types")
    slides = "sliding_attention" in types if types else config.get("use_sliding_window", True)
    return int(window) if window and slides else None


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
