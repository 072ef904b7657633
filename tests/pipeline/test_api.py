"""The Python face: a task, a plan, a result, and the folder loaded again."""

import json
import shutil
from dataclasses import replace

import pytest

import foretune
from foretune.errors import DataError, ModelError, StoreError, UsageError
from foretune.pipeline import TuneOptions, prepare_plan
from foretune.testing import toys


@pytest.fixture(scope="module")
def plan(task, bert):
    return foretune.recommend(task, model=bert, budget="20m", steps=3)


def test_a_plan_says_what_would_be_run_and_what_it_rests_on(plan, task, bert):
    best = plan.best
    assert best.config["tuner"]["name"] == "lora"
    assert best.config["schedule"]["steps"] == 3
    assert (best.score, best.interval) == (None, None)
    assert best.seconds > 0
    assert best.bytes > 0
    assert any("Hu et al. 2021" in line for line in plan.evidence)
    assert plan.evidence[-1].endswith("--steps 3.")
    bare = prepare_plan(task, TuneOptions(model=bert))
    assert (bare.plan.best.seconds, bare.probe) == (None, None)


def test_a_plan_is_run_as_it_is_with_what_is_asked_over_it(plan, task, bert, tmp_path):
    done = foretune.tune(task, model=bert, plan=plan, lr=0.007, out=tmp_path / "run", remember=False)
    assert done.record.config.schedule == replace(plan.best.schedule, lr=0.007)
    assert done.record.config.tuner == plan.best.tuner
    assert done.plan.best.schedule.lr == 0.007
    assert done.record.steps_done == 3


def test_a_plan_and_another_tuner_contradict_each_other(plan, task, bert, tmp_path):
    with pytest.raises(UsageError, match="The plan says tuner `lora`, but `full` was asked for"):
        foretune.tune(task, model=bert, plan=plan, tuner="full", out=tmp_path / "run")


def test_a_result_holds_metrics_and_answers(result):
    assert set(result.metrics) == {"dev", "test"}
    assert 0 <= result.metrics["test"]["accuracy"] <= 1
    answers = result.predict(["the good film was", {"text": "the bad food was very"}])
    assert {answer["prediction"] for answer in answers} <= {"good", "bad"}
    for answer in answers:
        assert sum(answer["probabilities"]) == pytest.approx(1)
        assert answer["probability"] == max(answer["probabilities"])
    assert result.predict([]) == []
    assert result.verdict


def test_what_cannot_be_answered_is_refused_in_words(result):
    with pytest.raises(UsageError, match="takes a list of texts, but got a str"):
        result.predict("the good film was")
    with pytest.raises(UsageError, match="row 2 has txt"):
        result.predict(["good", {"txt": "bad"}])
    with pytest.raises(DataError, match="row 1"):
        result.predict([" "])


def test_a_loaded_run_answers_as_the_one_that_was_trained(result, bert, tmp_path):
    moved = shutil.copytree(result.folder, tmp_path / "moved")
    loaded = foretune.load(moved)
    texts = ["the great film was", "the poor food was very very"]
    assert loaded.predict(texts) == result.predict(texts)
    assert loaded.record == result.record
    assert loaded.plan == result.plan
    assert foretune.load(moved, model=bert).predict(texts) == result.predict(texts)


def test_a_saved_adapter_travels_alone_and_a_report_goes_where_it_is_asked(result, tmp_path):
    saved = result.save(tmp_path / "adapter")
    assert {"adapter_config.json", "adapter_model.safetensors", "README.md"} <= {f.name for f in saved.iterdir()}
    page = result.report(tmp_path / "page.html")
    assert page.read_bytes() == (result.folder / "report.html").read_bytes()


def test_another_base_model_is_refused(result, tmp_path):
    other = toys.checkpoint(tmp_path / "other", "bert", seed=1)
    with pytest.raises(ModelError, match="fingerprint"):
        foretune.load(result.folder, model=str(other)).predict(["good"])


def test_a_run_that_is_not_finished_is_not_loaded(result, tmp_path):
    folder = shutil.copytree(result.folder, tmp_path / "run")
    plain = json.loads((folder / "run.json").read_text())
    (folder / "run.json").write_text(json.dumps({**plain, "status": "stopped"}))
    with pytest.raises(StoreError, match=r"`stopped`.*goes on"):
        foretune.load(folder)
    with pytest.raises(StoreError, match="not a run folder"):
        foretune.load(tmp_path)
    (folder / "run.json").write_text(json.dumps({**plain, "format": 99}))
    with pytest.raises(StoreError, match=r"format 99.*newer foretune"):
        foretune.load(folder)


@pytest.mark.parametrize("kind", ["regression", "choice", "generation"])
def test_every_other_kind_of_task_runs_from_rows_to_answers(kind, bert, tmp_path, tmp_path_factory):
    model = str(toys.checkpoint(tmp_path_factory.mktemp("llama"), "llama")) if kind == "generation" else bert
    rows = toys.rows(kind)
    task = foretune.Task.from_records(rows)
    done = foretune.tune(task, model=model, steps=2, evaluations=1, out=tmp_path / kind, remember=False)
    assert done.record.status == "ok"
    asked = [{"text": row.get("text", row.get("prompt")), "choices": row.get("choices")} for row in rows[:3]]
    assert [type(answer["prediction"]) for answer in done.predict(asked)] == [str] * 3
    assert (done.folder / "report.html").exists()
