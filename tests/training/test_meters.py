"""Seconds are counted once, memory above what was there, operations by the formula."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import numpy as np
import pytest
import torch

from foretune.records import Part, RunConfig
from foretune.tasks import Task
from foretune.training import meters
from foretune.training import probe as probing
from foretune.training.meters import PeakMemory, Stopwatch, memory_estimate, training_flops
from foretune.training.prepare import prepare
from foretune.training.probe import estimate_bytes, probe
from foretune.training.run import train
from foretune.training.surroundings import stream, surroundings


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """A clock that goes on by one second at every look."""
    ticks = itertools.count()
    monkeypatch.setattr(meters.time, "perf_counter", lambda: float(next(ticks)))


def test_an_inner_phase_stops_the_outer_one(clock: None) -> None:
    watch = Stopwatch()
    with watch("outer"):
        with watch("inner"):
            pass
        with watch("inner"):
            pass
    assert dict(watch.seconds) == {"outer": 3.0, "inner": 2.0}


def test_a_phase_that_fails_is_counted_and_closed(clock: None) -> None:
    watch = Stopwatch()
    with pytest.raises(KeyError), watch("train"):
        raise KeyError
    with watch("eval"):
        pass
    assert dict(watch.seconds) == {"train": 1.0, "eval": 1.0}


def test_a_stopwatch_goes_on_from_earlier_seconds(clock: None) -> None:
    watch = Stopwatch({"train": 10.0})
    with watch("train"):
        pass
    assert watch.seconds["train"] == 11.0


def test_the_phases_of_a_run_do_not_overlap(config: Callable[..., RunConfig], task: Callable[..., Task]) -> None:
    import time

    start = time.perf_counter()
    record = train(config(steps=5), task=task())
    whole = time.perf_counter() - start
    cost = record.cost
    assert min(cost.train_seconds, cost.eval_seconds, cost.setup_seconds, cost.floor_seconds) > 0
    assert cost.seconds <= whole
    assert record.curve.points[-1].seconds <= cost.train_seconds


def test_peak_memory_is_what_came_on_top() -> None:
    memory = PeakMemory(torch.device("cpu"))
    assert memory.sample() < 2**24
    held = np.ones(2**24)
    memory.sample()
    del held
    assert memory.sample() >= 2**26


def test_operations_follow_the_literature() -> None:
    assert training_flops(1_000, 1_000, 50) == 6 * 1_000 * 50
    assert training_flops(1_000, 0, 50) == 4 * 1_000 * 50


def test_operations_count_the_weights_that_multiply(
    config: Callable[..., RunConfig], task: Callable[..., Task]
) -> None:
    record = train(config(steps=2, tuner=Part("full")), task=task(), floors=False)
    cost = record.cost
    assert cost.trainable_parameters == cost.total_parameters
    embeddings = 40 * 16
    assert cost.flops == 6 * (cost.total_parameters - embeddings) * cost.tokens


def test_a_subset_has_the_operations_of_full_tuning_and_not_its_memory(
    config: Callable[..., RunConfig], task: Callable[..., Task]
) -> None:
    subset = Part("dynamic-subset", {"density": 0.001, "more": ["embeddings", "norms", "biases"]})
    costs = [train(config(steps=2, tuner=tuner), task=task(), floors=False).cost for tuner in (subset, Part("full"))]
    assert costs[0].trainable_parameters < 0.1 * costs[1].trainable_parameters
    assert costs[0].flops == pytest.approx(costs[1].flops, rel=0.05)
    subset, full = (estimate_bytes(prepare(config(tuner=tuner), task())) for tuner in (subset, Part("full")))
    assert subset < full


@pytest.mark.parametrize("name", ["bert", "gpt2", "distilbert", "t5", "llama"])
def test_the_estimate_of_memory_knows_the_shape_of_every_family(
    name: str, config: Callable[..., RunConfig], task: Callable[..., Task]
) -> None:
    run = prepare(config(name=name), task())
    small, large = (estimate_bytes(_with_batch(run, size)) for size in (1, 8))
    weights = sum(p.numel() for p in run.engine.bare.parameters())
    longest = int(run.encoded["train"].lengths.max())
    per_row = 2 * (4 if name == "t5" else 2) * longest * (34 * 16 + 5 * 2 * longest)
    assert large - small == 7 * per_row
    assert small > 4 * weights + per_row


def test_full_tuning_needs_more_memory_than_lora() -> None:
    shape = {"hidden": 16, "layers": 2, "heads": 2, "rows": 8, "length": 10}
    assert memory_estimate(1000, 12_000, **shape) - memory_estimate(1000, 120, **shape) == 12 * 990
    assert memory_estimate(9, 9, **shape, outputs=50) - memory_estimate(9, 9, **shape) == 12 * 8 * 10 * 50


def test_a_probe_measures_and_leaves_the_run_as_it_was(
    config: Callable[..., RunConfig], task: Callable[..., Task]
) -> None:
    asked = config(steps=3)
    before = train(asked, task=task(), floors=False)
    found = probe(asked, task())
    assert min(found.setup_seconds, found.step_seconds, found.example_seconds, found.bytes) > 0
    assert found.evaluated == before.evaluations["dev"].n
    assert found.judged == sum(e.n for e in before.evaluations.values())
    assert found.trainable == before.cost.trainable_parameters
    assert found.total(10, 2) > found.total(1, 1)
    after = train(asked, task=task(), floors=False)
    assert after.curve.of("train", "loss") == before.curve.of("train", "loss")


@pytest.mark.parametrize(("limit", "steps"), [(1e9, 23), (0.0, 8)])
def test_a_probe_times_twenty_steps_and_fewer_where_they_are_long(
    limit: float, steps: int, config: Callable[..., RunConfig], task: Callable[..., Task], monkeypatch
) -> None:
    made: list[int] = []
    step = probing.optimizer_step
    monkeypatch.setattr(probing, "optimizer_step", lambda *given: (made.append(given[-1]), step(*given))[1])
    monkeypatch.setattr(probing, "SECONDS", limit)
    assert probe(config(steps=3), task()).step_seconds > 0
    assert made == list(range(steps))


def test_every_use_of_a_seed_has_a_stream_of_its_own() -> None:
    names = ("init", "order", "dropout")
    found = {stream(name, seed, *more) for name in names for seed in range(20) for more in ((), (0,), (1,), (0, 0))}
    assert len(found) == 3 * 20 * 4
    assert all(0 <= seed < 2**63 for seed in found)


def test_the_surroundings_name_versions_but_neither_host_nor_user() -> None:
    import getpass
    import platform

    found = surroundings("cpu", 1)
    assert {"python", "torch", "peft", "device", "threads", "processes"} <= set(found)
    assert platform.node() not in found.values()
    assert getpass.getuser() not in found.values()


def _with_batch(run: object, size: int):  # type: ignore[no-untyped-def]
    from dataclasses import replace

    schedule = replace(run.config.schedule, batch_size=size)  # type: ignore[attr-defined]
    return replace(run, config=replace(run.config, schedule=schedule))  # type: ignore[type-var, attr-defined]
