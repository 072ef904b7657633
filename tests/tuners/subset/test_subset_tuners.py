"""Moving and static subsets as tuners: the contract on every toy, the sparse delta, its hash, what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from foretune.errors import ModelError, UsageError
from foretune.testing import toys
from foretune.testing.contracts import TunerContract, logits, train
from foretune.tuners import get_peft_model
from foretune.tuners.dynamic_subset import DynamicSubset, StaticSubset
from foretune.tuners.subset.model import base_hash, dst_optimizer, silo_of, subset_of, targets

POOLED = tuple((name, "sequence") for name in toys.ARCHITECTURES)
OTHERS = (("bert", "token"), ("gpt2", "token"), ("llama", "language"), ("gpt2", "language"), ("t5", "language"))


class TestDynamicSubset(TunerContract):
    tuner = DynamicSubset(density=0.01)
    networks = (*POOLED, *OTHERS)


class TestDynamicSubsetWithOptions(TunerContract):
    tuner = DynamicSubset(
        density=0.05,
        silo="global",
        distance="rel",
        optimizer="adamw",
        more=("embeddings", "norms", "biases"),
        weight_decay=0.1,
        k_min=3,
    )
    networks = (("bert", "sequence"), ("llama", "language"), ("t5", "language"))


class TestStaticSubset(TunerContract):
    tuner = StaticSubset(density=0.02, mask="gradient", silo="layer", optimizer="sgd")
    networks = (("bert", "sequence"), ("gpt2", "language"))


def tuned(tuner, name: str = "bert", steps: int = 5, dtype: torch.dtype = torch.float32):
    """A toy after some steps, and its base."""
    base = toys.network(name).to(dtype)
    network = toys.network(name).to(dtype)
    torch.manual_seed(0)
    model = tuner.attach(network, toys.fresh(network))
    train(model, toys.batch(network), tuner, steps)
    return model.eval(), base


@pytest.mark.parametrize("mask", ["random", "gradient", "fisher", "largest", "smallest"])
def test_a_static_mask_never_moves_and_the_rest_is_the_base(mask: str):
    tuner = StaticSubset(density=0.05, mask=mask, warmup=2 if mask == "fisher" else 1)
    network = toys.network("bert")
    base = {name: p.detach().clone() for name, p in network.named_parameters()}
    model = tuner.attach(network, toys.fresh(network)).train()
    optimizer = tuner.optimizer_for(model, [{"params": [p for p in model.parameters() if p.requires_grad], "lr": 0.01}])
    seen = []
    for _ in range(4):
        model(**toys.batch(network)).logits.square().sum().backward()
        optimizer.step()
        seen.append([part.index.tolist() for part in subset_of(model).parts])
    warm = 1 if mask == "fisher" else 0
    assert all(not index for step in seen[:warm] for index in step)
    assert all(step == seen[warm] for step in seen[warm:])
    for part in subset_of(model).parts:
        away = (part.weight != base[part.name].flatten()).nonzero().flatten()
        assert set(away.tolist()) <= set(part.index.tolist())
        if mask in ("largest", "smallest"):
            sizes = base[part.name].flatten().abs()
            expected = sizes.topk(len(part.index), largest=mask == "largest").indices
            assert set(part.index.tolist()) == set(expected.tolist())


def test_a_random_mask_follows_its_seed():
    def index(seed: int) -> list[list[int]]:
        model, _ = tuned(StaticSubset(density=0.05, seed=seed), steps=1)
        return [part.index.tolist() for part in subset_of(model).parts]

    assert index(0) == index(0) != index(1)


@pytest.mark.parametrize("silo", ["tensor", "layer", "module_type", "global", "expert"])
def test_every_silo_keeps_exactly_its_share(silo: str):
    model, _ = tuned(DynamicSubset(density=0.03, silo=silo))
    for group in subset_of(model).silos:
        assert group.chosen == group.k == max(1, int(0.03 * sum(len(part) for part in group.parts)))
    names = [part.name for part in subset_of(model).parts]
    assert len({silo_of(name, silo) for name in names}) == len(subset_of(model).silos)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_check_07_merge_and_disabled_and_switching_are_exact(dtype: torch.dtype, tmp_path: Path):
    tuner = DynamicSubset(density=0.02)
    model, base = tuned(tuner, dtype=dtype)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    for _ in range(100):
        with tuner.disabled(model):
            pass
    assert all(torch.equal(p, before[name]) for name, p in model.named_parameters())
    with tuner.disabled(model) as network:
        assert all(torch.equal(p, q) for p, q in zip(network.parameters(), base.parameters(), strict=True))
    tuner.save(model, tmp_path)
    again = tuner.restore(toys.network("bert").to(dtype), tmp_path).eval()
    assert all(torch.equal(p, before[name]) for name, p in again.named_parameters())
    merged = tuner.merge(model)
    assert all(torch.equal(p, before[name]) for name, p in merged.named_parameters())


def test_the_file_is_sparse_and_names_the_bits_of_the_base(tmp_path: Path):
    tuner = DynamicSubset(density=0.02)
    model, base = tuned(tuner)
    tuner.save(model, tmp_path)
    tensors = load_file(tmp_path / "adapter_model.safetensors")
    base_weights = dict(base.named_parameters())
    for part in subset_of(model).parts:
        index = tensors[f"{part.name}.dst_indices"]
        assert index.dtype == torch.int32
        assert torch.equal(tensors[f"{part.name}.dst_base"], base_weights[part.name].flatten()[index.long()])
    own = sum(t.numel() for key, t in tensors.items() if ".dst_" in key)
    assert own == 3 * subset_of(model).size


def test_a_delta_of_another_base_is_refused_and_nothing_is_applied(tmp_path: Path):
    tuner = DynamicSubset(density=0.02)
    model, _ = tuned(tuner)
    tuner.save(model, tmp_path)
    other = toys.network("bert", seed=1)
    before = {name: p.detach().clone() for name, p in other.named_parameters()}
    with pytest.raises(ModelError, match=rf"hash {base_hash(model)}, but this one has"):
        tuner.restore(other, tmp_path)
    assert all(torch.equal(p, before[name]) for name, p in other.named_parameters())


@pytest.mark.parametrize("harm", ["missing", "unsorted", "outside", "short"])
def test_a_spoiled_delta_never_half_applies(harm: str, tmp_path: Path):
    tuner = DynamicSubset(density=0.02)
    model, base = tuned(tuner)
    tuner.save(model, tmp_path)
    path = tmp_path / "adapter_model.safetensors"
    tensors = load_file(path)
    key = f"{subset_of(model).parts[-1].name}.dst_indices"
    if harm == "missing":
        del tensors[key]
    elif harm == "unsorted":
        tensors[key] = tensors[key].flip(0)
    elif harm == "outside":
        tensors[key][-1] = 10**6
    else:
        tensors[key] = tensors[key][:-1]
    save_file(tensors, path)
    fresh = toys.network("bert")
    with pytest.raises(ModelError, match=r"not whole|spoiled"):
        tuner.restore(fresh, tmp_path)
    for (name, p), (_, q) in zip(fresh.named_parameters(), base.named_parameters(), strict=True):
        assert torch.equal(p, q), name


def test_the_folder_of_another_tuner_is_refused(tmp_path: Path):
    model, _ = tuned(DynamicSubset(density=0.02))
    DynamicSubset(density=0.02).save(model, tmp_path)
    with pytest.raises(ModelError, match=r"delta of `static-subset`.*written by `dynamic-subset`"):
        StaticSubset().restore(toys.network("bert"), tmp_path)
    (tmp_path / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA"}))
    with pytest.raises(ModelError, match="LORA"):
        DynamicSubset().restore(toys.network("bert"), tmp_path)


def test_tied_weights_are_named_once_and_more_kinds_come_by_request():
    network = toys.network("gpt2", "language")
    plain = targets(network, (), "all-linear", ())
    more = targets(network, (), "all-linear", ("embeddings", "norms", "biases"))
    assert len(set(more)) == len(more) > len(plain)
    assert "transformer.wte.weight" in more
    assert "lm_head.weight" not in more
    assert all(network.get_parameter(name).dim() >= 2 for name in plain)


def test_check_14_rows_of_an_embedding_that_no_text_used_stay_the_base():
    tuner = DynamicSubset(density=0.5, more=("embeddings",), optimizer="sgd")
    model, base = tuned(tuner)
    name = "bert.embeddings.word_embeddings.weight"
    used = set(toys.batch(base)["input_ids"].flatten().tolist())
    for row in set(range(toys.VOCABULARY)) - used:
        assert torch.equal(model.get_parameter(name)[row], base.get_parameter(name)[row])


@pytest.mark.parametrize("options", [{"density": 0.0}, {"density": 1.5}, {"k_min": 0}, {"weight_decay": -1.0}])
def test_options_outside_their_range_name_the_value(options: dict):
    (name,) = options
    with pytest.raises(UsageError, match=rf"{name}={options[name]}"):
        DynamicSubset(**options)


def test_a_second_subset_on_a_network_is_refused():
    network = toys.network("bert")
    DynamicSubset().attach(network)
    with pytest.raises(UsageError, match="one tuner"):
        DynamicSubset().attach(network)


def test_a_copy_of_a_model_is_independent_and_whole():
    import copy

    model, base = tuned(DynamicSubset(density=0.02))
    twin = copy.deepcopy(model)
    with DynamicSubset().disabled(twin):
        assert torch.equal(logits(twin, toys.batch(base)), logits(base, toys.batch(base)))
    assert torch.equal(logits(twin, toys.batch(base)), logits(model, toys.batch(base)))
    assert not torch.equal(logits(model, toys.batch(base)), logits(base, toys.batch(base)))


def test_transformers_trainer_trains_a_subset(tmp_path: Path):
    from datasets import Dataset
    from transformers import Trainer, TrainingArguments

    network = toys.network("bert")
    base = {name: p.detach().clone() for name, p in network.named_parameters()}
    model = DynamicSubset(density=0.02).attach(network, toys.fresh(network))
    batch = toys.batch(network, (6, 6, 6, 6))
    rows = Dataset.from_dict({**{k: v.tolist() for k, v in batch.items()}, "labels": [0, 1, 2, 0]})
    asked = TrainingArguments(str(tmp_path), max_steps=3, report_to="none", disable_tqdm=True, use_cpu=True)
    Trainer(model, asked, train_dataset=rows, optimizer_cls_and_kwargs=dst_optimizer(model, lr=0.01)).train()
    for part in subset_of(model).parts:
        away = (part.weight != base[part.name].flatten()).sum()
        assert 0 < away <= len(part.index) == max(1, int(0.02 * len(part)))
    assert not torch.equal(model.classifier.weight, base["classifier.weight"])


def test_a_warmup_for_a_mask_that_reads_no_gradients_is_refused():
    with pytest.raises(UsageError, match=r"random looks at no gradients, but got warmup=3"):
        StaticSubset(mask="random", warmup=3)


@pytest.mark.parametrize(("option", "value"), [("silo", "nonsense"), ("optimizer", "lion"), ("targets", "all")])
def test_a_tuner_made_by_hand_is_refused_as_one_by_name_is(option: str, value: str):
    for call in (lambda tuner, network: tuner.attach(network), lambda tuner, network: get_peft_model(network, tuner)):
        with pytest.raises(UsageError, match=f"`{option}` of `dynamic-subset`.*{value}"):
            call(DynamicSubset(**{option: value}), toys.network("bert"))
