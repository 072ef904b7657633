"""A run that was killed or stopped goes on and ends with the bits of one that was not."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv
import pytest

from foretune.errors import Interrupted, StoreError
from foretune.records import ModelRef, Part, RunConfig, RunRecord
from foretune.store.folder import read_run
from foretune.tasks import Task
from foretune.testing import toys
from foretune.training import state as saved_state
from foretune.training.progress import Progress
from foretune.training.run import train

Config = Callable[..., RunConfig]
METHODS = {
    "lora": Part("lora", {"rank": 2}),
    "full": Part("full"),
    "dropout": Part("lora", {"rank": 2, "dropout": 0.2}),
    "simplex": Part("prefix-subspace", {"length": 3, "beta": 1.0, "prefix_dropout": 0.2, "predict": "ensemble"}),
    "subset": Part("dynamic-subset", {"density": 0.05, "silo": "layer"}),
}
STEPS = 16


def bits(folder: Path) -> dict[str, bytes]:
    """Everything that a run leaves, but for its record, which holds seconds and dates."""
    kept = [p for p in (folder / "adapter").iterdir() if p.name != "foretune.json"]
    return {p.name: p.read_bytes() for p in (*kept, folder / "predictions.parquet")}


def outcome(record: RunRecord) -> dict[str, Any]:
    """What a record says of the outcome, without seconds and dates."""
    plain = record.to_json()
    plain["curve"] = [{**p, "seconds": 0} for p in plain["curve"]["points"]]
    keys = ("curve", "evaluations", "chosen_step", "steps_done", "temperature", "initial_hash", "config", "notes")
    return {**{key: plain[key] for key in keys}, "tokens": record.cost.tokens}


@pytest.fixture(scope="module")
def killed(config: Config, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """The folder of all runs, and how many steps each took."""
    folder = tmp_path_factory.mktemp("killed")
    rows = toys.rows("classification")
    table = pa.table({key: [row[key] for row in rows] for key in ("text", "label")})
    pyarrow.csv.write_csv(table, folder / "train.csv")
    task = Task.from_csv(folder / "train.csv")
    dropped = toys.checkpoint(
        folder / "model", "bert", hidden_dropout_prob=0.2, attention_probs_dropout_prob=0.2, classifier_dropout=0.2
    )
    asked = {}
    for name, tuner in METHODS.items():
        base = replace(config(tuner=tuner, steps=STEPS, evaluations=4), task=task.ref)
        asked[name] = (replace(base, model=ModelRef(str(dropped))) if name == "dropout" else base).to_json()
    script = Path(__file__).with_name("killed_runs.py")
    done = subprocess.run(
        [sys.executable, str(script), json.dumps(asked), str(folder), "4"], capture_output=True, text=True, timeout=240
    )
    assert done.returncode == 0, done.stderr[-2000:]
    told: dict[str, Any] = {}
    for line in done.stdout.splitlines():
        told |= json.loads(line)
    return folder, told


@pytest.mark.parametrize("name", METHODS)
def test_a_run_killed_at_any_moment_ends_with_the_same_bits(name: str, killed: tuple[Path, dict[str, Any]]) -> None:
    folder, told = killed
    assert bits(folder / name / "killed") == bits(folder / name / "whole")
    whole, pieces = (read_run(folder / name / part) for part in ("whole", "killed"))
    assert whole.status == pieces.status == "ok"
    assert outcome(whole) == outcome(pieces)
    assert told[name]["whole"] == STEPS
    assert told[name]["last"] < STEPS


def test_dropout_was_at_work_in_the_run_that_has_it(killed: tuple[Path, dict[str, Any]]) -> None:
    folder, _ = killed
    losses = [read_run(folder / name / "whole").curve.of("train", "loss")[1] for name in ("lora", "dropout")]
    assert losses[0] != losses[1]


class Signals(Progress):
    """Sends a signal to this very process at one step."""

    def __init__(self, number: int, at: int) -> None:
        self.number, self.at = number, at

    def step(self, step: int, loss: float, seconds_left: float) -> None:
        if step == self.at:
            os.kill(os.getpid(), self.number)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_leaves_a_folder_that_goes_on(
    number: int, config: Config, task: Callable[..., Task], tmp_path: Path
) -> None:
    asked = config(steps=STEPS)
    handler = signal.getsignal(number)
    with pytest.raises(Interrupted, match=f"step 7 of {STEPS}"):
        train(asked, task=task(), folder=tmp_path / "run", progress=Signals(number, 7), floors=False)
    assert signal.getsignal(number) is handler
    record = read_run(tmp_path / "run")
    assert record.status == "stopped"
    assert record.steps_done == 7
    assert record.curve.of("train", "loss")[0] == list(range(1, 8))
    assert (tmp_path / "run" / "checkpoint" / "latest").exists()
    assert not (tmp_path / "run" / "adapter").exists()
    seen: list[int] = []
    watched = Progress()
    watched.step = lambda step, loss, left: seen.append(step)  # type: ignore[method-assign]
    resumed = train(asked, task=task(), folder=tmp_path / "run", progress=watched, floors=False)
    whole = train(asked, task=task(), folder=tmp_path / "whole", floors=False)
    assert seen == list(range(8, STEPS + 1))
    assert outcome(resumed) == outcome(whole)
    assert bits(tmp_path / "run") == bits(tmp_path / "whole")
    assert not (tmp_path / "run" / "checkpoint").exists()


def test_patience_counts_on_over_a_stop(config: Config, task: Callable[..., Task], tmp_path: Path) -> None:
    asked = config(steps=STEPS, evaluations=STEPS, patience=3, lr=1e-9)
    whole = train(asked, task=task(), folder=tmp_path / "whole", floors=False)
    with pytest.raises(Interrupted):
        train(asked, task=task(), folder=tmp_path / "run", progress=Signals(signal.SIGTERM, 2), floors=False)
    assert outcome(train(asked, task=task(), folder=tmp_path / "run", floors=False)) == outcome(whole)
    assert whole.steps_done < STEPS


def test_the_state_of_another_run_is_not_continued(config: Config, task: Callable[..., Task], tmp_path: Path) -> None:
    with pytest.raises(Interrupted):
        train(config(), task=task(), folder=tmp_path, progress=Signals(signal.SIGTERM, 2), floors=False)
    with pytest.raises(StoreError, match="another run"):
        train(config(lr=1e-3), task=task(), folder=tmp_path, floors=False)


@pytest.mark.parametrize("file", ["state.json", "weights.safetensors", "moments.safetensors", "best.safetensors"])
def test_a_spoiled_state_is_reported_with_the_way_out(
    file: str, config: Config, task: Callable[..., Task], tmp_path: Path
) -> None:
    with pytest.raises(Interrupted):
        train(config(), task=task(), folder=tmp_path, progress=Signals(signal.SIGTERM, 2), floors=False)
    (spoiled,) = tmp_path.glob(f"checkpoint/step-*/{file}")
    spoiled.write_bytes(spoiled.read_bytes()[:20])
    with pytest.raises(StoreError, match=r"cannot be read.*Delete"):
        train(config(), task=task(), folder=tmp_path, floors=False)


def test_a_save_that_fails_leaves_the_one_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    weights = {"a": torch.ones(2)}
    saved_state.save(tmp_path, saved_state.State("run", step=1), weights, weights, {})

    def full(source: Path, target: Path) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(saved_state.os, "replace", full)
    with pytest.raises(StoreError, match="No space left"):
        saved_state.save(tmp_path, saved_state.State("run", step=2), weights, weights, {})
    found = saved_state.load(tmp_path)
    assert found is not None
    assert found[0].step == 1


def test_only_the_latest_save_is_kept(tmp_path: Path) -> None:
    import torch

    weights = {"a": torch.ones(2)}
    for step in (1, 2, 3):
        saved_state.save(tmp_path, saved_state.State("run", step=step), weights, weights, {})
    assert sorted(p.name for p in tmp_path.iterdir()) == ["latest", "step-00000003"]
