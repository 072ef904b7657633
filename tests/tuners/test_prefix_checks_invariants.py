"""Acceptance checks 1 to 9 of prefix subspaces: what must hold whatever is trained. Named by their number."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest

from foretune.testing import toys
from foretune.testing.contracts import attached, logits
from foretune.tuners import PrefixSubspace, PrefixTuning, get_peft_model
from foretune.tuners._peft import without_own_warnings

STOCK = (
    *((name, "sequence") for name in ("bert", "roberta", "gpt2", "llama", "qwen3")),
    *((name, "language") for name in ("gpt2", "llama", "qwen3")),
)
EVERY = (*((name, "sequence") for name in toys.ARCHITECTURES), ("bert", "token"), ("llama", "language"))
EVERY = (*EVERY, ("gemma3", "language"), ("t5", "language"))
DEVICES = ("cpu", pytest.param("cuda", marks=pytest.mark.gpu))

served = pytest.mark.parametrize("served", EVERY, ids="-".join)
by_stock = pytest.mark.parametrize("served", STOCK, ids="-".join)


def drawn(model, rows: int, seed: int = 1):
    """Weights for ``rows`` texts."""
    import torch

    return model.mixture.law.draw(rows, torch.Generator().manual_seed(seed))


def batch_of(case: tuple[str, str], **options):
    return toys.batch(toys.network(*case), **options)


def gradient(model, batch, wanted):
    """Of an arbitrary loss over the logits."""
    import torch

    rows = model(**batch).logits.flatten(0, -2)
    loss = torch.nn.functional.cross_entropy(rows, torch.zeros(len(rows), dtype=torch.long))
    return torch.autograd.grad(loss, wanted)[0]


def close(found, expected, tolerance: float) -> None:
    """Equal within ``tolerance``, absolute up to 1 and relative above: T5's toy has such logits."""
    import torch

    torch.testing.assert_close(found, expected, atol=tolerance, rtol=tolerance)


def on(device: str):
    import torch

    if device == "cuda" and not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    return device


@by_stock
@pytest.mark.parametrize(
    "tuner", [PrefixTuning(length=4), PrefixSubspace(length=4, n_vertices=1)], ids=lambda t: t.name
)
def test_check_07_01_one_vertex_is_stock_prefix_tuning_bit_for_bit(tuner, served):
    import torch
    from peft import PrefixTuningConfig

    ours, batch = attached(tuner, served), batch_of(served)
    config = ours.active_peft_config
    stock = get_peft_model(
        toys.network(*served),
        PrefixTuningConfig(task_type=config.task_type, num_virtual_tokens=4, modules_to_save=config.modules_to_save),
    ).eval()
    weight = stock.prompt_encoder["default"].embedding.weight
    with torch.no_grad():
        weight.copy_(ours.vertices[0])
    expected, vertices = logits(stock, batch), ours.mixture.prefix.vertices
    assert torch.equal(logits(ours, batch), expected)
    with ours.sampled(1):
        assert torch.equal(logits(ours, batch), expected)
    for mode in (False, True):
        stock.train(mode), ours.train(mode)
        assert torch.equal(gradient(ours, batch, vertices)[0], gradient(stock, batch, weight))


@by_stock
@pytest.mark.parametrize("device", DEVICES)
def test_check_07_02_a_corner_is_the_stock_adapter_with_that_vertex(served, device: str, tmp_path: Path):
    import torch
    from peft import PeftModel

    model = attached(PrefixSubspace(length=4), served).to(on(device))
    batch = {name: tensor.to(device) for name, tensor in batch_of(served).items()}
    for i in range(3):
        copy.deepcopy(model).collapse(f"vertex:{i}").save_pretrained(tmp_path)
        with without_own_warnings():
            stock = PeftModel.from_pretrained(toys.network(*served).to(device), str(tmp_path)).eval()
        assert torch.equal(stock.prompt_encoder["default"].embedding.weight, model.vertices[i])
        with model.at(torch.eye(3)[i]):
            found = logits(model, batch)
        close(found, logits(stock, batch), 0 if device == "cpu" else 1e-6)
        with model.at(f"vertex:{i}"):
            assert torch.equal(logits(model, batch), found)


@served
def test_check_07_03_equal_weights_are_the_collapsed_midpoint_bit_for_bit(served):
    """That stock PEFT reloads the same in a fresh process is ``test_check_07_03`` of ``test_folder``."""
    import torch

    model, batch = attached(PrefixSubspace(length=4), served), batch_of(served)
    midpoint = logits(model, batch)
    for point in (torch.full((3,), 1 / 3), [1 / 3] * 3, "midpoint"):
        with model.at(point):
            assert torch.equal(logits(model, batch), midpoint)
    assert torch.equal(logits(copy.deepcopy(model).collapse("midpoint"), batch), midpoint)


@served
def test_check_07_04_with_equal_vertices_weights_do_not_matter(served):
    import torch

    model, batch = attached(PrefixSubspace(length=4), served), batch_of(served)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "simplex" in name or "vertices" in name:
                parameter.copy_(parameter[:1].expand_as(parameter).clone())
    with model.at(drawn(model, 3)):
        close(logits(model, batch), (midpoint := logits(model, batch)), 1e-6)
    close(logits(model, batch), midpoint, 1e-6)


@served
def test_check_07_05_a_row_is_computed_as_if_it_were_alone_and_a_stack_as_a_loop(served):

    model, batch = attached(PrefixSubspace(length=4), served), batch_of(served)
    alpha = drawn(model, 6)
    with model.at(alpha[:3]):
        together = logits(model, batch)
    for row in range(3):
        with model.at(alpha[row : row + 1]):
            alone = logits(model, {name: tensor[row : row + 1] for name, tensor in batch.items()})
        close(together[row : row + 1], alone, 1e-5)
    with model.sampled(2, seed=1):
        stacked = logits(model, batch)
    for member in range(2):
        with model.at(alpha[member * 3 : member * 3 + 3]):
            close(stacked[member * 3 : member * 3 + 3], logits(model, batch), 1e-6)


@served
def test_check_07_06_the_order_of_vertices_does_not_matter(served):
    import torch

    model, batch = attached(PrefixSubspace(length=4), served), batch_of(served)
    alpha, order = drawn(model, 3), torch.tensor([2, 0, 1])
    with model.at(alpha):
        expected = logits(model, batch)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "simplex" in name or "vertices" in name:
                parameter.copy_(parameter[order].clone())
    with model.at(alpha[..., order]):
        close(logits(model, batch), expected, 1e-6)
    with model.at(alpha):
        assert not torch.allclose(logits(model, batch), expected, atol=1e-6, rtol=0)


@served
def test_check_07_07_gradients_of_vertices_are_weighted_sums_over_texts(served, monkeypatch: pytest.MonkeyPatch):
    import torch

    model, batch = attached(PrefixSubspace(length=4), served).train(), batch_of(served)
    mixture, points = model.mixture, []
    prepare = mixture.prepare

    def watched(*args, **kwargs):
        points.append(prepare(*args, **kwargs))
        for layer in points[-1].layers:
            layer.retain_grad()
        return points[-1]

    monkeypatch.setattr(mixture, "prepare", watched)
    rows = model(**batch).logits.flatten(0, -2)
    torch.nn.functional.cross_entropy(rows, torch.zeros(len(rows), dtype=torch.long)).backward()
    (point,) = points
    found = mixture.prefix.by_layer(mixture.prefix.vertices.grad)
    for number, layer in enumerate(point.layers):
        expected = torch.einsum("bi,kbhpw->kihpw", point.alpha[:, number], layer.grad)
        difference = (found[number] - expected).norm() / expected.norm()
        assert float(difference) <= 1e-5
    assert all(float(vertex.abs().max()) > 0 for vertex in mixture.prefix.vertices.grad)
    trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert {name for name, parameter in model.named_parameters() if parameter.grad is not None} == trained
    heads = {name for name in trained if not name.startswith("prompt_encoder.")}
    assert all("simplex_weight" in name or "simplex_bias" in name or "modules_to_save" in name for name in heads)


@pytest.mark.parametrize("name", ["bert", "roberta", "llama", "t5"])
def test_check_07_08_the_head_is_mixed_as_its_weights_would_be(name: str):
    import torch
    from torch.nn import functional as F

    from foretune.tuners.prefix.simplex import SimplexLinear

    model = attached(PrefixSubspace(length=4), (name, "sequence"))
    for head in (module for module in model.modules() if isinstance(module, SimplexLinear)):
        x = torch.randn(3, 5, head.in_features)
        weight, bias = head.simplex_weight, head.simplex_bias
        mean = F.linear(x, weight.mean(0), None if bias is None else bias.mean(0))
        close(head(x), mean, 1e-6)
        with model.at(torch.eye(3)[:, None]):
            found = head(x)
        for i in range(3):
            expected = F.linear(x[i], weight[i], None if bias is None else bias[i])
            close(found[i], expected, 1e-6)


def test_check_07_08_weights_of_the_head_are_drawn_independently_of_those_of_the_layers():
    import torch

    model = attached(PrefixSubspace(length=4), ("roberta", "sequence"))
    law, rows = model.mixture.law, 4000
    assert (law.layers, law.heads) == (2, 2)
    first = law.draw(rows, torch.Generator().manual_seed(0))[..., 0]
    correlations = torch.corrcoef(first.T) - torch.eye(law.slots)
    assert float(correlations.abs().max()) < 3 / rows**0.5


@pytest.mark.parametrize("n", [1, 3, 6])
@pytest.mark.parametrize(("name", "kv", "bias"), [("bert", 16, 1), ("llama", 8, 0), ("distilbert", 16, 1)])
def test_check_07_09_trained_numbers_are_counted_by_the_formula(name: str, kv: int, bias: int, n: int):
    model = PrefixSubspace(length=4, n_vertices=n).attach(toys.network(name, labels=3))
    head = n * (3 * 16 + 3 * bias) if name != "distilbert" else n * (3 * 16 + 3 + 16 * 16 + 16)
    assert model.get_nb_trainable_parameters()[0] == n * 4 * 2 * 2 * kv + head
