"""The lines that a model card shows are run: they print what was recorded, with PEFT or, where it fails, without."""

from __future__ import annotations

import contextlib
import io
import json
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import yaml

from foretune.pipeline.result import table_of
from foretune.records import Part, RunConfig, RunRecord
from foretune.report.markdown import card
from foretune.store.folder import read_run
from foretune.tasks import Task
from foretune.training.predictor import Predictor
from foretune.training.run import train

PREFIX: dict[str, Any] = {"length": 3}
Run = Callable[..., RunRecord]


@pytest.fixture
def run(config: Callable[..., RunConfig], task: Callable[..., Task], tmp_path: Path) -> Run:
    """``run(kind, name, tuner, options)``: the record of a short run in ``tmp_path``; its base lies there too."""

    def made(kind: str, name: str, tuner: str, options: dict[str, Any]) -> RunRecord:
        asked = config(kind, name, tuner=Part(tuner, options), steps=2, evaluations=1)
        (tmp_path / "base").symlink_to(asked.model.name)
        asked = replace(asked, model=replace(asked.model, name=str(tmp_path / "base")))
        return train(asked, task=task(kind), folder=tmp_path, floors=False)

    return made


def printed(record: RunRecord, text: str) -> list[str]:
    """The words that the card's lines print for ``text``, run in the folder where they are."""
    lines = card(record).split("```python\n")[1].split("```")[0]
    told = io.StringIO()
    with contextlib.redirect_stdout(told), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Unexpected keyword arguments")
        warnings.simplefilter("ignore", FutureWarning)  # PEFT reads an old name of transformers
        for shown in ('"a text"', '"a prompt"'):
            lines = lines.replace(shown, json.dumps(text))
        exec(compile(lines, "card", "exec"), {})
    return told.getvalue().split()


@pytest.mark.parametrize(
    ("name", "tuner", "options", "library"),
    [
        ("bert", "lora", {"rank": 2}, "peft"),
        ("bert", "bitfit", {}, "transformers"),
        ("bert", "prefix-tuning", PREFIX, "peft"),
        ("bert", "prefix-subspace", PREFIX, "peft"),
        ("llama", "prefix-subspace", PREFIX, "peft"),
        ("distilbert", "prefix-tuning", PREFIX, "foretune"),
        ("modernbert", "prefix-subspace", PREFIX, "foretune"),
        ("bert", "prefix-subspace", {**PREFIX, "position_mode": "no_shift"}, "foretune"),
    ],
)
def test_the_lines_of_a_classifier_print_its_recorded_answer(
    name: str, tuner: str, options: dict[str, Any], library: str, run: Run, tmp_path: Path, monkeypatch: Any
) -> None:
    record = run("classification", name, tuner, options)
    assert read_run(tmp_path) == record
    assert yaml.safe_load(card(record).split("---\n")[1])["library_name"] == library
    row = pq.read_table(tmp_path / "predictions.parquet").to_pylist()[0]
    monkeypatch.chdir(tmp_path)
    label, probability = printed(record, row["text"])[-2:]
    assert label == row["prediction"]
    assert float(probability) == pytest.approx(row["probability"], abs=1e-5)


def test_the_lines_let_an_ensemble_answer_as_it_was_judged(run: Run, tmp_path: Path, monkeypatch: Any) -> None:
    record = run("classification", "bert", "prefix-subspace", {**PREFIX, "predict": "ensemble", "predict_samples": 3})
    assert "# 3 members answered together" in card(record)
    monkeypatch.chdir(tmp_path)
    found = Predictor.load(tmp_path)(table_of(["the good film was"])).to_pylist()[0]
    assert printed(record, "the good film was") == [found["prediction"], str(found["probability"])]


def test_the_lines_of_a_writer_that_stock_peft_cannot_serve_print_its_recorded_text(
    run: Run, tmp_path: Path, monkeypatch: Any
) -> None:
    record = run("generation", "t5", "prefix-subspace", PREFIX)
    assert "no prefix to the encoder" in card(record)
    row = pq.read_table(tmp_path / "predictions.parquet").to_pylist()[0]
    monkeypatch.chdir(tmp_path)
    assert printed(record, row["text"]) == [*row["prediction"].split(), "None"]


@pytest.mark.parametrize("kind", ["regression", "choice"])
def test_foretunes_own_lines_serve_every_kind(kind: str, run: Run, tmp_path: Path, monkeypatch: Any) -> None:
    record = run(kind, "distilbert", "prefix-tuning", PREFIX)
    monkeypatch.chdir(tmp_path)
    answer, _ = printed(record, "the good film was")[-2:]
    assert answer in ("0", "1") if kind == "choice" else float(answer)


def test_an_older_record_without_a_reason_is_shown_with_peft(run: Run) -> None:
    record = run("classification", "bert", "prefix-subspace", PREFIX)
    assert "stock_refusal" not in record.to_json()
    assert "PeftModel.from_pretrained" in card(record)
