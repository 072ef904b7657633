"""Tiny checkpoints with a tokenizer on disk, and one finished run per kind of export, trained once per session."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from foretune.records import ModelRef, Part, RunConfig, Schedule, TaskRef
from foretune.tasks import Task
from foretune.testing import toys
from foretune.training.run import train

WORDS = "red green blue gold fast slow near far one two three four five six cat dog owl fox sun moon sea sky".split()
COLOURS, NUMBERS = WORDS[:4], WORDS[8:14]


@dataclass(frozen=True)
class Case:
    """A run: toy architecture, pooling, kind of task, tuner."""

    architecture: str
    pooling: str
    kind: str
    tuner: Part
    pair: bool = False
    lr: float = 1e-2
    steps: int = 24


CASES = {
    "mean": Case("bert", "mean", "classification", Part("lora", {"rank": 2})),
    "cls": Case("bert", "cls", "classification", Part("full")),
    "pair": Case("roberta", "cls", "classification", Part("bitfit"), pair=True),
    "last": Case("llama", "last", "classification", Part("lora", {"rank": 2})),
    "regression": Case("bert", "mean", "regression", Part("ia3")),
    "choice": Case("bert", "mean", "choice", Part("ln-tuning")),
    "prefix": Case("bert", "mean", "classification", Part("prefix-tuning", {"length": 3})),
    "prompt": Case("bert", "mean", "classification", Part("prompt-tuning", {"length": 3})),
    "llama": Case("llama", "auto", "generation", Part("full"), lr=3e-3, steps=40),
    "adapter": Case("llama", "auto", "generation", Part("lora", {"rank": 2})),
    "t5": Case("t5", "auto", "generation", Part("dora", {"rank": 2})),
}

Runs = Callable[[str], Path]


@pytest.fixture(scope="session")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Runs:
    """``runs(name)``: the folder of the finished run of that case. Not to be changed: copy it first."""
    home = tmp_path_factory.mktemp("runs")

    @cache
    def trained(name: str) -> Path:
        case = CASES[name]
        base = checkpoint(case.architecture, case.kind, home / f"{name}-base")
        config = RunConfig(
            ModelRef(str(base), pooling=case.pooling, max_length=24),
            TaskRef("memory", case.kind),
            case.tuner,
            Part({"classification": "head", "generation": "response"}.get(case.kind, case.kind)),
            Schedule(steps=case.steps, batch_size=8, lr=case.lr, evaluations=2),
        )
        train(config, task=Task.from_records(rows(case), kind=case.kind), folder=home / name, floors=False)
        return home / name

    return trained


def checkpoint(architecture: str, kind: str, folder: Path) -> Path:
    """A toy without a classification head, with a tokenizer of whole words."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    encoder = architecture in toys.ENCODERS
    network = toys.network(architecture, "sequence" if encoder else "language")
    for parameter in network.parameters():
        if parameter.dim() > 1:
            parameter.data *= 10.0  # at a standard deviation of 0.02 and a width of 16 all texts look the same
    (network.base_model if encoder else network).save_pretrained(folder)
    vocabulary = {word: i for i, word in enumerate(["[PAD]", "[END]", "[CLS]", "[UNK]", *WORDS])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    special = [("[CLS]", 2), ("[END]", 1)]
    if encoder:
        tokenizer.post_processor = processors.TemplateProcessing(
            single="[CLS] $A [END]", pair="[CLS] $A [END] $B:1 [END]:1", special_tokens=special
        )
    elif architecture == "t5":
        tokenizer.post_processor = processors.TemplateProcessing(single="$A [END]", special_tokens=special)
    inputs = ["input_ids", "attention_mask", *(["token_type_ids"] if architecture == "bert" else [])]
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="[PAD]",
        eos_token="[END]",
        unk_token="[UNK]",
        model_max_length=toys.LENGTH,
        model_input_names=inputs,
    ).save_pretrained(folder)
    return folder


def rows(case: Case, n: int = 60) -> list[dict[str, Any]]:
    """Rows that can be learned: the first word decides."""
    made = []
    for i in range(n):
        colour = COLOURS[i % 3]
        text = " ".join([colour, *(WORDS[(7 * i + 3 * j) % len(WORDS)] for j in range(i % 7))])
        match case.kind:
            case "classification":
                row = {"text": text, "label": f"the {colour}, or so"}
                row |= {"text_b": NUMBERS[i % 5]} if case.pair else {}
            case "regression":
                row = {"text": text, "score": f"{10 * (i % 3) + i / 100:.2f}"}
            case "choice":
                row = {"question": text, "choices": [WORDS[i % 9], colour, WORDS[i % 5 + 12]], "label": colour}
            case _:
                row = {"prompt": text, "response": " ".join(NUMBERS[i % 3 :][: i % 3 + 1])}
        made.append(row)
    return made
