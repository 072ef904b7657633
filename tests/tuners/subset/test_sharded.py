"""FSDP2: of a tensor in shards the subset is that of the whole tensor, in memory and on disk; and what is refused."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from sharded_run import STEPS, network, run
from test_subset_networks import mixture
from torch import distributed
from torch.distributed.fsdp import fully_shard

import foretune
from foretune.errors import UsageError
from foretune.testing import toys
from foretune.tuners.dynamic_subset import DynamicSubset, StaticSubset
from foretune.tuners.subset.model import dst_optimizer, learned

CASES = {
    "adafactor": {"more": ["embeddings"]},
    "freed": {"free": True, "distance": "rel"},
    "sgd": {"optimizer": "sgd", "lr": 0.5, "weight_decay": 0.1, "reset": False, "more": ["embeddings", "norms"]},
    "adamw": {"optimizer": "adamw", "distance": "rel", "dropped_state": "mask"},
    "frozen": {"select_steps": 0.3, "refresh_every": 3, "gather": False, "freeze": "certificate"},
}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of runs of all cases, by the number of processes. Three run one case: of a table of two rows one of
    them has none.

    Adafactor's first step is as long for all weights of a vector, so that rounding would choose: there are none here.
    """
    folder = tmp_path_factory.mktemp("sharded")
    cases = {2: list(CASES.values()), 3: list(CASES.values())[:1]}
    script = str(Path(__file__).with_name("sharded_run.py"))
    done = subprocess.run(
        [sys.executable, script, str(folder), json.dumps(cases)],
        capture_output=True,
        text=True,
        timeout=240,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return folder


@pytest.mark.parametrize(("world", "case"), [*((2, case) for case in CASES), (3, "adafactor")])
def test_check_12_the_subset_of_shards_is_that_of_one_process_in_every_step(world: int, case: str, made: Path) -> None:
    place = made / str(world) / str(list(CASES).index(case))
    expected: list[dict[str, torch.Tensor]] = []
    model = run(network(), dict(CASES[case]), lambda step, held: expected.append(held))
    for step, one in enumerate(expected):
        found = load_file(place / f"{step}.safetensors")
        assert found.keys() == one.keys()
        for name, tensor in one.items():
            if name.endswith("dst_indices"):
                assert torch.equal(found[name], tensor), (step, name)
            else:
                torch.testing.assert_close(found[name], tensor, rtol=1e-3, atol=2e-5)
    moved = sum(not torch.equal(expected[0][name], expected[-1][name]) for name in expected[0] if "indices" in name)
    assert moved > 0
    options = {name: value for name, value in CASES[case].items() if name not in ("free", "lr")}
    restored = DynamicSubset(**{"density": 0.05, **options}).restore(network(), place / "saved")
    last = load_file(place / f"{STEPS - 1}.safetensors")
    for name, tensor in learned(restored).items():
        assert torch.equal(tensor, last[name]), name
    assert learned(restored).keys() == learned(model).keys()


@pytest.fixture
def alone(tmp_path: Path) -> Iterator[None]:
    """A process group of one."""
    distributed.init_process_group("gloo", init_method=f"file://{tmp_path / 'meeting'}", rank=0, world_size=1)
    yield
    distributed.destroy_process_group()


def optimizer(model: torch.nn.Module) -> torch.optim.Optimizer:
    kind, settings = dst_optimizer(model)
    return kind([{"params": [p for p in model.parameters() if p.requires_grad]}], **settings)


def test_check_18_sharding_after_the_subset_was_attached_is_refused(alone: None) -> None:
    model = DynamicSubset().attach(network(), ("classifier",))
    with pytest.raises(UsageError, match=r"must keep the tensors.*was replaced.*Call `fully_shard`.*before"):
        optimizer(fully_shard(model))


def test_check_18_silos_of_several_shards_and_of_sharded_experts_are_refused(alone: None) -> None:
    with pytest.raises(UsageError, match=r"silo of a sharded tensor.*would hold \d+.*`silo=tensor`"):
        DynamicSubset(silo="layer").attach(fully_shard(network()), ("classifier",))
    with pytest.raises(UsageError, match=r"budgets of their own.*experts.* is sharded. Use `silo=tensor`"):
        DynamicSubset(silo="expert").attach(fully_shard(mixture()))


@pytest.mark.parametrize("form", ["supertuning", "lora", "full"])
def test_check_18_an_export_of_a_piece_of_the_subset_is_refused(form: str, alone: None, tmp_path: Path) -> None:
    model = foretune.get_peft_model(fully_shard(network()), DynamicSubset())
    with pytest.raises(UsageError, match=r"must hold the whole subset, but `.*is sharded. Save the delta, and restore"):
        model.export_to(form, tmp_path / "out")


def test_check_18_a_static_mask_over_shards_is_refused_before_anything_moves(alone: None) -> None:
    model = StaticSubset().attach(fully_shard(network()), ("classifier",))
    step = optimizer(model)
    before = [parameter.to_local().clone() for parameter in model.parameters()]
    model(**toys.batch(model)).logits.square().sum().backward()
    with pytest.raises(UsageError, match=r"static mask.*is sharded. Use DDP"):
        step.step()
    assert all(torch.equal(p.to_local(), old) for p, old in zip(model.parameters(), before, strict=True))


def test_check_18_a_tensor_that_is_cut_along_its_columns_is_refused(alone: None) -> None:
    from torch.distributed.tensor import Shard

    made = fully_shard(network(), shard_placement_fn=lambda parameter: Shard(parameter.dim() - 1))
    with pytest.raises(UsageError, match=r"sharded along its first dimension.*Shard\(dim=1\).*`fully_shard` as it is"):
        DynamicSubset().attach(made, ("classifier",))
