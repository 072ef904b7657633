"""``foretune collect`` in a real process: Ctrl-C, a kill, going on, a dry run, bad words."""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path

import pytest
import yaml

from foretune.store.journal import JournalStore
from foretune.testing import toys

PLAN = {
    "tasks": ["train.csv"],
    "shots": [8],
    "tuners": ["lora", "bitfit"],
    "configs": 16,
    "repeats": 0,
    "steps": [10, 20],
    "evaluations": 2,
    "test_rows": 8,
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("collected")
    toys.table(made / "train.csv", toys.rows("classification"))
    (made / "plan.yaml").write_text(yaml.safe_dump(PLAN), encoding="utf-8")
    return made


def until_a_run_ended(process) -> None:
    while True:
        line = process.stdout.readline()
        assert line, process.stderr.read()
        if ": ok, accuracy " in line:
            return


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no process groups to signal")
def test_ctrl_c_and_kill_9_lose_at_most_the_runs_under_way(folder: Path, bert: Path, start_in, run_in):
    words = ("collect", "plan.yaml", "--model", bert, "--workers", "1")
    stopped = start_in(folder, *words)
    until_a_run_ended(stopped)
    os.killpg(stopped.pid, signal.SIGINT)
    _, said = stopped.communicate(timeout=120)
    assert (stopped.returncode, len(said.splitlines())) == (130, 1), said
    assert "the same command goes on" in said

    killed = start_in(folder, *words)
    until_a_run_ended(killed)
    os.killpg(killed.pid, signal.SIGKILL)
    killed.communicate(timeout=120)
    before = [record.digest for record in JournalStore(folder / "store")]
    assert len(before) >= 2

    ended = run_in(folder, *words, "--json")
    assert (ended.returncode, ended.stderr) == (0, "")
    told = json.loads(ended.stdout)
    assert (told["total"], told["statuses"]) == (17, {"ok": 17})
    after = [record.digest for record in JournalStore(folder / "store")]
    assert len(after) == len(set(after)) == 17, "a finished run was repeated"


def test_a_dry_run_prints_a_plan_that_can_be_run_and_runs_nothing(folder: Path, bert: Path, run_in):
    env = {"FORETUNE_STORE": str(folder / "empty")}
    done = run_in(folder, "collect", "plan.yaml", "--model", bert, "--dry-run", env=env)
    assert done.returncode == 0, done.stderr
    *plan, last = done.stdout.splitlines()
    assert "17 of 17 runs are missing" in last
    assert yaml.safe_load("\n".join(plan))["models"][0]["name"] == str(bert)
    assert not (folder / "empty").exists()


def test_a_plan_that_cannot_be_is_one_sentence(folder: Path, run_in):
    (folder / "wrong.yaml").write_text("tasks: [train.csv]\nconfig: 3\n", encoding="utf-8")
    done = run_in(folder, "collect", "wrong.yaml")
    assert done.returncode == 2
    assert "Did you mean `configs`" in done.stderr
