"""Checkpoint: an opened pretrained model, before its weights are read: configuration, tokenizer, family, pooling.

Opening is cheap (no weights), so that every refusal comes before memory is spent.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from foretune.errors import ModelError
from foretune.models.locate import fingerprint, locate, parameter_count
from foretune.records import ModelRef

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedTokenizerBase

POOLINGS = {
    "encoder": ("cls", "mean"),
    "decoder": ("last", "mean"),
    "encoder-decoder": ("eos",),
}
"""family -> poolings a head can be put on; the first is the family's default."""


@dataclass(frozen=True)
class Checkpoint:
    """An opened checkpoint.

    Attributes:
        ref: the reference with nothing left open: fingerprint, pooling and length limit are filled in.
        folder: where the files lie.
        config: the transformers configuration.
        tokenizer: with a padding token (the end token where the checkpoint has none).
        family: ``encoder``, ``decoder`` or ``encoder-decoder``.
        parameters: number of stored weights.
        positions: longest input in tokens, None where positions are relative and unbounded.
    """

    ref: ModelRef
    folder: Path
    config: PretrainedConfig
    tokenizer: PreTrainedTokenizerBase
    family: str
    parameters: int
    positions: int | None


def open_checkpoint(ref: ModelRef, kind: str) -> Checkpoint:
    """Open ``ref`` for a task of ``kind`` (one of ``records.KINDS``); reads no weights.

    The pooling ``none`` asks for the language-model head, which a prompt -> response task always gets.

    Raises:
        ModelError: absent or unsafe files, remote code that the user did not allow, no vocabulary, a family that cannot
            serve ``kind``, a pooling that the family does not have.
    """
    folder = locate(ref)
    from transformers import AutoConfig, AutoTokenizer

    try:
        config = AutoConfig.from_pretrained(folder, trust_remote_code=ref.trust_remote_code)
        tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=ref.trust_remote_code)
    except Exception as error:  # transformers raises ValueError, KeyError, OSError or tokenizers' own for a bad folder
        first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        hint = " Pass `--trust-remote-code` if you trust its author." if "trust_remote_code" in str(error) else ""
        raise ModelError(f"transformers cannot open `{ref.name}`: {first}{hint}") from error
    family = family_of(config)
    if kind == "generation" and family == "encoder":
        raise ModelError(
            f"A prompt -> response task needs a decoder or an encoder-decoder, but `{ref.name}` ({config.model_type}) "
            "is an encoder. Name a generative model with `--model`."
        )
    if set(tokenizer.get_vocab()) <= set(tokenizer.all_special_tokens):
        raise ModelError(
            f"`{ref.name}` holds no vocabulary of a tokenizer. Copy its tokenizer files beside the weights."
        )
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token or tokenizer.unk_token
    if tokenizer.pad_token_id is None:
        raise ModelError(
            f"The tokenizer of `{ref.name}` has no padding, end or unknown token to pad with. Add one to it."
        )
    positions = positions_of(config)
    config.pad_token_id = tokenizer.pad_token_id
    limits = [ref.max_length, tokenizer.model_max_length, *([positions] if positions else [])]
    resolved = replace(
        ref,
        fingerprint=fingerprint(folder),
        pooling="none"
        if kind == "generation" or ref.pooling == "none"
        else resolve_pooling(ref, folder, family, config),
        max_length=int(min(limits)),
    )
    return Checkpoint(resolved, folder, config, tokenizer, family, parameter_count(folder), positions)


def family_of(config: PretrainedConfig) -> str:
    """``encoder``, ``decoder`` or ``encoder-decoder``, from transformers' own tables.

    A model type that can be trained as a masked language model is an encoder even where a causal variant exists (BERT).
    """
    from transformers.models.auto.modeling_auto import (
        MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
        MODEL_FOR_MASKED_LM_MAPPING_NAMES,
    )

    if config.is_encoder_decoder:
        return "encoder-decoder"
    masked = config.model_type in MODEL_FOR_MASKED_LM_MAPPING_NAMES
    return "decoder" if config.model_type in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES and not masked else "encoder"


COUNT_FROM_PADDING = {
    "roberta", "roberta-prelayernorm", "xlm-roberta", "xlm-roberta-xl", "camembert", "xmod", "data2vec-text", "ibert",
    "mpnet", "longformer", "luke", "lilt", "markuplm", "layoutlmv3",
}  # fmt: skip
"""Model types whose first position is the padding id + 1, so that as many rows of their table are never used."""

RELATIVE = {"t5", "mt5", "umt5", "longt5"}
"""Model types that bound no length, whatever their configuration says."""


def positions_of(config: PretrainedConfig) -> int | None:
    """Longest input in tokens, None where positions are relative and unbounded."""
    values: dict[str, Any] = config.to_dict()
    limit = values.get("max_position_embeddings") or values.get("n_positions")
    if not limit or limit < 0 or config.model_type in RELATIVE:
        return None
    unused = (values.get("pad_token_id") or 0) + 1 if config.model_type in COUNT_FROM_PADDING else 0
    return int(limit) - unused


def resolve_pooling(ref: ModelRef, folder: Path, family: str, config: PretrainedConfig) -> str:
    """The pooling the checkpoint was trained with, unless ``ref`` asks for another that the family has."""
    if ref.pooling != "auto":
        if ref.pooling not in POOLINGS[family]:
            raise ModelError(
                f"`pooling` must be one of {', '.join(POOLINGS[family])} for the {family} `{ref.name}`, "
                f"but got `{ref.pooling}`."
            )
        return ref.pooling
    trained = _sentence_transformers_pooling(folder) or config.to_dict().get("classifier_pooling")
    return trained if trained in POOLINGS[family] else POOLINGS[family][0]


def _sentence_transformers_pooling(folder: Path) -> str | None:
    """What a sentence-transformers folder says of its pooling, None where the folder is none or says something else."""
    modules = folder / "modules.json"
    if not modules.exists():
        return None
    for module in json.loads(modules.read_text(encoding="utf-8")):
        settings = folder / module["path"] / "config.json"
        if module["type"].endswith("Pooling") and settings.exists():
            modes = json.loads(settings.read_text(encoding="utf-8"))
            named = {"mean": "mean_tokens", "cls": "cls_token", "last": "lasttoken"}
            return next((ours for ours, theirs in named.items() if modes.get(f"pooling_mode_{theirs}")), None)
    return None
