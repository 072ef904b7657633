"""``--held-text``: what a run made the language model forget, from a user's words to the verdict."""

from __future__ import annotations

from pathlib import Path

import pytest

import foretune
from foretune.errors import DataError, UsageError
from foretune.testing import toys

ASKED = {"steps": 2, "evaluations": 1, "remember": False}
PROMPTED = {
    "objective": "pattern",
    "objective_option": {"pattern": "{text}: {answer}", "words": {"good": "nice", "bad": "poor"}},
}


@pytest.fixture
def texts(tmp_path: Path) -> Path:
    path = tmp_path / "held.txt"
    lines = [f"the {word} {noun} was not one of ours" for word in toys.WORDS[:8] for noun in ("film", "food")]
    path.write_text("\n".join(lines), encoding="utf-8")
    return path


def test_the_verdict_says_both_losses(task, bert, texts, tmp_path):
    result = foretune.tune(task, model=bert, held_text=str(texts), out=tmp_path / "run", **PROMPTED, **ASKED)
    assert result.record.forgetting is not None
    assert result.record.forgetting.texts == 16
    assert result.record.forgetting.sentence() in result.verdict


def test_other_texts_under_the_same_name_are_another_run(task, bert, texts, tmp_path):
    asked = {"model": bert, "held_text": str(texts), "out": tmp_path / "run", **PROMPTED, **ASKED}
    foretune.tune(task, **asked)
    texts.write_text(texts.read_text(encoding="utf-8") + "\none more film", encoding="utf-8")
    with pytest.raises(UsageError, match="the held texts differ"):
        foretune.tune(task, **asked)


def test_what_cannot_be_measured_is_refused_before_a_folder_is_made(task, bert, texts, tmp_path):
    with pytest.raises(UsageError, match="use `--objective pattern`"):
        foretune.tune(task, model=bert, held_text=str(texts), out=tmp_path / "run", **ASKED)
    with pytest.raises(DataError, match=r"no-such\.txt"):
        foretune.tune(task, model=bert, held_text="no-such.txt", out=tmp_path / "run", **ASKED)
    assert not (tmp_path / "run").exists()
