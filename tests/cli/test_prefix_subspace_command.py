"""A prefix subspace through the command line: classes, responses, options of the method, members."""

import csv
import io
import json
from pathlib import Path

import pytest

from foretune.testing import toys

SIMPLEX = ("--tuner", "prefix-subspace", "--option", "length=3", "--steps", "4", "--evaluations", "2")


@pytest.fixture(scope="module")
def place(tmp_path_factory, run_in) -> Path:
    """A folder with data of two kinds, three models, and a finished run on classes."""
    folder = tmp_path_factory.mktemp("place")
    for kind in ("classification", "generation"):
        toys.table(folder / f"{kind}.csv", toys.rows(kind))
    toys.checkpoint(folder / "bert", "bert", initializer_range=0.2)
    toys.checkpoint(folder / "llama", "llama", initializer_range=0.2)
    toys.checkpoint(folder / "t5", "t5", initializer_factor=3.0)
    options = ("n_vertices=4", "beta=1", "per=batch", "layerwise=false", "dev_samples=3", "init_scale=hold_rms")
    words = [word for option in options for word in ("--option", option)]
    done = run_in(folder, "tune", "classification.csv", "--model", "bert", *SIMPLEX, *words, "--out", "run")
    assert (done.returncode, done.stderr) == (0, "")
    return folder


def test_the_options_of_the_method_reach_the_run(place):
    record = json.loads((place / "run" / "run.json").read_text(encoding="utf-8"))
    found = record["config"]["tuner"]
    assert found["name"] == "prefix-subspace"
    options = {"n_vertices": 4, "beta": 1, "per": "batch", "layerwise": False, "dev_samples": 3}
    assert {name: found["options"][name] for name in options} == options
    saved = json.loads((place / "run" / "adapter" / "adapter_config.json").read_text(encoding="utf-8"))
    assert (saved["n_vertices"], saved["beta"], saved["per"], saved["layerwise"]) == (4, 1.0, "batch", False)
    assert saved["init_scale"] == "hold_rms"


def test_predict_gives_the_spread_of_members(place, run_in):
    done = run_in(place, "predict", "run", "classification.csv", "--members", "5")
    assert (done.returncode, done.stderr) == (0, "")
    rows = list(csv.DictReader(io.StringIO(done.stdout)))
    assert len(rows) == 48
    assert {row["members"] for row in rows} == {"5"}
    assert all(float(row["spread"]) > 0 and 0 <= float(row["agreement"]) <= 1 for row in rows)


@pytest.mark.parametrize("model", ["llama", "t5"])
def test_responses_are_learned_and_written_and_have_no_members(model, place, run_in):
    words = ("tune", "generation.csv", "--model", model, *SIMPLEX, "--out", f"run-{model}", "--json")
    done = run_in(place, *words)
    assert (done.returncode, done.stderr) == (0, "")
    record = json.loads(done.stdout)["record"]
    assert record["status"] == "ok"
    assert not [p for p in record["curve"]["points"] if p["metric"].endswith("_member_mean")]
    if model == "llama":
        refused = run_in(place, "predict", f"run-{model}", "generation.csv", "--members", "5")
        assert (refused.returncode, refused.stdout, len(refused.stderr.splitlines())) == (2, "", 1)
        assert "`response`" in refused.stderr


@pytest.mark.parametrize(
    ("option", "says"),
    [
        ("dev_samples=0", "`dev_samples >= 1` must hold, but got dev_samples=0"),
        ("vertices=3", "n_vertices"),
    ],
)
def test_an_option_that_cannot_be_is_refused_in_one_line(option, says, place, run_in):
    words = ("tune", "classification.csv", "--model", "bert", *SIMPLEX, "--option", option, "--out", "wrong")
    done = run_in(place, *words)
    lines = [line for line in done.stderr.splitlines() if line.startswith("Error: ")]
    assert (done.returncode, len(lines)) == (2, 1), done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert says in lines[0]
