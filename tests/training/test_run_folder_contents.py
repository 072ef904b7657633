"""A whole run: it learns, its folder holds what it should, a fresh process predicts the same from it."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from foretune.errors import DataError, ModelError, StoreError
from foretune.records import ModelRef, Part, RunConfig, RunRecord
from foretune.store.folder import read_run
from foretune.tasks import Task
from foretune.testing import toys
from foretune.training.measure import judged
from foretune.training.predictor import Predictor
from foretune.training.prepare import draw_rows, prepare
from foretune.training.run import train

Config = Callable[..., RunConfig]
CASES = [("classification", "bert"), ("regression", "bert"), ("choice", "distilbert"), ("generation", "llama")]


@pytest.fixture(scope="module")
def runs(config: Config, task: Callable[..., Task], tmp_path_factory: pytest.TempPathFactory) -> Callable[..., tuple]:
    """``runs(kind, name)``: the record and the folder of one finished run; trained once."""
    made: dict[tuple[str, str], tuple[RunRecord, Path]] = {}

    def find(kind: str, name: str) -> tuple[RunRecord, Path]:
        if (kind, name) not in made:
            folder = tmp_path_factory.mktemp(kind) / "run"
            asked = config(kind, name, steps=40, evaluations=4)
            made[kind, name] = train(asked, task=task(kind), folder=folder), folder
        return made[kind, name]

    return find


@pytest.mark.parametrize(("kind", "name"), CASES)
def test_the_loop_learns_the_toy_task(kind: str, name: str, runs: Callable[..., tuple]) -> None:
    record, _ = runs(kind, name)
    _, losses = record.curve.of("train", "loss")
    assert len(losses) == 40
    assert np.mean(losses[-4:]) < 0.97 * np.mean(losses[:4])
    assert record.status == "ok"
    assert set(record.evaluations) == {"dev", "test"}


def test_a_separable_task_is_learned_well(runs: Callable[..., tuple]) -> None:
    record, _ = runs("classification", "bert")
    assert record.evaluations["dev"].scores["accuracy"] >= 0.9
    assert record.evaluations["test"].scores["accuracy"] > record.floors["majority"]["test"].scores["accuracy"]


@pytest.mark.parametrize(("kind", "name"), CASES)
def test_the_record_on_disk_is_the_record_returned(kind: str, name: str, runs: Callable[..., tuple]) -> None:
    record, folder = runs(kind, name)
    assert read_run(folder).to_json() == record.to_json()
    assert not (folder / "checkpoint").exists()
    assert {p.suffix for p in folder.rglob("*") if p.is_file()} <= {
        ".json",
        ".safetensors",
        ".parquet",
        ".jinja",
        ".txt",
    }


@pytest.mark.parametrize(("kind", "name"), CASES)
def test_every_evaluated_row_is_in_the_predictions(
    kind: str, name: str, runs: Callable[..., tuple], config: Config, task: Callable[..., Task]
) -> None:
    _, folder = runs(kind, name)
    found = pq.read_table(folder / "predictions.parquet")
    drawn = draw_rows(config(kind, name), task(kind))
    for split in ("dev", "test"):
        rows = [r for r in found.to_pylist() if r["split"] == split]
        assert [r["row"] for r in rows] == drawn.ids[split]
        assert [r["text"] for r in rows] == getattr(drawn, split)["text"].to_pylist()
        assert [r["label"] for r in rows] == getattr(drawn, split)["label"].to_pylist()
    if kind in ("classification", "choice"):
        for row in found.to_pylist():
            assert sum(row["probabilities"]) == pytest.approx(1)
            assert row["probability"] == max(row["probabilities"])
            assert len(row["probabilities"]) == (2 if kind == "classification" else len(row["choices"]))


@pytest.mark.parametrize(("kind", "name"), CASES)
def test_floors_are_measured_on_the_rows_of_the_run(kind: str, name: str, runs: Callable[..., tuple]) -> None:
    record, folder = runs(kind, name)
    floors = pq.read_table(folder / "floors.parquet").to_pylist()
    judged = [(r["split"], r["row"]) for r in pq.read_table(folder / "predictions.parquet").to_pylist()]
    simplest = "mean" if kind == "regression" else "majority"
    names = {simplest, "tfidf", "copy" if kind == "generation" else "embedding"}
    assert set(record.floors) == names
    for floor in names:
        assert [(r["split"], r["row"]) for r in floors if r["floor"] == floor] == judged
        assert {split: e.n for split, e in record.floors[floor].items()} == {
            split: e.n for split, e in record.evaluations.items()
        }


@pytest.mark.parametrize(("kind", "name"), CASES)
def test_the_restored_adapter_gives_the_recorded_predictions(kind: str, name: str, runs: Callable[..., tuple]) -> None:
    _, folder = runs(kind, name)
    recorded = pq.read_table(folder / "predictions.parquet")
    predictor = Predictor.load(folder)
    for split in ("dev", "test"):
        rows = recorded.filter(np.array(recorded["split"]) == split)
        again = predictor(rows, split)
        assert again["prediction"].to_pylist() == rows["prediction"].to_pylist()
        assert again["probabilities"].to_pylist() == rows["probabilities"].to_pylist()


def test_a_fresh_process_gives_the_recorded_predictions(runs: Callable[..., tuple]) -> None:
    _, folder = runs("classification", "bert")
    code = f"""
import json, pyarrow.parquet as pq
from foretune.training.predictor import Predictor
rows = pq.read_table({str(folder / "predictions.parquet")!r})
print(json.dumps(Predictor.load({str(folder)!r})(rows).column("probabilities").to_pylist()))
"""
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=True)
    recorded = pq.read_table(folder / "predictions.parquet")["probabilities"].to_pylist()
    np.testing.assert_allclose(json.loads(done.stdout), recorded, rtol=1e-6)


def test_an_adapter_is_refused_on_another_base_and_served_on_a_moved_one(
    runs: Callable[..., tuple], saved: Callable[[str], Path], tmp_path: Path
) -> None:
    record, folder = runs("classification", "bert")
    other = toys.checkpoint(tmp_path / "other", "bert", seed=5)
    with pytest.raises(ModelError, match=str(record.config.model.fingerprint)):
        Predictor.load(folder, model=str(other))
    moved = shutil.copytree(saved("bert"), tmp_path / "moved")
    rows = pq.read_table(folder / "predictions.parquet")
    again = Predictor.load(folder / "adapter", model=str(moved))(rows)
    assert again["prediction"].to_pylist() == rows["prediction"].to_pylist()


def test_no_rows_are_refused_in_words(runs: Callable[..., tuple]) -> None:
    _, folder = runs("classification", "bert")
    rows = pq.read_table(folder / "predictions.parquet")
    with pytest.raises(DataError, match="rows to predict"):
        Predictor.load(folder)(rows.slice(0, 0))


def test_an_unfinished_folder_has_no_predictor(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="no trained adapter"):
        Predictor.load(tmp_path)


def test_a_spoiled_adapter_is_refused_in_words(runs: Callable[..., tuple], tmp_path: Path) -> None:
    shutil.copytree(runs("classification", "bert")[1] / "adapter", tmp_path / "adapter")
    weights = tmp_path / "adapter" / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-10])
    with pytest.raises(StoreError, match="cannot be read"):
        Predictor.load(tmp_path)


def test_a_recipe_of_a_newer_foretune_is_refused(runs: Callable[..., tuple], tmp_path: Path) -> None:
    _, folder = runs("classification", "bert")
    copied = shutil.copytree(folder / "adapter", tmp_path / "adapter")
    recipe = json.loads((copied / "foretune.json").read_text())
    (copied / "foretune.json").write_text(json.dumps({**recipe, "format": 99}))
    with pytest.raises(StoreError, match="99"):
        Predictor.load(copied)


@pytest.mark.parametrize(("kind", "name"), CASES)
def test_the_cost_of_a_run_is_filled_in(kind: str, name: str, runs: Callable[..., tuple]) -> None:
    record, folder = runs(kind, name)
    cost = record.cost
    for part in ("train_seconds", "eval_seconds", "setup_seconds", "floor_seconds", "tokens", "flops"):
        assert vars(cost)[part] > 0, part
    assert 0 < cost.trainable_parameters < cost.total_parameters
    adapter = folder / "adapter"
    assert cost.adapter_bytes == sum(
        (adapter / f).stat().st_size for f in ("adapter_config.json", "adapter_model.safetensors")
    )
    tokens_per_step = cost.tokens / 40
    assert 8 * 4 <= tokens_per_step <= 8 * 3 * 14


def test_labels_beyond_the_length_are_warned_of(config: Config, task: Callable[..., Task]) -> None:
    asked = config(steps=1)
    record = train(replace(asked, model=replace(asked.model, max_length=5)), task=task(), floors=False)
    assert any("longer than 5 tokens" in warning for warning in record.warnings)
    assert record.config.model.max_length == 5


def merged_task() -> Task:
    """Three classes inside; outside, two of them are one."""
    renamed = {"hans": {"entailment": "yes", "neutral": "no", "contradiction": "no"}}
    words = {"entailment": "good", "neutral": "film", "contradiction": "bad"}
    numbers = ("one", "two", "three", "four")
    rows = [
        {"text": f"{word} {a} {b}", "label": label} for label, word in words.items() for a in numbers for b in numbers
    ]
    inside = Task.from_records(rows)
    outside = Task.from_records([{"text": f"{r['text']} very", "label": renamed["hans"][r["label"]]} for r in rows])
    schema = replace(inside.schema, ood_label_map=renamed)
    return Task.from_splits("nli", schema, {"train": inside.splits["train"]}, {"hans": outside.splits["train"]})


def test_an_answer_is_given_first_and_renamed_after(config: Config) -> None:
    """The most probable class is entailment, though its two rivals together, which are one class there, have more."""
    task = merged_task()
    run = prepare(replace(config(steps=1), task=task.ref), task)
    names = run.task.schema.labels
    guess = np.tile([{"entailment": 0.4, "neutral": 0.35, "contradiction": 0.25}[name] for name in names], (48, 1))
    found = judged(run, "ood:hans", guess)
    assert found.scores["accuracy"] == pytest.approx(16 / 48)
    assert found.scores["nll"] == pytest.approx(-(16 * np.log(0.4) + 32 * np.log(0.6)) / 48)


def test_an_out_of_domain_set_with_merged_classes_is_predicted_judged_and_compared(
    config: Config, tmp_path: Path
) -> None:
    task = merged_task()
    asked = replace(config(steps=30), task=task.ref)
    record = train(asked, task=task, folder=tmp_path / "run", floors=True)
    answers = pq.read_table(tmp_path / "run" / "predictions.parquet").to_pylist()
    hans = [r for r in answers if r["split"] == "ood:hans"]
    renamed = task.schema.ood_label_map["hans"]
    assert {r["prediction"] for r in hans} <= set(task.schema.labels)
    right = np.mean([renamed[r["prediction"]] == r["label"] for r in hans])
    assert record.evaluations["ood:hans"].scores["accuracy"] == pytest.approx(right)
    (gap,) = record.gaps
    assert gap.value == pytest.approx(record.evaluations["test"].scores["accuracy"] - right)
    assert record.floors["embedding"]["ood:hans"].n == len(hans) == 48


def test_a_run_without_dev_keeps_its_last_weights_and_says_so(config: Config, task: Callable[..., Task]) -> None:
    asked = config(steps=6)
    record = train(replace(asked, task=replace(asked.task, dev_fraction=0.0)), task=task(), floors=False)
    assert record.chosen_step == 6
    assert set(record.evaluations) == {"test"}
    assert record.temperature is None
    assert any("dev: empty" in note for note in record.notes)


def test_an_objective_that_does_not_serve_the_kind_is_refused(config: Config, task: Callable[..., Task]) -> None:
    from foretune.errors import UsageError

    with pytest.raises(UsageError, match="`regression` serves regression tasks"):
        train(config(objective=Part("regression")), task=task(), floors=False)


def test_virtual_tokens_beyond_the_positions_are_refused_with_the_length_that_fits(
    config: Config, task: Callable[..., Task]
) -> None:
    with pytest.raises(ModelError, match=r"32 positions.*--max-length 2"):
        train(config(tuner=Part("prompt-tuning", {"length": 30})), task=task(), floors=False)


def test_a_base_named_by_another_path_is_the_same_run(
    config: Config, task: Callable[..., Task], saved: Callable[[str], Path], tmp_path: Path
) -> None:
    moved = shutil.copytree(saved("bert"), tmp_path / "moved")
    here, there = (
        train(replace(config(steps=1), model=ModelRef(str(path))), task=task(), floors=False)
        for path in (saved("bert"), moved)
    )
    assert here.digest == there.digest
