"""Silos of real architectures (transposed maps, tied weights, fused experts), and what an optimizer step refuses."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import transformers

from foretune.errors import DivergedError, ModelError, UsageError
from foretune.testing import toys
from foretune.testing.contracts import logits, train
from foretune.tuners.base import Tuner
from foretune.tuners.dynamic_subset import DynamicSubset, StaticSubset
from foretune.tuners.heads import within
from foretune.tuners.subset.model import subset_of

EXPERTS = 4


def mixture() -> torch.nn.Module:
    """A decoder whose experts are two tensors of three dimensions per layer."""
    config = transformers.MixtralConfig(
        vocab_size=toys.VOCABULARY,
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        num_local_experts=EXPERTS,
        num_experts_per_tok=2,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return transformers.AutoModelForCausalLM.from_config(config).eval()


NETWORKS = {"gpt2": lambda: toys.network("gpt2", "language"), "mixtral": mixture}


def optimizer(tuner: Tuner, model: torch.nn.Module, *without: torch.nn.Parameter) -> torch.optim.Optimizer:
    left = {id(parameter) for parameter in without}
    chosen = [p for p in model.parameters() if p.requires_grad and id(p) not in left]
    return tuner.optimizer_for(model, [{"params": chosen, "lr": 0.01}])


@pytest.mark.parametrize("name", NETWORKS)
def test_check_14_transposed_maps_and_fused_experts_have_silos_of_their_own_and_train(name: str):
    network, batch = NETWORKS[name](), toys.batch(NETWORKS[name]())
    base = {n: p.detach().clone() for n, p in network.named_parameters()}
    tuner = DynamicSubset(density=0.05)
    model = tuner.attach(network)
    ends = {
        "gpt2": {"c_attn.weight", "c_fc.weight", "c_proj.weight"},
        "mixtral": {*(f"{kind}_proj.weight" for kind in "qkvo"), "experts.gate_up_proj", "experts.down_proj"},
    }[name]
    named = [silo.name for silo in subset_of(model).silos]
    assert len(named) == 2 * {"gpt2": 4, "mixtral": 6}[name]
    assert {next(end for end in ends if n.endswith(end)) for n in named} == ends
    train(model, batch, tuner, 3)
    for part in subset_of(model).parts:
        away = (part.weight != base[part.name].flatten()).nonzero().flatten()
        assert set(away.tolist()) <= set(part.index.tolist())
        assert 0 < len(away) <= len(part.index) == int(0.05 * len(part))
    with tuner.disabled(model):
        assert torch.equal(logits(model, batch), logits(NETWORKS[name](), batch))


def test_check_14_an_expert_that_no_token_reached_stays_the_base():
    tuner, network = DynamicSubset(density=0.5, silo="global"), mixture()
    base = {n: p.detach().clone() for n, p in network.named_parameters()}
    model = tuner.attach(network)
    batch = {name: tensor[:1, :1] for name, tensor in toys.batch(network).items()}
    model(**batch).logits.square().sum().backward()
    names = [name for name in base if name.endswith("experts.down_proj")]
    unreached = {name: (model.get_parameter(name).grad == 0).all((1, 2)) for name in names}
    assert all(0 < int(idle.sum()) < EXPERTS for idle in unreached.values())
    optimizer(tuner, model).step()
    for name, idle in unreached.items():
        moved = (model.get_parameter(name) != base[name]).any(2).any(1)
        assert moved.tolist() == (~idle).tolist()


def test_check_14_tied_embeddings_are_tuned_once_and_stay_tied():
    tuner, network = DynamicSubset(density=0.02, more=("embeddings",)), toys.network("gpt2", "language")
    base = network.transformer.wte.weight.detach().clone()
    model = tuner.attach(network)
    train(model, toys.batch(network), tuner, 3)
    assert [silo.name for silo in subset_of(model).silos if len(silo.parts[0]) == base.numel()] == [
        "transformer.wte.weight"
    ]
    assert model.lm_head.weight is model.transformer.wte.weight
    assert 0 < int((model.lm_head.weight != base).sum()) <= int(0.02 * base.numel())
    with tuner.disabled(model):
        assert torch.equal(model.lm_head.weight, base)


@pytest.mark.parametrize("rule", ["adafactor", "adamw", "sgd"])
def test_check_14_norm_vectors_have_silos_of_their_own_and_all_but_these_places_are_the_base(rule: str):
    tuner, network = DynamicSubset(density=0.2, more=("norms",), optimizer=rule), toys.network("bert")
    base = {n: p.detach().clone() for n, p in network.named_parameters()}
    model = tuner.attach(network, toys.fresh(network))
    train(model, toys.batch(network), tuner, 3)
    vectors = [silo.parts[0] for silo in subset_of(model).silos if silo.parts[0].parameter.dim() == 1]
    assert {part.name for part in vectors} == {name for name in base if "LayerNorm" in name}
    for part in vectors:
        away = (part.weight != base[part.name]).nonzero().flatten()
        assert torch.equal(away, part.index)
        assert len(away) == int(0.2 * len(part))
    with tuner.disabled(model):
        assert all(torch.equal(part.weight, base[part.name]) for part in vectors)


def test_check_18_a_layer_stack_without_matrices_is_refused():
    config = toys.network("bert").config
    config.num_hidden_layers = 0
    network = transformers.AutoModelForSequenceClassification.from_config(config)
    with pytest.raises(ModelError, match=r"BertForSequenceClassification has no linear layer.*`full`"):
        DynamicSubset().attach(network)


def test_check_04_a_silo_whose_share_is_less_than_one_weight_keeps_k_min():
    network = toys.network("bert")
    base = {n: p.detach().clone() for n, p in network.named_parameters()}
    tuner = DynamicSubset(density=1e-6, k_min=2)
    model = tuner.attach(network, toys.fresh(network))
    train(model, toys.batch(network), tuner, 3)
    for silo in subset_of(model).silos:
        (part,) = silo.parts
        assert silo.k == int((part.weight != base[part.name].flatten()).sum()) == 2


@pytest.mark.parametrize(
    ("silo", "share", "make", "tuned"),
    [
        ("tensor", 300, lambda: toys.network("bert"), r"intermediate.dense.weight|layer.\d.output.dense.weight"),
        ("tensor", 500, mixture, "experts.gate_up_proj|experts.down_proj"),
        ("expert", 500, mixture, "experts.gate_up_proj"),
    ],
    ids=["tensor", "fused", "expert"],
)
def test_check_04_a_silo_whose_share_is_less_than_one_weight_is_frozen_if_asked(
    silo: str, share: int, make: Callable[[], torch.nn.Module], tuned: str, tmp_path: Path
):
    """One weight of 300: of 16 x 16 none, of 16 x 24 one. Of 500: of an expert's 16 x 24 none, of its 48 x 16 one."""
    network = make()
    base = {n: p.detach().clone() for n, p in network.named_parameters()}
    tuner = DynamicSubset(density=1 / share, k_min="freeze", silo=silo)
    model = tuner.attach(network)
    expected = {name for name in base if re.search(rf"({tuned})$", name)}
    assert {part.name for part in subset_of(model).parts} == expected != set()
    train(model, toys.batch(network), tuner, 3)
    heads = subset_of(model).heads
    moved = {name for name, p in network.named_parameters() if not torch.equal(p, base[name])}
    assert {name for name in moved if not within(name, heads)} == expected
    tuner.save(model, tmp_path)
    again = tuner.restore(make(), tmp_path)
    assert {part.name for part in subset_of(again).parts} == expected


def test_check_18_a_density_that_leaves_no_silo_a_weight_is_refused():
    with pytest.raises(UsageError, match=r"Some silo must get a weight.*density=1e-06.*`k_min=1`, or `silo=global`"):
        DynamicSubset(density=1e-6, k_min="freeze").attach(toys.network("bert"))


@pytest.fixture
def ready() -> torch.nn.Module:
    """A toy with gradients, before its first step."""
    network = toys.network("bert")
    model = DynamicSubset(density=0.05).attach(network, toys.fresh(network))
    model(**toys.batch(network)).logits.square().sum().backward()
    return model


def test_check_18_a_closure_is_refused_before_anything_moves(ready: torch.nn.Module):
    before = [p.detach().clone() for p in ready.parameters()]
    with pytest.raises(UsageError, match="no closure"):
        optimizer(DynamicSubset(), ready).step(lambda: 0.0)
    assert all(torch.equal(p, q) for p, q in zip(ready.parameters(), before, strict=True))


def test_a_tensor_that_a_batch_did_not_reach_stays_as_it_is():
    """Such as an expert, or a layer that was dropped."""
    tuner, network = DynamicSubset(density=0.05), toys.network("bert")
    model = tuner.attach(network, toys.fresh(network))
    made, batch = optimizer(tuner, model), toys.batch(network)
    skipped, *others = subset_of(model).silos
    (part,) = skipped.parts
    for step in range(3):
        model(**batch).logits.square().sum().backward()
        if step == 1:
            part.parameter.grad = None
            before = part.index.clone(), part.shadow.clone(), part.weight.clone()
            moved = others[0].parts[0].shadow.clone()
        made.step()
        if step == 1:
            assert all(torch.equal(a, b) for a, b in zip(before, (part.index, part.shadow, part.weight), strict=True))
            assert not torch.equal(others[0].parts[0].shadow, moved)
            assert float(made.state[part.parameter]["step"]) == 1.0
            assert skipped.change.entered == 0
    assert float(made.state[part.parameter]["step"]) == 2.0
    assert not torch.equal(part.shadow, before[1])


def test_check_18_a_tensor_without_a_gradient_among_others_that_share_its_budget_is_named():
    tuner, network = DynamicSubset(density=0.05, silo="layer"), toys.network("bert")
    model = tuner.attach(network, toys.fresh(network))
    model(**toys.batch(network)).logits.square().sum().backward()
    silo = subset_of(model).silos[0]
    part = silo.parts[2]
    part.parameter.grad = None
    before = [p.detach().clone() for p in model.parameters()]
    with pytest.raises(UsageError, match=rf"of 6 in `{silo.name}` 1 have none.*`{part.name}`.*Use `silo=tensor`"):
        optimizer(tuner, model).step()
    assert all(torch.equal(p, q) for p, q in zip(model.parameters(), before, strict=True))
    for part in silo.parts:
        part.parameter.grad = None
    optimizer(tuner, model).step()
    assert silo.chosen == 0 < subset_of(model).silos[1].chosen


def test_check_18_a_tensor_that_no_group_holds_is_named(ready: torch.nn.Module):
    part = subset_of(ready).parts[3]
    with pytest.raises(UsageError, match=rf"in a parameter group, but `{part.name}` is in none"):
        optimizer(DynamicSubset(), ready, part.parameter)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_check_18_a_gradient_that_overflowed_says_what_to_do(bad: float, ready: torch.nn.Module):
    part = subset_of(ready).parts[0]
    step = optimizer(DynamicSubset(), ready).step
    part.parameter.grad[0, 0] = bad
    before = [p.detach().clone() for p in ready.parameters()]
    with pytest.raises(DivergedError, match="lower learning rate, or fp32"):
        step()
    assert all(torch.equal(p, q) for p, q in zip(ready.parameters(), before, strict=True))


@pytest.mark.parametrize("rule", ["adafactor", "sgd"])
def test_churn_begins_at_one_and_ends_at_none_for_a_gradient_that_stays(rule: str):
    tuner, network = DynamicSubset(density=0.05, optimizer=rule), toys.network("bert")
    base = {n: p.detach().clone() for n, p in network.named_parameters()}
    model = tuner.attach(network, toys.fresh(network))
    assert tuner.monitor(model) == {}
    generator = torch.Generator().manual_seed(0)
    grads = {p: torch.randn(p.shape, generator=generator) for p in model.parameters() if p.requires_grad}
    made, churn = optimizer(tuner, model), []
    for _ in range(6):
        for parameter, grad in grads.items():
            parameter.grad = grad.clone()
        made.step()
        seen = tuner.monitor(model)
        churn.append(seen["churn"])
        least = [(p.weight - base[p.name].flatten()).abs()[p.index].min() for p in subset_of(model).parts]
        assert seen["least_displacement"] == pytest.approx(float(torch.stack(least).mean()), rel=1e-6)
    assert churn[0] == 1
    assert churn == sorted(churn, reverse=True)
    assert churn[-1] == 0


def test_what_a_static_mask_reports_is_the_displacement_and_never_its_score():
    tuner, network = StaticSubset(density=0.05, mask="largest"), toys.network("bert")
    base = {n: p.detach().clone() for n, p in network.named_parameters()}
    model = tuner.attach(network, toys.fresh(network))
    for step in range(2):
        train(model, toys.batch(network), tuner, 1)
        seen = tuner.monitor(model)
        least = [(p.weight - base[p.name].flatten()).abs()[p.index].min() for p in subset_of(model).parts]
        assert seen["churn"] == 1 - step
        assert seen["least_displacement"] == pytest.approx(float(torch.stack(least).mean()), rel=1e-6)
