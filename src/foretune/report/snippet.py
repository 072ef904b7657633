"""The lines of Python that load a saved adapter: stock transformers and stock peft, nothing else, wherever they can.

Where the record says that they cannot, the lines are foretune's own, under the reason.
"""

from __future__ import annotations

import re
import textwrap
from pathlib import PurePath

from foretune.records import RunConfig

DEMO_BASE = "sentence-transformers/all-MiniLM-L6-v2"
"""What the demo model is on the Hub; the package of the ``demo`` extra holds the same weights."""

PATCHED = ("full", "adaptive", "head", "bitfit", "frozen")
"""Tuners that change the model's own parameters: saved as ``patch.safetensors``, for peft has no format for them."""

SPARSE = ("dynamic-subset", "static-subset")
"""Tuners that move a few of the model's own weights: saved as places and values, which peft does not read."""

INPUTS = {
    "classification": '"a text"',
    "regression": '"a text"',
    "choice": '["the question"] * 2, ["one answer", "another answer"]',
}
PAIR = '"a text", "the second text"'

ANSWERS = {
    "classification": """\
probabilities = (logits[0] / (recipe["temperature"] or 1.0)).softmax(-1)
print(recipe["labels"][int(probabilities.argmax())], float(probabilities.max()))
""",
    "regression": """\
options = recipe["objective"]["options"]
print(float(logits[0, 0] * options["scale"] + options["center"]))
""",
    "choice": """\
probabilities = (logits[:, 0] / (recipe["temperature"] or 1.0)).softmax(-1)
print(int(probabilities.argmax()), float(probabilities.max()))
""",
}

MEAN = """\
mask = inputs["attention_mask"].unsqueeze(-1)
logits = (logits[:, -mask.shape[1] :] * mask).sum(1) / mask.sum(1)  # mean over the text's tokens
"""


FORETUNE = """\
from foretune.pipeline.result import table_of
from foretune.training.predictor import Predictor

predictor = Predictor.load("adapter", model={name!r})  # the folder that holds this file
for row in predictor(table_of([{given}])).to_pylist():
    print(row["prediction"], row["probability"])
"""


def library(config: RunConfig, refusal: str | None = None) -> str:
    """The library that the lines use to load what was saved: ``transformers``, ``peft`` or ``foretune``.

    Args:
        refusal: ``RunRecord.stock_refusal``.
    """
    if config.model.pooling == "none" and config.task.kind != "generation":
        return "foretune"
    if config.tuner.name in (*PATCHED, *SPARSE):
        return "transformers"
    return "foretune" if refusal else "peft"


def load_and_predict(config: RunConfig, refusal: str | None = None) -> str:
    """A script to be run beside the folder ``adapter``; it ends with a newline.

    Args:
        refusal: ``RunRecord.stock_refusal``.

    >>> from foretune.records import ModelRef, Part, Schedule, TaskRef
    >>> config = RunConfig(ModelRef("demo", pooling="mean"), TaskRef("t.csv", "classification"), Part("lora"),
    ...                    Part("head"), Schedule(10))
    >>> "AutoModelForTokenClassification" in load_and_predict(config)
    True
    """
    used = library(config, refusal)
    if used == "foretune":
        return _with_foretune(config, str(refusal))
    generation = config.task.kind == "generation"
    auto = "AutoConfig, AutoModelForCausalLM, AutoModelForSeq2SeqLM" if generation else _auto(config)
    loader = "from peft import PeftModel" if used == "peft" else "from safetensors.torch import load_file"
    head = f"""\
import json
from pathlib import Path

import torch
{loader}
from transformers import {auto}, AutoTokenizer

adapter = Path("adapter")  # the folder that holds this file
recipe = json.loads((adapter / "foretune.json").read_text(encoding="utf-8"))
tokenizer = AutoTokenizer.from_pretrained(adapter)
"""
    return head + (_base_writer(config) if generation else _base(config)) + _adapter(config.tuner.name) + _use(config)


def _with_foretune(config: RunConfig, refusal: str) -> str:
    why = textwrap.wrap(" ".join(refusal.replace("`", "'").split()), 100)
    if config.task.kind == "choice":
        given = '{"text": "the question", "choices": ["one answer", "another answer"]}'
    elif "pair" in config.task.columns:
        given = '{"text": "a text", "pair": "the second text"}'
    else:
        given = '"a prompt"' if config.task.kind == "generation" else '"a text"'
    return "".join(f"# {line}\n" for line in why) + FORETUNE.format(name=base_name(config), given=given)


def _auto(config: RunConfig) -> str:
    kind = "Token" if config.model.pooling == "mean" else "Sequence"
    return f"AutoModelFor{kind}Classification"


def _source(config: RunConfig) -> str:
    """The arguments of ``from_pretrained`` that say which checkpoint."""
    source = repr(base_name(config))
    if config.model.revision:
        source += f", revision={config.model.revision!r}"
    if config.model.trust_remote_code:
        source += ", trust_remote_code=True"
    return source


def base_name(config: RunConfig) -> str:
    """The base model as others can find it: a Hub id, or the last part of a local path; one line, no backtick."""
    name = DEMO_BASE if config.model.name == "demo" else public(config.model.name)
    return " ".join(name.replace("`", "'").split())


def public(name: str) -> str:
    """A Hub id as it is, otherwise the last part of the path.

    >>> public("meta-llama/Llama-3.2-1B"), public("/home/ann/models/x"), public("data/train.csv")
    ('meta-llama/Llama-3.2-1B', 'x', 'train.csv')
    """
    return name if is_hub_id(name) else PurePath(name.rstrip("/\\").replace("\\", "/")).name


def is_hub_id(name: str) -> bool:
    whole = re.fullmatch(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?", name)
    return whole is not None and PurePath(name).suffix.lower() not in {
        ".csv",
        ".tsv",
        ".json",
        ".jsonl",
        ".parquet",
        ".txt",
    }


def _base(config: RunConfig) -> str:
    outputs = 'len(recipe["labels"])' if config.task.kind == "classification" else "1"
    return f"""\
base = {_auto(config)}.from_pretrained({_source(config)}, num_labels={outputs}, dtype="float32")
base.config.pad_token_id = tokenizer.pad_token_id
"""


def _base_writer(config: RunConfig) -> str:
    return f"""\
seq2seq = AutoConfig.from_pretrained({_source(config)}).is_encoder_decoder
auto = AutoModelForSeq2SeqLM if seq2seq else AutoModelForCausalLM
base = auto.from_pretrained({_source(config)}, dtype="float32")
base.config.pad_token_id = tokenizer.pad_token_id
"""


def _adapter(tuner: str) -> str:
    if tuner in SPARSE:
        return """\
# PEFT stops here at KeyError: 'DST'. For a folder that it loads: foretune export RUN --to supertuning
delta, weights = load_file(adapter / "adapter_model.safetensors"), dict(base.named_parameters())
with torch.no_grad():
    for key, value in delta.items():
        name, _, what = key.rpartition(".dst_")
        if what == "indices":
            weights[name].view(-1)[value.long()] = delta[f"{name}.dst_values"].to(weights[name].dtype)
        elif not name:  # the head
            weights[key].copy_(value)
model = base.eval()

"""
    if tuner in PATCHED:
        return 'base.load_state_dict(load_file(adapter / "patch.safetensors"), strict=False)\nmodel = base.eval()\n\n'
    return "model = PeftModel.from_pretrained(base, adapter).eval()\n\n"


def _use(config: RunConfig) -> str:
    kind = config.task.kind
    if kind == "generation":
        return """\
options = recipe["objective"]["options"]
prompt = "a prompt"
chat = options["chat"] and tokenizer.chat_template
if chat:
    turns = [{"role": "user", "content": prompt}]
    prompt = tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
elif not seq2seq:
    prompt += options["separator"]
inputs = tokenizer(prompt, add_special_tokens=seq2seq or not chat, return_tensors="pt", return_token_type_ids=False)
with torch.inference_mode():
    written = model.generate(**inputs, max_new_tokens=options["max_new_tokens"], do_sample=False)
start = 0 if seq2seq else inputs["input_ids"].shape[1]
print(tokenizer.decode(written[0, start:], skip_special_tokens=True).strip())
"""
    pair = "pair" in config.task.columns and kind != "choice"
    padding = ", padding=True" if kind == "choice" else ""
    given = PAIR if pair else INPUTS[kind]
    return f"""\
inputs = tokenizer({given}{padding}, truncation=True, max_length={config.model.max_length}, return_tensors="pt")
with torch.inference_mode():
    logits = model(**inputs).logits
{MEAN if config.model.pooling == "mean" else ""}{ANSWERS[kind]}"""
