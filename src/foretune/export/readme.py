"""README.md of an export: what it is, the lines of Python that use it with stock tools, what was checked.

The adapter's own model card travels with a PEFT export; other formats, and an adapter without a card, get this page.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from textwrap import indent
from typing import Any

from foretune.export.check import Comparison
from foretune.export.reload import WRITERS
from foretune.export.source import Source
from foretune.objectives.pattern import PatternObjective

FORMS = {
    "peft": "an ordinary PEFT folder: the adapter only, to be put on its base model.",
    "supertuning": "an ordinary PEFT folder: a sparse delta in the format of Super-Tuning, for peft 0.21 or newer.",
    "shira": "an ordinary PEFT folder: a sparse delta in the format of SHiRA.",
    "lora": "an ordinary PEFT folder: a LoRA adapter that **approximates** the sparse delta that was learned.",
    "merged": "an ordinary transformers folder: the base model with the adapter folded in, fp32.",
    "decision": "a stock language model, or a PEFT adapter of one, and `decision.json`: the prompt, the word that "
    "stands for each label, and their calibration.",
    "onnx": "one ONNX file. Inputs: what the tokenizer gives, int64 (batch, length), padded on the right; "
    "output: `logits`, float32 (batch, C), already pooled.",
}

DECIDER = Path(__file__).with_name("decide.py")
"""How ``decision.json`` is read: the code that the README shows is the code that was checked."""

ADAPTERS = ("peft", "supertuning", "shira", "lora")
"""Formats that are put on the base model; the others stand alone."""

IMPORTS = """\
import json
from pathlib import Path

{numpy}import torch
{peft}from transformers import {auto}, AutoTokenizer

"""

LOGITS = """\
inputs = {inputs}, return_tensors="pt")
with torch.inference_mode():
    logits = model(**inputs).logits
{pool}logits = logits.numpy()
"""

ONNX_IMPORTS = """\
import json
from pathlib import Path

import numpy as np
import onnxruntime
from transformers import AutoTokenizer

"""

ONNX_LOGITS = """\
session = onnxruntime.InferenceSession("model.onnx")

inputs = {inputs}, return_tensors="np")
names = [node.name for node in session.get_inputs()]
logits = session.run(["logits"], {{name: inputs[name].astype(np.int64) for name in names}})[0]
"""

INPUTS = {
    "classification": 'tokenizer("a text"',
    "regression": 'tokenizer("a text"',
    "choice": 'tokenizer(["the question"] * 2, ["one answer", "another answer"], padding=True',
}

ANSWERS = {
    "classification": """\
scaled = logits[0] / (how["temperature"] or 1.0)
probabilities = np.exp(scaled - scaled.max()) / np.exp(scaled - scaled.max()).sum()
print(how["labels"][probabilities.argmax()], probabilities.max())
""",
    "regression": """\
print(logits[0, 0] * how["scale"] + how["center"])
""",
    "choice": """\
scaled = logits[:, 0] / (how["temperature"] or 1.0)
probabilities = np.exp(scaled - scaled.max()) / np.exp(scaled - scaled.max()).sum()
print(probabilities.argmax(), probabilities.max())
""",
}

WRITE = """\
prompt = "a prompt"
if how["chat"] and tokenizer.chat_template:
    turns = [{"role": "user", "content": prompt}]
    inputs = tokenizer.apply_chat_template(turns, add_generation_prompt=True, return_tensors="pt", return_dict=True)
else:
    inputs = tokenizer(prompt + ("" if how["seq2seq"] else how["separator"]), return_tensors="pt")
inputs = {name: inputs[name] for name in ("input_ids", "attention_mask")}
with torch.inference_mode():
    written = model.generate(**inputs, max_new_tokens=how["max_new_tokens"], do_sample=False, num_beams=1)
start = 0 if how["seq2seq"] else inputs["input_ids"].shape[1]
print(tokenizer.decode(written[0, start:], skip_special_tokens=True).strip())
"""

MEAN = """\
mask = inputs["attention_mask"].unsqueeze(-1)
logits = (logits[:, -mask.shape[1] :] * mask).sum(1) / mask.sum(1)  # the head is linear: this is mean pooling
"""

DECIDE = """\
how = json.loads(Path("decision.json").read_text(encoding="utf-8"))
{tokenizer}{model}
found = probabilities(model, tokenizer, how, {texts})
best = max(range(len(found)), key=found.__getitem__)
print(how["answers"][best]["label"], found[best])
"""

PIPELINE = """\

The class is stock, so a pipeline shows the labels too (its probabilities are those before the temperature):

```python
from transformers import pipeline

classify = pipeline("text-classification", model=".")
print(classify({example}, truncation=True))
```
"""


def write(source: Source, folder: Path, form: str, checked: Comparison, held: str = "") -> None:
    """Write ``README.md`` into ``folder`` unless the adapter's model card is there already.

    Args:
        held: how well the format holds what was learned, where that is not simply all.
    """
    path = folder / "README.md"
    if not path.exists():
        path.write_text(page(source, form, checked, held), encoding="utf-8")


def page(source: Source, form: str, checked: Comparison, held: str = "") -> str:
    """The whole page."""
    base, ref = source.base_name.replace("`", "'"), source.checkpoint.ref
    stock = form == "merged" and source.kind == "classification" and ref.pooling != "mean"
    library = "onnx" if form == "onnx" else "peft" if _is_adapter(source, form) else "transformers"
    header = [f"library_name: {library}", "tags: [foretune]", *([f"base_model: {source.hub}"] if source.hub else [])]
    example = '{"text": "a text", "text_pair": "the second text"}' if _pairs(source) else '"a text"'
    parts = [
        "---\n" + "\n".join(sorted(header)) + "\n---",
        f"# {source.kind.capitalize()}: {source.tuner.name} on `{base}`",
        f"This folder is {FORMS[form]}",
        *([_prompt(source.reader)] if source.reader else []),
        f"```python\n{snippet(source, form)}```" + (PIPELINE.format(example=example) if stock else ""),
        f"A fresh process without foretune reproduced {checked.rows} {source.wanted}: "
        f"largest difference {checked.largest:.2g} ({checked.unit}), allowed {checked.tolerance:g}.",
        *([held] if held else []),
        f"{_limit(source)} `export.json` says the rest: pooling, temperature, labels, the "
        f"base model's fingerprint `{ref.fingerprint}`. Run `{source.recipe['digest']}`, written by "
        "[foretune](https://pypi.org/project/foretune/).",
    ]
    return "\n\n".join(parts) + "\n"


def holds(said: str, delta: Mapping[str, Any]) -> str:
    """``said``, and for an approximation what each matrix loses, as a table.

    >>> print(holds("Much is lost.", {"by_matrix": {"query": 0.25}}))
    Much is lost.
    <BLANKLINE>
    | Matrix | Lost |
    |---|---|
    | `query` | 0.25 |
    """
    rows = [f"| `{name}` | {error:.2g} |" for name, error in delta.get("by_matrix", {}).items()]
    return f"{said}\n\n" + "\n".join(["| Matrix | Lost |", "|---|---|", *rows]) if rows else said


def snippet(source: Source, form: str) -> str:
    """A script to be run inside the export folder; it ends with a newline."""
    trust = ", trust_remote_code=True" if source.checkpoint.ref.trust_remote_code else ""
    if form == "decision":
        return _deciding(source, trust)
    opened = (
        'how = json.loads(Path("export.json").read_text(encoding="utf-8"))\n'
        f'tokenizer = AutoTokenizer.from_pretrained("."{trust})\n'
    )
    if form == "onnx":
        return ONNX_IMPORTS + opened + ONNX_LOGITS.format(inputs=_inputs(source)) + ANSWERS[source.kind]
    auto = auto_class(source)
    imports = IMPORTS.format(
        numpy="" if source.kind == "generation" else "import numpy as np\n",
        peft="from peft import PeftModel\n" if form in ADAPTERS else "",
        auto=auto,
    )
    head = imports + opened + _model(source, form, auto, trust) + "\n"
    if source.kind == "generation":
        return head + WRITE
    pool = MEAN if source.checkpoint.ref.pooling == "mean" else ""
    return head + LOGITS.format(inputs=_inputs(source), pool=pool) + ANSWERS[source.kind]


def auto_class(source: Source) -> str:
    """The name of the stock class that the weights are of."""
    match source.checkpoint.ref.pooling:
        case "none":
            return WRITERS[source.checkpoint.family]
        case "mean":
            return "AutoModelForTokenClassification"
        case _:
            return "AutoModelForSequenceClassification"


def _model(source: Source, form: str, auto: str, trust: str) -> str:
    if not _is_adapter(source, form):
        return f'model = {auto}.from_pretrained("."{trust}).eval()\n'
    ref = source.checkpoint.ref
    base = source.hub or f"path/to/{source.base_name}"
    revision = f", revision={ref.revision!r}" if ref.revision and source.hub else ""
    sizes = f", num_labels={source.outputs}" if source.outputs else ""
    return (
        f'base = {auto}.from_pretrained({base!r}{revision}{sizes}, dtype="float32"{trust})\n'
        "base.config.pad_token_id = tokenizer.pad_token_id\n"
        'model = PeftModel.from_pretrained(base, ".").eval()\n'
    )


def _is_adapter(source: Source, form: str) -> bool:
    return form in ADAPTERS or (form == "decision" and not source.tuner.mergeable)


def _deciding(source: Source, trust: str) -> str:
    """The code that the gate ran, and the lines that call it."""
    auto = auto_class(source)
    peft = "from peft import PeftModel\n" if _is_adapter(source, "decision") else ""
    code = DECIDER.read_text(encoding="utf-8").partition("import torch\n")[2]
    return (
        "import json\nfrom pathlib import Path\nfrom typing import Any\n\nimport torch\n"
        f"{peft}from transformers import {auto}, AutoTokenizer\n{code}\n\n"
    ) + DECIDE.format(
        tokenizer=f'tokenizer = AutoTokenizer.from_pretrained("."{trust})\n',
        model=_model(source, "decision", auto, trust),
        texts='"a text", "the second text"' if _pairs(source) else '"a text"',
    )


def _prompt(reader: PatternObjective) -> str:
    """The prompt of a row, and how many examples stand before it."""
    shown = f" {len(reader.shown)} examples stand before each row." if reader.shown else ""
    template = indent(reader.template, "    ", lambda line: True)
    return f"A row is written as\n\n{template}\n\nand the model says which word answers.{shown}"


def _limit(source: Source) -> str:
    limit = source.checkpoint.ref.max_length
    if source.reader is None:
        return f"Text beyond {limit} tokens is cut."
    if source.reader.in_context:
        return f"A row that does not fit into {limit} tokens with its examples and its answer is refused."
    return f"A row that does not fit into {limit} tokens with its answer loses the end of its texts."


def _pairs(source: Source) -> bool:
    return "pair" in source.recipe["columns"] and source.kind != "choice"


def _inputs(source: Source) -> str:
    call = 'tokenizer("a text", "the second text"' if _pairs(source) else INPUTS[source.kind]
    plain = ", split_special_tokens=True" if source.checkpoint.ref.pooling == "eos" else ""
    return f"{call}, truncation=True, max_length={source.checkpoint.ref.max_length}{plain}"
