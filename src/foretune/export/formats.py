"""The formats: each writes a run into an empty folder, or says in one sentence why this run has no such form."""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from foretune.errors import ModelError, StoreError, UsageError
from foretune.export.decision import DECISION, describe
from foretune.export.onnx_graph import export_graph, require_onnx
from foretune.export.source import Source
from foretune.models.network import quiet
from foretune.tuners.dynamic_subset import SubsetTuner

if TYPE_CHECKING:
    from transformers import GenerationConfig, PreTrainedModel

ADAPTER_CONFIG, CARD = "adapter_config.json", "README.md"

PROBLEMS = {"classification": "single_label_classification", "regression": "regression"}

NOT_GREEDY = (
    "do_sample", "temperature", "top_k", "top_p", "min_p", "top_h", "typical_p", "epsilon_cutoff", "eta_cutoff",
    "num_beams", "num_return_sequences", "early_stopping", "length_penalty", "max_length", "max_new_tokens",
)  # fmt: skip
"""Settings of a checkpoint's ``generation_config.json`` that greedy decoding contradicts or that we set ourselves."""


def peft(source: Source, folder: Path) -> dict[str, Any]:
    """The adapter folder as it is, with the base model under the name that others know it by.

    Of a tuner that holds several models the one at the source's point is saved anew, as an ordinary adapter.

    Raises:
        ModelError: the tuner changes the model's own weights, for which PEFT has no format, or stock PEFT cannot put
            this adapter on this base model.
    """
    source.require_no_words(peft.__name__)
    _adapter(source, folder)
    return {}


def _adapter(source: Source, folder: Path) -> None:
    if not (source.adapter / ADAPTER_CONFIG).exists():
        raise ModelError(
            f"`{source.tuner.name}` changes the model's own weights, for which PEFT has no format. Use `--to merged`."
        )
    source.tuner.require_stock(source.checkpoint.config)
    model = source.restored() if source.point else None
    shutil.copytree(source.adapter, folder, dirs_exist_ok=True)
    if model is not None:
        source.tuner.save(model, folder)
    if source.chosen:  # the card speaks of the model that the run judged
        (folder / CARD).unlink(missing_ok=True)
    _name_base(source, folder / ADAPTER_CONFIG, source.adapter / ADAPTER_CONFIG)


def supertuning(source: Source, folder: Path) -> dict[str, Any]:
    """The sparse delta of a subset as an adapter of PEFT's Super-Tuning, tokenizer beside it.

    Raises:
        ModelError: the tuner learns no sparse delta, or the format cannot hold it.
    """
    return _sparse(source, folder, "supertuning")


def shira(source: Source, folder: Path) -> dict[str, Any]:
    """The same as an adapter of PEFT's SHiRA."""
    return _sparse(source, folder, "shira")


def _sparse(source: Source, folder: Path, form: str) -> dict[str, Any]:
    source.require_no_words(form)
    _require_subset(source, form)
    from foretune.tuners.subset.stock import save, sentence

    fit = save(source.restored(), folder, form)
    _name_base(source, folder / ADAPTER_CONFIG, folder / ADAPTER_CONFIG)
    save_tokenizer(source, folder)
    return {"delta": asdict(fit), "said": sentence(fit)}


def lora(source: Source, folder: Path) -> dict[str, Any]:
    """The nearest LoRA adapter to a subset, of the source's rank, for servers that take no other kind.

    It is an approximation: ``said`` tells how much of the delta is lost, and the gate whether the predictions bear it.

    Raises:
        ModelError: the tuner learns no sparse delta, or LoRA cannot hold it. UsageError: a rank below 1.
    """
    source.require_no_words(lora.__name__)
    _require_subset(source, lora.__name__)
    from foretune.tuners import _peft
    from foretune.tuners.subset.cards import lost
    from foretune.tuners.subset.lora import convert

    converted, fit = convert(source.restored(), source.rank)
    _peft.save(converted, folder)
    _name_base(source, folder / ADAPTER_CONFIG, folder / ADAPTER_CONFIG)
    save_tokenizer(source, folder)
    return {"delta": asdict(fit), "said": lost(fit)}


def _require_subset(source: Source, form: str) -> None:
    if not isinstance(source.tuner, SubsetTuner):
        raise ModelError(
            f"`--to {form}` holds a sparse delta of the weights, but `{source.tuner.name}` learns none. "
            f"Use `--to {'peft' if (source.adapter / ADAPTER_CONFIG).exists() else 'merged'}`."
        )


def _name_base(source: Source, path: Path, shown: Path) -> None:
    """Write into the adapter's configuration at ``path`` the name by which others know the base model."""
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise StoreError(f"`{shown}` cannot be read: {error}. Restore it from a copy.") from error
    config |= {
        "base_model_name_or_path": source.hub,
        "revision": source.checkpoint.ref.revision if source.hub else None,
    }
    path.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def merged(source: Source, folder: Path) -> dict[str, Any]:
    """One transformers folder: weights in fp32 as safetensors, tokenizer, the user's labels in the configuration.

    Raises:
        ModelError: the tuner has no merged form.
    """
    source.require_no_words(merged.__name__)
    if not source.tuner.mergeable:
        raise ModelError(
            f"`{source.tuner.name}` has no merged form: its numbers are not changes of weights. Use `--to peft`."
        )
    network = source.tuner.merge(source.restored())
    labels = source.recipe["labels"]
    if labels:
        network.config.id2label = dict(enumerate(labels))
        network.config.label2id = {label: i for i, label in enumerate(labels)}
    if source.kind in PROBLEMS and source.checkpoint.ref.pooling != "mean":
        network.config.problem_type = PROBLEMS[source.kind]
    if source.kind == "generation":
        network.generation_config = greedy(network, source.recipe["objective"]["options"]["max_new_tokens"])
    _save(source, network, folder)
    return {}


def _save(source: Source, network: PreTrainedModel, folder: Path) -> None:
    with quiet():
        network.save_pretrained(folder)
    save_tokenizer(source, folder)


def onnx(source: Source, folder: Path) -> dict[str, Any]:
    """``model.onnx``: token ids and mask in, pooled logits out; tokenizer beside it.

    Raises:
        ModelError: not an encoder. UsageError: the extra ``onnx`` is not installed.
    """
    source.require_no_words(onnx.__name__)
    if source.checkpoint.family != "encoder":
        raise ModelError(
            f"ONNX is written for encoders, but `{source.base_name}` is a {source.checkpoint.family}. "
            f"Use `--to {'merged' if source.tuner.mergeable else 'peft'}`."
        )
    require_onnx()
    model = source.restored()
    virtual = source.tuner.virtual_tokens(model)
    network = source.tuner.merge(model) if source.tuner.mergeable else model
    exporter = export_graph(network, source.checkpoint, folder / "model.onnx", virtual)
    save_tokenizer(source, folder)
    return {"exporter": exporter}


def decision(source: Source, folder: Path) -> dict[str, Any]:
    """A language model that decides by its words: the model, merged where the tuner merges and otherwise as an adapter,
    and ``decision.json`` with the prompt, the words and their calibration.

    Raises:
        ModelError: stock PEFT cannot put this adapter on this base model. UsageError: a head of the task's own answers.
    """
    reader = source.reader
    if reader is None:
        raise UsageError(
            f"`--to decision` holds the words by which a language model decides, but this run's objective "
            f"`{source.objective.name}` has none. Use `--to {'merged' if source.tuner.mergeable else 'peft'}`."
        )
    if not source.tuner.mergeable:
        _adapter(source, folder)
        (folder / CARD).unlink(missing_ok=True)  # it shows another way to use the adapter
    model = source.restored()
    told = describe(source, reader, reader.offsets(model, source.checkpoint))
    if source.tuner.mergeable:
        _save(source, source.tuner.merge(model), folder)
    (folder / DECISION).write_text(json.dumps(told, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    return {}


def greedy(network: PreTrainedModel, max_new_tokens: int) -> GenerationConfig:
    """The checkpoint's own settings, made greedy: how the run was evaluated is how ``generate()`` then writes."""
    from transformers import GenerationConfig

    kept = network.generation_config.to_diff_dict()
    kept = {name: value for name, value in kept.items() if name not in NOT_GREEDY}
    kept["pad_token_id"] = network.config.pad_token_id
    return GenerationConfig(**kept, max_new_tokens=max_new_tokens)


def save_tokenizer(source: Source, folder: Path) -> None:
    """The tokenizer, with the run's own length limit as its limit."""
    tokenizer = source.checkpoint.tokenizer
    tokenizer.model_max_length = source.checkpoint.ref.max_length
    tokenizer.save_pretrained(folder)
