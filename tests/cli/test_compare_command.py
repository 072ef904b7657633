"""``foretune compare`` in a real process: one line for a user's file, a protocol, an interruption, bad words."""

from __future__ import annotations

import json
import signal
import time
from pathlib import Path

import pytest
import yaml

from foretune.records.verdict import Verdict
from foretune.testing import toys

SHORT = ("--seeds", "2", "--steps", "3", "--shots", "4", "--batch-size", "4", "--workers", "1")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("compared")


@pytest.fixture(scope="module")
def first(folder: Path, bert: Path, run_in):
    """A user's own table, two methods, one line."""
    toys.table(folder / "train.csv", toys.rows("classification"))
    return run_in(folder, "compare", "train.csv", "--methods", "lora,full", "--model", bert, "--out", "c", *SHORT)


def test_one_line_gives_a_report_a_verdict_and_the_protocol(first, folder: Path):
    assert first.returncode == 0, first.stderr
    verdict = Verdict.from_json(json.loads((folder / "c" / "verdict.json").read_text(encoding="utf-8")))
    assert verdict.methods == ("lora", "full")
    assert len(verdict.contrasts) == 1
    assert verdict.digest in first.stdout
    assert "lora on train, 4 shots, seed 1: ok" in first.stdout
    assert ": 6 runs to do (2 methods x 2 seeds, and their floors)." in first.stdout.splitlines()[0]
    assert first.stdout.splitlines()[1].endswith(": begun")
    assert "left" in first.stdout.splitlines()[2]
    assert "floor: majority class" in first.stdout
    assert {"comparison.html", "protocol.yaml", "tables.csv"} <= {path.name for path in (folder / "c").iterdir()}
    assert verdict.digest in (folder / "c" / "comparison.html").read_text(encoding="utf-8")


def test_the_protocol_that_was_written_is_the_same_comparison_and_runs_nothing(first, folder: Path, run_in):
    done = run_in(folder, "compare", "c/protocol.yaml", "--out", "c", "--json", "--workers", "1")
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["verdict"]["missing"] == []
    journals = sum(len(path.read_text().splitlines()) for path in (folder / "store").glob("*.jsonl"))
    assert journals == 2 + 4


def test_a_dry_run_prints_the_protocol_and_how_much_is_missing(first, folder: Path, run_in, bert: Path):
    words = ("compare", "train.csv", "--methods", "lora,full", "--model", bert, *SHORT)
    done = run_in(folder, *words, "--dry-run")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1].endswith("no runs to do, the store has them all.")
    assert yaml.safe_load("\n".join(done.stdout.splitlines()[:-1]))["data_seeds"] == [0, 1]
    other = run_in(folder, *words, "--profile", "cpu-small", "--dry-run", "--json")
    assert json.loads(other.stdout)["protocol"]["test_rows"] == 200


def test_another_comparisons_folder_is_left_alone(first, folder: Path, run_in, bert: Path):
    done = run_in(folder, "compare", "train.csv", "--methods", "lora,head", "--model", bert, "--out", "c", *SHORT)
    assert done.returncode == 2
    assert "holds the comparison" in done.stderr


def test_ctrl_c_stops_and_the_same_command_goes_on(folder: Path, first, start_in, run_in, bert: Path):
    words = ["compare", "train.csv", "--methods", "head,bitfit", "--model", bert, "--out", "d", *SHORT]
    process = start_in(folder, *words)
    told = ""
    while ": ok" not in told:
        line = process.stdout.readline()
        assert line, process.stderr.read()
        told += line
    time.sleep(0.2)
    process.send_signal(signal.SIGINT)
    rest, errors = process.communicate(timeout=120)
    assert process.returncode in (0, 130), errors
    assert "Traceback" not in errors
    done = run_in(folder, *words)
    assert done.returncode == 0, done.stderr
    repeated = set((told + rest).splitlines()) & {line for line in done.stdout.splitlines() if ": ok" in line}
    assert not {line.partition("] ")[2] for line in repeated}


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (("--methods", "lroa,full"), 2, ["`lroa` is not a method", "Did you mean `lora`"]),
        (("--seeds", "0"), 2, ["`--seeds` must be at least 1, but got 0"]),
        (("--shots", "0"), 2, ["`--shots` must be `all` or numbers from 1", "`0`"]),
        (("--seeds", "1"), 2, ["at least 2 seeds", "--seeds 5"]),
        (("--selection", "test"), 2, ["Nothing may be selected on test"]),
        (("--shots", "4,x"), 2, ["`--shots`", "`x`"]),
        (("--shots", "400"), 3, ["shots=400"]),
        (("--profile", "gpu"), 2, ["cpu-small", "`gpu`"]),
    ],
    ids=str,
)
def test_bad_words_are_refused_before_anything_is_run(foretune, table, bert: Path, words, code, says):
    table(toys.rows("classification"), "train.csv")
    done = foretune("compare", "train.csv", "--model", bert, *words)
    assert done.returncode == code, done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    for part in says:
        assert part in done.stderr


def test_a_missing_file_is_an_error_of_the_data_as_for_tune(refuses):
    refuses(3, "compare", "nowhere.csv", says=["`nowhere.csv` is neither", "foretune tasks"])


def test_words_between_commas_may_have_spaces(first, folder: Path, run_in, bert: Path):
    words = ("compare", "train.csv", "--methods", "lora, full", "--model", bert, *SHORT, "--dry-run")
    assert run_in(folder, *words).stdout.splitlines()[-1].endswith("no runs to do, the store has them all.")


def test_what_belongs_in_the_protocol_is_refused_beside_one(first, folder: Path, run_in):
    done = run_in(folder, "compare", "c/protocol.yaml", "--steps", "9")
    assert done.returncode == 2
    assert "`--steps` belongs in the protocol" in done.stderr


def test_unequal_budgets_need_a_word(foretune, tmp_path: Path, table, bert: Path):
    table(toys.rows("classification"), "train.csv")
    methods = ["lora", {"name": "full", "schedule": {"steps": 9}}]
    plain = {"tasks": ["train.csv"], "methods": methods, "model": str(bert), "steps": 3, "shots": [4]}
    (tmp_path / "p.yaml").write_text(yaml.safe_dump(plain), encoding="utf-8")
    refused = foretune("compare", "p.yaml")
    assert refused.returncode == 2
    assert "--allow-unequal" in refused.stderr
    allowed = foretune("compare", "p.yaml", "--allow-unequal", "--dry-run")
    assert allowed.returncode == 0, allowed.stderr
    assert "allow_unequal: true" in allowed.stdout
