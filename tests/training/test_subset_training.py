"""A subset in the loop: micro-batches, clipping, two processes, a stop and what lies on disk, the record."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pytest
import torch
from safetensors.torch import load_file
from subset_run import held

from foretune.errors import Interrupted, UsageError
from foretune.records import ModelRef, Part, RunConfig
from foretune.store.folder import read_run
from foretune.tasks import Task
from foretune.testing import toys
from foretune.training.loop import optimizer_step
from foretune.training.optimizer import make_optimizer
from foretune.training.prepare import Prepared, prepare, trainable
from foretune.training.progress import Progress
from foretune.training.run import train
from foretune.tuners.dynamic_subset import DynamicSubset
from foretune.tuners.subset import silo as silos
from foretune.tuners.subset.model import subset_of
from foretune.tuners.subset.rules import RULES

Config = Callable[..., RunConfig]
Tasks = Callable[..., Task]
ROWS = (np.arange(8), np.arange(8, 19), np.arange(4, 13))


def moving(**options: object) -> Part:
    return Part("dynamic-subset", {"density": 0.05, **options})


@pytest.fixture
def spread(config: Config, tmp_path: Path) -> Config:
    """``config`` on a toy to which texts look different."""
    made = toys.checkpoint(tmp_path / "spread", "bert", initializer_range=0.2)
    return lambda **options: replace(config(**options), model=ModelRef(str(made), pooling="mean"))


def stepped(run: Prepared) -> Prepared:
    """The run after one step on each of ``ROWS``."""
    optimizer = make_optimizer(run)
    for step, rows in enumerate(ROWS):
        optimizer_step(run, optimizer, rows, step)
    return run


@pytest.mark.parametrize("clip", [None, 0.05], ids=["unclipped", "clipped"])
@pytest.mark.parametrize("rule", sorted(RULES))
def test_check_11_micro_batches_choose_what_the_whole_batch_chooses(
    rule: str, clip: float | None, spread: Config, task: Tasks
) -> None:
    distance = "rel" if rule == "adamw" else "abs"  # AdamW's first step is as long everywhere: rounding would choose
    tuner = moving(optimizer=rule, silo="layer", distance=distance)
    one, parts = (
        stepped(prepare(spread(tuner=tuner, micro_batch=size, clip=clip, lr=1e-2), task())) for size in (None, 3)
    )
    for mine, expected in zip(subset_of(parts.engine.bare).parts, subset_of(one.engine.bare).parts, strict=True):
        assert torch.equal(mine.index, expected.index), mine.name
    for name, weight in trainable(parts.engine.bare).items():
        torch.testing.assert_close(weight, trainable(one.engine.bare)[name], rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("clip", [None, 0.05], ids=["unclipped", "clipped"])
@pytest.mark.parametrize("rule", sorted(RULES))
def test_check_11_gradients_are_clipped_but_for_a_rule_that_limits_its_steps_itself(
    rule: str, clip: float | None, spread: Config, task: Tasks, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = prepare(spread(tuner=moving(optimizer=rule), clip=clip, lr=1e-2, micro_batch=4), task())
    dense = {name: p.detach().clone() for name, p in trainable(run.engine.bare).items()}
    base, states = {name: tensor.clone() for name, tensor in dense.items()}, {name: {} for name in dense}
    budgets = {silo.parts[0].name: silo.k for silo in subset_of(run.engine.bare).silos}
    optimizer, norms = make_optimizer(run), []
    own_step = optimizer.step

    def step() -> None:
        """The dense reference moves by the gradients that the rule is given."""
        grads = {name: p.grad.clone() for name, p in trainable(run.engine.bare).items()}
        norms.append([float(torch.stack([grads[n].norm() for n in names]).norm()) for names in (budgets, rest)])
        for name, k in budgets.items():
            rate = optimizer.param_groups[0]["lr"]
            hat = RULES[rule]().propose(silos.Part(name, dense[name]), grads[name], states[name], rate).dense()
            order = (hat - base[name].flatten()).abs().sort(descending=True, stable=True).indices[:k]
            keep = torch.zeros(hat.numel(), dtype=torch.bool)
            keep[order] = True
            dense[name] = torch.where(keep, hat, base[name].flatten()).view(base[name].shape)
        own_step()

    rest = [name for name in dense if name not in budgets]
    monkeypatch.setattr(optimizer, "step", step)
    for number, rows in enumerate(ROWS):
        optimizer_step(run, optimizer, rows, number)
        for name in budgets:
            assert torch.equal(run.engine.bare.get_parameter(name).detach(), dense[name]), name
    assert clip is None or all(head < 1.01 * clip for _, head in norms)
    assert (max(own for own, _ in norms) <= 1.01 * (clip or torch.inf)) == (clip is None or rule != "adafactor")


def test_check_10_gradients_freed_in_the_backward_pass_give_the_same_bits(
    spread: Config, task: Tasks, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = spread(tuner=moving(), clip=0.05, lr=1e-2)
    freed = stepped(prepare(asked, task()))
    monkeypatch.setattr("foretune.tuners.subset.model.freeable", lambda model, schedule: False)
    kept = stepped(prepare(asked, task()))
    for name, weight in trainable(freed.engine.bare).items():
        assert torch.equal(weight, trainable(kept.engine.bare)[name]), name


def test_check_18_gradients_that_are_gathered_cannot_be_clipped(spread: Config, task: Tasks) -> None:
    fast = {"preset": "fast", "optimizer": "sgd"}
    with pytest.raises(UsageError, match=r"clip=0.5 with gather=true and optimizer=sgd.*`gather=false`.*`--clip 0`"):
        make_optimizer(prepare(spread(tuner=moving(**fast), clip=0.5), task()))
    for tuner, clip in ((moving(**fast), None), (moving(**fast, gather=False), 0.5), (moving(preset="fast"), 0.5)):
        assert make_optimizer(prepare(spread(tuner=tuner, clip=clip), task()))


@pytest.mark.parametrize(
    ("world", "options"),
    [(2, {"silo": "layer"}), (4, {"select_steps": 0.4, "refresh_every": 2, "gather": False})],
    ids=["two_exact", "four_amortised"],
)
def test_check_12_several_processes_hold_what_one_holds_after_every_step(
    world: int, options: dict[str, object], spread: Config, tmp_path: Path
) -> None:
    rows = toys.rows("classification")
    table = pa.table({key: [row[key] for row in rows] for key in ("text", "label")})
    pyarrow.csv.write_csv(table, tmp_path / "train.csv")
    task = Task.from_csv(tmp_path / "train.csv")
    asked = replace(spread(tuner=moving(**options), micro_batch=3, clip=0.2, lr=1e-2), task=task.ref)
    one = held(asked, task)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    script = Path(__file__).with_name("subset_run.py")
    done = subprocess.run(
        [sys.executable, str(script), str(world), json.dumps(asked.to_json()), str(port), str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=240,
        env={**os.environ, "OMP_NUM_THREADS": "1", "HF_HOME": str(tmp_path)},
    )
    assert done.returncode == 0, done.stderr[-3000:]
    first, *others = (json.loads((tmp_path / f"{rank}.json").read_text(encoding="utf-8")) for rank in range(world))
    assert all(other == first for other in others)
    assert first["places"] == one["places"]
    assert len(set(one["places"])) > 1
    assert len(set(one["values"])) == len(one["values"])


class Signals(Progress):
    """Sends SIGTERM to this very process at one step."""

    def __init__(self, at: int) -> None:
        self.at = at

    def step(self, step: int, loss: float, seconds_left: float) -> None:
        if step == self.at:
            os.kill(os.getpid(), signal.SIGTERM)


FISHER = Part("static-subset", {"density": 0.05, "mask": "fisher", "warmup": 3})


@pytest.mark.parametrize(
    ("kind", "name", "tuner"),
    [
        ("classification", "bert", FISHER),
        ("generation", "llama", moving(optimizer="sgd")),
        ("generation", "llama", moving(optimizer="adamw", more=["embeddings"])),
    ],
    ids=["warm-up", "stateless", "moments"],
)
def test_check_08_a_stop_and_a_way_on_give_the_bits_of_one_go(
    kind: str, name: str, tuner: Part, config: Config, task: Tasks, tmp_path: Path
) -> None:
    asked = config(kind, name, tuner=tuner, steps=6, evaluations=2)
    require_equal_ends(asked, task(kind), tmp_path, [2])


def test_check_08_a_run_that_stops_while_all_compete_and_before_and_after_they_do_again_ends_with_the_same_bits(
    config: Config, task: Tasks, tmp_path: Path
) -> None:
    tuner = moving(preset="fast", select_steps=0.4, refresh_every=2, select_until=1.0, freeze="never")
    asked = config("generation", "llama", tuner=tuner, steps=8, evaluations=2)
    cadence = DynamicSubset(**tuner.options).cadence
    assert [step for step in range(1, 9) if cadence.competes(step, 8)] == [1, 2, 3, 4, 6, 8]
    require_equal_ends(asked, task("generation"), tmp_path, [2, 5, 6])


def require_equal_ends(asked: RunConfig, task: Task, folder: Path, stops: list[int]) -> None:
    """One run is stopped after each of ``stops``; it ends with the curve and the files of one that is not."""
    for stop in stops:
        with pytest.raises(Interrupted, match=f"step {stop} of"):
            train(asked, task=task, folder=folder / "run", progress=Signals(stop), floors=False)
    resumed = train(asked, task=task, folder=folder / "run", floors=False)
    whole = train(asked, task=task, folder=folder / "whole", floors=False)
    ours, others = ([(p.metric, p.step, p.value) for p in record.curve.points] for record in (resumed, whole))
    assert ours == others
    files = ("adapter_model.safetensors", "adapter_config.json")
    for file in files:
        mine, theirs = (folder / name / "adapter" / file for name in ("run", "whole"))
        assert mine.read_bytes() == theirs.read_bytes()


def test_the_checkpoint_of_an_unfinished_run_has_no_dense_copy_of_a_tensor(
    config: Config, task: Tasks, tmp_path: Path
) -> None:
    asked = config(tuner=moving(), steps=6, evaluations=6)
    with pytest.raises(Interrupted):
        train(asked, task=task(), folder=tmp_path, progress=Signals(3), floors=False)
    run = prepare(asked, task())
    subset = subset_of(run.engine.bare)
    head = sum(tensor.numel() for tensor in subset.head_base.values())
    (folder,) = (tmp_path / "checkpoint").glob("step-*")
    for file in ("weights", "best"):
        held_there = load_file(folder / f"{file}.safetensors")
        assert sum(tensor.numel() for tensor in held_there.values()) == 2 * subset.size + head
    moments = load_file(folder / "moments.safetensors")
    for part in subset.parts:
        own = [tensor.numel() for key, tensor in moments.items() if key.startswith(f"{part.name}.")]
        assert 0 < sum(own) <= sum(part.parameter.shape) + 2


def test_the_record_counts_the_subset_and_its_curve_shows_it_settle(
    config: Config, task: Tasks, tmp_path: Path
) -> None:
    asked = config(tuner=moving(), steps=12, evaluations=6)
    record = train(asked, task=task(), folder=tmp_path / "run", floors=False)
    subset = subset_of(prepare(asked, task()).engine.bare)
    head = sum(tensor.numel() for tensor in subset.head_base.values())
    assert record.cost.trainable_parameters == subset.size + head
    assert subset.size == sum(max(1, int(0.05 * len(part))) for part in subset.parts)
    files = ("adapter_model.safetensors", "adapter_config.json")
    weights, settings = ((tmp_path / "run" / "adapter" / file).stat().st_size for file in files)
    assert record.cost.adapter_bytes == weights + settings
    assert weights < 12 * subset.size + 4 * head + 512 * len(subset.parts)
    curve = read_run(tmp_path / "run").curve
    steps, churn = curve.of("train", "churn")
    assert steps == [*range(1, 13)]
    assert all(0 <= value <= 1 for value in churn)
    assert churn[0] == 1
    assert churn[-1] < churn[1]
    assert min(curve.of("train", "least_displacement")[1]) > 0


@pytest.mark.parametrize("name", ["dynamic-subset", "static-subset", "lora"])
@pytest.mark.parametrize("decay", [0.0, 0.02])
def test_the_record_says_that_the_schedules_weight_decay_is_of_the_head_alone(
    name: str, decay: float, config: Config, task: Tasks
) -> None:
    asked = config(tuner=Part(name), steps=1, evaluations=1)
    asked = replace(asked, schedule=replace(asked.schedule, weight_decay=decay))
    notes = train(asked, task=task(), floors=False).notes
    said = [note for note in notes if note.startswith("Weight decay 0.02 (`--weight-decay`) is of the head alone")]
    assert len(said) == (decay > 0 and name != "lora")


def test_bf16_products_choose_in_fp32_weights_and_the_rest_stays_the_base(config: Config, task: Tasks) -> None:
    run = prepare(config(tuner=moving(), precision="bf16"), task())
    base = {name: p.detach().clone() for name, p in trainable(run.engine.bare).items()}
    with run.engine.training():
        stepped(run)
    for part in subset_of(run.engine.bare).parts:
        assert part.parameter.dtype == torch.float32
        away = (part.weight != base[part.name].flatten()).nonzero().flatten()
        assert torch.equal(away, part.index)
