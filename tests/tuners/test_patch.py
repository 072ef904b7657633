"""A patch is an ordinary safetensors file under stock names, checked before it is applied."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest

from foretune.errors import ModelError, UsageError
from foretune.testing import toys
from foretune.testing.contracts import logits, train
from foretune.tuners import BitFit, Full, Head, LoRA, Tuner


def trained(tuner: Tuner, name: str, kind: str = "sequence"):
    network = toys.network(name, kind)
    model = tuner.attach(network, toys.fresh(network))
    train(model, toys.batch(network), tuner)
    return model.eval()


def with_more_heads(name: str):
    from transformers import AutoModelForSequenceClassification

    config = copy.deepcopy(toys.config(name))
    config.num_attention_heads, config.num_labels = 4, 3
    return AutoModelForSequenceClassification.from_config(config)


@pytest.mark.parametrize("tuner", [Full(), Head(), BitFit()], ids=lambda t: t.name)
def test_stock_transformers_restores_a_patch(tuner: Tuner, tmp_path: Path):
    import torch
    from safetensors.torch import load_file

    model = trained(tuner, "roberta")
    tuner.save(model, tmp_path)
    other = toys.network("roberta", seed=0)
    unexpected = other.load_state_dict(load_file(tmp_path / "patch.safetensors"), strict=False).unexpected_keys
    assert not unexpected
    assert torch.equal(logits(other, toys.batch(other)), logits(model, toys.batch(other)))


def test_bitfit_trains_biases_and_head_by_name():
    network = BitFit().attach(toys.network("bert"), ("classifier",))
    trained = {name for name, p in network.named_parameters() if p.requires_grad}
    every = {name for name, _ in network.named_parameters()}
    assert trained == {name for name in every if name.endswith(".bias")} | {"classifier.weight"}


def test_bitfit_without_biases_points_to_what_is_as_small():
    with pytest.raises(ModelError, match=r"LlamaForSequenceClassification has none.*ln-tuning.*ia3"):
        BitFit().attach(toys.network("llama"))


def test_tied_weights_are_saved_once(tmp_path: Path):
    from safetensors.torch import load_file

    model = trained(Full(), "gpt2", "language")
    Full().save(model, tmp_path)
    names = set(load_file(tmp_path / "patch.safetensors"))
    assert "transformer.wte.weight" in names
    assert "lm_head.weight" not in names


@pytest.mark.parametrize(
    ("other", "words"),
    [
        (lambda: toys.network("roberta", labels=4), "classifier.out_proj.weight"),
        (lambda: toys.network("bert"), "absent"),
        (lambda: with_more_heads("roberta"), "another configuration"),
    ],
    ids=["labels", "architecture", "configuration"],
)
def test_a_patch_of_another_network_is_refused(other, words: str, tmp_path: Path):
    BitFit().save(trained(BitFit(), "roberta"), tmp_path)
    with pytest.raises(ModelError, match=words):
        BitFit().restore(other(), tmp_path)


def test_a_patch_of_another_tuner_is_refused_by_both_names(tmp_path: Path):
    BitFit().save(trained(BitFit(), "bert"), tmp_path)
    with pytest.raises(ModelError, match=r"`head`.*`bitfit`"):
        Head().restore(toys.network("bert"), tmp_path)


@pytest.mark.parametrize("content", [None, "{", "[]", "{}"], ids=["missing", "cut", "list", "empty"])
@pytest.mark.parametrize(
    ("tuner", "file"), [(Head(), "patch.json"), (LoRA(), "adapter_config.json")], ids=["head", "lora"]
)
def test_an_unreadable_folder_is_one_sentence(tuner: Tuner, file: str, content: str | None, tmp_path: Path):
    if content is not None:
        (tmp_path / file).write_text(content)
    with pytest.raises(ModelError, match="not a readable"):
        tuner.restore(toys.network("bert"), tmp_path)


def test_a_model_that_was_never_attached_is_refused(tmp_path: Path):
    for tuner in (Head(), LoRA()):
        with pytest.raises(UsageError, match="Expected the model that `attach` returned"):
            tuner.save(toys.network("bert"), tmp_path)


def test_the_learned_values_come_back_after_an_error_inside_disabled():
    import torch

    model = trained(BitFit(), "bert")
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    with pytest.raises(RuntimeError, match="inside"), BitFit().disabled(model):
        raise RuntimeError("inside")
    assert all(torch.equal(p, before[name]) for name, p in model.named_parameters())
