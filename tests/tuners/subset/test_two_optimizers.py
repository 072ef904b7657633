"""Several optimizers on one network: the hooks of one leave the passes of another alone."""

from __future__ import annotations

import gc

import pytest
import torch
from test_cadence import loss, optimizer_of, run

import foretune
from foretune.errors import UsageError
from foretune.testing import toys
from foretune.tuners.dynamic_subset import DynamicSubset
from foretune.tuners.subset.model import dst_optimizer, subset_of

FAST = {"density": 0.05, "select_steps": 0.1, "refresh_every": 0}
"""Of 20 steps the first two look at all gradients."""


def two_adapters(**options: object) -> torch.nn.Module:
    model = foretune.get_peft_model(toys.network("bert"), DynamicSubset(**FAST, **options))
    model.add_adapter("other", DynamicSubset(**FAST, **options))
    return model


def learned(model: torch.nn.Module) -> list[torch.Tensor]:
    return [part.shadow.clone() for part in subset_of(model).parts]


def optimizer_that_frees(model: torch.nn.Module) -> torch.optim.Optimizer:
    kind, settings = dst_optimizer(model, lr=0.01, steps=20, free=True)
    return kind([{"params": [p for p in model.parameters() if p.requires_grad]}], **settings)


@pytest.mark.parametrize("make", [lambda model: optimizer_of(model, 20), optimizer_that_frees], ids=["tap", "free"])
def test_two_adapters_are_trained_in_turns_as_if_each_were_alone(make):
    def trained(turns: list[str]) -> dict[str, list[torch.Tensor]]:
        torch.manual_seed(0)
        model, optimizers = two_adapters(), {}
        for name in turns:
            model.set_adapter(name)
            if name not in optimizers:
                optimizers[name] = make(model)
            run(model, optimizers[name], 3)
        found = {}
        for name in optimizers:
            model.set_adapter(name)
            found[name] = learned(model)
        return found

    both = trained(["default", "other", "default", "other"])
    for name in both:
        alone = trained([name, name])
        assert all(torch.equal(ours, theirs) for ours, theirs in zip(both[name], alone[name], strict=True))


def test_a_pass_without_the_adapter_between_backward_and_step_takes_nothing_from_it():
    """Such as that of a reference model."""
    ends = []
    for refers in (False, True):
        torch.manual_seed(0)
        model = foretune.get_peft_model(toys.network("bert"), DynamicSubset(**FAST))
        optimizer = optimizer_of(model, 20)
        run(model, optimizer, 3)
        loss(model).backward()
        assert any(tap.grad is not None for tap in optimizer.taps.values())
        if refers:
            with model.disable_adapter():
                loss(model)
        optimizer.step()
        ends.append(learned(model))
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(*ends, strict=True))


@pytest.mark.parametrize("first", [optimizer_that_frees, lambda model: optimizer_of(model, 20)], ids=["free", "tap"])
def test_a_later_optimizer_takes_the_place_of_an_earlier_one_that_is_still_alive(first):
    torch.manual_seed(0)
    model = foretune.get_peft_model(toys.network("bert"), DynamicSubset(**FAST))
    earlier = first(model)
    run(model, earlier, 3)
    later = optimizer_of(model, 20)
    run(model, later, 3)
    assert later.taps
    with pytest.raises(UsageError, match=r"One optimizer at a time.*Step that one, or make this one again"):
        run(model, earlier, 1)
    del earlier
    gc.collect()
    run(model, later, 1)


def test_optimizers_that_look_at_no_pass_may_be_several():
    model = foretune.get_peft_model(toys.network("bert"), DynamicSubset(density=0.05))
    several = [optimizer_of(model, 20) for _ in range(2)]
    for optimizer in several:
        run(model, optimizer, 1)
