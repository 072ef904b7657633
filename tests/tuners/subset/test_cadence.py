"""Steps in which not all weights compete: gathered gradients, the certificate, the preset ``fast``, the controls."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import foretune
from foretune.errors import UsageError
from foretune.testing import toys
from foretune.tuners.dynamic_subset import DynamicSubset
from foretune.tuners.subset.cadence import Cadence
from foretune.tuners.subset.model import dst_optimizer, subset_of
from foretune.tuners.subset.movement import Moving, certified
from foretune.tuners.subset.part import Part
from foretune.tuners.subset.rules import RULES, Adafactor, Whole
from foretune.tuners.subset.silo import DISTANCES, Silo, register_distance

ARCHITECTURES = ["bert", "gpt2", "llama", "t5"]


def attached(name: str = "bert", **options: object) -> torch.nn.Module:
    network = toys.network(name)
    return DynamicSubset(**{"density": 0.05, **options}).attach(network, toys.fresh(network))


def optimizer_of(model: torch.nn.Module, steps: int, lr: float = 0.01) -> torch.optim.Optimizer:
    kind, settings = dst_optimizer(model, lr=lr, steps=steps)
    return kind([{"params": [p for p in model.parameters() if p.requires_grad]}], **settings)


def loss(model: torch.nn.Module) -> torch.Tensor:
    device = next(model.parameters()).device
    return model(**{name: value.to(device) for name, value in toys.batch(model).items()}).logits.square().sum()


def run(model: torch.nn.Module, optimizer: torch.optim.Optimizer, steps: int) -> list[dict[str, float]]:
    """``steps`` steps in training mode; what the tuner says after each."""
    said = []
    model.train()
    for _ in range(steps):
        loss(model).backward()
        optimizer.step()
        optimizer.zero_grad()
        said.append(dict(DynamicSubset().monitor(model)))
    return said


def places(model: torch.nn.Module) -> list[list[int]]:
    return [part.index.tolist() for part in subset_of(model).parts]


@pytest.mark.parametrize("checkpointing", [False, True], ids=["plain", "checkpointed"])
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_gathered_gradients_are_those_of_the_whole_matrix(name: str, checkpointing: bool):
    model = attached(name, select_steps=0.01, refresh_every=0)
    if checkpointing:
        model.activation_checkpointing_enable()
    optimizer = optimizer_of(model, steps=100)
    run(model, optimizer, 1)
    assert optimizer.taps
    loss(model).backward()
    gathered = {name: tap.grad.clone() for name, tap in optimizer.taps.items()}
    for tap in optimizer.taps.values():
        assert tap.part.parameter.grad is None
        assert tap.part.parameter.requires_grad
        tap.part.parameter.requires_grad_(True)
        tap.grad = None
    handles = [tap.part.parameter for tap in optimizer.taps.values()]
    del optimizer
    loss(model).backward()
    for part, weight in zip(subset_of(model).parts, handles, strict=False):
        if part.name in gathered:
            whole = weight.grad.view(-1)[part.index]
            torch.testing.assert_close(gathered[part.name], whole, rtol=1e-4, atol=1e-6)


def test_micro_batches_add_up_in_gathered_gradients():
    sums = []
    for times in (1, 2):
        torch.manual_seed(0)
        model = attached(select_steps=0.01, refresh_every=0)
        optimizer = optimizer_of(model, steps=100)
        run(model, optimizer, 1)
        for _ in range(times):
            (loss(model) / times).backward()
        sums.append([tap.grad for tap in optimizer.taps.values()])
    for one, two in zip(*sums, strict=True):
        torch.testing.assert_close(one, two)


def test_a_frozen_subset_stays_and_its_weights_go_on_moving():
    model = attached(select_steps=0.2, refresh_every=0)
    optimizer = optimizer_of(model, steps=10)
    run(model, optimizer, 2)
    chosen, before = places(model), [part.shadow.clone() for part in subset_of(model).parts]
    said = run(model, optimizer, 8)
    assert places(model) == chosen
    assert not any(torch.equal(part.shadow, old) for part, old in zip(subset_of(model).parts, before, strict=True))
    assert said[-1]["dense"] == pytest.approx(0.2)
    assert "certified" not in said[-1]


def test_a_model_in_evaluation_mode_gathers_as_one_in_training_mode_does():
    """Without dropout both compute the same; a pass before which nobody aimed would leave the wrong gradients."""
    ends = []
    for training in (True, False):
        model = attached(select_steps=0.1, refresh_every=3)
        optimizer = optimizer_of(model, steps=20)
        for step in range(12):
            model.train(training or step < 3)
            loss(model).backward()
            optimizer.step()
            optimizer.zero_grad()
        ends.append((places(model), [part.shadow.tolist() for part in subset_of(model).parts]))
    assert ends[0] == ends[1]


def test_check_18_a_rate_that_grows_between_the_passes_and_the_step_is_told():
    """Certain of a subset before, and no more when it is to step: the gradients that it then needs were not made."""
    model = attached(freeze="certificate", select_steps=1.0)
    optimizer = optimizer_of(model, steps=50, lr=0.05)
    run(model, optimizer, 20)
    optimizer.param_groups[0]["lr"] = 1e-6
    loss(model).backward()
    optimizer.param_groups[0]["lr"] = 10.0
    with pytest.raises(UsageError, match=r"all weights of `bert.*compete.*before the forward pass"):
        optimizer.step()


def test_check_20_the_share_of_dense_steps_is_what_was_done():
    model = attached(preset="fast", freeze="never", select_steps=0.1, refresh_every=5, select_until=0.5)
    said = run(model, optimizer_of(model, steps=40), 40)
    assert [round(one["dense"] * step) for step, one in enumerate(said, 1)][-1] == 4 + 3


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(("lr", "large", "often"), [(0.01, 1.0, 50), (1e-4, 50.0, 0), (1e-5, 50.0, 0)])
def test_check_16_no_certified_silo_would_have_changed(seed: int, lr: float, large: float, often: int):
    """Exact selection in every step, also in those in which the certificate would have spared it. Beside large weights
    the rounding of one step is as long as the step."""
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(30, 20, generator=generator)
    weight[:, 1::2] *= large
    rule, state = Adafactor(bound=3.0), {}
    movement = Moving(Cadence(certify=True))
    silo = Silo("w", [Part("w", weight)], 30)
    certain = 0
    for step in range(1, 401):
        rate = lr * (1 - (step - 1) / 400)
        stays = movement.follows(silo, step, 400, rule.bound * rate)
        assert stays == silo.certain
        before = silo.parts[0].index.clone()
        shift = torch.randn(30, 20, generator=generator)
        shift[:3, :10] += 5.0
        silo.project([rule.propose(silo.parts[0], shift, state, rate)])
        if stays:
            certain += 1
            assert torch.equal(silo.parts[0].index, before), step
    assert certain >= often


@pytest.mark.parametrize(("distance", "stays"), [(1.5, False), (1.9, False), (2.1, True)])
def test_check_16_the_nearest_may_come_back_by_one_step_while_another_goes_away_by_one(distance: float, stays: bool):
    """The worst step within the bound: between one and two times the bound from the base the subset does change."""
    reach, part = 1.0, Part("w", torch.zeros(4))
    silo = Silo("w", [part], 1)
    silo.project([Whole(part, torch.tensor([distance, 0.0, 0.0, 0.0]))])
    assert part.index.tolist() == [0]
    assert certified(silo, reach) is stays
    assert Moving(Cadence(certify=True)).follows(silo, 2, 10, reach) is stays
    silo.project([Whole(part, torch.tensor([distance - reach, 0.0, reach, 0.0]))])
    assert (part.index.tolist() == [0]) is stays
    assert not certified(silo, None)


@pytest.mark.parametrize("rule", ["adafactor", "sgd"])
def test_no_weight_moves_by_more_than_the_bound(rule: str):
    made, weight = RULES[rule](bound=2.0), torch.zeros(20, 10)
    proposal = made.propose(Part("w", weight), torch.randn(20, 10) * 100, {}, 0.1)
    assert float(proposal.dense().abs().max()) == pytest.approx(0.2)


def test_the_fast_preset_learns_and_looks_at_few_gradients():
    torch.manual_seed(0)
    model = attached(preset="fast")
    optimizer = optimizer_of(model, steps=60)
    first = loss(model).item()
    said = run(model, optimizer, 60)
    assert loss(model).item() < first
    assert said[-1]["dense"] <= 8 / 60 + 1e-6
    assert 0.0 <= said[-1]["certified"] <= 1.0


@pytest.mark.parametrize("rule", ["adafactor", "sgd"])
def test_a_delta_that_was_trained_before_goes_on_with_few_gradients(rule: str, tmp_path: Path):
    """Its subset is there from the start, and so far from the base that it is certified, but the rule is new."""
    model = foretune.get_peft_model(toys.network("bert"), DynamicSubset(density=0.05, preset="fast", optimizer=rule))
    run(model, optimizer_of(model, steps=20, lr=0.05), 20)
    model.save_pretrained(tmp_path)
    again = foretune.SubsetModel.from_pretrained(toys.network("bert"), tmp_path, is_trainable=True)
    assert all(silo.least() > 0 for silo in subset_of(again).silos)
    said = run(again, optimizer_of(again, steps=20, lr=1e-6), 3)
    assert said[0]["certified"] == 0.0
    assert said[1]["certified"] > 0.0
    assert said[2]["dense"] < 1.0


@pytest.mark.parametrize("times", [0.01, 1.0, 100.0])
def test_between_whole_steps_the_subsets_own_step_is_clipped_too(times: float):
    """Its gradients grow a hundredfold after the last step that saw all, in which nothing had to be scaled down."""
    rule, part, state = Adafactor(), Part("w", torch.zeros(6, 5)), {}
    Silo("w", [part], 4).project([rule.propose(part, torch.ones(6, 5), state, 0.1)])
    assert float(state["shrink"]) == 1.0
    grad = times * torch.tensor([1.0, -1.0, 2.0, 0.5])
    step = part.shadow - rule.follow(part, grad, state, 0.1)
    share = 2**-0.8
    free = 0.1 * grad / (1 - share + share * grad.square()).sqrt()
    size = float(free.square().mean().sqrt()) / 0.1
    assert (size > 1.0) == (times == 100.0)
    torch.testing.assert_close(step, free / max(1.0, size))


def test_what_the_last_whole_step_was_scaled_down_by_counts_on():
    rule, part, state = Adafactor(), Part("w", torch.zeros(6, 5)), {}
    Silo("w", [part], 4).project([rule.propose(part, torch.ones(6, 5), state, 0.1)])
    state["shrink"] = torch.tensor(0.25)
    step = part.shadow - rule.follow(part, torch.ones(4), state, 0.1)
    torch.testing.assert_close(step, torch.full((4,), 0.025))


def test_statistics_take_in_the_steps_that_were_not_seen():
    rule, weight = Adafactor(), torch.randn(6, 5)
    part, state = Part("w", weight), {}
    Silo("w", [part], 4).project([rule.propose(part, torch.ones(6, 5), state, 0.01)])
    assert torch.allclose(state["row"], torch.ones(6))
    for _ in range(9):
        part.shadow = rule.follow(part, torch.ones(4), state, 0.01)
    rule.propose(part, torch.full((6, 5), 2.0), state, 0.01)
    missed = 1 - (1 - 11**-0.8) ** 10
    assert torch.allclose(state["row"], torch.full((6,), 1 + 3 * missed))
    assert "own" not in state


def test_without_reset_more_than_the_budget_ends_up_away_and_only_k_move_in_a_step():
    model = attached(reset=False)
    optimizer = optimizer_of(model, steps=10, lr=0.05)
    run(model, optimizer, 1)
    subset = subset_of(model)
    for _ in range(4):
        before = [part.weight.clone() for part in subset.parts]
        run(model, optimizer, 1)
        for silo, old in zip(subset.silos, before, strict=True):
            assert int((silo.parts[0].weight != old).sum()) <= silo.k
    assert sum(silo.chosen for silo in subset.silos) > sum(silo.k for silo in subset.silos)
    assert subset.size == sum(silo.chosen for silo in subset.silos)


@pytest.mark.parametrize("dropped", ["keep", "reset", "mask"])
def test_moments_of_weights_that_leave(dropped: str):
    model = attached(optimizer="adamw", distance="rel", dropped_state=dropped)
    optimizer = optimizer_of(model, steps=10, lr=0.05)
    run(model, optimizer, 1)
    (part, *_) = subset_of(model).parts
    before = set(part.index.tolist())
    for _ in range(6):
        run(model, optimizer, 1)
        gone = sorted(before - set(part.index.tolist()))
        moment = optimizer.state[part.parameter]["exp_avg_sq"].view(-1)
        if gone and dropped != "keep":
            assert float(moment[gone].abs().max()) == 0.0
        if dropped == "mask":
            outside = torch.ones(len(part), dtype=torch.bool)
            outside[part.index] = False
            assert float(moment[outside].abs().max()) == 0.0
        if gone and dropped == "keep":
            assert float(moment[gone].abs().max()) > 0.0
        before = set(part.index.tolist())


def test_a_distance_of_ones_own_chooses(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(DISTANCES, "unused", DISTANCES["abs"])
    register_distance("against", lambda displacement, base: displacement.abs() * (base < 0))
    try:
        model = attached(distance="against")
        run(model, optimizer_of(model, steps=10), 2)
        assert all(bool((part.old < 0).float().mean() > 0.9) for part in subset_of(model).parts)
    finally:
        del DISTANCES["against"]
    with pytest.raises(UsageError, match=r"one of abs, rel,.* unused, but got `against`.*register_distance"):
        attached(distance="against")


def test_a_floor_far_above_all_weights_makes_rel_choose_as_abs():
    chosen = []
    for options in ({"distance": "rel"}, {"distance": "rel", "rel_tau": 1e6}, {}):
        model = attached(**options)
        run(model, optimizer_of(model, steps=10), 1)
        chosen.append(places(model))
    near_zero, floored, absolute = ([set(of) for of in one] for one in chosen)
    shared = sum(len(one & other) for one, other in zip(floored, absolute, strict=True))
    assert shared > 0.95 * sum(len(one) for one in absolute)
    assert sum(len(one & other) for one, other in zip(near_zero, absolute, strict=True)) < 0.5 * shared


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"select_steps": 0.0}, r"`0 < select_steps <= 1` must hold, but got select_steps=0.0"),
        ({"refresh_every": -1}, "refresh_every=-1"),
        ({"bound": 0.0}, "bound=0.0"),
        ({"distance": "rel", "rel_tau": 0.0}, "rel_tau=0.0"),
        ({"rel_tau": 0.1}, "Only `distance=rel` reads rel_tau.*rel_tau=0.1 with distance=abs"),
        ({"preset": "fast", "optimizer": "adamw"}, "AdamW needs all gradients.*`optimizer=adafactor`"),
        ({"freeze": "certificate", "distance": "rel"}, "distance=rel.*`freeze=never`"),
        ({"dropped_state": "reset"}, "Only AdamW has moments.*dropped_state=reset with optimizer=adafactor"),
    ],
)
def test_check_18_what_does_not_go_together_is_said(options: dict, message: str):
    with pytest.raises(UsageError, match=message):
        DynamicSubset(**options)


def test_check_18_the_number_of_steps_must_be_known():
    with pytest.raises(UsageError, match=r"number of steps must be known.*dst_optimizer\(model, steps=1000\)"):
        optimizer_of(attached(preset="fast"), steps=None)  # type: ignore[arg-type]


def test_without_gathering_a_frozen_subset_moves_as_if_all_weights_had_competed():
    models = [attached(refresh_every=0, select_steps=0.5, gather=False), attached()]
    said = [run(model, optimizer_of(model, steps=8), 8) for model in models]
    assert said[0][-1]["dense"] == pytest.approx(0.5)
    assert all(part.parameter.grad is None for part in subset_of(models[0]).parts)
    assert said[0][3]["least_displacement"] == said[1][3]["least_displacement"]
    same = [
        a.tolist() == b.tolist() for a, b in zip(*([p.index for p in subset_of(m).parts] for m in models), strict=True)
    ]
    assert not all(same)
    DynamicSubset(select_steps=0.5, refresh_every=0, gather=False, optimizer="adamw")
