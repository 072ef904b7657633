"""Language modelling: whose tokens are predicted, under which masks, and what the loss is."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from foretune.errors import ModelError, UsageError
from foretune.models import Checkpoint, build, open_checkpoint
from foretune.objectives.base import Encoded
from foretune.objectives.language import Language
from foretune.records import UNLABELLED, ModelRef
from foretune.tasks.unlabelled import open_texts
from foretune.testing import toys

Open = Callable[..., tuple[Language, Checkpoint, Encoded]]


@pytest.fixture(scope="module")
def opened(tmp_path_factory: pytest.TempPathFactory) -> Open:
    """``opened("bert", texts, max_length=12)``: the fitted objective, the checkpoint and the texts encoded."""
    folder = tmp_path_factory.mktemp("models")

    def find(name: str, texts: list[str] | None = None, max_length: int = 30) -> tuple[Language, Checkpoint, Encoded]:
        saved = folder / name if (folder / name).exists() else toys.checkpoint(folder / name, name)
        checkpoint = open_checkpoint(ModelRef(str(saved), pooling="none", max_length=max_length), UNLABELLED)
        rows = [{"text": text} for text in texts] if texts else toys.rows(UNLABELLED)
        encoded = Language().encode(open_texts(rows).table, None, checkpoint)
        return Language().fitted(encoded, checkpoint), checkpoint, encoded

    return find


def masks(objective: Language, checkpoint: Checkpoint, encoded: Encoded, seed: int) -> tuple[np.ndarray, np.ndarray]:
    batch = objective.batch(encoded, np.arange(len(encoded)), checkpoint)
    ids, places = objective._masked(batch, seed)
    return ids.numpy(), places.numpy()


@settings(max_examples=25)
@given(seed=st.integers(0, 2**63 - 1), rate=st.floats(0.01, 0.9))
def test_the_number_of_masks_is_known_beforehand_and_special_tokens_have_none(opened, seed, rate):
    _, checkpoint, _ = opened("bert")
    objective = Language(mask_rate=rate)
    encoded = objective.encode(open_texts(toys.rows(UNLABELLED)).table, None, checkpoint)
    objective = objective.fitted(encoded, checkpoint)
    batch = objective.batch(encoded, np.arange(len(encoded)), checkpoint)
    ids, places = objective._masked(batch, seed)
    np.testing.assert_array_equal(places.sum(1), encoded.targets)
    assert not (places & (batch["input_ids"] <= 1)).any()
    assert (ids[~places] == batch["input_ids"][~places]).all()
    assert objective.weight(encoded, np.arange(3)) == encoded.targets[:3].sum()


def test_of_the_chosen_tokens_most_are_hidden_some_are_changed_and_some_stay(opened):
    objective, checkpoint, encoded = opened("bert")
    before = objective.batch(encoded, np.arange(len(encoded)), checkpoint)["input_ids"].numpy()
    hidden = stay = total = 0
    for seed in range(60):
        ids, places = masks(objective, checkpoint, encoded, seed)
        hidden += (ids[places] == objective.mask_id).sum()
        stay += (ids[places] == before[places]).sum()
        total += places.sum()
    share = 1 / objective.vocabulary
    assert total > 2000
    assert abs(hidden / total - (0.8 + 0.1 * share)) < 0.03
    assert abs(stay / total - (0.1 + 0.1 * share)) < 0.03


def test_the_masks_of_training_hang_on_the_seed_of_the_pass_and_those_of_evaluation_on_nothing(opened):
    objective, checkpoint, encoded = opened("bert")
    model = build(checkpoint, 0).module
    batch = objective.batch(encoded, np.arange(len(encoded)), checkpoint)

    def loss(train: bool, seed: int) -> float:
        torch.manual_seed(seed)
        with torch.no_grad():
            return float(objective.loss(model.train(train), batch))

    assert loss(True, 1) == loss(True, 1) != loss(True, 2)
    assert loss(False, 1) == loss(False, 2)


def test_masks_take_nothing_from_the_stream_of_dropout(opened):
    objective, checkpoint, encoded = opened("bert")
    batch = objective.batch(encoded, np.arange(4), checkpoint)
    torch.manual_seed(3)
    expected = torch.rand(3)
    torch.manual_seed(3)
    objective._masked(batch, torch.initial_seed())
    torch.testing.assert_close(torch.rand(3), expected)


def test_a_causal_loss_is_that_of_transformers(opened):
    objective, checkpoint, encoded = opened("llama")
    model = build(checkpoint, 0).module
    batch = objective.batch(encoded, np.arange(6), checkpoint)
    labels = batch["input_ids"].masked_fill(batch["attention_mask"] == 0, -100)
    with torch.no_grad():
        theirs = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"], labels=labels).loss
        ours = objective.loss(model, batch) / objective.weight(encoded, np.arange(6))
    torch.testing.assert_close(ours, theirs)


def test_a_causal_text_ends_with_the_end_token(opened):
    _, checkpoint, encoded = opened("llama")
    assert all(encoded.tokens[i][-1] == checkpoint.tokenizer.eos_token_id for i in range(len(encoded)))
    np.testing.assert_array_equal(encoded.targets, encoded.tokens.lengths - 1)


@pytest.mark.parametrize("name", ["bert", "llama"])
def test_a_long_text_goes_on_in_further_windows_and_loses_nothing(opened, name):
    words = [toys.WORDS[i % len(toys.WORDS)] for i in range(50)]
    texts = [" ".join(words), *(f"the film was {w}" for w in toys.WORDS[:9])]
    _, checkpoint, encoded = opened(name, texts, max_length=12)
    kept = [int(i) for window in range(len(encoded)) for i in encoded.tokens[window] if i > 1]
    whole = [i for text in texts for i in checkpoint.tokenizer(text)["input_ids"] if i > 1]
    assert kept == whole
    assert len(encoded) > len(texts)
    assert encoded.tokens.lengths.max() <= 12
    assert encoded.cut == 0


def test_a_tokenizer_without_a_mask_token_is_refused(tmp_path: Path):
    toys.checkpoint(tmp_path / "bert", "bert")
    checkpoint = open_checkpoint(ModelRef(str(tmp_path / "bert"), pooling="none"), UNLABELLED)
    checkpoint.tokenizer.mask_token = None
    with pytest.raises(ModelError, match="mask token"):
        Language().encode(open_texts(toys.rows(UNLABELLED)).table, None, checkpoint)


@pytest.mark.parametrize("rate", [0.0, 1.0, -0.1])
def test_a_rate_of_masks_out_of_range_is_refused(rate):
    with pytest.raises(UsageError, match="mask_rate"):
        Language(mask_rate=rate)
