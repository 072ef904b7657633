"""LoRA, by acceptance check 6 of the comparison: W x + (alpha / r) B A x, of a frozen W, from B = 0."""

from __future__ import annotations

import hashlib

import pytest
import torch
from torch import nn
from transformers import OPTConfig, OPTForSequenceClassification

from foretune.models.network import quiet
from foretune.testing import toys
from foretune.tuners import LoRA


def trained(tuner: LoRA, network: nn.Module, steps: int = 3) -> nn.Module:
    """A few steps at a high rate, so that B is no longer 0."""
    torch.manual_seed(0)
    model = tuner.attach(network, toys.fresh(network))
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=3e-2)
    batch = toys.batch(network)
    for _ in range(steps):
        optimizer.zero_grad()
        model(**batch).logits.square().mean().backward()
        optimizer.step()
    return model.eval()


def logits(model: nn.Module, batch: dict[str, torch.Tensor]) -> torch.Tensor:
    with torch.inference_mode():
        return model.eval()(**batch).logits


def hashed(model: nn.Module) -> str:
    """Of every matrix that is not LoRA's own, by the name that it has without LoRA; of a head the one it began with."""
    found = {}
    for name, parameter in model.named_parameters():
        for added in ("base_model.model.", ".base_layer", ".original_module"):
            name = name.replace(added, "")
        if "lora_" not in name and "modules_to_save" not in name:
            found[name] = parameter
    sha = hashlib.sha256()
    for name in sorted(found):
        sha.update(name.encode() + found[name].detach().numpy().tobytes())
    return sha.hexdigest()


@pytest.mark.parametrize("name", ["bert", "llama"])
def test_check_6_at_first_the_output_is_that_of_the_base(name: str):
    torch.manual_seed(0)
    base = toys.network(name, "language").eval()
    batch = toys.batch(base)
    expected = logits(base, batch)
    assert torch.equal(logits(LoRA(rank=4).attach(base, ()), batch), expected)


@pytest.mark.parametrize(("rank", "size"), [(1, 36_864), (8, 294_912), (16, 589_824)])
def test_check_6_on_queries_and_values_of_opt_125m_a_rank_costs_36_864_numbers(rank: int, size: int):
    with quiet():
        config = OPTConfig(num_labels=2, vocab_size=40, max_position_embeddings=8)
        model = LoRA(rank=rank, targets="qv").attach(OPTForSequenceClassification(config), ("score",))
    own = [p.numel() for name, p in model.named_parameters() if p.requires_grad and "lora_" in name]
    assert sum(own) == size


def test_check_6_on_opt_350m_a_rank_costs_98_304_numbers():
    with torch.device("meta"), quiet():
        config = OPTConfig(num_labels=2, hidden_size=1024, num_hidden_layers=24, num_attention_heads=16, ffn_dim=4096)
        model = LoRA(rank=2, targets="qv").attach(OPTForSequenceClassification(config), ("score",))
    assert sum(p.numel() for name, p in model.named_parameters() if "lora_" in name) == 2 * 98_304


@pytest.mark.parametrize("name", ["bert", "llama"])
def test_check_6_merged_equals_unmerged_and_the_base_is_as_it_was(name: str):
    torch.manual_seed(0)
    network = toys.network(name, "sequence")
    before = hashed(network)
    tuner = LoRA(rank=4)
    model = trained(tuner, network)
    batch = toys.batch(toys.network(name, "sequence"))
    expected = logits(model, batch)
    assert hashed(model) == before
    torch.testing.assert_close(logits(tuner.merge(model), batch), expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize(("rank", "alpha"), [(2, 16.0), (8, 16.0), (8, 4.0)])
def test_check_6_what_is_added_is_scaled_by_alpha_over_the_rank(rank: int, alpha: float):
    model = trained(LoRA(rank=rank, alpha=alpha), toys.network("bert", "sequence"))
    layer = next(m for m in model.modules() if hasattr(m, "lora_A") and "default" in m.lora_A)
    down, up = layer.lora_A["default"].weight, layer.lora_B["default"].weight
    x = torch.randn(5, down.shape[1])
    with torch.inference_mode():
        added = layer(x) - layer.base_layer(x)
    assert up.abs().max() > 0
    torch.testing.assert_close(added, alpha / rank * x @ down.T @ up.T, atol=1e-5, rtol=1e-4)
