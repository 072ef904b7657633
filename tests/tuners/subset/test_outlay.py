"""What training a subset takes: bytes by rule, and how many weights' gradients are made."""

from __future__ import annotations

import pytest
import torch
from test_cadence import attached, optimizer_of, run

from foretune.records import Schedule
from foretune.testing import toys
from foretune.tuners.dynamic_subset import DynamicSubset, StaticSubset
from foretune.tuners.subset.model import subset_of
from foretune.tuners.subset.rules import RULES

WHOLE = Schedule(steps=10, batch_size=8)
MICRO = Schedule(steps=10, batch_size=8, micro_batch=2)


def sizes(model: torch.nn.Module) -> list[int]:
    return [len(part) for part in subset_of(model).parts]


def bytes_of(model: torch.nn.Module, schedule: Schedule = WHOLE) -> int:
    return DynamicSubset().training_bytes(model, schedule)


@pytest.mark.parametrize("rule", sorted(RULES))
def test_what_a_rule_says_it_remembers_is_what_its_state_holds(rule: str):
    model = attached(optimizer=rule, more=("norms", "biases", "embeddings"))
    optimizer = optimizer_of(model, steps=10)
    run(model, optimizer, 1)
    for part in subset_of(model).parts:
        held = sum(value.numel() for value in optimizer.state[part.parameter].values() if value.dim())
        assert held == RULES[rule]().remembered(part.parameter.shape), part.name


def test_adafactor_that_frees_gradients_takes_a_fraction_of_adamw():
    freed, kept = bytes_of(attached()), bytes_of(attached(), MICRO)
    adamw = bytes_of(attached(optimizer="adamw"))
    matrices = sizes(attached())
    assert kept - freed == 4 * (sum(matrices) - max(matrices))
    assert adamw - kept > 0.8 * 8 * sum(matrices)
    assert adamw > 12 * sum(matrices) > 2 * freed


def test_a_static_mask_sums_gradients_before_it_is_chosen():
    moving = attached()
    network = toys.network("bert")
    static = StaticSubset(density=0.05).attach(network, toys.fresh(network))
    assert bytes_of(static) - bytes_of(moving) == 4 * sum(sizes(moving))


def test_every_step_that_selects_makes_all_gradients_and_one_that_gathers_those_of_the_subset():
    exact = attached(density=0.005)
    run(exact, optimizer_of(exact, steps=10), 2)
    head = sum(value.numel() for value in subset_of(exact).head_base.values())
    assert DynamicSubset().gradients_made(exact) == head + sum(sizes(exact))
    frozen = attached(density=0.005, select_steps=0.2, refresh_every=0)
    run(frozen, optimizer_of(frozen, steps=10), 10)
    subset = subset_of(frozen)
    made = DynamicSubset().gradients_made(frozen)
    assert made == pytest.approx(head + 0.2 * sum(sizes(frozen)) + 0.8 * sum(silo.k for silo in subset.silos), rel=1e-5)
    control = attached(density=0.005, select_steps=0.2, refresh_every=0, gather=False)
    run(control, optimizer_of(control, steps=10), 10)
    assert DynamicSubset().gradients_made(control) == pytest.approx(head + sum(sizes(control)), rel=1e-6)
