"""Which modules start at random, which checkpoints are refused for what they lack, and the frozen features."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import psutil
import pytest
import torch

from foretune.errors import ModelError, ResourceError
from foretune.models import FrozenModel, Network, build, open_checkpoint
from foretune.models.network import require_memory
from foretune.records import ModelRef
from foretune.testing import toys


def built(folder: Path, pooling: str = "auto", kind: str = "classification", outputs: int = 3) -> Network:
    return build(open_checkpoint(ModelRef(str(folder), pooling=pooling), kind), outputs)


@pytest.mark.parametrize(
    ("name", "pooling", "fresh"),
    [
        ("bert", "cls", {"bert.pooler", "classifier"}),
        ("bert", "mean", {"classifier"}),
        ("roberta", "cls", {"classifier"}),
        ("distilbert", "cls", {"pre_classifier", "classifier"}),
        ("llama", "last", {"score"}),
        ("gpt2", "mean", {"classifier"}),
        ("t5", "eos", {"classification_head"}),
    ],
)
def test_the_head_and_a_missing_pooler_are_fresh_and_nothing_else(
    name: str, pooling: str, fresh: set[str], tmp_path: Path
) -> None:
    network = built(toys.checkpoint(tmp_path / name, name), pooling)
    assert set(network.fresh) == fresh
    assert not network.module.training
    assert network.module.config.num_labels == 3
    assert {p.dtype for p in network.module.parameters()} == {torch.float32}


def test_a_pooler_that_the_checkpoint_has_is_kept(tmp_path: Path) -> None:
    folder = toys.checkpoint(tmp_path / "bert", "bert")
    toys.network("bert").bert.save_pretrained(folder)
    network = built(folder)
    assert network.fresh == ("classifier",)
    assert torch.equal(network.module.bert.pooler.dense.weight, toys.network("bert").bert.pooler.dense.weight)


def test_a_head_for_another_number_of_classes_is_drawn_anew(tmp_path: Path) -> None:
    folder = toys.checkpoint(tmp_path / "bert", "bert")
    toys.network("bert", labels=2).save_pretrained(folder)
    assert built(folder, outputs=2).fresh == ()
    network = built(folder, outputs=5)
    assert network.fresh == ("classifier",)
    assert network.module.classifier.weight.shape == (5, 16)


def test_the_fresh_head_is_drawn_from_the_seed(tmp_path: Path) -> None:
    folder, heads = toys.checkpoint(tmp_path / "bert", "bert"), []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        heads.append(built(folder).module.classifier.weight)
    assert torch.equal(heads[0], heads[1])
    assert not torch.equal(heads[0], heads[2])


def test_the_pooling_asked_for_wins_over_the_one_in_the_configuration(tmp_path: Path) -> None:
    folder = toys.checkpoint(tmp_path / "m", "modernbert", classifier_pooling="mean")
    network = built(folder, "cls").module
    ids = torch.tensor([[1, 3, 12, 4, 1]])
    with torch.no_grad():
        hidden = network.model(ids, attention_mask=torch.ones_like(ids)).last_hidden_state[:, 0]
        expected = network.classifier(network.head(hidden))
        found = network(ids, attention_mask=torch.ones_like(ids)).logits
    torch.testing.assert_close(found, expected)


def test_a_language_model_without_its_head_is_refused(tmp_path: Path) -> None:
    folder = toys.checkpoint(tmp_path / "llama", "llama", tie_word_embeddings=False)
    toys.network("llama", "language").model.save_pretrained(folder)
    with pytest.raises(ModelError, match="no language-model head"):
        built(folder, kind="generation")


def test_a_checkpoint_without_a_layer_is_refused(tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    folder = toys.checkpoint(tmp_path / "bert", "bert")
    tensors = load_file(folder / "model.safetensors")
    save_file({k: v for k, v in tensors.items() if "layer.1." not in k}, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(ModelError, match=r"lack 16 tensors.*layer\.1"):
        built(folder)


def test_an_encoder_alone_is_no_encoder_decoder(tmp_path: Path) -> None:
    folder = toys.checkpoint(tmp_path / "t5", "t5")
    toys.network("t5", "language").encoder.save_pretrained(folder)
    with pytest.raises(ModelError, match="lack"):
        built(folder)


def test_a_configuration_of_another_size_is_refused(tmp_path: Path) -> None:
    folder = toys.checkpoint(tmp_path / "bert", "bert")
    text = (folder / "config.json").read_text()
    (folder / "config.json").write_text(text.replace('"hidden_size": 16', '"hidden_size": 32'))
    with pytest.raises(ModelError, match="another shape"):
        built(folder)


def test_weights_that_do_not_fit_the_free_memory_are_refused_with_both_figures() -> None:
    require_memory(1, "these weights")
    with pytest.raises(ResourceError, match=r"these weights need .* GiB, but .* GiB of memory are free"):
        require_memory(psutil.virtual_memory().total * 2, "these weights")


@pytest.mark.parametrize("name", ["bert", "llama", "t5"])
def test_features_are_the_pooled_hidden_states_of_the_untouched_model(name: str, tmp_path: Path) -> None:
    folder = toys.checkpoint(tmp_path / name, name)
    checkpoint = open_checkpoint(ModelRef(str(folder)), "classification")
    model = toys.network(name, "language") if name != "bert" else built(folder).module
    body = model.encoder if name == "t5" else model.base_model
    batch = {"input_ids": torch.tensor([[1, 3, 12], [1, 4, 0]]), "attention_mask": torch.tensor([[1, 1, 1], [1, 1, 0]])}
    with torch.no_grad():
        hidden = body(**batch).last_hidden_state
    expected = torch.stack([hidden[0, 2], hidden[1, 1]])
    if name != "llama":
        expected = torch.stack([hidden[0].mean(0), hidden[1, :2].mean(0)])
    found = FrozenModel(checkpoint, torch.device("cpu")).features([batch])
    np.testing.assert_allclose(found, expected.numpy(), rtol=1e-5, atol=1e-6)


def test_features_of_an_encoder_decoder_without_an_encoder_class_of_its_own(tmp_path: Path) -> None:
    import transformers

    folder = toys.checkpoint(tmp_path / "bart", "t5")
    size = {"vocab_size": 40, "d_model": 16, "max_position_embeddings": 32, "pad_token_id": 0}
    half = {f"{side}_{part}": 2 for side in ("encoder", "decoder") for part in ("layers", "attention_heads")}
    ends = {"bos_token_id": 1, "eos_token_id": 1, "decoder_start_token_id": 1, "forced_eos_token_id": 1}
    config = transformers.BartConfig(**size, **half, **ends, encoder_ffn_dim=24, decoder_ffn_dim=24)
    transformers.BartForConditionalGeneration(config).save_pretrained(folder)
    checkpoint = open_checkpoint(ModelRef(str(folder)), "classification")
    batch = {"input_ids": torch.tensor([[3, 12, 1]]), "attention_mask": torch.ones(1, 3, dtype=torch.long)}
    assert FrozenModel(checkpoint, torch.device("cpu")).features([batch]).shape == (1, 16)
    assert build(checkpoint, 2).fresh == ("classification_head",)
