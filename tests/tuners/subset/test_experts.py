"""silo=expert: every one of the fused experts has a budget of its own, as if it were a tensor of its own."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from test_subset_networks import EXPERTS, mixture

from foretune.errors import DivergedError
from foretune.testing import toys
from foretune.testing.contracts import train
from foretune.tuners.dynamic_subset import DynamicSubset, StaticSubset
from foretune.tuners.subset.experts import ExpertSilo
from foretune.tuners.subset.model import learned, subset_of
from foretune.tuners.subset.part import Part
from foretune.tuners.subset.rules import RULES, Whole
from foretune.tuners.subset.silo import DISTANCES, Silo


@given(st.data(), st.sampled_from(sorted(DISTANCES)), st.integers(1, 6), st.booleans())
def test_experts_together_choose_what_each_would_choose_alone(
    data: st.DataObject, distance: str, each: int, left: bool
) -> None:
    """Small whole numbers, so that ties are many."""
    numbers = st.lists(st.integers(-3, 3), min_size=18, max_size=18)
    base = torch.tensor(data.draw(numbers), dtype=torch.float32).view(3, 2, 3)
    together, apart = base.clone(), [piece.clone() for piece in base]
    silo = ExpertSilo("all", [Part("all", together)], each, DISTANCES[distance], left)
    silos = [Silo(str(i), [Part(str(i), piece)], each, DISTANCES[distance], left) for i, piece in enumerate(apart)]
    for _ in range(4):
        step = torch.tensor(data.draw(numbers), dtype=torch.float32).view(3, 2, 3)
        silo.project([Whole(silo.parts[0], silo.parts[0].exact().view(3, 2, 3) + step)])
        for own, piece in zip(silos, step, strict=True):
            own.project([Whole(own.parts[0], own.parts[0].exact().view(2, 3) + piece)])
        assert torch.equal(together, torch.stack(apart))
        places = [own.parts[0].index + 6 * i for i, own in enumerate(silos)]
        assert torch.equal(silo.parts[0].index, torch.cat(places))
        assert silo.change.entered == sum(own.change.entered for own in silos)


@pytest.mark.parametrize("rule", sorted(RULES))
def test_check_14_every_expert_keeps_its_share_and_comes_back_from_disk(rule: str, tmp_path: Path) -> None:
    tuner, network = DynamicSubset(density=0.05, silo="expert", optimizer=rule), mixture()
    base = {n: p.detach().clone() for n, p in network.named_parameters()}
    model = tuner.attach(network)
    train(model, toys.batch(network), tuner, 3)
    fused = [silo.parts[0] for silo in subset_of(model).silos if silo.parts[0].parameter.dim() == 3]
    assert len(fused) == 4
    for part in subset_of(model).parts:
        size = len(part) // EXPERTS if part in fused else len(part)
        held = torch.bincount(part.index // size, minlength=len(part) // size).tolist()
        assert held == [int(0.05 * size)] * (len(part) // size)
        away = (part.weight != base[part.name].flatten()).nonzero().flatten()
        assert set(away.tolist()) <= set(part.index.tolist())
    tuner.save(model, tmp_path)
    again = tuner.restore(mixture(), tmp_path)
    assert all(torch.equal(tensor, learned(again)[name]) for name, tensor in learned(model).items())
    for grown in (model, again):
        train(grown, toys.batch(network), tuner, 1)
    with tuner.disabled(again):
        assert all(torch.equal(parameter, base[name]) for name, parameter in again.named_parameters())


def test_check_14_a_busy_expert_takes_nothing_from_an_idle_one() -> None:
    weight = torch.zeros(2, 3, 4)
    silo = ExpertSilo("w", [Part("w", weight)], 2)
    step = torch.zeros(2, 3, 4)
    step[0], step[1, 2, 1] = 5.0, 0.1
    silo.project([Whole(silo.parts[0], step)])
    assert weight[1].nonzero().tolist() == [[2, 1]]
    assert int((weight[0] != 0).sum()) == 2


def test_an_expert_without_tokens_settles() -> None:
    """All its weights tie at 0: the first stay, and in the second step none of the others is looked at."""
    weight = torch.zeros(3, 4, 5)
    silo = ExpertSilo("w", [Part("w", weight)], 2)
    (part,) = silo.parts

    def step(moved: dict[int, float]) -> list[int]:
        """Where candidates lie, after a step to 1 more in two weights of the second expert and to ``moved``."""
        hat = part.exact().clone().view(3, 4, 5)
        hat[1, 2, :2] += 1.0
        for place, value in moved.items():
            hat.view(-1)[place] = value
        entries = silo.judge([Whole(part, hat)])
        silo.move(entries)
        return entries[0].new.tolist()

    assert len(step({})) == 2 * 20 + 2
    assert part.index.tolist() == [0, 1, 30, 31, 40, 41]
    assert step({}) == []
    assert step({57: 0.5}) == [57]
    assert part.index.tolist() == [0, 1, 30, 31, 40, 57]
    assert step({}) == []
    assert step({40: 0.5}) == []
    assert step({57: 0.0}) == [*range(41, 57), 58, 59]
    assert part.index.tolist() == [0, 1, 30, 31, 40, 41]
    assert step({}) == []


def test_a_static_mask_has_as_many_weights_of_every_expert() -> None:
    tuner, network = StaticSubset(density=0.1, silo="expert", mask="largest"), mixture()
    base = {n: p.detach().clone() for n, p in network.named_parameters()}
    model = tuner.attach(network)
    train(model, toys.batch(network), tuner, 2)
    for part in (part for part in subset_of(model).parts if part.parameter.dim() == 3):
        size = len(part) // EXPERTS
        largest = base[part.name].view(EXPERTS, -1).abs().topk(int(0.1 * size), dim=1).indices
        expected = largest + torch.arange(EXPERTS).unsqueeze(1) * size
        assert torch.equal(part.index, expected.flatten().sort().values)


def test_check_18_a_spoiled_expert_is_an_error_and_nothing_moves() -> None:
    weight = torch.zeros(2, 3, 4)
    silo = ExpertSilo("w", [Part("w", weight)], 2)
    for spoiled in (torch.nan, torch.inf):
        step = torch.ones(2, 3, 4)
        step[1, 0, 0] = spoiled
        with pytest.raises(DivergedError, match="finite"):
            silo.project([Whole(silo.parts[0], step)])
    assert not weight.any()
