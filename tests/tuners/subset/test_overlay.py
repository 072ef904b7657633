"""A subset over a quantised base: the steps of a subset of the weights as they are read, while no stored byte moves."""

from __future__ import annotations

import copy
import hashlib
import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from foretune.errors import ModelError
from foretune.testing import toys
from foretune.testing.contracts import logits, train
from foretune.testing.quantised import Int8Linear, dequantised, quantised
from foretune.training.optimizer import moments, restore_moments
from foretune.tuners.dynamic_subset import DynamicSubset, StaticSubset, SubsetTuner
from foretune.tuners.subset.model import base_hash, subset_of
from foretune.tuners.subset.overlay import OverlayLinear, OverlayPart, overlays, to_dense
from foretune.tuners.subset.quantised import Own

TUNER = DynamicSubset(density=0.02)


def attached(tuner: SubsetTuner, network: nn.Module) -> nn.Module:
    torch.manual_seed(0)
    return tuner.attach(network, toys.fresh(network))


def tuned(tuner: SubsetTuner = TUNER, name: str = "bert", kind: str = "sequence", steps: int = 5) -> nn.Module:
    """A quantised toy after some steps."""
    model = attached(tuner, quantised(toys.network(name, kind)))
    train(model, toys.batch(toys.network(name, kind)), tuner, steps)
    return model.eval()


def stored(model: nn.Module) -> str:
    """A hash of every byte that a quantised layer stores."""
    sha = hashlib.sha256()
    for module in model.modules():
        if isinstance(module, Int8Linear):
            sha.update(module.weight.numpy().tobytes())
            sha.update(module.scales.numpy().tobytes())
    return sha.hexdigest()


def same_subsets(one: nn.Module, other: nn.Module) -> bool:
    pairs = zip(subset_of(one).parts, subset_of(other).parts, strict=True)
    kept = ("index", "shadow", "old")
    return all(p.name == q.name and all(torch.equal(getattr(p, k), getattr(q, k)) for k in kept) for p, q in pairs)


@pytest.fixture
def layer() -> tuple[OverlayLinear, OverlayPart, nn.Linear]:
    """An overlaid 8 x 8 layer, its part, and an ordinary layer with the same weight."""
    base = Int8Linear(nn.Linear(8, 8))
    over = OverlayLinear(base, Own())
    part = OverlayPart("w", over)
    part.put(torch.tensor([3, 17, 40]), torch.tensor([0.5, -0.5, 2.0]))
    plain = nn.Linear(8, 8)
    plain.weight = nn.Parameter(base.dequantize().view(-1).scatter(0, part.index, part.shadow).view(8, 8))
    plain.bias = nn.Parameter(base.bias.detach().clone())
    return over, part, plain


@pytest.mark.parametrize(
    ("tuner", "served"),
    [
        (TUNER, ("bert", "sequence")),
        (TUNER, ("t5", "language")),
        (DynamicSubset(0.05, "global", "adamw", distance="rel", weight_decay=0.1), ("llama", "language")),
        (DynamicSubset(0.02, "layer", "sgd", more=("biases", "norms", "embeddings")), ("bert", "sequence")),
        (StaticSubset(0.02, mask="gradient"), ("llama", "language")),
        (StaticSubset(0.02, mask="smallest"), ("bert", "sequence")),
    ],
    ids=["bert", "t5", "adamw-global-rel", "sgd-more", "gradient", "smallest"],
)
def test_check_13_selection_and_values_are_those_of_a_subset_of_the_dequantised_weights(
    tuner: SubsetTuner, served: tuple[str, str]
):
    over = attached(tuner, quantised(toys.network(*served)))
    plain = attached(tuner, dequantised(quantised(toys.network(*served))))
    assert overlays(over)
    assert not overlays(plain)
    batch = toys.batch(toys.network(*served))
    for steps in (1, 1, 8):
        for model in (over, plain):
            train(model, batch, tuner, steps)
        assert same_subsets(over, plain)
        assert torch.equal(logits(over.eval(), batch), logits(plain.eval(), batch))
    assert tuner.monitor(over) == tuner.monitor(plain)
    assert base_hash(over) == base_hash(plain)


def test_check_13_the_overlaid_product_is_that_of_the_dequantised_weight_with_the_subset_in_it():
    model = tuned()
    for name, layer in overlays(model).items():
        part = next(part for part in subset_of(model).parts if part.name == f"{name}.weight")
        weight = layer.base_layer.dequantize().view(-1)
        assert torch.equal(part.old, weight[part.index])
        weight[part.index] = part.shadow
        x = torch.randn(3, 2, layer.in_features)
        expected = nn.functional.linear(x, weight.view(layer.out_features, -1), layer.bias)
        assert torch.equal(layer(x), expected)
        assert not torch.equal(layer(x), layer.base_layer(x))


def test_check_13_no_stored_byte_is_changed_by_training_saving_disabling_or_an_attempt_to_merge(tmp_path: Path):
    before = stored(quantised(toys.network("bert")))
    model, batch = tuned(), toys.batch(toys.network("bert"))
    assert stored(model) == before
    TUNER.save(model, tmp_path)
    with TUNER.disabled(model):
        untuned = quantised(toys.network("bert"))
        assert torch.equal(logits(model, batch), logits(untuned, batch))
    seen = logits(model, batch)
    with pytest.raises(ModelError, match=r"query` is a Int8Linear. Merge into 16 bits: `.*to_dense\(model, torch"):
        TUNER.merge(model)
    assert torch.equal(logits(model, batch), seen)
    assert not torch.equal(seen, logits(untuned, batch))
    to_dense(copy.deepcopy(model))
    assert stored(model) == before


@pytest.mark.parametrize("dtype", [None, torch.bfloat16], ids=str)
def test_a_dense_model_computes_the_same_and_is_an_ordinary_checkpoint(dtype: torch.dtype | None, tmp_path: Path):
    model, batch = tuned(name="llama", kind="language"), toys.batch(toys.network("llama"))
    before, weights = logits(model, batch), {name: part.weight.clone() for name, part in parts(model).items()}
    dense = to_dense(model, dtype)
    assert not overlays(dense)
    assert not any(isinstance(module, Int8Linear) for module in dense.modules())
    for name, weight in weights.items():
        assert torch.equal(dense.get_parameter(name).view(-1), weight.to(dtype or weight.dtype))
    if dtype is None:
        assert torch.equal(logits(dense, batch), before)
    dense.save_pretrained(tmp_path)
    again = type(dense).from_pretrained(tmp_path).eval()
    assert all(torch.equal(p, q.to(p.dtype)) for p, q in zip(dense.parameters(), again.parameters(), strict=True))


def parts(model: nn.Module) -> dict[str, OverlayPart]:
    return {part.name: part for part in subset_of(model).parts}


def test_a_delta_goes_back_onto_the_quantised_base_and_onto_the_dequantised_one_and_onto_no_other(tmp_path: Path):
    model, batch = tuned(), toys.batch(toys.network("bert"))
    TUNER.save(model, tmp_path)
    for network in (quantised(toys.network("bert")), dequantised(quantised(toys.network("bert")))):
        again = TUNER.restore(network, tmp_path).eval()
        assert same_subsets(again, model)
        assert torch.equal(logits(again, batch), logits(model, batch))
    with pytest.raises(ModelError, match=rf"hash {base_hash(model)}, but this one has"):
        TUNER.restore(toys.network("bert"), tmp_path)


def test_the_file_holds_the_bits_of_the_dequantised_base_and_says_how_it_was_quantised(tmp_path: Path):
    network = quantised(toys.network("bert"))
    network.config.quantization_config = {"quant_method": "toy", "bits": 8}
    model = attached(TUNER, network)
    train(model, toys.batch(toys.network("bert")), TUNER, 2)
    TUNER.save(model, tmp_path)
    config = json.loads((tmp_path / "adapter_config.json").read_text(encoding="utf-8"))
    assert config["quantization"] == {"quant_method": "toy", "bits": 8}
    tensors = load_file(tmp_path / "adapter_model.safetensors")
    for name, layer in overlays(model).items():
        index = tensors[f"{name}.weight.dst_indices"].long()
        old = layer.base_layer.dequantize().view(-1)[index]
        assert torch.equal(tensors[f"{name}.weight.dst_base"], old)
    assert not any("base_layer" in key for key in tensors)


@pytest.mark.parametrize("rule", ["adafactor", "adamw"])
def test_a_resumed_run_is_the_uninterrupted_one_bit_for_bit(rule: str):
    tuner, batch = DynamicSubset(density=0.02, optimizer=rule), toys.batch(toys.network("bert"))

    def begun() -> tuple[nn.Module, torch.optim.Optimizer]:
        model = attached(tuner, quantised(toys.network("bert")))
        chosen = [p for p in model.parameters() if p.requires_grad]
        return model, tuner.optimizer_for(model, [{"params": chosen, "lr": 0.01, "weight_decay": 0.0}])

    def steps(model: nn.Module, optimizer: torch.optim.Optimizer, count: int) -> None:
        for _ in range(count):
            model(**batch).logits.square().sum().backward()
            optimizer.step()
            optimizer.zero_grad()

    whole, optimizer = begun()
    steps(whole, optimizer, 3)
    kept = copy.deepcopy((tuner.learned(whole), moments(optimizer, dict(whole.named_parameters()))))
    steps(whole, optimizer, 4)
    resumed, optimizer = begun()
    tuner.put(resumed, kept[0])
    restore_moments(optimizer, dict(resumed.named_parameters()), kept[1])
    steps(resumed, optimizer, 4)
    assert same_subsets(whole, resumed)
    assert torch.equal(logits(whole, batch), logits(resumed, batch))


def test_check_10_nothing_of_the_size_of_a_weight_is_kept_for_the_backward_pass(
    layer: tuple[OverlayLinear, OverlayPart, nn.Linear],
):
    def kept(module: nn.Module) -> list[int]:
        sizes: list[int] = []

        def pack(tensor: torch.Tensor) -> torch.Tensor:
            sizes.append(tensor.numel())
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            module(torch.randn(2, 8, requires_grad=True)).sum().backward()
        return sizes

    over, part, plain = layer
    assert sorted(kept(over)) == [len(part.index), len(part.index), 2 * 8]
    assert max(kept(plain)) == 64


def test_gradients_are_those_of_an_ordinary_layer_also_when_it_is_used_twice_and_over_two_passes(
    layer: tuple[OverlayLinear, OverlayPart, nn.Linear],
):
    over, _, plain = layer
    inputs = [torch.randn(4, 3, 8, requires_grad=True) for _ in range(2)]
    grads = []
    for module in (over, plain):
        for x in inputs:
            module(module(x).tanh()).square().sum().backward()
        grads.append([module.weight.grad, module.bias.grad, *(x.grad for x in inputs)])
        for x in inputs:
            x.grad = None
    assert all(torch.equal(mine, theirs) for mine, theirs in zip(*grads, strict=True))


def test_a_frozen_overlay_has_no_gradient_and_still_passes_one_on(layer: tuple[OverlayLinear, OverlayPart, nn.Linear]):
    over, _, plain = layer
    over.requires_grad_(False)
    x = torch.randn(2, 8, requires_grad=True)
    over(x).sum().backward()
    (expected,) = torch.autograd.grad(plain(x).sum(), x)
    assert torch.equal(x.grad, expected)
    assert over.weight.grad is None


def test_a_subset_that_is_written_to_between_the_passes_is_an_error_and_not_a_wrong_gradient(
    layer: tuple[OverlayLinear, OverlayPart, nn.Linear],
):
    over, part, _ = layer
    made = over(torch.randn(2, 8, requires_grad=True)).sum()
    part.shadow.add_(1)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        made.backward()


def test_mixed_precision_is_that_of_the_dequantised_model():
    over, plain = (attached(TUNER, network) for network in (tuned_base(), dequantised(tuned_base())))
    batch = toys.batch(toys.network("bert"))
    for model in (over, plain):
        with torch.autocast("cpu", torch.bfloat16):
            loss = model(**batch).logits.float().square().sum()
        loss.backward()
    for name in overlays(over):
        mine, theirs = (model.get_parameter(f"{name}.weight").grad for model in (over, plain))
        assert mine.dtype == theirs.dtype == torch.float32
        assert torch.equal(mine, theirs)


def tuned_base() -> nn.Module:
    return quantised(toys.network("bert"))


def test_what_receives_the_gradient_takes_no_memory_and_whoever_reads_it_notices():
    model = tuned()
    for one in (model, copy.deepcopy(model), model.float(), model.to("cpu")):
        for name, layer in overlays(one).items():
            assert layer.weight.untyped_storage().nbytes() == 4
            assert layer.weight.shape == (layer.out_features, layer.in_features)
            assert layer.weight.isinf().all()
            assert parts(one)[f"{name}.weight"].parameter is layer.weight


def test_a_copy_goes_its_own_way():
    model, batch = tuned(), toys.batch(toys.network("bert"))
    twin, seen = copy.deepcopy(model), logits(model, batch)
    train(twin, batch, TUNER, 3)
    assert torch.equal(logits(model, batch), seen)
    assert not torch.equal(logits(twin.eval(), batch), seen)


def test_of_several_subsets_one_lies_over_a_layer_at_a_time(layer: tuple[OverlayLinear, OverlayPart, nn.Linear]):
    over, first, _ = layer
    x = torch.randn(2, 8)
    with_first, without = over(x), over.base_layer(x)
    second = OverlayPart("w", over)
    second.put(torch.tensor([0]), torch.tensor([9.0]))
    with_second = over(x)
    for _ in range(3):
        second.reset()
        assert torch.equal(over(x), without)
        first.apply()
        assert torch.equal(over(x), with_first)
        second.reset()
        assert torch.equal(over(x), with_first)
        second.apply()
        assert torch.equal(over(x), with_second)
    assert torch.equal(first.base(), over.base_layer.dequantize().view(-1))


def test_a_second_subset_lies_over_the_same_wrappers():
    model = tuned()
    names = [part.name for part in subset_of(model).parts]
    for part in subset_of(model).parts:
        part.reset()
    del vars(model)["foretune_subset"]
    again = attached(TUNER, model)
    assert [part.name for part in subset_of(again).parts] == names
    assert not any(isinstance(layer.base_layer, OverlayLinear) for layer in overlays(again).values())
    train(again, toys.batch(toys.network("bert")), TUNER, 1)
