"""Moving subsets through the command line: classes and responses, their options, predictions of a finished run."""

import csv
import io
import json
from pathlib import Path

import pytest

from foretune.testing import toys

SUBSET = ("--tuner", "dynamic-subset", "--steps", "4", "--evaluations", "2", "--json")


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    """A folder with data of two kinds and two models."""
    folder = tmp_path_factory.mktemp("place")
    for kind in ("classification", "generation"):
        toys.table(folder / f"{kind}.csv", toys.rows(kind))
    for name in ("bert", "llama"):
        toys.checkpoint(folder / name, name, initializer_range=0.2)
    return folder


@pytest.mark.parametrize(
    ("kind", "model", "options", "words"),
    [
        ("classification", "bert", {"density": 0.01}, ("--precision", "bf16")),
        ("generation", "llama", {"density": 0.02, "silo": "layer", "optimizer": "adamw"}, ("--precision", "fp32")),
    ],
)
def test_a_run_learns_a_small_delta_and_predicts(kind, model, options, words, place, run_in):
    asked = [word for name, value in options.items() for word in (f"--{name}", str(value))]
    done = run_in(place, "tune", f"{kind}.csv", "--model", model, *SUBSET, *asked, *words, "--out", f"run-{model}")
    assert (done.returncode, done.stderr) == (0, "")
    record = json.loads(done.stdout)["record"]
    assert record["status"] == "ok"
    assert record["config"]["tuner"]["name"] == "dynamic-subset"
    assert record["config"]["schedule"]["precision"] == words[1]
    assert {name: record["config"]["tuner"]["options"][name] for name in options} == options
    assert [p["step"] for p in record["curve"]["points"] if p["metric"] == "churn"] == [1, 2, 3, 4]
    assert 0 < record["cost"]["trainable_parameters"] < 0.1 * record["cost"]["total_parameters"]
    told = run_in(place, "predict", f"run-{model}", f"{kind}.csv")
    assert (told.returncode, told.stderr) == (0, "")
    assert len(list(csv.DictReader(io.StringIO(told.stdout)))) == 48


def test_what_the_weight_decay_is_of_is_said_with_the_plan_and_once_in_the_record(place, run_in):
    words = ("--model", "bert", "--tuner", "dynamic-subset", "--steps", "1", "--weight-decay", "0.05", "--json")
    planned = run_in(place, "tune", "classification.csv", *words, "--dry-run")
    said = [note for note in json.loads(planned.stdout)["notes"] if note.startswith("Weight decay 0.05")]
    assert len(said) == 1
    assert "the subset has its own, 0 (`--option weight_decay=...`)" in said[0]
    done = run_in(place, "tune", "classification.csv", *words, "--out", "decayed")
    assert json.loads(done.stdout)["record"]["notes"].count(said[0]) == 1


def test_a_density_above_one_is_refused_in_one_line(place, run_in):
    words = (*SUBSET, "--option", "density=2", "--out", "wrong")
    done = run_in(place, "tune", "classification.csv", "--model", "bert", *words)
    assert (done.returncode, len(done.stderr.splitlines())) == (2, 1), done.stderr
    assert done.stderr.startswith("Error: ")
    assert "`0 < density <= 1` must hold, but got density=2.0." in done.stderr
    assert not (place / "wrong").exists()
