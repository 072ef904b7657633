"""``foretune replay``: tables, JSON, a report, and bad input in one sentence."""

import json

import pytest

from foretune.cli.replay import Told, replay
from foretune.errors import ForetuneError
from foretune.store.collections import keep, write_collection
from foretune.testing.recommender_contract import toy_collection


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    write_collection(folder, toy_collection())
    return folder


def test_it_prints_tables_and_writes_a_report_and_loads_no_torch(runs, tmp_path, foretune):
    out = tmp_path / "replay.html"
    words = ("--collection", runs, "--recommenders", "random,portfolio", "--seeds", "1", "--default", "lr=1e-4")
    done = foretune("replay", *words, "--out", out, env={"PYTHONPROFILEIMPORTTIME": "1"})
    assert done.returncode == 0, done.stderr
    assert "n = 6 groups of tasks" in done.stdout
    assert "portfolio has the smallest mean regret" in done.stdout
    assert out.read_text(encoding="utf-8").startswith("<!doctype html>")
    assert "foretune.comparison.replay" in done.stderr
    assert "| torch\n" not in done.stderr


def test_json_is_one_object_of_a_kept_collection(tmp_path, capsys):
    keep(tmp_path, toy_collection())
    replay(collection="made_up", recommenders="halving", seeds=1, controls="none", store=tmp_path, json=True)
    told = json.loads(capsys.readouterr().out)
    assert told["settings"]["collection"] == "made up"
    assert {row["entry"] for row in told["standings"]} == {"random (exact)", "halving"}
    assert {row["n"] for row in told["pairings"]} == {6}


def test_a_first_look_says_so_and_the_full_protocol_goes_on_from_its_laps(runs, tmp_path, capsys):
    asked = {"collection": str(runs), "recommenders": "portfolio", "keep": tmp_path / "laps.jsonl", "store": tmp_path}
    replay(**asked)
    assert "A first look, with 1 seed and without controls" in capsys.readouterr().out.replace("\xa0", " ")
    first = asked["keep"].read_text(encoding="utf-8").splitlines()
    assert len(first) == 1 + 6
    replay(**asked, full=True)
    told = capsys.readouterr()
    assert "A first look" not in told.out
    assert "portfolio, shuffled targets" in told.out
    full = asked["keep"].read_text(encoding="utf-8").splitlines()
    assert full[: len(first)] == first
    assert len(full) == 1 + 6 * 5 * 3
    assert told.err == ""  # what is over at once says nothing on the way


def test_a_long_replay_tells_on_stderr_how_far_it_is(runs, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(Told, "EVERY", 0.0)
    replay(collection=str(runs), recommenders="random", store=tmp_path)
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "Lap 1 of 6: random on task-0"
    assert lines[-1].startswith("Lap 6 of 6, about ")
    assert lines[-1].endswith(" left: random on task-5")


@pytest.mark.parametrize(
    ("options", "code", "sentence"),
    [
        ({"collection": "runs"}, 3, "holds no finished run"),
        ({"collection": "taskse"}, 2, "`taskse` is no collection"),
        ({"budgets": "one"}, 2, "`--budgets` are numbers"),
        ({"budgets": "0.01"}, 2, "pays for no trial"),
        ({"recommenders": "portfolo"}, 2, "Did you mean `portfolio`"),
        ({"default": "lr"}, 2, "`--default` is settings such as"),
        ({"protocol": "leave-nothing-out"}, 2, "is not a protocol"),
    ],
)
def test_bad_input_is_one_sentence(runs, tmp_path, options, code, sentence):
    with pytest.raises(ForetuneError) as found:
        replay(**{"collection": str(runs), **options}, store=tmp_path)
    assert found.value.exit_code == code
    assert sentence in str(found.value)
    assert "\n" not in str(found.value)


def test_bad_input_is_an_exit_code_and_a_line(foretune):
    done = foretune("replay", "--collection", "taskse")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("Error: `taskse` is no collection")
