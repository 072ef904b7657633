"""A run that holds several models hands over one of them: the midpoint, or the point that was asked for."""

import json
import os
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
from export_cases import Runs
from peft import PrefixTuningConfig
from safetensors.torch import load_file

from foretune.errors import ModelError, UsageError
from foretune.export import FORMATS, check, export
from foretune.export.source import Source
from foretune.records import Part
from foretune.testing import toys
from foretune.training.predictor import Predictor
from foretune.tuners import make

STOCK = ("bert", "roberta", "llama", "qwen3", "gpt2")


def test_the_midpoint_leaves_as_an_ordinary_prefix(runs: Runs, tmp_path: Path) -> None:
    source = Source.open(runs("simplex"))
    assert source.wanted == "recorded predictions"
    FORMATS["peft"](source, tmp_path)
    before = load_file(source.adapter / "adapter_model.safetensors")
    after = load_file(tmp_path / "adapter_model.safetensors")
    assert set(after) < set(before)
    assert not [name for name in after if "simplex" in name]
    assert all(after[name].equal(before[name]) for name in after)
    config = json.loads((tmp_path / "adapter_config.json").read_text(encoding="utf-8"))
    assert set(config) <= {field.name for field in fields(PrefixTuningConfig)} | {"peft_version"}
    rows = check.recorded(source)
    again = Predictor.load(tmp_path, str(runs("simplex").with_name("simplex-base")))(rows)
    np.testing.assert_allclose(again["probability"].to_numpy(), rows["probability"].to_numpy(), rtol=1e-6)


def test_another_point_is_checked_against_foretune_itself_by_the_command(runs: Runs, tmp_path: Path) -> None:
    words = ["export", str(runs("simplex")), "--to", "peft", "--collapse", "vertex:1", "--out", str(tmp_path / "out")]
    done = subprocess.run(
        [sys.executable, "-m", "foretune", *words],
        capture_output=True,
        encoding="utf-8",
        env={**os.environ, "HF_HUB_OFFLINE": "1"},
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "predictions that foretune makes at `vertex:1`: largest difference" in done.stdout
    how = json.loads((tmp_path / "out" / "export.json").read_text(encoding="utf-8"))
    assert (how["point"], how["check"]["other"]) == ("vertex:1", 0)
    page = (tmp_path / "out" / "README.md").read_text(encoding="utf-8")
    assert "foretune makes at `vertex:1`" in page
    assert "recorded predictions" not in page
    vertices = load_file(runs("simplex") / "adapter" / "adapter_model.safetensors")["simplex_vertices"]
    assert load_file(tmp_path / "out" / "adapter_model.safetensors")["prompt_embeddings"].equal(vertices[1])
    recorded = check.recorded(Source.open(runs("simplex")))["probability"].to_numpy()
    there = check.expected(Source.open(runs("simplex"), collapse="vertex:1"))["probability"].to_numpy()
    assert np.abs(recorded - there).max() > 10 * check.TOLERANCE


def test_the_midpoint_of_an_ensemble_is_handed_over_when_asked_for(runs: Runs, tmp_path: Path) -> None:
    source = Source.open(runs("ensemble"), collapse="midpoint")
    FORMATS["peft"](source, tmp_path)
    wanted, recorded = (rows(source)["probability"].to_numpy() for rows in (check.expected, check.recorded))
    assert np.abs(wanted - recorded).max() > 2 * check.TOLERANCE
    base = str(runs("ensemble").with_name("ensemble-base"))
    again = Predictor.load(tmp_path, base)(check.recorded(source))
    np.testing.assert_allclose(again["probability"].to_numpy(), wanted, rtol=1e-6)


@pytest.mark.parametrize(
    ("name", "point", "says"),
    [
        ("mean", "midpoint", "`lora` holds one"),
        ("prefix", "vertex:0", "`prefix-tuning` holds one"),
        ("simplex", "vertex:9", "`vertex:0` to `vertex:2`"),
        ("simplex", "corner", "`corner`"),
    ],
)
def test_a_point_that_does_not_exist_is_refused(name: str, point: str, says: str, runs: Runs, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=says):
        export(runs(name), "peft", out=tmp_path / "out", collapse=point)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("tuner", ["prefix-tuning", "prefix-subspace"])
@pytest.mark.parametrize("name", toys.ARCHITECTURES)
def test_networks_to_which_stock_peft_gives_no_prefix_are_known_before_their_weights_are_read(
    name: str, tuner: str
) -> None:
    method, unshifted = make(Part(tuner)), make(Part(tuner, {"position_mode": "no_shift"}))
    with pytest.raises(ModelError, match="position_mode=no_shift"):
        unshifted.require_stock(toys.config(name))
    if name in STOCK or name.startswith("gemma"):
        method.require_stock(toys.config(name))
    else:
        with pytest.raises(ModelError, match=f"`{toys.config(name).model_type}`.*foretune predict"):
            method.require_stock(toys.config(name))
