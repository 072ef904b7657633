"""Where a subset lies and how far its weights moved: against what a comparison with a copy of the base gives."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
import torch
from torch import nn

from foretune.records import OUTSIDE, Displacement, Spread
from foretune.testing import toys
from foretune.testing.contracts import train
from foretune.tuners import TUNERS
from foretune.tuners.dynamic_subset import DynamicSubset, StaticSubset
from foretune.tuners.subset.displacement import Lines, place, spread
from foretune.tuners.subset.model import subset_of

TUNER = DynamicSubset(density=0.05, silo="global", more=("embeddings", "norms", "biases"))


def tuned(tuner, name: str = "bert", dtype: torch.dtype = torch.float32) -> tuple[nn.Module, dict[str, torch.Tensor]]:
    """A toy after some steps, and its base."""
    network = toys.network(name).to(dtype)
    base = {key: p.detach().clone() for key, p in network.named_parameters()}
    torch.manual_seed(0)
    model = tuner.attach(network, toys.fresh(network))
    train(model, toys.batch(network), tuner, 4)
    return model.eval(), base


def measured(tuner, model: nn.Module) -> Displacement:
    found = tuner.displacement(model)
    assert found is not None
    return found


def differences(model: nn.Module, base: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """|W - W0| of every tensor that is tuned in part, of the whole model."""
    now = dict(model.named_parameters())
    return {part.name: (now[part.name].detach() - base[part.name]).abs().double() for part in subset_of(model).parts}


@pytest.mark.parametrize("name", ["bert", "gpt2", "t5", "llama"])
def test_check_20_the_budget_and_the_movement_of_every_cell_are_those_of_the_weights(name: str) -> None:
    model, base = tuned(TUNER, name)
    found = measured(TUNER, model)
    weights: Counter[tuple[str, str]] = Counter()
    away: Counter[tuple[str, str]] = Counter()
    moved: Counter[tuple[str, str]] = Counter()
    for tensor, gap in differences(model, base).items():
        cell = place(tensor)
        weights[cell] += gap.numel()
        away[cell] += int(gap.count_nonzero())
        moved[cell] += float(gap.sum())
    for i, layer in enumerate(found.layers):
        for j, kind in enumerate(found.kinds):
            share = found.at(i, j)
            assert (share.weights, share.chosen) == (weights[layer, kind], away[layer, kind])
            assert share.moved == pytest.approx(moved[layer, kind], rel=1e-4)
    assert found.total.chosen == subset_of(model).size
    assert found.layers.count(OUTSIDE) == 1
    assert (found.tensors, found.silos) == (len(subset_of(model).parts), 1)


def test_check_20_the_histogram_counts_every_displacement_in_its_bin() -> None:
    model, base = tuned(TUNER)
    found = measured(TUNER, model)
    gaps = torch.cat([gap[gap > 0] for gap in differences(model, base).values()]).numpy()
    edges = 10.0 ** ((found.first_bin + np.arange(len(found.counts) + 1)) / found.per_decade)
    assert found.counts == tuple(np.histogram(gaps, edges)[0])
    assert found.counts[0] > 0 < found.counts[-1]
    assert found.at_base == 0


def test_check_20_what_bf16_would_swallow_is_counted_as_a_cast_of_both_models_would() -> None:
    tuner = DynamicSubset(density=0.3, optimizer="sgd")
    model, base = tuned(tuner)
    found, now = measured(tuner, model), dict(model.named_parameters())
    same = sum(
        int((now[part.name].detach().bfloat16() == base[part.name].bfloat16()).view(-1)[part.index].sum())
        for part in subset_of(model).parts
    )
    assert 0 < same < found.total.chosen
    assert found.same_in_bf16 == same
    assert all(lost <= count for lost, count in zip(found.lost, found.counts, strict=True))


def test_in_a_bf16_model_the_displacement_is_that_before_rounding() -> None:
    model, base = tuned(TUNER, dtype=torch.bfloat16)
    found = measured(TUNER, model)
    shadows = sum(float((part.shadow - part.old.float()).abs().double().sum()) for part in subset_of(model).parts)
    assert found.total.moved == pytest.approx(shadows, rel=1e-4)
    away = sum(int(gap.count_nonzero()) for gap in differences(model, base).values())
    assert found.same_in_bf16 == found.total.chosen - away


def test_a_weight_of_the_subset_that_did_not_move_is_in_no_bin() -> None:
    model = DynamicSubset().attach(toys.network("bert"))
    part = subset_of(model).parts[0]
    index = torch.tensor([3, 7])
    part.put(index, part.base()[index] + torch.tensor([0.0, 0.5]))
    found = measured(DynamicSubset(), model)
    assert (found.at_base, sum(found.counts), found.total.chosen) == (1, 1, 2)
    part.put(index[:1], part.base()[index[:1]])
    found = measured(DynamicSubset(), model)
    assert (found.at_base, found.counts, found.lost, found.same_in_bf16) == (1, (), (), 1)


def test_measuring_leaves_every_bit_as_it_was() -> None:
    model, _ = tuned(TUNER)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    measured(TUNER, model)
    assert all(torch.equal(p, before[name]) for name, p in model.named_parameters())


@pytest.mark.parametrize("tuner", [DynamicSubset(), StaticSubset()])
def test_before_a_subset_is_chosen_there_is_none(tuner) -> None:
    assert tuner.displacement(tuner.attach(toys.network("bert"))) is None


def test_a_method_that_moves_no_weight_of_the_base_has_nothing_to_say() -> None:
    tuner = TUNERS["lora"](rank=2)
    assert tuner.displacement(tuner.attach(toys.network("bert"))) is None


@pytest.mark.parametrize(("name", "map_of"), [("bert", "intermediate.dense"), ("gpt2", "mlp.c_fc")])
def test_a_subset_in_one_output_is_in_one_row_however_the_matrix_lies(name: str, map_of: str) -> None:
    model = DynamicSubset().attach(toys.network(name))
    part = next(part for part in subset_of(model).parts if map_of in part.name)
    height, width = part.parameter.shape
    index = torch.arange(height) * width + 2 if name == "gpt2" else torch.arange(width) + 2 * width
    part.put(index, part.base()[index] + 1)
    found = measured(DynamicSubset(), model)
    assert found.rows is not None
    assert found.columns is not None
    assert found.rows.half == 1
    assert found.columns.half == len(index) / 2


def test_embeddings_norms_and_biases_have_no_rows() -> None:
    tuner = DynamicSubset(density=0.05, more=("embeddings", "norms", "biases"))
    model, _ = tuned(tuner)
    rows = measured(tuner, model).rows
    assert rows is not None
    maps = [m for m in model.modules() if isinstance(m, nn.Linear)]
    heads = [m for name in subset_of(model).heads for m in model.get_submodule(name).modules()]
    assert rows.lines == sum(m.out_features for m in maps if m not in heads and m is not model.bert.pooler.dense)


def test_chance_is_what_random_subsets_of_that_size_give() -> None:
    rng = np.random.default_rng(0)
    shapes = ((400, 50, 300), (100, 200, 2000))
    halves, said = [], set()
    for _ in range(20):
        drawn = [
            Lines(np.bincount(rng.choice(rows * length, k, replace=False) // length, minlength=rows), length)
            for rows, length, k in shapes
        ]
        found = spread(drawn)
        assert found is not None
        halves.append(found.half)
        said.add(found.by_chance)
    assert len(said) == 1
    assert said.pop() == pytest.approx(np.mean(halves), rel=0.03)


def test_half_of_everything_is_half_of_the_lines() -> None:
    assert spread([Lines(np.full(8, 5), 5)]) == Spread(8, 4, 4)


def test_of_no_subset_there_is_no_spread() -> None:
    assert spread([]) is None
    assert spread([Lines(np.zeros(3, dtype=int), 5)]) is None
