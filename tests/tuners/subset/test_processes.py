"""What several processes may not do to a subset, and what a step refuses before anything moves."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import distributed

from foretune.errors import UsageError
from foretune.testing import toys
from foretune.tuners.dynamic_subset import DynamicSubset
from foretune.tuners.subset.model import dst_optimizer, subset_of
from foretune.tuners.subset.processes import EVERY

GATHERING = {"select_steps": 0.5, "refresh_every": 0}


def attached(**options: object) -> torch.nn.Module:
    network = toys.network("bert")
    return DynamicSubset(density=0.05, **options).attach(network, toys.fresh(network))


def optimizer_of(model: torch.nn.Module, **options: object) -> torch.optim.Optimizer:
    kind, settings = dst_optimizer(model, lr=0.01, steps=8, **options)
    return kind([{"params": [p for p in model.parameters() if p.requires_grad]}], **settings)


def loss_of(model: torch.nn.Module) -> torch.Tensor:
    return model(**toys.batch(model)).logits.square().sum()


@pytest.fixture
def two(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """As if two processes trained; the second one's numbers are this one's and what the list adds to them."""
    apart = [0]

    def all_gather(found: list[torch.Tensor], mine: torch.Tensor) -> None:
        found[0].copy_(mine)
        found[1].copy_(mine + apart[0])

    monkeypatch.setattr(distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(distributed, "get_world_size", lambda: 2)
    monkeypatch.setattr(distributed, "all_gather", all_gather)
    return apart


@pytest.fixture
def alone(tmp_path: Path) -> Iterator[None]:
    """A process group of one."""
    distributed.init_process_group("gloo", init_method=f"file://{tmp_path / 'meeting'}", rank=0, world_size=1)
    yield
    distributed.destroy_process_group()


@pytest.mark.parametrize("late", [0, EVERY])
def test_check_12_processes_that_drift_apart_are_told_within_fifty_steps(late: int, two: list[int]) -> None:
    model = attached()
    optimizer = optimizer_of(model)
    loss_of(model).backward()
    grads = {p: p.grad.clone() for p in model.parameters() if p.requires_grad}

    def step() -> None:
        for parameter, grad in grads.items():
            parameter.grad = grad.clone()
        optimizer.step()

    for _ in range(late):
        step()
    two[0] = 1
    with pytest.raises(UsageError, match=rf"after step {late + 1} process 1 holds another.*let DDP average"):
        step()


def test_check_12_a_subset_that_differs_in_one_place_has_another_hash(two: list[int]) -> None:
    from foretune.tuners.subset import processes

    model = attached()
    optimizer = optimizer_of(model)
    loss_of(model).backward()
    optimizer.step()
    for part in subset_of(model).parts:
        before = processes._hash(part)
        kept = part.index
        free = int((~torch.isin(torch.arange(len(part)), kept)).nonzero()[0])
        for place in range(len(kept)):
            part.index = kept.clone()
            part.index[place] = free
            assert int(processes._hash(part)) != int(before)
        part.index = kept


def test_check_18_gradients_of_the_subset_alone_are_refused_in_several_processes(two: list[int]) -> None:
    with pytest.raises(UsageError, match=r"one process, but there are 2. Use `gather=false`"):
        optimizer_of(attached(**GATHERING))
    optimizer_of(attached(**GATHERING, gather=False))


def test_check_18_gradients_that_are_not_averaged_yet_are_not_freed(two: list[int]) -> None:
    with pytest.raises(UsageError, match=r"there are 2 processes and each holds all of `bert.*Use `free=False`"):
        optimizer_of(attached(), free=True)


@pytest.mark.parametrize("early", ["free", "gather"])
def test_check_18_a_scaler_over_gradients_that_are_read_in_the_backward_pass_is_refused(early: str) -> None:
    model = attached(**(GATHERING if early == "gather" else {}))
    optimizer = optimizer_of(model, free=early == "free")
    before = [p.detach().clone() for p in model.parameters()]
    scaler = torch.amp.GradScaler("cpu")
    scaler.scale(loss_of(model)).backward()
    with pytest.raises(UsageError, match=r"`GradScaler` takes its scale.*Use bf16 in place of fp16, or `free=False`"):
        scaler.step(optimizer)
    assert all(torch.equal(p, old) for p, old in zip(model.parameters(), before, strict=True))


def test_check_11_a_scaler_takes_its_scale_out_of_gradients_that_are_kept() -> None:
    ends = []
    for scaler in (torch.amp.GradScaler("cpu", init_scale=1024.0), torch.amp.GradScaler("cpu", enabled=False)):
        model = attached(optimizer="sgd")
        optimizer = optimizer_of(model)
        scaler.scale(loss_of(model)).backward()
        scaler.step(optimizer)
        ends.append([p.detach() for p in model.parameters()])
    assert all(torch.equal(one, other) for one, other in zip(*ends, strict=True))
    base, tuned = toys.network("bert"), {part.name for part in subset_of(model).parts}
    moved = {name for (name, p), end in zip(base.named_parameters(), ends[0], strict=True) if not torch.equal(p, end)}
    assert tuned <= moved


def test_check_18_a_compiled_step_is_refused_and_moves_nothing() -> None:
    model = attached()
    optimizer = optimizer_of(model)
    loss_of(model).backward()
    before = [p.detach().clone() for p in model.parameters()]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises(RuntimeError, match=r"must run as it is written.*`torch.compile`. Compile the model alone"):
            torch.compile(optimizer.step, backend="eager")()
    assert all(torch.equal(p, old) for p, old in zip(model.parameters(), before, strict=True))
    torch.compiler.reset()
    optimizer.step()


def test_check_18_fsdp1_around_a_subset_is_refused(alone: None) -> None:
    from torch.distributed.fsdp import FullyShardedDataParallel

    model = attached()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model.bert.encoder.layer[0] = FullyShardedDataParallel(
            model.bert.encoder.layer[0], device_id=torch.device("cpu"), use_orig_params=True
        )
    with pytest.raises(UsageError, match=r"FSDP1 has flattened `.*layer.0._fsdp_wrapped_module.*Use DDP"):
        optimizer_of(model)


def test_check_18_zero_3_around_a_subset_is_refused() -> None:
    model = attached()
    subset_of(model).parts[2].parameter.ds_id = 3
    with pytest.raises(UsageError, match=r"ZeRO-3 has partitioned `.*Use DDP"):
        optimizer_of(model)
