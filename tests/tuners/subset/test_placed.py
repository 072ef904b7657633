"""The placement control: whole tensors by chance. Checks of ``related_methods.md`` section 4."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from foretune.errors import UsageError
from foretune.testing import toys
from foretune.tuners.dynamic_subset import StaticSubset
from foretune.tuners.subset.model import dst_optimizer, subset_of
from foretune.tuners.subset.placed import ENOUGH, Placed


def stepped(steps: int = 2, name: str = "bert", **options: object) -> torch.nn.Module:
    """A toy after some steps in which whole tensors may move."""
    network = toys.network(name)
    tuner = StaticSubset(**{"mask": "tensors", "silo": "global", **options})
    model = tuner.attach(network, toys.fresh(network))
    kind, settings = dst_optimizer(model, lr=0.01, steps=steps)
    optimizer = kind([{"params": [p for p in model.parameters() if p.requires_grad]}], **settings)
    for _ in range(steps):
        model(**toys.batch(model)).logits.square().sum().backward()
        optimizer.step()
        optimizer.zero_grad()
    return model


def shares(model: torch.nn.Module) -> list[float]:
    """Of every tensor the share that may be away from the base."""
    return [len(part.index) / len(part) for part in subset_of(model).parts]


@pytest.mark.parametrize("silo", ["global", "layer", "module_type"])
def test_a_tensor_is_in_the_subset_whole_or_not_at_all(silo: str):
    options = {"silo": silo, "density": 0.5, "more": ("biases", "norms")}
    found, before = shares(stepped(**options)), shares(stepped(steps=1, **options))
    assert set(found) == {0.0, 1.0}
    assert found == before


@pytest.mark.parametrize("density", [0.05, 0.1, 0.3, 0.6])
def test_apet_check_1_the_budget_is_met_within_5_percent_and_never_exceeded(density: float):
    model = stepped(density=density, more=("biases", "norms"))
    parts = subset_of(model).parts
    asked, held = density * sum(map(len, parts)), sum(len(part.index) for part in parts)
    assert 0.95 * asked <= held <= asked
    assert subset_of(model).size == held
    assert sum(share == 1.0 for share in shares(model)) > 1


def test_apet_check_2_a_seed_gives_one_set_and_five_seeds_give_five():
    options = {"density": 0.3, "more": ("biases", "norms")}
    sets = [tuple(shares(stepped(seed=seed, **options))) for seed in range(5)]
    assert len(set(sets)) == 5
    assert tuple(shares(stepped(seed=3, **options))) == sets[3]


@given(st.lists(st.integers(1, 50), min_size=1, max_size=8), st.data(), st.integers(0, 9))
def test_apet_check_1_what_is_granted_is_what_is_taken(sizes: list[int], data: st.DataObject, seed: int):
    k, placed = data.draw(st.integers(min(sizes), sum(sizes))), Placed(seed)
    held = placed.granted("s", sizes, k)
    taken = placed._taken("s", sizes, held, 1.0)
    assert sum(sizes[i] for i in taken) == held <= k
    assert taken == placed._taken("s", sizes, k, ENOUGH)
    rest = [size for i, size in enumerate(sizes) if i not in taken]
    assert all(size > k - held for size in rest)


def test_a_budget_below_the_smallest_tensor_is_refused_with_one_that_would_do():
    network = toys.network("bert")
    tuner = StaticSubset(density=0.001, mask="tensors", silo="global")
    with pytest.raises(UsageError, match=r"the silo `all` has \d+ weights.*Use `--density 0\.\d+`") as told:
        tuner.attach(network, toys.fresh(network))
    enough = float(str(told.value).partition("--density ")[2].partition("`")[0])
    assert sum(shares(stepped(density=enough))) == 1.0


@pytest.mark.parametrize("silo", ["tensor", "expert"])
def test_tensors_with_budgets_of_their_own_are_not_chosen_among(silo: str):
    with pytest.raises(UsageError, match=f"`silo={silo}`.*Use `silo=global`"):
        StaticSubset(mask="tensors", silo=silo)


def test_a_delta_of_whole_tensors_comes_back(tmp_path: Path):
    model = stepped(density=0.3)
    tuner = StaticSubset(density=0.3, mask="tensors", silo="global")
    tuner.save(model, tmp_path)
    again = tuner.restore(toys.network("bert"), tmp_path)
    for mine, theirs in zip(model.parameters(), again.parameters(), strict=True):
        assert torch.equal(mine, theirs)
    assert shares(again) == shares(model)
