"""``foretune runs import FORMAT`` and ``export``: in, out, and refusals in one sentence."""

import json

import pytest

from foretune.store import JournalStore
from foretune.testing.foreign import peft, qtt, taskset
from foretune.testing.store_contract import toy_record


def test_runs_of_other_projects_come_in_once_and_go_out_bit_for_bit(foretune, tmp_path):
    taskset(tmp_path / "in")
    done = foretune("runs", "import", "taskset", "in")
    assert done.returncode == 0, done.stderr
    assert "2 tasks, 12 runs (12 ok), 1,836 measurements." in done.stdout
    assert "learns from foretune's own runs alone" in done.stdout
    assert "known already" in foretune("runs", "import", "taskset", "in").stdout
    assert "left out: test loss, train loss" in foretune("runs", "export", "a", "--format", "qtt-csv").stdout
    assert foretune("runs", "import", "qtt-csv", "a", "--store", "other").returncode == 0
    assert foretune("runs", "export", "b", "--format", "qtt-csv", "--store", "other").returncode == 0
    for path in (tmp_path / "a").iterdir():
        assert path.read_bytes() == (tmp_path / "b" / path.name).read_bytes()


def test_own_runs_and_imported_ones_are_exported_together_and_read_again(foretune, tmp_path):
    JournalStore(tmp_path / "store").append(toy_record())
    peft(tmp_path / "in")
    imported = json.loads(foretune("runs", "import", "peft-comparison", "in", "--json").stdout)
    assert imported["collections"][0]["status"] == {"ok": 1}
    out = json.loads(foretune("runs", "export", "all", "--json").stdout)
    assert (out["tasks"], out["runs"]) == (2, 2)
    again = json.loads(foretune("runs", "import", "parquet", "all", "--json").stdout)
    assert again["collections"][0]["runs"] == 2
    assert again["collections"][0]["own_tasks"] == 1
    one = json.loads(foretune("runs", "export", "one", "--collection", "runs", "--json").stdout)
    assert one["runs"] == 1


def test_a_table_says_what_was_cut_and_its_columns_can_be_named(foretune, tmp_path):
    curve = ["1,2,3", "0.1,0.1,0.1", "0,0,0"]
    qtt(tmp_path / "in", curve, ["lr,opt", "0.1,a", "0.2,b"], ["data", "x", "y"])
    done = foretune("runs", "import", "qtt-csv", "in", "--task", "data", "--minimise")
    assert "2 tasks, 2 runs (1 failed, 1 stopped)" in done.stdout
    assert "cut where it begins" in done.stdout


@pytest.mark.parametrize(
    ("code", "words", "says"),
    [
        (3, ["runs", "import", "taskset", "nowhere"], ["holds no TaskSet task"]),
        (2, ["runs", "import", "taskset", "in", "--task", "x"], ["Leave `--task`"]),
        (2, ["runs", "import", "qtt-csv", "in", "--metric", "x"], ["Leave `--metric` out"]),
        (2, ["runs", "import", "in", "--minimise"], ["Write the format before the path"]),
        (3, ["runs", "import", "csv", "nowhere.csv"], ["nowhere.csv", "cannot be read as CSV"]),
        (6, ["runs", "import", "parquet", "in"], ["holds no collection of runs"]),
        (3, ["runs", "export", "out"], ["holds no finished run"]),
        (2, ["runs", "export", "out", "--format", "qtt"], ["Did you mean `qtt-csv`?"]),
        (2, ["runs", "export", "in"], ["holds something already"]),
        (2, ["runs", "export", "out", "--collection", "rums"], ["Did you mean `runs`?"]),
    ],
)
def test_what_cannot_be_is_one_sentence(refuses, tmp_path, code, words, says):
    if "--format" in words or words[-1] == "in":
        JournalStore(tmp_path / "store").append(toy_record())
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "notes.txt").write_text("x")
    refuses(code, *words, says=says)
