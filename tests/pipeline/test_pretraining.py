"""``--pretrain``: from the words of a user to a run that starts from a stage."""

from __future__ import annotations

from pathlib import Path

import pytest

import foretune
from foretune.errors import DataError, UsageError
from foretune.pipeline import make_options, prepare_plan
from foretune.testing import toys

ASKED = {"steps": 2, "evaluations": 1, "pretrain_steps": 3, "remember": False}


@pytest.fixture
def texts(tmp_path: Path) -> Path:
    path = tmp_path / "texts.txt"
    lines = [
        f"the {word} {noun} was {n} and it"
        for word in toys.WORDS[:8]
        for noun in ("film", "food")
        for n in ("one", "two")
    ]
    path.write_text("\n".join(lines), encoding="utf-8")
    return path


def test_a_run_after_a_stage_is_found_again_predicts_and_says_what_happened(task, bert, texts, tmp_path):
    out = tmp_path / "run"
    result = foretune.tune(task, model=bert, pretrain=str(texts), out=out, **ASKED)
    assert result.record.stage is not None
    assert result.record.stage.steps == 3
    assert any("Unlabelled texts to go on pretraining on: 32" in note for note in result.record.notes)
    assert result.predict(["the good film was"])[0]["prediction"] in ("good", "bad")
    lines: list[str] = []
    again = foretune.tune(task, model=bert, pretrain=str(texts), out=out, say=lines.append, **ASKED)
    assert again.record == result.record
    assert "finished" in lines[0]
    assert "Before the task the model was trained" in (out / "report.html").read_text(encoding="utf-8")


def test_other_texts_under_the_same_name_are_another_run(task, bert, texts, tmp_path):
    foretune.tune(task, model=bert, pretrain=str(texts), out=tmp_path / "run", **ASKED)
    texts.write_text(texts.read_text(encoding="utf-8") + "\nit was one very awful film", encoding="utf-8")
    with pytest.raises(UsageError, match="the unlabelled texts differ"):
        foretune.tune(task, model=bert, pretrain=str(texts), out=tmp_path / "run", **ASKED)


def test_what_is_asked_of_the_stage_is_in_its_config(task, bert, texts):
    asked = {"pretrain": str(texts), "pretrain_steps": 7, "pretrain_lr": 3e-4, "pretrain_seed": 5, "model": bert}
    stage = prepare_plan(task, make_options({**asked, "seed": 9})).config.pretraining
    assert stage is not None
    assert (stage.schedule.steps, stage.schedule.lr, stage.seeds.order, stage.seeds.init) == (7, 3e-4, 5, 5)
    other = prepare_plan(task, make_options({**asked, "seed": 10})).config.pretraining
    assert other is not None
    assert other.digest == stage.digest


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"pretrain_steps": 5}, "Name them with `--pretrain`"),
        ({"pretrain": "x.txt", "budget": "1h"}, "cannot be kept with `--pretrain`"),
        ({"pretrain": "x.txt", "pretrain_lr": -1.0}, "--pretrain-lr"),
    ],
)
def test_what_cannot_be_is_refused(asked, message):
    with pytest.raises(UsageError, match=message):
        make_options(asked)


def test_a_file_that_is_not_there_is_refused_before_a_model_is_opened(task):
    with pytest.raises(DataError, match=r"no-such\.txt"):
        foretune.tune(task, model="nowhere/at-all", pretrain="no-such.txt")


def test_a_student_learns_from_a_file_of_texts(task, bert, texts, tmp_path):
    result = foretune.tune(
        task,
        model=bert,
        objective="distillation",
        objective_option={"texts": str(texts), "demonstrations": "2", "sets": "2", "pattern": "{text} and {answer}"},
        tuner="full",
        out=tmp_path / "run",
        steps=2,
        evaluations=1,
        remember=False,
    )
    assert result.record.teaching is not None
    assert result.record.teaching.texts == 32
    assert result.record.config.objective.options["fingerprint"]
    recorded = foretune.pipeline.result.Result(result.record, tmp_path / "run").predict(["the good film was"])
    assert recorded[0]["prediction"] in ("good", "bad")
