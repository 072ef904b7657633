"""Churn of every step: kept on the device while steps are made, told once."""

from __future__ import annotations

import pytest
import torch
from test_cadence import attached, loss, optimizer_of

from foretune.tuners.dynamic_subset import DynamicSubset
from foretune.tuners.subset.churn import Churn
from foretune.tuners.subset.model import subset_of
from foretune.tuners.subset.part import Part
from foretune.tuners.subset.silo import Change, Silo


@pytest.mark.parametrize("still", [False, True])
def test_what_is_told_of_every_step_is_what_would_have_been_said_after_it(
    still: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if still:
        monkeypatch.setattr(Silo, "still", property(lambda silo: len(silo.parts) == 1))
    tuner, model, said = DynamicSubset(), attached(), {}
    optimizer = optimizer_of(model, steps=6)
    for step in range(1, 7):
        loss(model).backward()
        optimizer.step()
        optimizer.zero_grad()
        tuner.after_step(model, step)
        said[step] = tuner.monitor(model)["churn"]
    assert isinstance(subset_of(model).silos[0].change.entered, torch.Tensor) == still
    told = tuner.between(model)
    assert {step: numbers["churn"] for step, numbers in told.items()} == said
    assert said[1] == 1.0
    assert tuner.between(model) == {}


def test_keeping_asks_nothing_of_an_accelerator() -> None:
    """On a tensor without contents, of which any number that is asked for raises."""
    silo, churn = Silo("w", [Part("w", torch.zeros(5))], 2), Churn()
    churn.keep(1, [silo])
    assert churn.told() == {}
    silo.parts[0].index = torch.tensor([0, 1])
    silo.change = Change(torch.zeros((), dtype=torch.int64, device="meta"))
    churn.keep(2, [silo])
    with pytest.raises((RuntimeError, NotImplementedError)):
        churn.told()
