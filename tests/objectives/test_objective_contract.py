"""Every objective keeps the contract on every family and pooling that it serves."""

from __future__ import annotations

from foretune.objectives import OBJECTIVES
from foretune.objectives.choice import MultipleChoice
from foretune.objectives.head import Head
from foretune.objectives.regression import Regression
from foretune.objectives.response import Response
from foretune.testing.objective_contract import ObjectiveContract

POOLED = (
    ("bert", "cls"),
    ("bert", "mean"),
    ("roberta", "cls"),
    ("distilbert", "cls"),
    ("modernbert", "cls"),
    ("deberta-v2", "mean"),
    ("llama", "last"),
    ("llama", "mean"),
    ("gpt2", "last"),
    ("t5", "eos"),
)


class TestHead(ObjectiveContract):
    objective = Head()
    checkpoints = POOLED


class TestHeadWithSmoothing(ObjectiveContract):
    objective = Head(label_smoothing=0.1)
    checkpoints = (("bert", "mean"),)


class TestRegression(ObjectiveContract):
    objective = Regression()
    checkpoints = (("bert", "mean"), ("llama", "last"), ("t5", "eos"))


class TestMultipleChoice(ObjectiveContract):
    objective = MultipleChoice()
    checkpoints = (("bert", "cls"), ("qwen3", "last"), ("t5", "eos"))


class TestResponse(ObjectiveContract):
    objective = Response()
    checkpoints = (("llama", "auto"), ("gpt2", "auto"), ("qwen3", "auto"), ("t5", "auto"))


def test_every_objective_is_under_contract() -> None:
    assert {Head, Regression, MultipleChoice, Response} == set(OBJECTIVES.values())
