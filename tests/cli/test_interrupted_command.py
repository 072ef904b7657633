"""Ctrl-C, SIGTERM, kill -9 and a full disk: a folder that the same command goes on with, to the same bits."""

import json
import os
import signal
import subprocess
import sys

import pytest

from foretune.testing import toys

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="Windows has no process groups to signal")

FILES = ("adapter/adapter_model.safetensors", "predictions.parquet", "floors.parquet")


@pytest.fixture
def words(table, bert):
    table(toys.rows("classification"))
    return ("tune", "data.csv", "--model", str(bert), "--steps", "400", "--evaluations", "20", "--out")


def line(process, beginning):
    """Read what the process prints until a line begins so; its lines so far."""
    lines = []
    while not lines or not lines[-1].startswith(beginning):
        lines.append(process.stdout.readline())
        assert lines[-1], (lines, process.stderr.read())
    return lines


def outcome(folder):
    """All of a run but its seconds."""
    record = json.loads((folder / "run.json").read_text(encoding="utf-8"))
    points = [{k: v for k, v in point.items() if k != "seconds"} for point in record["curve"]["points"]]
    kept = ("config", "status", "evaluations", "floors", "temperature", "chosen_step", "notes", "initial_hash")
    return points, {name: record[name] for name in kept}, [(folder / name).read_bytes() for name in FILES]


def test_stopped_killed_and_gone_on_with_a_run_ends_with_the_bits_of_an_uninterrupted_one(
    words, run_in, start_in, tmp_path
):
    broken = start_in(tmp_path, *words, "broken")
    line(broken, "step ")
    os.killpg(broken.pid, signal.SIGINT)
    _, said = broken.communicate(timeout=120)
    assert (broken.returncode, len(said.splitlines())) == (130, 1)
    assert "of 400. What is done is kept in `broken`: the same command goes on." in said
    stopped = json.loads((tmp_path / "broken" / "run.json").read_text(encoding="utf-8"))
    assert stopped["status"] == "stopped"
    assert (tmp_path / "broken" / "checkpoint" / "latest").exists()

    refused = run_in(tmp_path, "predict", "broken", "data.csv")
    assert refused.returncode == 6
    assert "unfinished: the same `foretune tune` command goes on" in refused.stderr

    killed = start_in(tmp_path, *words, "broken")
    lines = line(killed, "step ")
    assert lines[0] == "`broken` holds this run, stopped: going on.\n"
    assert any(told.startswith("Going on from step ") for told in lines)
    os.killpg(killed.pid, signal.SIGKILL)
    killed.communicate(timeout=120)

    ended = run_in(tmp_path, *words, "broken")
    assert (ended.returncode, ended.stderr) == (0, "")
    assert "`broken` holds this run, unfinished: going on." in ended.stdout
    assert not (tmp_path / "broken" / "checkpoint").exists()

    whole = run_in(tmp_path, *words, "whole", "--json")
    assert (whole.returncode, whole.stderr) == (0, "")
    assert json.loads(whole.stdout)["record"]["status"] == "ok"
    assert outcome(tmp_path / "broken") == outcome(tmp_path / "whole")


def test_a_stop_before_the_training_is_one_line_too(words, start_in, run_in, tmp_path):
    early = start_in(tmp_path, *words, "early")
    line(early, "rows: ")
    os.killpg(early.pid, signal.SIGTERM)
    _, said = early.communicate(timeout=120)
    assert (early.returncode, len(said.splitlines())) == (130, 1)
    assert "the same command" in said


def test_a_full_disk_is_one_line_and_the_record_says_that_the_run_failed(words, run_in, tmp_path):
    """No file may grow beyond 24 kB: the record fits, the weights of the whole model do not."""
    import resource

    limit = 24_000
    command = [*words, "full", "--tuner", "full", "--json"]
    command[command.index("400")] = "4"
    done = run_in(tmp_path, *command, preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)))
    assert (done.returncode, done.stdout, len(done.stderr.splitlines())) == (6, "", 1)
    assert "File too large" in done.stderr
    assert "Free some space" in done.stderr
    assert json.loads((tmp_path / "full" / "run.json").read_text(encoding="utf-8"))["status"] == "failed"


def test_an_output_that_nobody_reads_is_no_traceback(tmp_path):
    command = f"{sys.executable} -m foretune tasks | true; exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, cwd=tmp_path, timeout=60)
    assert "Traceback" not in done.stderr
    assert done.stderr == ""
