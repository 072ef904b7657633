"""The projection, its selection and its update rules against a dense reference that keeps a whole copy of the base."""

from __future__ import annotations

import itertools
from fractions import Fraction
from pathlib import Path

import pytest
import torch
import transformers
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file

from foretune.errors import DivergedError, UsageError
from foretune.testing import toys
from foretune.tuners.dynamic_subset import DynamicSubset
from foretune.tuners.subset.model import save, subset_of
from foretune.tuners.subset.part import Part
from foretune.tuners.subset.rules import RULES, Adafactor, AdamW, Rule, Whole
from foretune.tuners.subset.silo import DISTANCES, Silo, budget
from foretune.tuners.subset.still import largest
from foretune.tuners.subset.topk import merged, smallest, threshold, top

finite = st.floats(0, 2.0**100, width=32)


class Reference:
    """The method as its paper tells it: a second dense copy of the base, every weight scored, all but k put back."""

    def __init__(self, weights: list[torch.Tensor], k: int, rule: Rule, distance: str) -> None:
        self.base = [w.clone() for w in weights]
        self.weights = [w.clone() for w in weights]
        self.k, self.rule, self.distance = k, rule, DISTANCES[distance]
        self.states: list[dict] = [{} for _ in weights]

    def step(self, grads: list[torch.Tensor], lr: float) -> None:
        hats = [
            self.rule.propose(Part("", w), g.clone(), s, lr).dense().view(w.shape)
            for w, g, s in zip(self.weights, grads, self.states, strict=True)
        ]
        scores = torch.cat([self.distance(h - b, b).flatten() for h, b in zip(hats, self.base, strict=True)])
        order = torch.sort(scores, descending=True, stable=True).indices[: self.k]
        keep = torch.zeros(len(scores), dtype=torch.bool)
        keep[order] = True
        masks = keep.split([h.numel() for h in hats])
        self.weights = [torch.where(m.view_as(h), h, b) for m, h, b in zip(masks, hats, self.base, strict=True)]


def project(silo: Silo, *hats: torch.Tensor) -> None:
    """A step in which an optimizer would put the weights at ``hats``."""
    silo.project([Whole(part, hat) for part, hat in zip(silo.parts, hats, strict=True)])


def gradients(shapes: list[tuple[int, ...]], seed: int) -> list[torch.Tensor]:
    """Heavy-tailed, some exactly zero."""
    generator = torch.Generator().manual_seed(seed)
    drawn = [torch.randn(shape, generator=generator) for shape in shapes]
    return [g * g.abs() * (g.abs() > 0.2) for g in drawn]


@given(st.lists(finite, min_size=1, max_size=200), st.data())
def test_check_06_the_radix_threshold_is_the_kth_largest(scores: list[float], data: st.DataObject):
    k = data.draw(st.integers(1, len(scores)))
    tensor = torch.tensor(scores)
    assert float(threshold(tensor, k)) == sorted(tensor.tolist(), reverse=True)[k - 1]


@pytest.mark.parametrize(
    "scores",
    [torch.zeros(7), torch.full((9,), 3.5), torch.tensor([1e-45, 0.0, 1e-40, 1e-45]), torch.tensor([2.0]),
     torch.tensor([1.0, torch.finfo(torch.float32).max, 1.0])],
    ids=["zeros", "equal", "denormal", "one", "huge"],
)  # fmt: skip
def test_check_06_adversarial_scores_and_ties_to_the_lowest_index(scores: torch.Tensor):
    for k in range(1, len(scores) + 1):
        expected = sorted(range(len(scores)), key=lambda i: (-float(scores[i]), i))[:k]
        assert top(scores, k).nonzero().flatten().tolist() == sorted(expected)


def test_check_06_more_scores_than_2_to_the_24():
    scores = torch.zeros(2**24 + 10)
    scores[[5, 2**24 + 3, 2**24 + 9]] = torch.tensor([1.0, 3.0, 2.0])
    assert top(scores, 3).nonzero().flatten().tolist() == [5, 2**24 + 3, 2**24 + 9]
    assert float(threshold(scores, 4)) == 0.0


@given(st.lists(finite | st.sampled_from([0.0, 1.0, 1e-45, torch.inf]), min_size=1, max_size=60), st.data())
def test_check_06_the_smallest_but_so_many_has_the_bits_of_a_full_sort(scores: list[float], data: st.DataObject):
    tensor = torch.tensor(scores)
    more = data.draw(st.integers(0, len(scores) - 1))
    expected = tensor.sort().values[more]
    found = smallest(tensor, more)
    assert found.shape == ()
    assert torch.equal(found, expected)


@given(st.sets(st.integers(0, 2**40), max_size=60), st.sets(st.integers(0, 2**40), max_size=60), st.data())
def test_check_06_merging_equals_sorting_what_stays_and_what_comes(stay: set[int], come: set[int], data: st.DataObject):
    first, second = (torch.tensor(sorted(some), dtype=torch.int64) for some in (stay, come - stay))
    out = torch.tensor(
        sorted(data.draw(st.sets(st.sampled_from(range(len(first))))) if stay else []), dtype=torch.int64
    )
    index, order = merged(first, second, without=out)
    assert index.tolist() == sorted((stay - set(first[out].tolist())) | (come - stay))
    assert torch.equal(torch.cat([first, second])[order], index)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_check_06_scores_that_are_not_finite_are_an_error(bad: float):
    with pytest.raises(DivergedError, match="finite"):
        top(torch.tensor([1.0, bad, 2.0]), 1)


@pytest.mark.parametrize("distance", sorted(DISTANCES))
@pytest.mark.parametrize("rule", sorted(RULES))
def test_check_05_streamed_equals_the_dense_reference(rule: str, distance: str):
    shapes = [(6, 5), (4,), (3, 7)]
    start = [torch.randn(shape, generator=torch.Generator().manual_seed(i)) for i, shape in enumerate(shapes)]
    model = [w.clone() for w in start]
    made = RULES[rule]()
    reference = Reference(start, 9, made, distance)
    silo = Silo("all", [Part(str(i), w) for i, w in enumerate(model)], 9, DISTANCES[distance])
    states: list[dict] = [{} for _ in model]
    returned, gone, before = 0, set(), set()
    for step in range(300):
        grads, lr = gradients(shapes, step), 0.05 * (1 - step / 300)
        reference.step(grads, lr)
        hats = [made.propose(p, g, s, lr) for p, g, s in zip(silo.parts, grads, states, strict=True)]
        silo.project(hats)
        for mine, expected in zip(model, reference.weights, strict=True):
            assert torch.equal(mine, expected), step
        now = {(i, int(j)) for i, part in enumerate(silo.parts) for j in part.index}
        assert len(now) == 9
        returned += len((now - before) & gone)
        gone |= before - now
        before = now
    assert returned > 0


@pytest.mark.parametrize("lr", [1e-8, 1e-6, 1e-4])
def test_check_05_holds_where_moves_are_as_small_as_the_rounding_of_the_weights(lr: float):
    start = torch.randn(30, 20, generator=torch.Generator().manual_seed(3)) * 4
    model, rule = start.clone(), Adafactor()
    reference = Reference([start], 40, rule, "abs")
    silo, state = Silo("w", [Part("w", model)], 40), {}
    for step in range(60):
        grads = gradients([(30, 20)], step)
        reference.step(grads, lr)
        silo.project([rule.propose(silo.parts[0], grads[0], state, lr)])
        assert torch.equal(model, reference.weights[0]), step


@pytest.mark.parametrize("rule", ["adafactor", "sgd"])
def test_check_05_a_bf16_model_is_the_dense_reference_in_fp32_rounded_at_the_end_of_each_step(rule: str):
    """Steps far below bf16's rounding: they must add up beside the model, or nothing would ever move."""
    start = (torch.randn(30, 20, generator=torch.Generator().manual_seed(3)) * 0.02).bfloat16()
    model, made, lr = start.clone(), RULES[rule](), 2e-6
    reference = Reference([start.float()], 40, made, "abs")
    silo, state = Silo("w", [Part("w", model)], 40), {}
    (part,) = silo.parts
    lean = torch.randn(30, 20, generator=torch.Generator().manual_seed(4)).square()
    for step in range(400):
        grad = (gradients([(30, 20)], step)[0] + 3 * lean).bfloat16()
        reference.step([grad], lr)
        silo.project([made.propose(part, grad.clone(), state, lr)])
        (exact,) = reference.weights
        assert torch.equal(model, exact.bfloat16()), step
        assert torch.equal(part.shadow, exact.flatten()[part.index]), step
    moved = (part.shadow - part.old.float()).abs()
    assert float(moved.max()) > 100 * lr
    assert int((model != start).sum()) > 30


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["fp32", "bf16"])
def test_check_01_exactly_k_are_away_and_the_rest_is_the_base_bit_for_bit(dtype: torch.dtype):
    base = torch.randn(40, 10, generator=torch.Generator().manual_seed(0)).to(dtype)
    weight, rule, state = base.clone(), Adafactor(), {}
    silo = Silo("w", [Part("w", weight)], 13)
    (part,) = silo.parts
    for step in range(20):
        silo.project([rule.propose(part, gradients([(40, 10)], step)[0], state, 0.01)])
        assert len(part.index) == 13
        assert torch.equal(part.index, part.index.unique())
        rest = torch.ones(400, dtype=torch.bool)
        rest[part.index] = False
        assert torch.equal(weight.flatten()[rest], base.flatten()[rest])
        away = int((weight != base).sum())
        assert away == 13 if dtype == torch.float32 else away <= 13
        assert torch.equal(part.old, base.flatten()[part.index])


def chosen(silo: Silo) -> tuple[int, ...]:
    """The places of the subset in the silo's tensors one behind the other."""
    starts = itertools.accumulate([0, *map(len, silo.parts)])
    return tuple(start + int(i) for start, part in zip(starts, silo.parts, strict=False) for i in part.index)


def costs(hats: list[torch.Tensor], bases: list[torch.Tensor], distance: str) -> list[Fraction]:
    """What it costs not to follow the optimizer, weight by weight, in exact numbers."""
    scores = [DISTANCES[distance](h - b, b) for h, b in zip(hats, bases, strict=True)]
    return [Fraction(float(score)) for score in torch.cat(scores)]


@given(st.data(), st.lists(st.integers(1, 4), min_size=1, max_size=3), st.sampled_from(["abs", "rel"]))
def test_check_02_no_other_choice_costs_less_and_of_equals_the_first_stay(
    data: st.DataObject, sizes: list[int], distance: str
):
    """Quarters, so that many are as far from the base as others, or not at all."""
    quarters = st.integers(-4, 4).map(lambda n: n / 4)
    bases, hats = (
        [torch.tensor(data.draw(st.lists(quarters, min_size=n, max_size=n))) for n in sizes] for _ in range(2)
    )
    k = data.draw(st.integers(1, sum(sizes)))
    silo = Silo("s", [Part(str(i), base.clone()) for i, base in enumerate(bases)], k, DISTANCES[distance])
    cost = costs(hats, bases, distance)
    project(silo, *hats)
    choices = itertools.combinations(range(sum(sizes)), k)
    assert chosen(silo) == min(choices, key=lambda kept: (sum(cost) - sum(cost[i] for i in kept), kept))


@pytest.mark.parametrize("k", [1, 17, 60, 119])
@pytest.mark.parametrize("distance", ["abs", "rel"])
def test_check_02_a_thousand_random_choices_cost_no_less(distance: str, k: int):
    generator = torch.Generator().manual_seed(k)
    bases = [torch.randn(n, generator=generator) for n in (50, 70)]
    hats = [b + torch.randint(-3, 4, b.shape, generator=generator) / 8 for b in bases]
    silo = Silo("s", [Part(str(i), base.clone()) for i, base in enumerate(bases)], k, DISTANCES[distance])
    cost = costs(hats, bases, distance)
    project(silo, *hats)
    kept = sum(cost[i] for i in chosen(silo))
    for _ in range(1000):
        assert sum(cost[i] for i in torch.randperm(120, generator=generator)[:k].tolist()) <= kept


@pytest.mark.parametrize("foreach", [False, True], ids=["one_by_one", "foreach"])
@pytest.mark.parametrize("decay", [0.0, 0.1])
def test_check_03_a_density_of_one_is_the_dense_optimizer_bit_for_bit(decay: float, foreach: bool):
    base = torch.randn(8, 6, generator=torch.Generator().manual_seed(2))
    weight, dense = base.clone(), torch.nn.Parameter(base.clone())
    silo, rule, state = Silo("w", [Part("w", weight)], 48), AdamW(weight_decay=decay), {}
    optimizer = torch.optim.AdamW([dense], lr=1e-2, weight_decay=decay, foreach=foreach)
    for step in range(200):
        grad = gradients([(8, 6)], step)[0]
        dense.grad = grad.clone()
        optimizer.step()
        silo.project([rule.propose(silo.parts[0], grad, state, 1e-2)])
        assert torch.equal(weight, dense.detach()), step


@pytest.mark.parametrize("shape", [(8, 6), (7,), (3, 4, 5)], ids=["matrix", "vector", "experts"])
def test_check_03_a_density_of_one_is_dense_adafactor_bit_for_bit_and_that_of_transformers(shape: tuple[int, ...]):
    base = torch.randn(shape, generator=torch.Generator().manual_seed(2))
    weight, dense, other = base.clone(), base.clone(), torch.nn.Parameter(base.clone())
    silo, rule, state, own = Silo("w", [Part("w", weight)], base.numel()), Adafactor(), {}, {}
    settings = {"relative_step": False, "scale_parameter": False, "warmup_init": False}
    theirs = transformers.Adafactor([other], lr=1e-2, **settings)
    for step in range(200):
        grad = gradients([shape], step)[0]
        dense = rule.propose(Part("w", dense), grad.clone(), own, 1e-2).dense().view(shape).clone()
        other.grad = grad.clone()
        theirs.step()
        silo.project([rule.propose(silo.parts[0], grad, state, 1e-2)])
        assert torch.equal(weight, dense), step
    torch.testing.assert_close(weight, other.detach(), rtol=1e-4, atol=1e-5)


def test_check_06_more_scores_than_2_to_the_31(monkeypatch: pytest.MonkeyPatch):
    """Of a tensor that would not fit: every score counts as if there were four million of it."""
    times, count, scores = 2**22, torch.bincount, torch.rand(1500, generator=torch.Generator().manual_seed(0))
    scores[::3] = 0.25
    falling = scores.sort(descending=True).values
    monkeypatch.setattr(torch, "bincount", lambda *given, **more: count(*given, **more) * times)
    for k in (1, 2**31 - 1, 2**31, 2**31 + 1, 2**32 + 7, len(scores) * times):
        assert float(threshold(scores, k)) == float(falling[(k - 1) // times])


@pytest.mark.parametrize(("size", "kind"), [(2**31 - 1, torch.int32), (2**31, torch.int64), (2**32, torch.int64)])
def test_check_06_ties_among_more_than_2_to_the_31_are_counted_in_int64(
    size: int, kind: torch.dtype, monkeypatch: pytest.MonkeyPatch
):
    """On tensors without contents."""
    counted: list[torch.dtype] = []

    def spy(tensor: torch.Tensor, dim: int, dtype: torch.dtype) -> torch.Tensor:
        counted.append(dtype)
        return tensor.new_empty(tensor.shape, dtype=dtype)

    monkeypatch.setattr(torch.Tensor, "cumsum", spy)
    monkeypatch.setattr(torch, "nonzero_static", lambda mask, size, fill_value: mask.new_empty(size, 1))
    assert largest(torch.empty(1, size, device="meta"), 5).shape == (5,)
    assert counted == [kind]


def test_check_06_places_beyond_2_to_the_31_are_merged_looked_up_and_written_as_they_are(tmp_path: Path):
    far = [2**31 - 1, 2**31 + 5, 2**32 + 7]
    index, order = merged(torch.tensor([3, far[1]]), torch.tensor([far[0], far[2]]), without=torch.tensor([0]))
    assert index.tolist() == far
    assert order.tolist() == [2, 1, 3]
    part = Part("w", torch.empty(0))
    part.index = torch.tensor([2**31 + 9])
    state = {"row": torch.zeros(2**20), "column": torch.zeros(2**12)}
    state["row"][2**19], state["column"][9] = 2.0, 3.0
    assert float(Adafactor()._factored(part, state)) == 2.0 / (2.0 / 2**20) * 3.0
    network = DynamicSubset().attach(toys.network("bert"))
    near, away = subset_of(network).parts[:2]
    near.gathered = lambda: (torch.tensor(far[:1]), torch.ones(1), torch.ones(1))
    away.gathered = lambda: (torch.tensor(far), torch.ones(3), torch.ones(3))
    save(network, tmp_path, {})
    found = load_file(tmp_path / "adapter_model.safetensors")
    for part, kind, places in ((near, torch.int32, far[:1]), (away, torch.int64, far)):
        assert found[f"{part.name}.dst_indices"].dtype == kind
        assert found[f"{part.name}.dst_indices"].tolist() == places


def test_check_04_a_budget_below_one_keeps_the_least_and_moves_nothing_else():
    assert budget(100, 1e-6) == 1
    base = torch.randn(100)
    weight = base.clone()
    project(Silo("w", [Part("w", weight)], budget(100, 1e-6)), base + torch.arange(100) / 100)
    assert (weight != base).nonzero().flatten().tolist() == [99]


def test_an_empty_or_too_large_budget_is_an_error_with_both_numbers():
    with pytest.raises(UsageError, match=r"all of its 5 weights, but `w` got k=6"):
        Silo("w", [Part("w", torch.zeros(5))], 6)
    with pytest.raises(UsageError, match="k=0"):
        Silo("w", [Part("w", torch.zeros(5))], 0)


def test_resetting_gives_the_base_back_bit_for_bit():
    base = torch.randn(30).to(torch.bfloat16)
    weight = base.clone()
    silo = Silo("w", [Part("w", weight)], 7)
    project(silo, base.float() + torch.randn(30))
    assert not torch.equal(weight, base)
    silo.parts[0].reset()
    assert torch.equal(weight, base)
    silo.parts[0].apply()
    assert int((weight != base).sum()) == 7
