"""A run folder answers one request: it goes on with it, refuses others, and is never lost to a command that fails."""

import json
import shutil

import pytest

import foretune
from foretune.errors import ModelError, ResourceError, StoreError, UsageError
from foretune.pipeline import request as requests
from foretune.pipeline.draft import prepare_plan
from foretune.pipeline.options import TuneOptions
from foretune.store.folder import read_run
from foretune.training.probe import Probe


@pytest.fixture
def again(task, bert):
    """The request of the shared run, in any folder; what it said."""

    def tune(folder, **more):
        said = []
        asked = {"model": bert, "steps": 4, "evaluations": 2, **more}
        return foretune.tune(task, out=folder, remember=False, say=said.append, **asked), said

    return tune


@pytest.fixture
def folder(result, tmp_path):
    """A copy of the shared run."""
    return shutil.copytree(result.folder, tmp_path / "run")


def test_a_finished_run_is_returned_without_work(folder, again, result):
    done, said = again(folder)
    assert done.record == result.record
    assert said == [f"`{folder}` holds this very run, finished: nothing to do. Use `--overwrite` to run it again."]


def test_overwriting_waits_until_the_new_run_is_known_to_be_possible(folder, again, result):
    for wrong in ({"model": "./nowhere"}, {"budget": "0.001s"}):
        with pytest.raises((ModelError, ResourceError)):
            again(folder, overwrite=True, **wrong)
        assert read_run(folder) == result.record
    done, _ = again(folder, overwrite=True, steps=2)
    assert done.record.steps_done == 2
    assert read_run(folder).steps_done == 2


@pytest.mark.parametrize("left", [[], ["request.json.new"], ["request.json"], ["request.json", "plan.json"]])
def test_a_folder_left_by_a_kill_before_the_first_record_is_taken_up(left, result, again, tmp_path):
    """What is on the disk at each moment between the first byte and the first record."""
    place = tmp_path / "run"
    place.mkdir()
    for name in left:
        text = "{" if name.endswith(".new") else (result.folder / name).read_text()
        (place / name).write_text(text)
    done, _ = again(place)
    assert done.record.status == "ok"
    assert done.metrics == result.metrics
    assert {entry.name for entry in place.iterdir()} == {entry.name for entry in result.folder.iterdir()}


def test_a_failed_run_is_tried_again_with_its_notes(folder, again, result):
    plain = json.loads((folder / "run.json").read_text())
    (folder / "run.json").write_text(json.dumps({**plain, "status": "failed", "error": "OSError: disk", "notes": []}))
    done, said = again(folder)
    assert said[0] == f"`{folder}` holds this run, failed (OSError: disk): going on."
    assert done.record.notes == result.record.notes
    assert done.metrics == result.metrics


@pytest.mark.parametrize("name", ["request.json", "plan.json", "run.json"])
def test_a_damaged_file_is_named_with_the_way_out(name, folder, again):
    (folder / name).write_text("{")
    with pytest.raises(StoreError, match=name):
        again(folder)


def test_a_newer_run_folder_is_left_alone(folder, again):
    (folder / "run.json").write_text(json.dumps({"format": 99}))
    with pytest.raises(StoreError, match="format 99"):
        again(folder)
    assert json.loads((folder / "run.json").read_text()) == {"format": 99}


def test_other_data_in_the_same_folder_are_refused(folder, bert, task):
    rows = [{"text": f"the {w} film was {i}", "label": w} for i in range(8) for w in ("good", "bad")]
    with pytest.raises(UsageError, match="the data differ"):
        foretune.tune(foretune.Task.from_records(rows), model=bert, steps=4, evaluations=2, out=folder)


def test_options_come_in_one_way(task, bert):
    with pytest.raises(UsageError, match="not both: got lr"):
        foretune.tune(task, options=TuneOptions(model=bert), lr=1.0)


def test_a_place_that_cannot_be_written_is_named(again, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises((StoreError, UsageError), match="file"):
        again(tmp_path / "file" / "run")


def test_the_next_default_folder_of_the_same_request_is_the_same(task, bert, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    first = foretune.tune(task, model=bert, steps=1, remember=False)
    assert first.folder.parent.name == "runs"
    assert first.folder.name.startswith("kind-recommended-")
    assert foretune.tune(task, model=bert, steps=1, remember=False).record == first.record
    assert len(list((tmp_path / "runs").iterdir())) == 1


def test_a_budget_that_ends_stops_the_training_and_the_record_says_so(task, bert, tmp_path):
    said = []
    done = foretune.tune(
        task, model=bert, steps=10**6, evaluations=2, budget="15s", out=tmp_path / "r", remember=False, say=said.append
    )
    assert 0 < done.record.steps_done < 10**6
    assert any("training will stop when they are over" in line for line in said)
    stopped = f"Training stopped at step {done.record.steps_done} of 1000000: the time budget ended."
    assert stopped in done.record.notes
    assert any("training will stop" in note for note in done.record.notes)


def measured(step):
    """What a slow machine would have measured."""
    return Probe(
        setup_seconds=1.0,
        step_seconds=step,
        example_seconds=0.001,
        evaluated=10,
        judged=20,
        bytes=1,
        trainable=1,
        parameters=1,
    )


def test_steps_are_planned_to_fit_the_budget(task, bert, monkeypatch):
    from foretune.pipeline import draft as drafts

    monkeypatch.setattr(drafts, "probe", lambda config, task: measured(1.0))
    planned = prepare_plan(task, TuneOptions(model=bert, budget="60s"))
    steps = planned.config.schedule.steps
    assert 0 < steps * 1.0 + planned.probe.total(0, planned.config.schedule.evaluations) <= 60
    assert planned.notes == (
        f"The budget of 60 s leaves time for {steps} steps, not the 200 that would be recommended.",
    )
    assert planned.plan.best.seconds <= 60
    with pytest.raises(ResourceError, match=r"does not hold one training step: .* Give `--budget \d+s` or more"):
        prepare_plan(task, TuneOptions(model=bert, budget="2s"))


def test_the_text_of_a_request_is_whole_or_absent(tmp_path):
    requests.write_text(tmp_path / "a.json", "one")
    with pytest.raises(StoreError, match="cannot be written"):
        requests.write_text(tmp_path / "a.json" / "b", "two")
    assert (tmp_path / "a.json").read_text() == "one"


def test_a_run_folder_that_cannot_be_made_is_refused_before_the_model_is_opened(task, tmp_path, monkeypatch):
    monkeypatch.setattr("foretune.pipeline.places.os.access", lambda *asked: False)
    with pytest.raises(
        StoreError, match=r"run` cannot be written: nothing may be written in `.*`\. Give another place"
    ):
        foretune.tune(task, model="no-such-model", out=tmp_path / "deep" / "run")
    assert list(tmp_path.iterdir()) == []
