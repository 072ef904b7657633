"""run.json: whole or not at all."""

import json
import math

import pytest

from foretune.errors import StoreError
from foretune.records import Evaluation, RunRecord
from foretune.store import read_run, write_run
from foretune.testing.store_contract import toy_record


@pytest.mark.parametrize("status", ["ok", "stopped", "running", "failed", "oom", "diverged"])
def test_what_is_written_is_read(tmp_path, status):
    path = write_run(tmp_path / "runs" / "first", toy_record(status=status))
    assert path.name == "run.json"
    assert read_run(tmp_path / "runs" / "first") == toy_record(status=status)


def test_nan_becomes_null_and_comes_back_as_nan(tmp_path):
    record = RunRecord(toy_record().config, "diverged", evaluations={"dev": Evaluation(4, {"accuracy": math.nan})})
    write_run(tmp_path, record)
    assert json.loads((tmp_path / "run.json").read_text())["evaluations"]["dev"]["scores"] == {"accuracy": None}
    assert math.isnan(read_run(tmp_path).evaluations["dev"].scores["accuracy"])


def test_writing_again_replaces_the_record_and_leaves_nothing_else(tmp_path):
    write_run(tmp_path, toy_record(status="running"))
    write_run(tmp_path, toy_record(status="ok"))
    assert read_run(tmp_path).status == "ok"
    assert [path.name for path in tmp_path.iterdir()] == ["run.json"]


def test_a_temporary_file_left_by_a_kill_does_no_harm(tmp_path):
    write_run(tmp_path, toy_record(1))
    (tmp_path / ".run.json.tmp").write_text('{"half')
    assert read_run(tmp_path) == toy_record(1)
    write_run(tmp_path, toy_record(2))
    assert read_run(tmp_path) == toy_record(2)


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[1, 2]", b'"text"', b"\xff\xfe", b"{}", b"[" * 100_000, b'{"format": 1}']
)
def test_a_broken_run_json_is_refused_in_words(tmp_path, content):
    (tmp_path / "run.json").write_bytes(content)
    with pytest.raises(StoreError, match=r"run\.json"):
        read_run(tmp_path)


def test_a_folder_without_a_run_says_what_a_run_folder_is(tmp_path):
    with pytest.raises(StoreError, match=r"holds no run\.json.*foretune tune --out"):
        read_run(tmp_path / "nowhere")


def test_a_place_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match=r"file.*cannot be written.*--out"):
        write_run(tmp_path / "file", toy_record())


def test_a_full_disk_keeps_the_earlier_record(tmp_path, run_with_file_limit):
    write_run(tmp_path, toy_record(1))
    out = run_with_file_limit(
        1000,
        f"""
        from foretune.store import write_run
        try:
            write_run({str(tmp_path)!r}, toy_record(2))
        except StoreError as error:
            print(error)
        """,
    )
    assert "cannot be written" in out
    assert read_run(tmp_path) == toy_record(1)
    assert [path.name for path in tmp_path.iterdir()] == ["run.json"]
