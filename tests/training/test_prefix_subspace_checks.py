"""The acceptance checks of the prefix subspace's estimator, under the numbers of its specification.

21: what is pooled; 22: its Monte-Carlo error; 23: what it selects; 24: what it does not depend on; and of the checks on
the sampler and on saving the parts that need a training run: 20 (processes differ), 28 (the folder holds the midpoint).
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pytest
import torch
from members_run import observed
from safetensors.torch import load_file

from foretune.errors import UsageError
from foretune.evaluation import judge
from foretune.records import ModelRef, Part, RunConfig
from foretune.tasks import Task
from foretune.testing import toys
from foretune.training import engine as engine_module
from foretune.training.batches import by_length
from foretune.training.loop import fit
from foretune.training.measure import gold, predictions, score_dev
from foretune.training.prepare import Prepared, prepare, trainable
from foretune.training.run import train
from foretune.tuners import PrefixSubspace

Config = Callable[..., RunConfig]
Tasks = Callable[..., Task]
Make = Callable[..., Prepared]
Weights = dict[str, torch.Tensor]


def simplex(**options: object) -> Part:
    return Part("prefix-subspace", {"length": 3, **options})


@pytest.fixture(scope="module")
def spread(config: Config, tmp_path_factory: pytest.TempPathFactory) -> Config:
    """``config`` on a toy to which texts look different: at the usual standard deviation of 0.02 they hardly do."""
    folder = toys.checkpoint(tmp_path_factory.mktemp("models") / "bert", "bert", initializer_range=0.2)

    def made(kind: str = "classification", dev_fraction: float = 0.25, **options: Any) -> RunConfig:
        asked = config(kind, **options)
        return replace(
            asked, model=ModelRef(str(folder), pooling="mean"), task=replace(asked.task, dev_fraction=dev_fraction)
        )

    return made


@pytest.fixture
def make(spread: Config, task: Tasks) -> Make:
    """``make(kind, n_vertices=...)``: a prepared run with half of the rows on dev."""
    return lambda kind="classification", **options: prepare(spread(kind, 0.5, tuner=simplex(**options)), task(kind))


def member_scores(run: Prepared, count: int) -> list[float]:
    """Dev accuracy of each of ``count`` members, scored one by one."""
    dev = run.encoded["dev"]
    outputs, _ = run.engine.member_outputs(dev, run.engine.tuner.ensemble(run.engine.bare, len(dev), count))
    schema = run.task.schema
    return [
        judge(schema.kind, gold(run, "dev"), predictions(run, o), metric="accuracy").scores["accuracy"] for o in outputs
    ]


# Check 21


@pytest.mark.parametrize("samples", [2, 7, 10])
def test_check_21_pooled_accuracy_is_the_mean_accuracy_of_the_members(samples: int, make: Make) -> None:
    run = make(dev_samples=samples)
    scored, each = score_dev(run), member_scores(run, samples)
    assert len(set(each)) > 1
    assert scored["accuracy"] == pytest.approx(scored["accuracy_member_mean"], abs=1e-15)
    assert scored["accuracy"] == pytest.approx(np.mean(each), abs=1e-15)
    assert scored["accuracy_monte_carlo_error"] == pytest.approx(np.std(each, ddof=1) / np.sqrt(samples))


def test_check_21_a_correlation_pooled_is_not_the_mean_of_correlations(make: Make) -> None:
    scored = score_dev(make("regression"))
    assert scored["spearman"] != pytest.approx(scored["spearman_member_mean"], abs=1e-4)
    assert scored["spearman_monte_carlo_error"] > 0


@pytest.mark.parametrize("kind", ["classification", "regression"])
def test_check_21_who_chooses_the_mean_is_given_the_mean_and_the_pooled_metric_beside_it(kind: str, make: Make) -> None:
    pooled, mean = (score_dev(make(kind, dev_pool=pool)) for pool in ("pooled", "mean"))
    metric = next(iter(pooled))
    assert next(iter(mean)) == metric
    assert mean.pop(f"{metric}_pooled") == pooled[metric]
    assert mean[metric] == mean[f"{metric}_member_mean"] == pooled[f"{metric}_member_mean"]
    assert {**pooled, metric: mean[metric]} == mean
    with pytest.raises(UsageError, match="dev_pool"):
        make(kind, dev_pool="median")


@pytest.mark.parametrize("samples", [1, 2, 10])
def test_check_21_one_vertex_has_no_spread_for_any_number_of_members(samples: int, make: Make) -> None:
    run = make(n_vertices=1, dev_samples=samples)
    outputs, loss = run.engine.outputs(run.encoded["dev"])
    truth = gold(run, "dev")
    assert score_dev(run) == {"accuracy": pytest.approx(np.mean(outputs.argmax(1) == truth)), "loss": loss}


def test_check_21_equal_vertices_have_no_spread(make: Make) -> None:
    run = make()
    assert score_dev(run)["accuracy_monte_carlo_error"] > 0
    with torch.no_grad():
        for parameter in trainable(run.engine.bare).values():
            parameter.copy_(parameter[:1].expand_as(parameter))
    scored = score_dev(run)
    outputs, loss = run.engine.outputs(run.encoded["dev"])
    assert scored["accuracy_monte_carlo_error"] == 0
    assert scored["accuracy"] == np.mean(outputs.argmax(1) == gold(run, "dev"))
    assert scored["loss"] == pytest.approx(loss, rel=1e-5)


# Check 22


def losses(run: Prepared, count: int) -> np.ndarray:
    """Mean dev loss of each of ``count`` members."""
    dev, truth = run.encoded["dev"], gold(run, "dev")
    outputs, _ = run.engine.member_outputs(dev, run.engine.tuner.ensemble(run.engine.bare, len(dev), count))
    logs = torch.from_numpy(outputs).log_softmax(-1).numpy()
    return -logs[:, np.arange(len(truth)), truth].mean(1)


@pytest.fixture
def stacked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Many members in one pass, as on a GPU: for tiny networks that is faster here too."""
    plain = engine_module._stacks
    monkeypatch.setattr(engine_module, "_stacks", lambda count, rows, stacked: plain(count, rows, True))
    monkeypatch.setattr(engine_module, "STACKED_ROWS", 2048)


@pytest.mark.usefixtures("stacked")
def test_check_22_the_error_falls_with_the_square_root_of_the_members(make: Make) -> None:
    each = losses(make(), 64 * 96)
    error = {count: each.reshape(-1, count).mean(1).std(ddof=1) for count in (4, 16, 64)}
    assert error[4] / error[16] == pytest.approx(2, rel=0.2)
    assert error[16] / error[64] == pytest.approx(2, rel=0.2)


@pytest.mark.usefixtures("stacked")
def test_check_22_a_draw_for_every_observation_is_less_noisy_than_a_shared_one(
    easy: Callable[..., Prepared], good: Weights
) -> None:
    """With a shared draw the errors of the rows are one error; otherwise those of 13 rows partly cancel."""
    found = []
    for per in ("observation", "batch"):
        run = easy({}, per=per)
        plant(run.engine.bare, torn(good, 5.0))
        found.append(np.array(member_scores(run, 128)))
    own, shared = found
    assert own.std(ddof=1) < 0.8 * shared.std(ddof=1)
    assert own.mean() == pytest.approx(shared.mean(), abs=4 * shared.std(ddof=1) / np.sqrt(128))


# Check 23


def test_check_23_a_checkpoint_gets_the_same_number_twice(make: Make) -> None:
    run = make()
    first = score_dev(run)
    torch.manual_seed(99)
    run.engine.bare.mixture.seed(99)
    assert score_dev(run) == first
    other = replace(run, engine=replace(run.engine, tuner=replace(run.engine.tuner, dev_seed=1)))
    assert score_dev(other) != first


@dataclass(frozen=True)
class Planted(PrefixSubspace):
    """Whatever training does, after each step the weights are the planted ones of that step."""

    name: ClassVar[str] = "planted"
    plants: ClassVar[list[Weights]] = []

    def after_step(self, model: Any, step: int) -> None:
        plant(model, self.plants[step - 1])


def plant(model: torch.nn.Module, weights: Weights) -> None:
    with torch.no_grad():
        for name, parameter in trainable(model).items():
            parameter.copy_(weights[name])


@pytest.fixture(scope="module")
def easy(spread: Config) -> Callable[..., Prepared]:
    """A prepared run on texts of which every word says the label; names are the tuner's options or the schedule's."""
    words = {"good": toys.WORDS[:4], "bad": toys.WORDS[4:8]}
    pairs = [(label, a, b) for label, own in words.items() for a in own for b in own]
    task = Task.from_records([{"text": f"{a} {b} {a}", "label": label} for label, a, b in pairs])

    def made(schedule: dict[str, Any], **options: object) -> Prepared:
        asked = spread(tuner=simplex(**options), **schedule)
        return prepare(replace(asked, task=replace(task.ref, dev_fraction=0.5)), task)

    return made


@pytest.fixture(scope="module")
def good(easy: Callable[..., Prepared]) -> Weights:
    """The weights of a simplex that has learned the easy task, in each of its points."""
    run = easy({"steps": 60, "head_lr": 0.2}, init_std=0.1)
    fit(run)
    return {name: p.detach().clone() for name, p in trainable(run.engine.bare).items()}


def torn(weights: Weights, by: float) -> Weights:
    """The same midpoint with the vertices of the head far apart: between them all is noise."""
    made = dict(weights)
    name = next(name for name in weights if name.endswith("simplex_weight"))
    noise = torch.randn(weights[name].shape, generator=torch.Generator().manual_seed(0)) * by
    made[name] = weights[name] + noise - noise.mean(0)
    return made


@pytest.mark.parametrize(("samples", "best"), [(10, 2), (1, 1)])
def test_check_23_selection_picks_the_known_best_of_three_checkpoints(
    samples: int, best: int, easy: Callable[..., Prepared], good: Weights, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first has the lowest loss in its midpoint and nothing around it, the second is good everywhere, the third is
    the second upside down. Members choose the second; the midpoint alone would have chosen the first."""
    flipped = {name: -w if "simplex_" in name else w for name, w in good.items()}
    surer = {name: 1.5 * w if "simplex_" in name else w for name, w in good.items()}
    monkeypatch.setattr(Planted, "plants", [torn(surer, 10.0), good, flipped])
    run = easy({"steps": 3, "evaluations": 3}, dev_samples=samples)
    run = replace(run, engine=replace(run.engine, tuner=Planted(length=3, dev_samples=samples)))
    state = fit(run)
    assert state.best is not None
    assert -state.best[2] == best
    for name, parameter in trainable(run.engine.bare).items():
        assert torch.equal(parameter, Planted.plants[best - 1][name])
    assert state.curve.of("dev", "accuracy")[1][1] >= 0.9


# Check 24


def test_check_24_batch_and_chunk_sizes_do_not_change_the_estimate(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    run = make()
    dev = run.encoded["dev"]
    ensemble = run.engine.tuner.ensemble(run.engine.bare, len(dev), 10)
    plain, found = engine_module._stacks, []
    for size, rows, together in ((64, 512, False), (5, 512, False), (64, 512, True), (7, 15, True)):
        monkeypatch.setattr(engine_module, "by_length", partial(by_length, rows=size))
        monkeypatch.setattr(engine_module, "STACKED_ROWS", rows)
        monkeypatch.setattr(engine_module, "_stacks", lambda count, rows, stacked, on=together: plain(count, rows, on))
        found.append((run.engine.member_outputs(dev, ensemble), score_dev(run)))
    (outputs, loss), scored = found[0]
    for (other, other_loss), other_scored in found[1:]:
        np.testing.assert_allclose(other, outputs, rtol=1e-4, atol=1e-5)
        assert other_loss == pytest.approx(loss, rel=1e-5)
        assert other_scored == pytest.approx(scored, rel=1e-5)


def test_check_24_more_members_leave_the_first_ones_as_they_are(make: Make) -> None:
    run = make()
    dev = run.encoded["dev"]
    few, many = (
        run.engine.member_outputs(dev, run.engine.tuner.ensemble(run.engine.bare, len(dev), count))[0]
        for count in (3, 6)
    )
    np.testing.assert_array_equal(many[:3], few)
    assert np.abs(many[3:] - few).max() > 1e-3


# Checks 20 and 24: two processes


@pytest.fixture(scope="module")
def processes(config: Config, tmp_path_factory: pytest.TempPathFactory) -> tuple[RunConfig, list[dict[str, Any]]]:
    """The config of a run, and what each of two processes saw of it."""
    folder = tmp_path_factory.mktemp("two")
    rows = toys.rows("classification")
    table = pa.table({key: [row[key] for row in rows] for key in ("text", "label")})
    pyarrow.csv.write_csv(table, folder / "train.csv")
    asked = config(tuner=simplex(beta=2.0), clip=None, micro_batch=2, warmup=0.0)
    asked = replace(asked, task=replace(Task.from_csv(folder / "train.csv").ref, dev_fraction=0.5))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    launch = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2", "--master_port", str(port)]
    script = str(Path(__file__).with_name("members_run.py"))
    done = subprocess.run(
        [*launch, script, json.dumps(asked.to_json()), str(folder)],
        capture_output=True,
        text=True,
        timeout=240,
        env={**os.environ, "OMP_NUM_THREADS": "1", "HF_HOME": str(folder)},
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return asked, [load_file(folder / f"{rank}.safetensors") for rank in (0, 1)]


def test_check_20_processes_draw_different_weights(processes: tuple[RunConfig, list[dict[str, Any]]]) -> None:
    _, (first, second) = processes
    assert first["alpha"].shape == second["alpha"].shape
    assert not torch.isclose(first["alpha"], second["alpha"]).any()


def test_check_24_the_number_of_processes_does_not_change_the_estimate(
    processes: tuple[RunConfig, list[dict[str, Any]]],
) -> None:
    asked, two = processes
    one = observed(asked)
    assert len(one["outputs"]) == 5
    for seen in two:
        torch.testing.assert_close(seen["outputs"], one["outputs"], rtol=1e-4, atol=1e-6)
        torch.testing.assert_close(seen["score"], one["score"], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("micro_batch", [None, 2, 4])
def test_the_diversity_term_enters_once_per_step_however_it_is_split(
    micro_batch: int | None, processes: tuple[RunConfig, list[dict[str, Any]]]
) -> None:
    asked, two = processes
    one = observed(replace(asked, schedule=replace(asked.schedule, micro_batch=micro_batch)))
    assert int(one["passes"]) == {None: 1, 2: 5, 4: 3}[micro_batch]
    assert [int(seen["passes"]) for seen in two] == [3, 2]
    vertices = prepare(asked).engine.bare.mixture.prefix.vertices
    unit = vertices.flatten(1) / vertices.flatten(1).norm(dim=1, keepdim=True)
    squared = (unit @ unit.T).square()
    (wanted,) = torch.autograd.grad((squared[0, 1] + squared[0, 2] + squared[1, 2]) / 3, vertices)
    for seen in (one, *two):
        found = {name.removeprefix("penalty."): g for name, g in seen.items() if name.startswith("penalty.")}
        for name, gradient in found.items():
            expected = wanted if name.endswith("vertices") else torch.zeros_like(gradient)
            torch.testing.assert_close(gradient, expected, rtol=1e-3, atol=2e-6)


# Check 28


def test_check_28_a_run_saves_its_midpoint_whatever_mode_the_model_is_in(
    config: Config, task: Tasks, tmp_path: Path
) -> None:
    train(config(tuner=simplex(), steps=3), task=task(), folder=tmp_path / "run", floors=False)
    tensors = load_file(tmp_path / "run" / "adapter" / "adapter_model.safetensors")
    torch.testing.assert_close(tensors["prompt_embeddings"], tensors["simplex_vertices"].mean(0), rtol=0, atol=0)
    run = prepare(config(tuner=simplex()), task())
    run.engine.bare.train()
    for name in ("one", "two"):
        run.engine.tuner.save(run.engine.bare, tmp_path / name)
    files = [(tmp_path / name / "adapter_model.safetensors").read_bytes() for name in ("one", "two")]
    assert files[0] == files[1]
