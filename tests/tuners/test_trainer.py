"""The tuners under ``transformers.Trainer``, and in half precision."""

from __future__ import annotations

import warnings
from pathlib import Path

import pytest

from foretune.testing import toys
from foretune.testing.contracts import logits
from foretune.tuners import TUNERS, LoRA, PrefixTuning, PromptTuning, get_peft_model


def run(model, folder: Path, **options):
    """Two steps of the stock Trainer on eight rows."""
    from transformers import Trainer, TrainingArguments

    batch = toys.batch(toys.network("bert"), (6,) * 8)
    rows = [{"input_ids": i, "attention_mask": m, "labels": 1} for i, m in zip(*batch.values(), strict=True)]
    options = {"max_steps": 2, "per_device_train_batch_size": 4, "use_cpu": True, "save_strategy": "no", **options}
    arguments = TrainingArguments(str(folder), learning_rate=1e-2, disable_tqdm=True, report_to="none", **options)
    trainer = Trainer(model, arguments, train_dataset=rows)
    trainer.train()
    return trainer


@pytest.mark.parametrize("name", [name for name, tuner in TUNERS.items() if tuner.lr])
@pytest.mark.filterwarnings("ignore:.*pin_memory.*:UserWarning")
def test_two_steps_of_the_stock_trainer_change_what_is_trained_and_nothing_else(name: str, tmp_path: Path):
    import torch

    network = toys.network("bert")
    before = {id(p): p.detach().clone() for p in network.parameters()}
    model = get_peft_model(network, name)
    start = {n: p.detach().clone() for n, p in model.named_parameters() if p.requires_grad}
    run(model, tmp_path)
    assert any(not torch.equal(p, start[n]) for n, p in model.named_parameters() if n in start)
    assert all(torch.equal(p, before[id(p)]) for p in model.parameters() if not p.requires_grad and id(p) in before)


def test_the_trainers_own_saving_is_an_ordinary_peft_folder(tmp_path: Path):
    import torch
    from peft import PeftModel

    model = get_peft_model(toys.network("bert"), LoRA(rank=2))
    run(model, tmp_path / "out").save_model(str(tmp_path / "adapter"))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # PEFT reads an old name of transformers
        reloaded = PeftModel.from_pretrained(toys.network("bert"), str(tmp_path / "adapter")).eval()
    batch = toys.batch(toys.network("bert"))
    assert torch.equal(logits(reloaded, batch), logits(model.eval(), batch))


@pytest.mark.filterwarnings("ignore:.*pin_memory.*:UserWarning")
@pytest.mark.parametrize("name", ["prefix-tuning", "prefix-subspace"])
def test_the_trainers_checkpointing_switch_does_not_lose_the_prefix(name: str, tmp_path: Path):
    import torch

    learned = []
    for switch in (False, True):
        torch.manual_seed(0)
        model = get_peft_model(toys.network("bert"), name)
        run(model, tmp_path, activation_checkpointing=switch)
        learned.append(model.vertices)
    torch.testing.assert_close(*learned, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", [name for name, tuner in TUNERS.items() if tuner.lr and name != "full"])
def test_a_fresh_head_on_a_bf16_network_is_trained_in_fp32(name: str, tmp_path: Path):
    import torch

    tuner = TUNERS[name]()
    network = toys.network("bert").to(torch.bfloat16)
    model = tuner.attach(network, toys.fresh(network))
    head = [p for n, p in model.named_parameters() if p.requires_grad and ("classifier" in n or "pooler" in n)]
    assert {p.dtype for p in head} == {torch.float32}
    out = model(**toys.batch(network)).logits
    assert out.dtype == torch.float32
    out.sum().backward()
    tuner.save(model, tmp_path)
    restored = tuner.restore(toys.network("bert").to(torch.bfloat16), tmp_path).eval()
    assert torch.equal(logits(restored, toys.batch(network)), logits(model.eval(), toys.batch(network)))


@pytest.mark.parametrize("tuner", [PromptTuning(length=3), PrefixTuning(length=3)], ids=lambda t: t.name)
def test_a_token_type_of_the_second_text_is_kept(tuner):
    import torch

    network = toys.network("bert")
    model, batch = tuner.attach(network).eval(), toys.batch(network)
    types = torch.ones_like(batch["input_ids"])
    assert not torch.equal(logits(model, batch), logits(model, {**batch, "token_type_ids": types}))
