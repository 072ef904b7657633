"""Frozen matrices that are held in bf16 while a model trains: nothing may show it, and they come back."""

from __future__ import annotations

import pytest
import torch

from foretune.testing import toys
from foretune.training.engine import rounded


def bits(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: p.detach().clone() for name, p in model.named_parameters()}


@pytest.mark.parametrize("name", ["bert", "llama", "gpt2", "t5"])
def test_rounding_once_gives_the_outputs_of_rounding_in_every_step(name: str) -> None:
    """Also where the output layer is tied to an embedding, which is read without rounding."""
    model = toys.network(name, "language" if name != "bert" else "sequence").requires_grad_(False)
    inputs = toys.batch(model)
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        wanted = model(**inputs).logits
        with rounded(model, True):
            assert torch.bfloat16 in {p.dtype for p in model.parameters()} or name == "gpt2"
            found = model(**inputs).logits
    assert torch.equal(found, wanted)


def test_rounded_matrices_come_back_bit_for_bit_whatever_happens() -> None:
    model = toys.network("bert").requires_grad_(False)
    model.classifier.requires_grad_(True)
    before = bits(model)
    with rounded(model, True):
        assert {p.dtype for p in model.parameters()} == {torch.float32, torch.bfloat16}
        assert model.classifier.weight.dtype == torch.float32
    with pytest.raises(RuntimeError, match="must match the size"), rounded(model, True):
        model(inputs_embeds=torch.zeros(1, 2, 5, dtype=torch.bfloat16))
    after = bits(model)
    assert all(after[name].dtype == torch.float32 and torch.equal(after[name], before[name]) for name in before)


def test_without_bf16_nothing_is_rounded() -> None:
    model = toys.network("bert").requires_grad_(False)
    with rounded(model, False):
        assert {p.dtype for p in model.parameters()} == {torch.float32}
