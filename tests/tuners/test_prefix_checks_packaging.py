"""Acceptance checks 28 to 30 of prefix subspaces: files, the Trainer's way back, and PEFT left as it was."""

from __future__ import annotations

from pathlib import Path

import pytest

from foretune.errors import ModelError, UsageError
from foretune.testing import toys
from foretune.testing.contracts import attached, logits, train
from foretune.tuners import LoRA, PrefixSubspace, PrefixTuning, _peft, get_peft_model

SERVED = (("bert", "sequence"), ("llama", "language"), ("distilbert", "sequence"), ("t5", "language"))
served = pytest.mark.parametrize("served", SERVED, ids="-".join)


def weights(model):
    return {name: p.detach().clone() for name, p in model.named_parameters() if p.requires_grad}


@served
def test_check_07_28_saving_twice_in_training_mode_writes_the_midpoint_twice(served, tmp_path: Path):
    import torch
    from safetensors.torch import load_file

    model, batch = attached(PrefixSubspace(length=4), served).train(), toys.batch(toys.network(*served))
    for folder in ("one", "two"):
        model.save_pretrained(tmp_path / folder)
        model(**batch)
    one, two = ({path.name: path.read_bytes() for path in (tmp_path / name).iterdir()} for name in ("one", "two"))
    assert one == two
    saved = load_file(tmp_path / "one" / "adapter_model.safetensors")
    assert torch.equal(saved["prompt_embeddings"], model.vertices.mean(0))
    assert torch.equal(saved["simplex_vertices"], model.vertices)


@served
def test_check_07_29_load_adapter_brings_back_vertices_and_head_after_further_training(served, tmp_path: Path):
    import torch

    tuner = PrefixSubspace(length=4)
    model, batch = attached(tuner, served), toys.batch(toys.network(*served))
    model.save_pretrained(tmp_path)
    expected, before = weights(model), logits(model, batch)
    train(model, batch, tuner)
    assert not any(torch.equal(value, expected[name]) for name, value in weights(model).items())
    model.load_adapter(tmp_path, "default")
    assert all(torch.equal(value, expected[name]) for name, value in weights(model).items())
    assert torch.equal(logits(model.eval(), batch), before)


@pytest.mark.filterwarnings("ignore:.*pin_memory.*:UserWarning")
def test_check_07_29_the_trainer_ends_with_its_best_checkpoint(tmp_path: Path):
    import torch
    from transformers import Trainer, TrainingArguments

    batch = toys.batch(toys.network("bert"), (6,) * 8)
    rows = [{"input_ids": i, "attention_mask": m, "labels": 1} for i, m in zip(*batch.values(), strict=True)]
    model, seen = get_peft_model(toys.network("bert"), PrefixSubspace(length=4, beta=1.0)), []

    def planted(_):
        """The first evaluation is the best, whatever was learned."""
        seen.append(weights(model))
        return {"planted": -len(seen)}

    arguments = TrainingArguments(
        str(tmp_path), learning_rate=1e-2, disable_tqdm=True, report_to="none", max_steps=3, use_cpu=True,
        per_device_train_batch_size=4, save_strategy="steps", save_steps=1, eval_strategy="steps", eval_steps=1,
        load_best_model_at_end=True, metric_for_best_model="planted",
    )  # fmt: skip
    trainer = Trainer(model, arguments, train_dataset=rows, eval_dataset=rows, compute_metrics=planted)
    trainer.train()
    assert len(seen) == 3
    found = weights(model)
    assert found.keys() == seen[0].keys()
    assert all(torch.equal(found[name], seen[0][name]) for name in found)
    assert not any(torch.equal(found[name], seen[2][name]) for name in found)


def test_check_07_30_peft_knows_what_it_knew_before_and_stock_prefixes_are_stock():
    import peft
    from peft import PrefixTuningConfig, mapping
    from peft.peft_model import PeftModelForSequenceClassification
    from transformers import AttentionInterface

    from foretune.tuners.prefix.attention import SERVED as OWN
    from foretune.tuners.prefix.attention import register

    attached(PrefixSubspace(length=4), ("bert", "sequence"))
    known = set(AttentionInterface._global_mapping)
    register(), register()
    assert set(AttentionInterface._global_mapping) == known
    assert {name for name, _ in OWN.values()} <= known
    for table in (
        mapping.PEFT_TYPE_TO_CONFIG_MAPPING,
        mapping.PEFT_TYPE_TO_TUNER_MAPPING,
        peft.MODEL_TYPE_TO_PEFT_MODEL_MAPPING,
    ):
        assert all(kind.__module__.startswith("peft.") for name, kind in table.items() if name != "DST")
    stock = get_peft_model(toys.network("bert"), PrefixTuningConfig(task_type="SEQ_CLS", num_virtual_tokens=4))
    assert type(stock) is PeftModelForSequenceClassification
    assert type(stock.prompt_encoder["default"]) is peft.PrefixEncoder
    logits(stock, toys.batch(toys.network("bert")))


def test_check_07_30_an_untested_peft_is_refused_with_the_command_that_helps(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    attached(PrefixSubspace(length=4), ("bert", "sequence")).save_pretrained(tmp_path)
    monkeypatch.setattr(_peft, "version", lambda name: "0.30.1")
    for tuner in (PrefixTuning(), PrefixSubspace()):
        with pytest.raises(UsageError, match=r"0\.30\.1.*pip install"):
            tuner.attach(toys.network("bert"))
        with pytest.raises(UsageError, match=r"0\.30\.1.*pip install"):
            tuner.restore(toys.network("bert"), tmp_path)


def test_a_folder_of_another_type_shape_or_position_mode_is_refused(tmp_path: Path):
    from foretune.tuners.prefix.model import PrefixModel

    bert = ("bert", "sequence")
    model = attached(PrefixSubspace(length=4), bert)
    model.save_pretrained(tmp_path / "three")
    attached(PrefixSubspace(length=4, n_vertices=2), bert).save_pretrained(tmp_path / "two")
    attached(PrefixTuning(length=4), bert).save_pretrained(tmp_path / "plain")
    attached(PrefixSubspace(length=4, position_mode="no_shift"), bert).save_pretrained(tmp_path / "still")
    LoRA(rank=2).save(attached(LoRA(rank=2), bert), tmp_path / "lora")
    for folder, words in (
        ("two", r"simplex_bias.*\(2, 16\) there, \(3, 16\) here"),
        ("plain", r"simplex_bias` is absent there"),
        ("still", 'position_mode="no_shift", but this model has "shift"'),
        ("lora", "must be of type PREFIX_TUNING, but it is LORA"),
        ("nothing", "not a readable PEFT configuration"),
    ):
        with pytest.raises(ModelError, match=words):
            model.load_adapter(tmp_path / folder, "default")
    with pytest.raises(ModelError, match="it is LORA"):
        PrefixModel.from_pretrained(toys.network("bert"), tmp_path / "lora")
    with pytest.raises(ModelError, match=r"does not fit.*classifier.bias` is \(3,\) there, \(4,\) here"):
        PrefixModel.from_pretrained(toys.network("bert", labels=4), tmp_path / "plain")
    assert PrefixModel.from_pretrained(toys.network("bert"), tmp_path / "plain").mixture.law.n == 1


def test_a_network_carries_one_prefix(tmp_path: Path):
    network = toys.network("llama", "language")
    model = PrefixTuning(length=4).attach(network)
    model.save_pretrained(tmp_path)
    for other in (PrefixSubspace(), LoRA()):
        with pytest.raises(UsageError, match="has an adapter already"):
            other.attach(network)
    with pytest.raises(UsageError, match="one prefix, here named `default`, but got `second`"):
        model.load_adapter(tmp_path, "second")
    with pytest.raises(UsageError, match="one prefix, here named `default`, but got `second`"):
        model.add_adapter("second", model.config_of_prefix)
