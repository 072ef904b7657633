"""A subset as a ``peft.PeftModel``: swaps that are exact, one adapter at a time, under the stock Trainer."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from peft import PeftModel

import foretune
from foretune.errors import UsageError
from foretune.testing import toys
from foretune.testing.contracts import logits
from foretune.tuners.dynamic_subset import DynamicSubset, StaticSubset
from foretune.tuners.subset import model as subsets
from foretune.tuners.subset.model import subset_of

Bits = dict[str, torch.Tensor]


def bits(model: torch.nn.Module) -> Bits:
    return {name: p.detach().clone() for name, p in model.named_parameters()}


def same(model: torch.nn.Module, wanted: Bits) -> bool:
    return all(torch.equal(p, wanted[name]) for name, p in model.named_parameters())


def fit(model: PeftModel, steps: int = 3, seed: int = 0, lr: float = 0.01) -> torch.optim.Optimizer:
    """Some steps; what is learned depends on ``seed``."""
    kind, settings = foretune.dst_optimizer(model, lr)
    optimizer = kind([{"params": [p for p in model.parameters() if p.requires_grad]}], **settings)
    batch = toys.batch(model.get_base_model(), seed=seed)
    for _ in range(steps):
        model(**batch).logits.square().sum().backward()
        optimizer.step()
        optimizer.zero_grad()
    return optimizer


def two(dtype: torch.dtype = torch.float32, kind: str = "sequence", name: str = "bert"):
    """A model with the adapters ``default``, which is active, and ``other``, and the base's bits."""
    network = toys.network(name, kind).to(dtype)
    model = foretune.get_peft_model(network, DynamicSubset(density=0.03))
    base = bits(model.get_base_model())
    fit(model)
    model.add_adapter("other", DynamicSubset(density=0.03))
    model.set_adapter("other")
    fit(model, seed=1)
    model.set_adapter("default")
    return model.eval(), base


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_check_07_a_hundred_switches_change_no_bit_and_the_base_is_below(dtype: torch.dtype) -> None:
    model, base = two(dtype)
    network = model.get_base_model()
    first = bits(network)
    model.set_adapter("other")
    second = bits(network)
    assert not same(network, first)
    for _ in range(100):
        model.set_adapter("default")
        model.set_adapter("other")
    assert same(network, second)
    model.set_adapter("default")
    assert same(network, first)
    with model.disable_adapter():
        assert same(network, base)
        with model.disable_adapter():
            pass
        assert same(network, base)
        model.set_adapter("other")
        assert same(network, base)
    assert same(network, second)
    assert same(model.unload(), base)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_check_07_merge_and_unmerge_undo_one_another_in_either_order(dtype: torch.dtype) -> None:
    model, base = two(dtype)
    network = model.get_base_model()
    tuned = bits(network)
    model.merge_adapter()
    assert same(network, tuned)
    model.unmerge_adapter()
    assert same(network, tuned)
    model.unmerge_adapter()
    assert same(network, base)
    model.merge_adapter()
    assert same(network, tuned)
    merged = model.merge_and_unload()
    assert same(merged, tuned)
    with pytest.raises(UsageError, match="whose weights hold a subset"):
        subset_of(merged)


@pytest.mark.parametrize(("name", "kind"), [("gpt2", "language"), ("t5", "language"), ("llama", "sequence")])
def test_check_07_other_networks_switch_and_come_back_from_disk(name: str, kind: str, tmp_path: Path) -> None:
    model, _ = two(name=name, kind=kind)
    batch = toys.batch(model.get_base_model())
    answers = dict.fromkeys(("default", "other"), 0)
    for adapter in answers:
        model.set_adapter(adapter)
        answers[adapter] = logits(model, batch)
    model.save_pretrained(tmp_path)
    again = foretune.SubsetModel.from_pretrained(toys.network(name, kind), tmp_path)
    again.load_adapter(tmp_path / "other", "other")
    assert again.active_adapter == "default"
    for adapter, wanted in answers.items():
        again.set_adapter(adapter)
        assert torch.equal(logits(again, batch), wanted)


def test_only_what_the_active_adapter_trains_has_gradients_and_the_printed_number_is_its_budget() -> None:
    model = foretune.get_peft_model(toys.network("bert"), DynamicSubset(density=0.03, targets="qv"))
    model.add_adapter("all", StaticSubset(density=0.5))
    trained = {name for name, p in model.named_parameters() if p.requires_grad}
    assert {name.split(".")[-2] for name in trained if "encoder" in name} == {"query", "value"}
    model.set_adapter("all")
    assert trained < {name for name, p in model.named_parameters() if p.requires_grad}
    subset = subset_of(model)
    heads = sum(value.numel() for value in subset.head_base.values())
    assert model.get_nb_trainable_parameters() == (subset.size + heads, sum(p.numel() for p in model.parameters()))
    model.set_adapter("all", inference_mode=True)
    assert not any(p.requires_grad for p in model.parameters())


def test_an_optimizer_steps_for_its_own_adapter_alone_and_goes_on_when_that_is_back() -> None:
    model, _ = two()
    optimizer = fit(model)
    model.set_adapter("other")
    before = bits(model)
    model(**toys.batch(model.get_base_model())).logits.sum().backward()
    with pytest.raises(UsageError, match="steps for the subset that it was made for"):
        optimizer.step()
    assert same(model, before)
    model.set_adapter("default")
    assert all(p.grad is None for p in model.parameters())
    model.unmerge_adapter()
    with pytest.raises(UsageError, match="or none"):
        optimizer.step()
    model.merge_adapter()
    before = bits(model)
    model(**toys.batch(model.get_base_model())).logits.sum().backward()
    optimizer.step()
    assert not same(model, before)


def test_what_cannot_be_is_refused_and_changes_nothing() -> None:
    model, _ = two()
    before = bits(model)
    with pytest.raises(UsageError, match=r"but got 2: default, other.*add_weighted_adapter"):
        model.set_adapter(["default", "other"])
    with pytest.raises(UsageError, match=r"no adapter `third`. Known: default, other"):
        model.set_adapter("third")
    with pytest.raises(UsageError, match="Only the active adapter can be merged, but got `other`"):
        model.merge_adapter(["other"])
    with pytest.raises(UsageError, match="must be new"):
        model.add_adapter("other", DynamicSubset())
    with pytest.raises(UsageError, match=r"letters, digits.*`../up`"):
        model.add_adapter("../up", DynamicSubset())
    with pytest.raises(UsageError, match="takes another subset, but got LoRA"):
        model.add_adapter("lora", foretune.TUNERS["lora"]())
    with model.disable_adapter(), pytest.raises(UsageError, match="Leave the block"):
        model.merge_adapter()
    with pytest.raises(UsageError, match="adapter already"):
        foretune.get_peft_model(
            foretune.get_peft_model(toys.network("bert"), "lora").get_base_model(), "dynamic-subset"
        )
    with pytest.raises(UsageError, match="one tuner"):
        foretune.get_peft_model(model.get_base_model(), DynamicSubset())
    assert same(model, before)
    assert model.active_adapters == ["default"]


def test_a_deleted_adapter_leaves_the_others_and_the_last_one_stays() -> None:
    model, _ = two()
    model.set_adapter("other")
    other = bits(model)
    model.set_adapter("default")
    model.delete_adapter("default")
    assert model.active_adapter == "other"
    assert list(model.peft_config) == ["other"]
    assert same(model, other)
    with pytest.raises(UsageError, match="the only adapter"):
        model.delete_adapter("other")


def test_a_copy_switches_on_its_own() -> None:
    model, _ = two()
    before = bits(model)
    twin = copy.deepcopy(model)
    twin.set_adapter("other")
    assert same(model, before)
    assert not same(twin, before)


def displaced(model: PeftModel, name: str, base: Bits) -> Bits:
    with model.base_model.holding(name) as network:
        return {key: p.detach() - base[key] for key, p in network.named_parameters()}


def test_a_weighted_sum_adds_displacements_and_outlives_saving(tmp_path: Path) -> None:
    model, base = two()
    one, other = (displaced(model, name, base) for name in ("default", "other"))
    model.add_weighted_adapter(["default", "other"], [1.0, -0.5], "both", overlap="sum")
    assert model.active_adapter == "default"
    both = displaced(model, "both", base)
    for key in base:
        torch.testing.assert_close(both[key], one[key] - 0.5 * other[key], rtol=0, atol=1e-7)
    model.set_adapter("both")
    assert all(len(part.index) <= silo.k for silo in subset_of(model).silos for part in silo.parts)
    model.save_pretrained(tmp_path, selected_adapters=["both"])
    again = foretune.SubsetModel.from_pretrained(toys.network("bert"), tmp_path / "both", "both")
    assert same(again, bits(model))


def test_the_first_of_the_adapters_has_its_way_where_they_overlap_and_an_error_counts_them() -> None:
    model, base = two(name="llama", kind="language")
    one, other = (displaced(model, name, base) for name in ("default", "other"))
    model.add_weighted_adapter(["other", "default"], [1.0, 1.0], "mine", overlap="first")
    with model.base_model.holding("other"):
        wanted = bits(model.get_base_model())
    with model.base_model.holding("default"):
        rest = bits(model.get_base_model())
    with model.base_model.holding("mine") as network:
        for name, p in network.named_parameters():
            assert torch.equal(p, torch.where(other[name] != 0, wanted[name], rest[name])), name
    shared = [int(((one[n] != 0) & (other[n] != 0)).sum()) for n in base]
    assert sum(shared)
    with pytest.raises(UsageError, match=r"\d+ weights of `.*` were moved by more than one of default, other"):
        model.add_weighted_adapter(["default", "other"], [1.0, 1.0], "never")
    assert "never" not in model.peft_config


def test_adapters_that_do_not_fit_together_are_refused_with_their_options() -> None:
    model, _ = two()
    model.add_adapter("narrow", DynamicSubset(targets="qv"))
    with pytest.raises(UsageError, match=r"`default` is DynamicSubset\(.*`narrow` is DynamicSubset\(.*'qv'"):
        model.add_weighted_adapter(["default", "narrow"], [1.0, 1.0], "never", overlap="sum")
    with pytest.raises(UsageError, match="2 adapters, 1 weights"):
        model.add_weighted_adapter(["default", "other"], [1.0], "never", overlap="sum")
    with pytest.raises(UsageError, match="overlap='mean'"):
        model.add_weighted_adapter(["default", "other"], [1.0, 1.0], "never", overlap="mean")
    model.add_adapter("frozen", DynamicSubset(density=0.03, k_min="freeze"))
    with pytest.raises(UsageError, match=r"`frozen` has k_min=freeze.*Train it with `k_min=1`"):
        model.add_weighted_adapter(["default", "frozen"], [1.0, 1.0], "never", overlap="sum")
    model.add_adapter("idle", DynamicSubset(density=0.03))
    with pytest.raises(UsageError, match="a head of its own"):
        model.add_weighted_adapter(["default", "idle"], [1.0, 1.0], "never")


def trainer(folder: Path, model: PeftModel, **options):
    from datasets import Dataset
    from transformers import Trainer, TrainingArguments

    batch = toys.batch(toys.network("bert"), (6,) * 12)
    rows = Dataset.from_dict({**{k: v.tolist() for k, v in batch.items()}, "labels": [i % 3 for i in range(12)]})
    asked = TrainingArguments(
        str(folder), max_steps=6, report_to="none", disable_tqdm=True, use_cpu=True, logging_strategy="no", **options
    )
    chosen = foretune.dst_optimizer(model, lr=0.01)
    return Trainer(model, asked, train_dataset=rows, eval_dataset=rows, optimizer_cls_and_kwargs=chosen)


@pytest.mark.filterwarnings("ignore:.*pin_memory.*:UserWarning")
def test_check_08_the_stock_trainer_saves_adapters_resumes_to_the_bit_and_brings_the_best_back(tmp_path: Path) -> None:
    def fresh() -> PeftModel:
        torch.manual_seed(0)
        return foretune.get_peft_model(toys.network("bert"), foretune.DynamicSubsetConfig(density=0.02))

    saving = {"save_strategy": "steps", "save_steps": 3, "per_device_train_batch_size": 4}  # of 6
    best = {"eval_strategy": "steps", "eval_steps": 3, "load_best_model_at_end": True, "greater_is_better": True}
    whole = fresh()
    run = trainer(tmp_path / "a", whole, **saving, **best, metric_for_best_model="loss")
    run.train()
    checkpoint = tmp_path / "a" / "checkpoint-3"
    assert {"adapter_config.json", "adapter_model.safetensors"} <= {p.name for p in checkpoint.iterdir()}
    chosen = foretune.SubsetModel.from_pretrained(toys.network("bert"), run.state.best_model_checkpoint)
    assert run.state.best_model_checkpoint.endswith("checkpoint-3")
    assert same(chosen, bits(whole))
    last = foretune.SubsetModel.from_pretrained(toys.network("bert"), tmp_path / "a" / "checkpoint-6")
    resumed = fresh()
    trainer(tmp_path / "b", resumed, save_strategy="no", per_device_train_batch_size=4).train(str(checkpoint))
    assert same(resumed, bits(last))
    assert not same(resumed, bits(whole))


@pytest.mark.parametrize("rule", ["adafactor", "adamw"])
def test_check_08_a_saved_optimizer_comes_back_to_the_bit_beside_a_bf16_network_and_follows_new_rates(
    rule: str,
) -> None:
    def made() -> tuple[PeftModel, torch.optim.Optimizer]:
        network = toys.network("bert").to(torch.bfloat16)
        model = foretune.get_peft_model(network, DynamicSubset(density=0.1, optimizer=rule))
        kind, settings = foretune.dst_optimizer(model)
        return model, kind([{"params": [p for p in model.parameters() if p.requires_grad], "lr": 0.01}], **settings)

    def go(model: PeftModel, optimizer: torch.optim.Optimizer, rates: list[float]) -> None:
        for rate in rates:
            for group in optimizer.param_groups:
                group["lr"] = rate
            model(**toys.batch(model.get_base_model())).logits.square().sum().backward()
            optimizer.step()
            optimizer.zero_grad()

    whole = made()
    go(*whole, [0.01, 0.02, 0.03, 0.04])
    first, second = made(), made()
    go(*first, [0.01, 0.02])
    second[1].load_state_dict(copy.deepcopy(first[1].state_dict()))
    subsets.put(second[0].get_base_model(), subsets.learned(first[0].get_base_model()))
    go(*second, [0.03, 0.04])
    assert same(second[0], bits(whole[0]))
    other = foretune.get_peft_model(toys.network("bert"), DynamicSubset(targets="qv"))
    kind, settings = foretune.dst_optimizer(other)
    optimizer = kind([{"params": [p for p in other.parameters() if p.requires_grad]}], **settings)
    with pytest.raises(UsageError, match="as many tensors per group"):
        optimizer.load_state_dict(whole[1].state_dict())
