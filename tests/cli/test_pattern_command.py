"""``--objective pattern`` from the command line: in-context learning end to end; bad words are refused early."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from foretune.testing import toys


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return toys.table(tmp_path / "train.csv", toys.rows("classification"))


def test_in_context_learning_is_judged_and_predicts_again(foretune: Callable, data: Path, tmp_path: Path) -> None:
    model = toys.checkpoint(tmp_path / "model", "llama", max_position_embeddings=128)
    words = ["--objective", "pattern", "--objective-option", "pattern={text}: {answer}"]
    words += ["--objective-option", "words={good: nice, bad: poor}", "--objective-option", "demonstrations=4"]
    words += ["--tuner", "frozen", "--model", model, "--out", "run"]
    done = foretune("tune", data, *words)
    assert done.returncode == 0, done.stderr
    record = json.loads((tmp_path / "run" / "run.json").read_text(encoding="utf-8"))
    told = record["config"]["objective"]["options"]
    assert told == {"pattern": "{text}: {answer}", "words": {"good": "nice", "bad": "poor"}, "demonstrations": 4}
    assert (record["steps_done"], record["cost"]["trainable_parameters"]) == (0, 0)
    assert record["cost"]["prompt_tokens"] > 20
    predicted = foretune("predict", "run", data)
    assert predicted.returncode == 0, predicted.stderr
    assert {row["prediction"] for row in csv.DictReader(predicted.stdout.splitlines())} <= {"good", "bad"}


def test_words_that_cannot_be_told_apart_are_refused_before_a_folder_is_made(
    foretune: Callable, data: Path, tmp_path: Path
) -> None:
    model = toys.checkpoint(tmp_path / "model", "bert")
    words = ["--objective-option", "tokens=first", "--objective-option", "words={good: very nice, bad: very poor}"]
    done = foretune("tune", data, "--objective", "pattern", *words, "--model", model, "--out", "run")
    assert done.returncode == 2
    assert "must not share their answer's first token" in done.stderr
    assert not (tmp_path / "run").exists()
