"""What holds of a silo whatever the gradients, the parts and the budget are, and what it does with spoiled ones."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from foretune.errors import DivergedError, UsageError
from foretune.testing import toys
from foretune.tuners.dynamic_subset import DynamicSubset, StaticSubset
from foretune.tuners.subset.model import at_base
from foretune.tuners.subset.movement import Static
from foretune.tuners.subset.part import Part
from foretune.tuners.subset.rules import RULES, Whole
from foretune.tuners.subset.silo import DISTANCES, Silo

TYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
shapes = st.lists(st.sampled_from([(5,), (1, 4), (3, 4), (2, 3, 2)]), min_size=1, max_size=4)
numbers = st.floats(-(2.0**10), 2.0**10, width=32)


def drawn(data: st.DataObject, shape: tuple[int, ...]) -> torch.Tensor:
    """Any numbers, many of them equal or zero."""
    size = int(torch.tensor(shape).prod())
    some = st.one_of(st.sampled_from([0.0, 1.0, -1.0, 1e-30]), numbers)
    return torch.tensor(data.draw(st.lists(some, min_size=size, max_size=size))).view(shape)


def bits(tensor: torch.Tensor) -> torch.Tensor:
    """The bits, by which -0 is not 0."""
    return tensor.contiguous().view(torch.int16 if tensor.dtype == torch.bfloat16 else torch.int32)


def project(silo: Silo, hats: Sequence[torch.Tensor]) -> None:
    """A step in which an optimizer would put the weights at ``hats``."""
    silo.project([Whole(part, hat) for part, hat in zip(silo.parts, hats, strict=True)])


def require_whole(silo: Silo, bases: Sequence[torch.Tensor]) -> None:
    """Exactly ``k`` rising places, and everything beside them is the base bit for bit."""
    assert silo.chosen == silo.k
    for part, base in zip(silo.parts, bases, strict=True):
        assert (part.index[1:] > part.index[:-1]).all()
        rest = torch.ones(len(part), dtype=torch.bool)
        rest[part.index] = False
        assert torch.equal(bits(part.weight)[rest], bits(base.flatten())[rest])
        assert torch.equal(bits(part.old), bits(base.flatten()[part.index]))


@given(st.data(), shapes, st.sampled_from(sorted(RULES)), st.sampled_from(sorted(DISTANCES)), st.sampled_from([*TYPES]))
def test_check_01_any_gradients_leave_exactly_k_away(
    data: st.DataObject, sizes: list[tuple[int, ...]], rule: str, distance: str, dtype: str
):
    bases = [drawn(data, shape).to(TYPES[dtype]) for shape in sizes]
    k = data.draw(st.integers(1, sum(base.numel() for base in bases)))
    silo = Silo("s", [Part(str(i), base.clone()) for i, base in enumerate(bases)], k, DISTANCES[distance])
    states: list[dict] = [{} for _ in bases]
    for _ in range(3):
        grads = [drawn(data, shape) for shape in sizes]
        silo.project([RULES[rule]().propose(p, g, s, 0.01) for p, g, s in zip(silo.parts, grads, states, strict=True)])
        require_whole(silo, bases)
    for part in silo.parts:
        part.reset()
    assert all(
        torch.equal(bits(part.weight), bits(base.flatten())) for part, base in zip(silo.parts, bases, strict=True)
    )


@given(st.data(), shapes, st.sampled_from(sorted(DISTANCES)))
def test_the_same_proposal_twice_changes_nothing_more(data: st.DataObject, sizes: list[tuple[int, ...]], distance: str):
    hats = [drawn(data, shape) for shape in sizes]
    parts = [Part(str(i), drawn(data, shape)) for i, shape in enumerate(sizes)]
    silo = Silo("s", parts, data.draw(st.integers(1, sum(map(len, parts)))), DISTANCES[distance])
    project(silo, hats)
    before = [(part.weight.clone(), part.index.clone()) for part in parts]
    assert silo.change.entered == silo.k
    project(silo, hats)
    assert silo.change.entered == 0
    for part, (weight, index) in zip(parts, before, strict=True):
        assert torch.equal(part.weight, weight)
        assert torch.equal(part.index, index)


@given(st.data(), shapes)
def test_the_order_of_parts_decides_ties_and_nothing_else(data: st.DataObject, sizes: list[tuple[int, ...]]):
    bases, hats = ([drawn(data, shape) for shape in sizes] for _ in range(2))
    k = data.draw(st.integers(1, sum(base.numel() for base in bases)))
    order = data.draw(st.permutations(range(len(sizes))))
    kept = []
    for places in (list(range(len(sizes))), order):
        silo = Silo("s", [Part(str(i), bases[i].clone()) for i in places], k)
        project(silo, [hats[i] for i in places])
        kept.append({part.name: set(part.index.tolist()) for part in silo.parts})
    least = silo.least()
    distances = {str(i): (hats[i] - bases[i]).abs().flatten() for i in range(len(sizes))}
    for name, one in kept[0].items():
        assert all(float(distances[name][place]) == least for place in one ^ kept[1][name])
    assert sum(map(len, kept[1].values())) == k


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
@pytest.mark.parametrize("whole", [False, True], ids=["subset", "whole"])
@pytest.mark.parametrize("first", [False, True], ids=["later", "first"])
@pytest.mark.parametrize("rule", sorted(RULES))
def test_check_18_a_spoiled_gradient_is_an_error_and_no_weight_of_the_silo_moves(
    rule: str, first: bool, whole: bool, bad: float
):
    generator = torch.Generator().manual_seed(0)
    parts = [Part(name, torch.randn(4, 5, generator=generator)) for name in "ab"]
    silo, made, states = Silo("s", parts, 40 if whole else 6), RULES[rule](), [{}, {}]
    grads = [torch.randn(4, 5, generator=generator) for _ in parts]
    if not first:
        silo.project([made.propose(p, g, s, 0.01) for p, g, s in zip(parts, grads, states, strict=True)])
    outside = next(i for i in range(20) if whole or i not in parts[1].index.tolist())
    grads[1].view(-1)[outside] = bad
    before = [(part.weight.clone(), part.index.clone(), part.shadow.clone()) for part in parts]
    with pytest.raises(DivergedError, match=r"finite.*lower learning rate, or fp32"):
        silo.project([made.propose(p, g, s, 0.01) for p, g, s in zip(parts, grads, states, strict=True)])
    for part, kept in zip(parts, before, strict=True):
        assert all(torch.equal(x, y) for x, y in zip((part.weight, part.index, part.shadow), kept, strict=True))


def test_check_18_a_static_mask_does_not_take_what_is_not_a_number():
    part = Part("w", torch.nn.Parameter(torch.ones(6)))
    silo, mask, state = Silo("w", [part], 6), Static("largest"), {}
    part.parameter.grad = torch.ones(6)
    mask.watch(part, state)
    mask.judge(silo, [state], [Whole(part, torch.full((6,), 2.0))])()
    with pytest.raises(DivergedError, match="`w` infinite or not a number"):
        mask.judge(silo, [state], [Whole(part, torch.full((6,), float("nan")))])()
    assert part.weight.tolist() == [2.0] * 6


def test_a_random_mask_differs_between_silos_of_one_shape():
    silos = [Silo(name, [Part(name, torch.nn.Parameter(torch.zeros(20, 20)))], 30) for name in ("a", "b", "a")]
    for silo in silos:
        (part,), state = silo.parts, {}
        part.parameter.grad = torch.ones(20, 20)
        Static("random").watch(part, state)
        Static("random").judge(silo, [state], [Whole(part, torch.ones(20, 20))])()
    a, b, again = (silo.parts[0].index.tolist() for silo in silos)
    assert a == again
    assert len(set(a) & set(b)) < 15


def test_check_18_a_tensor_that_is_not_contiguous_is_named():
    network = toys.network("bert")
    layer = network.bert.encoder.layer[1].attention.self.query
    layer.weight = torch.nn.Parameter(layer.weight.detach().t())
    with pytest.raises(UsageError, match=r"contiguous.*`bert.encoder.layer.1.attention.self.query.weight` is not"):
        DynamicSubset().attach(network)


@pytest.fixture
def trained() -> torch.nn.Module:
    """A toy after one step."""
    tuner, network = DynamicSubset(density=0.05), toys.network("bert")
    model = tuner.attach(network, toys.fresh(network))
    model(**toys.batch(network)).logits.square().sum().backward()
    tuner.optimizer_for(model, [{"params": [p for p in model.parameters() if p.requires_grad], "lr": 0.01}]).step()
    return model


def test_a_model_in_another_type_is_refused_until_it_has_its_own_again(trained: torch.nn.Module, tmp_path):
    before = {name: p.detach().clone() for name, p in trained.named_parameters()}
    trained.to(torch.float64)
    for use in (DynamicSubset().disabled(trained).__enter__, lambda: DynamicSubset().save(trained, tmp_path)):
        with pytest.raises(UsageError, match=r"torch.float32 and is now torch.float64. Convert it before `attach`"):
            use()
    trained.to(torch.float32)
    with at_base(trained):
        assert not all(torch.equal(p, before[name]) for name, p in trained.named_parameters())
    assert all(torch.equal(p, before[name]) for name, p in trained.named_parameters())
    assert next(DynamicSubset().merge(trained).to(torch.bfloat16).parameters()).dtype == torch.bfloat16


def test_what_is_kept_beside_a_tensor_follows_it_to_its_device():
    part = Part("w", torch.zeros(6))
    part.put(torch.tensor([1, 4]), torch.ones(2))
    part.parameter = part.parameter.to("meta")
    part.reset()
    part.apply()
    assert {kept.device.type for kept in (part.index, part.shadow, part.old)} == {"meta"}


@pytest.mark.parametrize("tuner", [DynamicSubset(density=0.05), StaticSubset(density=0.05)], ids=["moving", "static"])
def test_a_copy_in_the_midst_of_training_goes_its_own_way(tuner: DynamicSubset | StaticSubset):
    network = toys.network("bert")
    model = tuner.attach(network, toys.fresh(network))

    def step(one: torch.nn.Module, sign: float) -> None:
        groups = [{"params": [p for p in one.parameters() if p.requires_grad], "lr": 0.01}]
        (one(**toys.batch(network)).logits.square().sum() * sign).backward()
        tuner.optimizer_for(one, groups).step()
        one.zero_grad()

    step(model, 1.0)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    twin, other = copy.deepcopy(model), copy.deepcopy(model)
    step(twin, -1.0)
    assert all(torch.equal(p, before[name]) for name, p in model.named_parameters())
    step(model, 1.0)
    step(other, 1.0)
    assert all(torch.equal(p, q) for p, q in zip(model.parameters(), other.parameters(), strict=True))
    assert not all(torch.equal(p, q) for p, q in zip(model.parameters(), twin.parameters(), strict=True))
    bases = [{}, {}]
    for base, one in zip(bases, (model, twin), strict=True):
        with at_base(one):
            base |= {name: p.detach().clone() for name, p in one.named_parameters()}
    assert all(torch.equal(tensor, bases[1][name]) for name, tensor in bases[0].items())
