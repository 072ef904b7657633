"""Every field of the schedule and every seed changes what it says, and nothing it does not say."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from foretune.errors import UsageError
from foretune.records import Part, RunConfig, Schedule, Seeds
from foretune.tasks import Task
from foretune.training.loop import evaluation_steps, fit, optimizer_step
from foretune.training.optimizer import learning_rate, make_optimizer
from foretune.training.prepare import Prepared, prepare, trainable, weights_hash
from foretune.training.run import train

Config = Callable[..., RunConfig]
Tasks = Callable[..., Task]


def after(config: RunConfig, task: Task, steps: int | None = None) -> tuple[Prepared, dict[str, torch.Tensor]]:
    """The weights after ``steps`` steps (all of them), before any choice of a checkpoint."""
    run = prepare(config, task)
    optimizer = make_optimizer(run)
    size = config.schedule.batch_size
    for step in range(config.schedule.steps if steps is None else steps):
        rows = np.arange(size) + step % 2
        optimizer_step(run, optimizer, rows, step)
    return run, {name: p.detach().clone() for name, p in trainable(run.engine.bare).items()}


def farthest(one: dict[str, torch.Tensor], two: dict[str, torch.Tensor]) -> float:
    return max(float((one[name] - two[name]).abs().max()) for name in one)


@pytest.mark.parametrize("kind", ["classification", "generation"])
def test_gradient_accumulation_gives_the_weights_of_the_whole_batch(kind: str, config: Config, task: Tasks) -> None:
    asked = config(kind, "llama" if kind == "generation" else "bert", steps=4, lr=1e-3)
    _, whole = after(asked, task(kind))
    _, parts = after(replace(asked, schedule=replace(asked.schedule, micro_batch=3)), task(kind))
    assert farthest(whole, parts) < 1e-6


def test_gradient_accumulation_counts_questions_not_candidates(config: Config, task: Tasks) -> None:
    """By gradients: that of the last bias is 0 but for rounding, which AdamW would blow up to a whole step."""
    found = []
    for micro_batch in (None, 3):
        run = prepare(config("choice", micro_batch=micro_batch, clip=None, warmup=0.0), task("choice"))
        weights = trainable(run.engine.bare)
        before = {name: p.detach().clone() for name, p in weights.items()}
        plain = torch.optim.SGD([{"params": list(weights.values()), "peak": 1.0, "clip": True}], lr=1.0)
        loss = optimizer_step(run, plain, np.arange(8), 0)
        found.append((loss, {name: before[name] - p.detach() for name, p in weights.items()}))
    assert found[0][0] == pytest.approx(found[1][0], rel=1e-6)
    assert farthest(found[0][1], found[1][1]) < 1e-6


@pytest.mark.parametrize(
    "changed",
    [
        *({"clip": 1e-3}, {"warmup": 0.9}, {"decay": "cosine"}, {"decay": "constant"}, {"weight_decay": 0.5}),
        *({"lr": 1e-2}, {"head_lr": 1e-4}, {"precision": "bf16"}, {"steps": 13}, {"batch_size": 7}),
    ],
    ids=lambda changed: "-".join(changed),
)
def test_every_option_of_the_schedule_changes_the_weights(
    changed: dict[str, object], config: Config, task: Tasks
) -> None:
    asked = config(tuner=Part("full"), warmup=0.1)
    _, before = after(asked, task(), steps=6)
    _, now = after(replace(asked, schedule=replace(asked.schedule, **changed)), task(), steps=6)
    assert farthest(before, now) > 1e-7


def test_biases_and_norms_are_not_decayed(config: Config, task: Tasks) -> None:
    run = prepare(config(tuner=Part("full"), weight_decay=0.5, head_lr=0.1), task())
    for group in make_optimizer(run).param_groups:
        dims = {p.dim() for p in group["params"]}
        assert (dims == {1}) == (group["weight_decay"] == 0.0)
        assert dims == {1} or 1 not in dims
    fresh = dict(run.engine.bare.named_parameters())["classifier.weight"]
    (group,) = [g for g in make_optimizer(run).param_groups if any(p is fresh for p in g["params"])]
    assert group["peak"] == 0.1


def test_the_gradient_norm_is_bounded_by_clip(config: Config, task: Tasks) -> None:
    run = prepare(config(clip=0.5, lr=1.0), task())
    seen: list[float] = []

    class Watched(torch.optim.SGD):
        def step(self, closure: object = None) -> None:  # type: ignore[override]
            grads = [p.grad for g in self.param_groups for p in g["params"] if p.grad is not None]
            seen.append(float(torch.nn.utils.get_total_norm(grads)))

    optimizer = Watched([{"params": list(trainable(run.engine.bare).values()), "peak": 1.0, "clip": True}], lr=1.0)
    for parameter in trainable(run.engine.bare).values():
        parameter.data.mul_(3)
    optimizer_step(run, optimizer, np.arange(8), 0)
    assert seen[0] <= 0.5 * (1 + 1e-4)


@given(
    st.integers(1, 300),
    st.floats(0, 1),
    st.sampled_from(["linear", "cosine", "constant"]),
)
def test_the_rate_rises_to_its_peak_once_and_never_rises_again(steps: int, warmup: float, decay: str) -> None:
    schedule = Schedule(steps=steps, warmup=warmup, decay=decay)
    rates = [learning_rate(schedule, step) for step in range(steps)]
    assert all(0 < rate <= 1 for rate in rates)
    assert max(rates) == 1.0
    top = rates.index(1.0)
    assert rates[: top + 1] == sorted(rates[: top + 1])
    assert rates[top:] == sorted(rates[top:], reverse=True)


@given(st.integers(1, 500), st.integers(1, 60))
def test_dev_is_measured_at_equal_fractions_and_at_the_end(steps: int, evaluations: int) -> None:
    found = sorted(evaluation_steps(Schedule(steps=steps, evaluations=evaluations)))
    assert len(found) == min(steps, evaluations)
    assert found[-1] == steps
    gaps = np.diff([0, *found])
    assert gaps.max() - gaps.min() <= 1


@pytest.mark.parametrize(
    "wrong",
    [
        *({"steps": 0}, {"batch_size": 0}, {"micro_batch": 0}, {"lr": 0.0}, {"lr": float("nan")}, {"head_lr": -1.0}),
        *({"weight_decay": -0.1}, {"warmup": 1.5}, {"decay": "stepwise"}, {"clip": 0.0}, {"evaluations": 0}),
        *({"patience": 0}, {"precision": "fp8"}),
    ],
    ids=lambda wrong: "-".join(wrong),
)
def test_a_schedule_that_cannot_be_is_refused_with_its_value(
    wrong: dict[str, object], config: Config, task: Tasks
) -> None:
    (name,) = wrong
    with pytest.raises(UsageError, match=f"{name}=") as caught:
        prepare(config(**wrong), task())
    assert repr(wrong[name]) in str(caught.value)


def test_equal_configs_give_equal_bits_and_other_init_seeds_another_start(config: Config, task: Tasks) -> None:
    first, again, other = (train(config(seeds=Seeds(init=s)), task=task(), floors=False) for s in (0, 0, 1))
    assert first.initial_hash == again.initial_hash != other.initial_hash
    losses = [record.curve.of("train", "loss")[1] for record in (first, again, other)]
    assert losses[0] == losses[1] != losses[2]
    assert first.evaluations == again.evaluations


def test_equal_configs_leave_equal_weights_and_predictions(config: Config, task: Tasks) -> None:
    found = []
    for _ in range(2):
        run = prepare(config(), task())
        fit(run)
        found.append((weights_hash(run.engine.bare), run.engine.outputs(run.encoded["test"])))
    assert found[0][0] == found[1][0]
    np.testing.assert_array_equal(found[0][1][0], found[1][1][0])
    assert found[0][1][1] == found[1][1][1]


@pytest.mark.parametrize("seed", ["data", "init", "order", "dropout"])
def test_each_seed_changes_its_own_draw_alone(seed: str, config: Config, task: Tasks) -> None:
    tuner = Part("lora", {"dropout": 0.3})
    base, other = (prepare(config(tuner=tuner, seeds=Seeds(**{seed: value})), task()) for value in (0, 7))
    assert (base.draw.ids != other.draw.ids) == (seed == "data")
    assert (base.initial_hash != other.initial_hash) == (seed == "init")
    with torch.no_grad():  # LoRA's B is zero at first: without this its dropout would have nothing to act on
        for run in (base, other):
            for name, parameter in trainable(run.engine.bare).items():
                if "lora_B" in name:
                    parameter.fill_(0.1)
    losses = [optimizer_step(run, make_optimizer(run), np.arange(8), 0) for run in (base, other)]
    assert (losses[0] != losses[1]) == (seed in ("data", "init", "dropout"))
    curves = [fit(run).curve.of("train", "loss")[1] for run in (base, other)]
    assert curves[0] != curves[1]


def test_bf16_and_fp32_runs_follow_one_another_in_one_process(config: Config, task: Tasks) -> None:
    runs = [prepare(config(precision=precision), task()) for precision in ("fp32", "bf16", "fp32")]
    losses = [fit(run).curve.of("train", "loss")[1] for run in runs]
    assert losses[0] == losses[2]
    assert losses[0] != losses[1]
    np.testing.assert_allclose(losses[0][0], losses[1][0], rtol=0.05)
    assert {p.dtype for p in runs[1].engine.bare.parameters()} == {torch.float32}
