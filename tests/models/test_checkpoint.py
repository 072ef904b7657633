"""What is resolved before weights are read: family, pooling, length; and which tasks a family serves."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from foretune.errors import ModelError
from foretune.models import Checkpoint, open_checkpoint
from foretune.models.checkpoint import positions_of
from foretune.records import ModelRef
from foretune.testing import toys


def opened(
    folder: Path, name: str, kind: str = "classification", pooling: str = "auto", **settings: object
) -> Checkpoint:
    saved = toys.checkpoint(folder / name, name, **settings)  # type: ignore[arg-type]
    return open_checkpoint(ModelRef(str(saved), pooling=pooling), kind)


def sentence_transformers_folder(folder: Path, name: str, **modes: bool) -> Path:
    saved = toys.checkpoint(folder / name, name)
    modules = [
        {"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"},
        {"idx": 1, "name": "1", "path": "1_Pooling", "type": "sentence_transformers.models.Pooling"},
    ]
    (saved / "modules.json").write_text(json.dumps(modules))
    (saved / "1_Pooling").mkdir()
    (saved / "1_Pooling" / "config.json").write_text(json.dumps(modes))
    return saved


@pytest.mark.parametrize(
    ("name", "family", "pooling"),
    [
        *((name, "encoder", "cls") for name in toys.ENCODERS),
        *((name, "decoder", "last") for name in toys.DECODERS),
        ("t5", "encoder-decoder", "eos"),
    ],
)
def test_family_and_default_pooling_follow_the_architecture(
    name: str, family: str, pooling: str, tmp_path: Path
) -> None:
    checkpoint = opened(tmp_path, name)
    assert (checkpoint.family, checkpoint.ref.pooling) == (family, pooling)
    assert checkpoint.ref.fingerprint


@pytest.mark.parametrize(
    ("name", "modes", "pooling"),
    [
        ("bert", {"pooling_mode_cls_token": False, "pooling_mode_mean_tokens": True}, "mean"),
        ("bert", {"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False}, "cls"),
        ("llama", {"pooling_mode_lasttoken": True}, "last"),
        ("bert", {"pooling_mode_max_tokens": True}, "cls"),
        ("bert", {"pooling_mode_lasttoken": True}, "cls"),
    ],
)
def test_a_sentence_transformers_folder_says_its_pooling(
    name: str, modes: dict[str, bool], pooling: str, tmp_path: Path
) -> None:
    folder = sentence_transformers_folder(tmp_path, name, **modes)
    assert open_checkpoint(ModelRef(str(folder)), "classification").ref.pooling == pooling


def test_the_user_may_ask_for_another_pooling_that_the_family_has(tmp_path: Path) -> None:
    folder = sentence_transformers_folder(tmp_path, "bert", pooling_mode_mean_tokens=True)
    assert open_checkpoint(ModelRef(str(folder), pooling="cls"), "classification").ref.pooling == "cls"


@pytest.mark.parametrize(("name", "pooling"), [("bert", "last"), ("llama", "cls"), ("t5", "mean"), ("bert", "maximum")])
def test_a_pooling_that_the_family_lacks_is_refused_with_those_it_has(name: str, pooling: str, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=f"must be one of .*{pooling}"):
        opened(tmp_path, name, pooling=pooling)


@pytest.mark.parametrize("pooling", ["cls", "mean"])
def test_the_pooling_in_a_configuration_is_taken(pooling: str, tmp_path: Path) -> None:
    assert opened(tmp_path, "modernbert", classifier_pooling=pooling).ref.pooling == pooling


def test_an_encoder_is_refused_for_generation(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="encoder"):
        opened(tmp_path, "bert", "generation")


@pytest.mark.parametrize("name", ["llama", "t5"])
def test_generation_pools_nothing(name: str, tmp_path: Path) -> None:
    assert opened(tmp_path, name, "generation").ref.pooling == "none"


@pytest.mark.parametrize(
    ("name", "positions"),
    [("bert", 32), ("roberta", 31), ("llama", 32), ("gpt2", 32), ("t5", None)],
)
def test_positions_are_those_that_tokens_can_use(name: str, positions: int | None, tmp_path: Path) -> None:
    checkpoint = opened(tmp_path, name)
    assert checkpoint.positions == positions
    assert checkpoint.ref.max_length == (positions or 256)


@pytest.mark.parametrize("name", ["bert", "roberta", "gpt2", "distilbert"])
def test_a_text_as_long_as_the_limit_fits_the_model(name: str, tmp_path: Path) -> None:
    import numpy as np
    import pyarrow as pa
    import torch

    from foretune.models import build
    from foretune.objectives.head import Head
    from foretune.tasks.schema import SPLIT_COLUMNS

    checkpoint = opened(tmp_path, name)
    row = {"row": 1, "text": "good " * 99, "pair": None, "choices": None, "label": None}
    encoded = Head().encode(pa.Table.from_pylist([row], schema=SPLIT_COLUMNS), None, checkpoint)
    assert encoded.lengths.tolist() == [checkpoint.positions]
    with torch.no_grad():
        logits = Head().predict(build(checkpoint, 2).module, Head().batch(encoded, np.arange(1), checkpoint))
    assert torch.isfinite(logits).all()


def test_roberta_of_the_usual_size_has_512_positions() -> None:
    import transformers

    assert positions_of(transformers.RobertaConfig(max_position_embeddings=514, pad_token_id=1)) == 512


def test_a_tokenizer_without_padding_pads_with_its_end(tmp_path: Path) -> None:
    import transformers

    folder = toys.checkpoint(tmp_path / "llama", "llama")
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    tokenizer.pad_token = None
    tokenizer.save_pretrained(folder)
    checkpoint = open_checkpoint(ModelRef(str(folder)), "classification")
    assert checkpoint.tokenizer.pad_token_id == tokenizer.eos_token_id


def test_the_length_limit_is_the_least_of_all_limits(tmp_path: Path) -> None:
    folder = toys.checkpoint(tmp_path / "llama", "llama")
    assert open_checkpoint(ModelRef(str(folder), max_length=10), "classification").ref.max_length == 10
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    (folder / "tokenizer_config.json").write_text(json.dumps({**settings, "model_max_length": 7}))
    assert open_checkpoint(ModelRef(str(folder), max_length=10), "classification").ref.max_length == 7
