"""One run per kind of export: toys trained for a moment, with answers that differ from row to row."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from foretune.records import ModelRef, Part, RunConfig, Schedule, TaskRef
from foretune.tasks import Task
from foretune.testing import toys
from foretune.training.run import train

Runs = Callable[[str], Path]
"""The fixture ``runs``: the name of a case -> the folder of its run."""

LABELS = ("the bad, say", "the good, say", "the great, say")


@dataclass(frozen=True)
class Case:
    """A run: toy architecture, pooling, kind of task, tuner; with ``asked``, the options of an objective with words."""

    architecture: str
    pooling: str
    kind: str
    tuner: Part
    pair: bool = False
    chat: bool = False
    steps: int = 24
    lr: float = 1e-2
    precision: str = "fp32"
    asked: dict[str, Any] = field(default_factory=dict)
    objective: str = "pattern"
    max_length: int = 24
    shots: int | None = None


WORDS = dict(zip(LABELS, ("sad food", "nice", "very great film"), strict=True))
CLOZE = {"pattern": "the {text} was {answer} and", "words": WORDS}
ONE = dict(zip(LABELS, ("sad", "nice", "great"), strict=True))


CASES = {
    "mean": Case("bert", "mean", "classification", Part("lora", {"rank": 2})),
    "cls": Case("bert", "cls", "classification", Part("full")),
    "pair": Case("roberta", "cls", "classification", Part("bitfit"), pair=True),
    "last": Case("llama", "last", "classification", Part("lora", {"rank": 2}), precision="bf16"),
    "eos": Case("t5", "eos", "classification", Part("rslora", {"rank": 2})),
    "regression": Case("bert", "mean", "regression", Part("ia3")),
    "choice": Case("bert", "mean", "choice", Part("ln-tuning")),
    "prefix": Case("bert", "mean", "classification", Part("prefix-tuning", {"length": 3})),
    "simplex": Case("bert", "mean", "classification", Part("prefix-subspace", {"length": 3})),
    "ensemble": Case("bert", "mean", "classification", Part("prefix-subspace", {"length": 3, "predict": "ensemble"})),
    "distil": Case("distilbert", "mean", "classification", Part("prefix-subspace", {"length": 3}), steps=2),
    "fluent": Case("llama", "auto", "generation", Part("prefix-subspace", {"length": 3}), lr=3e-2, steps=40),
    "prompt": Case("bert", "mean", "classification", Part("prompt-tuning", {"length": 3})),
    "writer": Case("llama", "auto", "generation", Part("full"), lr=3e-3, steps=40),
    "chat": Case("llama", "auto", "generation", Part("lora", {"rank": 2}), chat=True),
    "t5": Case("t5", "auto", "generation", Part("dora", {"rank": 2})),
    "subset": Case("bert", "mean", "classification", Part("dynamic-subset", {"density": 0.05})),
    "static": Case("llama", "auto", "generation", Part("static-subset", {"density": 0.3, "silo": "global"}), steps=40),
    "cloze": Case("bert", "auto", "classification", Part("lora", {"rank": 2}), asked=CLOZE, max_length=13),
    "cloze-pair": Case(
        *("roberta", "auto", "classification", Part("bitfit")),
        pair=True,
        asked={"pattern": "{text} {pair} it was {answer}", "words": ONE, "calibrate": True},
    ),
    "asked-prefix": Case(
        *("llama", "auto", "classification", Part("prefix-subspace", {"length": 3})),
        asked=CLOZE,
        max_length=9,
    ),
    "asked-prompt": Case(
        *("llama", "auto", "classification", Part("prompt-tuning", {"length": 3})),
        asked={**CLOZE, "normalise": "length", "calibrate": True},
    ),
    "asked-t5": Case(
        *("t5", "auto", "classification", Part("lora", {"rank": 2})), asked={**CLOZE, "normalise": "prior"}
    ),
    "shown": Case(
        *("gpt2", "auto", "classification", Part("frozen")),
        asked={"pattern": "{text} was {answer}", "words": ONE, "demonstrations": 3},
        max_length=96,
        steps=0,
    ),
    "distilled": Case(
        *("gpt2", "auto", "classification", Part("full")),
        objective="distillation",
        asked={"pattern": "{text} was {answer}", "words": ONE, "demonstrations": 3, "sets": 1},
        max_length=96,
        shots=8,
        steps=4,
    ),
    "norms": Case("bert", "cls", "classification", Part("dynamic-subset", {"more": ("norms",)}), steps=2),
}


def trained(name: str, home: Path) -> Path:
    """Train the case ``name`` into ``home/name``, its base model in ``home/name-base``."""
    case = CASES[name]
    # At the usual standard deviation of 0.02 and a width of 16 all texts look the same.
    more = SPREAD[case.architecture] | ({"n_positions": case.max_length} if case.architecture == "gpt2" else {})
    base = toys.checkpoint(home / f"{name}-base", case.architecture, chat=case.chat, **more)
    objective = {"classification": "head", "generation": "response"}.get(case.kind, case.kind)
    config = RunConfig(
        ModelRef(str(base), pooling=case.pooling, max_length=case.max_length),
        TaskRef("memory", case.kind, shots=case.shots),
        case.tuner,
        Part(case.objective, case.asked) if case.asked else Part(objective),
        Schedule(steps=case.steps, batch_size=8, lr=case.lr, evaluations=2, precision=case.precision),
    )
    train(config, task=Task.from_records(rows(case), kind=case.kind), folder=home / name, floors=False)
    return home / name


SPREAD: dict[str, dict[str, Any]] = {
    "bert": {"initializer_range": 0.2},
    "distilbert": {"initializer_range": 0.2},
    "roberta": {"initializer_range": 0.2},
    "llama": {"initializer_range": 0.2},
    "gpt2": {"initializer_range": 0.2},
    "t5": {"initializer_factor": 3.0},
}


def rows(case: Case, n: int = 60) -> list[dict[str, Any]]:
    """Rows of two to eight words of which the first decides; where the end token is pooled, some hold one."""
    made: list[dict[str, Any]] = []
    for i in range(n):
        first = ("bad", "good", "great")[i % 3]
        text = " ".join([first, *(toys.WORDS[(7 * i + 3 * j + i // 8) % len(toys.WORDS)] for j in range(1 + i % 7))])
        match case.kind:
            case "classification":
                row = {"text": text + (" </s> film" if case.pooling == "eos" and i % 4 == 0 else "")}
                row |= {"text_pair": toys.WORDS[i % 5]} if case.pair else {}
                row |= {"label": f"the {first}, say"}
            case "regression":
                row = {"text": text, "score": f"{10 * (i % 3) + i / 100:.2f}"}
            case "choice":
                row = {
                    "question": text,
                    "choices": [toys.WORDS[5 + i % 9], first, toys.WORDS[14 + i % 5]],
                    "label": first,
                }
            case _:
                row = {"prompt": text, "response": " ".join(toys.WORDS[i % 3 : 2 * (i % 3) + 1])}
        made.append(row)
    return made
