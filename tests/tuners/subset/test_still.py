"""Selection where nothing may be asked of the device: the same bits, and really nothing is asked."""

from __future__ import annotations

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from test_cadence import attached, loss, optimizer_of, places, run

from foretune.errors import DivergedError
from foretune.training.optimizer import restore_moments
from foretune.tuners.subset.experts import ExpertSilo
from foretune.tuners.subset.guarded import GuardedOptimizer
from foretune.tuners.subset.model import subset_of
from foretune.tuners.subset.movement import Moving
from foretune.tuners.subset.optimizer import SubsetOptimizer
from foretune.tuners.subset.part import Part
from foretune.tuners.subset.rules import RULES, Whole
from foretune.tuners.subset.silo import DISTANCES, Silo

SHAPE = (2, 3, 4)
TYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


@pytest.fixture
def still(monkeypatch: pytest.MonkeyPatch) -> None:
    """The CPU is treated as what may not be asked."""
    monkeypatch.setattr(Silo, "still", property(lambda silo: len(silo.parts) == 1 and not silo.left))


def silo_of(base: torch.Tensor, kind: str, k: int, distance: str = "abs") -> Silo:
    part = Part("w", base.clone())
    return (
        Silo("w", [part], k, DISTANCES[distance]) if kind == "one" else ExpertSilo("w", [part], k, DISTANCES[distance])
    )


def state_of(silo: Silo) -> list[torch.Tensor]:
    (part,) = silo.parts
    return [part.weight.float(), part.index, part.shadow, part.old.float(), torch.as_tensor(silo.change.entered)]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.data(),
    st.sampled_from(["one", "experts"]),
    st.integers(1, 12),
    st.sampled_from(sorted(DISTANCES)),
    st.sampled_from(sorted(RULES)),
    st.sampled_from([*TYPES]),
)
def test_check_01_a_silo_that_asks_nothing_has_the_same_bits(
    still: None, data: st.DataObject, kind: str, k: int, distance: str, rule: str, dtype: str
) -> None:
    """Small whole numbers, so that ties are many."""
    numbers = st.lists(st.integers(-2, 2), min_size=24, max_size=24)
    base = torch.tensor(data.draw(numbers), dtype=TYPES[dtype]).view(SHAPE)
    silos = [silo_of(base, kind, k, distance) for _ in range(2)]
    states: list[dict] = [{}, {}]
    for _ in range(4):
        grad = torch.tensor(data.draw(numbers), dtype=torch.float32).view(SHAPE)
        proposals = [
            RULES[rule]().propose(silo.parts[0], grad.clone(), state, 0.1)
            for silo, state in zip(silos, states, strict=True)
        ]
        silos[0].project([proposals[0]])
        silos[1].move(silos[1].judge([proposals[1]]))
        for ours, theirs in zip(*map(state_of, silos), strict=True):
            assert torch.equal(ours, theirs)


@pytest.mark.parametrize("options", [{}, {"silo": "layer"}, {"preset": "fast"}, {"optimizer": "adamw"}])
def test_a_run_that_asks_nothing_is_the_same_run(monkeypatch: pytest.MonkeyPatch, options: dict) -> None:
    ends = []
    for device_is_asked in (True, False):
        if not device_is_asked:
            monkeypatch.setattr(Silo, "still", property(lambda silo: len(silo.parts) == 1 and not silo.left))
        model = attached(**options)
        said = run(model, optimizer_of(model, steps=40), 30)
        ends.append((said, places(model), [part.shadow.tolist() for part in subset_of(model).parts]))
    assert ends[0] == ends[1]


@pytest.mark.parametrize("dropped", ["reset", "mask"])
def test_moments_of_weights_that_leave_are_the_same(monkeypatch: pytest.MonkeyPatch, dropped: str) -> None:
    ends = []
    for device_is_asked in (True, False):
        if not device_is_asked:
            monkeypatch.setattr(Silo, "still", property(lambda silo: True))
        model = attached(optimizer="adamw", dropped_state=dropped)
        optimizer = optimizer_of(model, steps=10)
        run(model, optimizer, 6)
        ends.append([optimizer.state[part.parameter]["exp_avg"].clone() for part in subset_of(model).parts])
    assert all(torch.equal(asked, other) for asked, other in zip(*ends, strict=True))


def chosen(silo: Silo) -> Silo:
    """As after a first step, without one."""
    (part,) = silo.parts
    part.index = torch.arange(silo.k, device=part.weight.device)
    part.old = part.weight[: silo.k].clone()
    part.shadow = part.old.float() + 1
    return silo


@pytest.mark.parametrize("kind", ["one", "experts"])
@pytest.mark.parametrize("rule", sorted(RULES))
def test_nothing_is_asked_of_an_accelerator(kind: str, rule: str) -> None:
    """Tensors without contents, on a device that is none: whatever depends on a number in them raises."""
    silo = chosen(silo_of(torch.zeros(SHAPE, device="meta"), kind, 3))
    (part,) = silo.parts
    proposal = RULES[rule]().propose(part, torch.zeros(SHAPE, device="meta"), {}, 0.1)
    silo.project([proposal])
    assert part.index.shape == part.shadow.shape == part.old.shape == (silo.k,)
    silo.follow([proposal.own()])
    assert silo.finite is not None
    with pytest.raises((RuntimeError, NotImplementedError), match="meta"):
        silo.judge([proposal])


@pytest.mark.parametrize("rule", sorted(RULES))
def test_what_counts_steps_comes_back_to_the_host_and_moments_to_the_device(rule: str) -> None:
    """A state that was saved elsewhere, for a tensor without contents on a device that is none."""
    here, state = Part("w", torch.zeros(3, 4)), {"competed": torch.ones(())}
    RULES[rule]().propose(here, torch.ones(3, 4), state, 0.1)
    silo = chosen(Silo("w", [Part("w", torch.zeros(3, 4, device="meta"))], 3))
    (part,) = silo.parts
    optimizer = GuardedOptimizer([{"params": [part.parameter]}], silos=[silo], rule=RULES[rule](), movement=Moving())
    restore_moments(optimizer, {"w": part.parameter}, {f"w.{key}": value for key, value in state.items()})
    restored = optimizer.state[part.parameter]
    assert restored.keys() == state.keys()
    for key, value in restored.items():
        assert value.device.type == ("cpu" if key in ("step", "competed") else "meta"), key
    part.parameter.grad = torch.zeros(3, 4, device="meta")
    silo.project([optimizer._proposal(part)])
    assert float(restored["step"]) == 2.0


@pytest.mark.parametrize("held", [1, 5])
def test_a_subset_that_holds_more_or_fewer_than_its_budget_comes_to_it(still: None, held: int) -> None:
    """As after a sum of adapters."""
    ends = []
    for asked in (True, False):
        silo = silo_of(torch.zeros(SHAPE), "one", 3)
        (part,) = silo.parts
        part.put(torch.arange(held) * 2, torch.linspace(1.0, 2.0, held))
        for _ in range(2):
            proposal = Whole(part, torch.linspace(-1.5, 1.5, 24).view(SHAPE))
            if asked:
                silo.move(silo.judge([proposal]))
            else:
                silo.project([proposal])
        assert silo.chosen == 3
        ends.append(state_of(silo))
    for ours, theirs in zip(*ends, strict=True):
        assert torch.equal(ours, theirs)


@pytest.mark.parametrize("spoil", ["project", "follow"])
def test_a_spoiled_step_moves_nothing_and_is_told_once_the_step_is_over(still: None, spoil: str) -> None:
    silo = chosen(silo_of(torch.zeros(SHAPE), "one", 3))
    (part,) = silo.parts
    part.apply()
    before = [kept.clone() for kept in (part.weight, part.index, part.shadow, part.old)]
    hat = torch.ones(SHAPE)
    hat[0, 0, 1] = torch.nan
    if spoil == "project":
        silo.project([Whole(part, hat)])
    else:
        silo.follow([hat.view(-1)[part.index]])
    assert not bool(silo.finite)
    for kept, was in zip((part.weight, part.index, part.shadow, part.old), before, strict=True):
        assert torch.equal(kept, was)


def test_a_spoiled_gradient_ends_a_run_by_name(still: None) -> None:
    model = attached()
    optimizer = optimizer_of(model, steps=10)
    run(model, optimizer, 2)
    part = subset_of(model).parts[1]
    before = part.shadow.clone()
    part.parameter.register_hook(lambda grad: grad * torch.nan)
    with pytest.raises(DivergedError, match=rf"some of `{part.name}` infinite or not a number. Use a lower"):
        run(model, optimizer, 1)
    assert torch.equal(part.shadow, before)


def test_a_spoiled_first_step_is_told_at_once(still: None) -> None:
    silo = silo_of(torch.zeros(SHAPE), "one", 3)
    with pytest.raises(DivergedError, match="must stay finite"):
        silo.project([Whole(silo.parts[0], torch.full(SHAPE, torch.inf))])
    assert not silo.parts[0].weight.any()


@pytest.mark.gpu
@pytest.mark.parametrize(
    "options",
    [*({"optimizer": rule} for rule in sorted(RULES)), {"preset": "fast"}, {"select_steps": 0.1, "refresh_every": 0}],
    ids=str,
)
def test_check_15_a_step_on_a_gpu_waits_once_when_it_is_over(monkeypatch: pytest.MonkeyPatch, options: dict) -> None:
    """All of ``step``, the head's included, but for the one question at its end. The memory and time that check 15
    aims at are measured by ``benchmarks/dynamic_subset.py``."""
    model = attached(**options).to("cuda")
    optimizer = optimizer_of(model, steps=20)
    run(model, optimizer, 3)
    asked = []

    def ask() -> None:
        torch.cuda.set_sync_debug_mode("default")
        asked.append(SubsetOptimizer._ask(optimizer))
        torch.cuda.set_sync_debug_mode("error")

    monkeypatch.setattr(optimizer, "_ask", ask)
    for _ in range(3):
        loss(model).backward()
        torch.cuda.set_sync_debug_mode("error")
        try:
            optimizer.step()
        finally:
            torch.cuda.set_sync_debug_mode("default")
        optimizer.zero_grad()
    assert len(asked) == 3
    assert all(bool(silo.finite) for silo in subset_of(model).silos)
