"""Every objective keeps the contract on every family and pooling that it serves."""

from __future__ import annotations

from foretune.objectives import OBJECTIVES
from foretune.objectives.choice import MultipleChoice
from foretune.objectives.distillation import Distillation
from foretune.objectives.head import Head
from foretune.objectives.language import Language
from foretune.objectives.pattern import PatternObjective
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


class TestLanguage(ObjectiveContract):
    objective = Language()
    checkpoints = (("bert", "none"), ("roberta", "none"), ("modernbert", "none"), ("llama", "none"), ("gpt2", "none"))


WORDS = (("bert", "none"), ("roberta", "none"), ("llama", "none"), ("gpt2", "none"), ("t5", "none"))


class TestPattern(ObjectiveContract):
    objective = PatternObjective()
    checkpoints = (*WORDS, ("modernbert", "none"), ("distilbert", "none"), ("qwen3", "none"), ("gemma3", "none"))


class TestPatternOverTheFullVocabulary(ObjectiveContract):
    objective = PatternObjective(pattern="{answer} the {text}", full_vocabulary=True)
    checkpoints = (("bert", "none"),)


class TestPatternWithWordsOfSeveralTokens(ObjectiveContract):
    objective = PatternObjective(words={"good": "very good film", "bad": "sad"}, normalise="length")
    checkpoints = WORDS


class TestPatternCalibrated(ObjectiveContract):
    objective = PatternObjective(pattern="{text} and {answer}", calibrate=True)
    checkpoints = WORDS


class TestPatternAgainstItsPrior(ObjectiveContract):
    objective = PatternObjective(words={"good": "nice food"}, normalise="prior")
    checkpoints = WORDS


class TestDistillation(ObjectiveContract):
    objective = Distillation(pattern="{text} and {answer}")
    checkpoints = WORDS


def test_every_objective_is_under_contract() -> None:
    known = {Head, Regression, MultipleChoice, Response, Language, PatternObjective, Distillation}
    assert known == set(OBJECTIVES.values())
