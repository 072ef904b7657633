"""Landmarks: what the frozen base model makes of the training rows, the same every time and of them alone."""

import numpy as np
import pyarrow as pa
import pytest
import torch

from foretune.models import FrozenModel, model_card, open_checkpoint
from foretune.records import ModelRef
from foretune.tasks import Task
from foretune.testing import toys
from foretune.training.landmarks import ZERO_SHOT, landmarks

CPU = torch.device("cpu")
TOKENS = {"tokens_mean", "tokens_p50", "tokens_p95", "tokens_max", "tokens_per_word", "unknown_rate"}
PROBES = {"landmark_probe", "landmark_logme"}
LOSSES = {"zero_shot_loss", "zero_shot_spread"}


def seen(kind, name, folder, rows=None):
    task = Task.from_records(rows or toys.rows(kind), kind=kind)
    checkpoint = open_checkpoint(ModelRef(str(toys.checkpoint(folder / name, name)), max_length=32), kind)
    return landmarks(task, task.splits["train"], FrozenModel(checkpoint, CPU))


@pytest.mark.parametrize(
    ("kind", "name", "wanted"),
    [
        ("classification", "llama", TOKENS | PROBES | LOSSES),
        ("regression", "bert", TOKENS | PROBES),
        ("choice", "bert", TOKENS),
        ("generation", "llama", TOKENS | LOSSES),
    ],
)
def test_a_task_has_the_landmarks_that_its_kind_and_model_allow(kind, name, wanted, tmp_path):
    found = seen(kind, name, tmp_path)
    assert found.keys() - LOSSES == wanted - LOSSES
    assert found.keys() >= wanted
    assert all(np.isfinite(value) for value in found.values())
    assert seen(kind, name, tmp_path) == found


def test_the_loss_of_an_untrained_decoder_is_about_that_of_guessing(tmp_path):
    found = seen("classification", "llama", tmp_path)
    size = toys.config("llama").vocab_size
    assert found["zero_shot_loss"] == pytest.approx(np.log(size), rel=0.05)


def test_labels_that_the_embedding_tells_apart_score_higher_than_shuffled_ones(tmp_path):
    pair = ["good", "bad"]
    rows = [{"text": " ".join([pair[n % 2]] * (3 + n % 3)), "label": "ab"[n % 2]} for n in range(40)]
    mixed = [{"text": row["text"], "label": "ab"[(n // 2) % 2]} for n, row in enumerate(rows)]
    clear, noise = seen("classification", "bert", tmp_path, rows), seen("classification", "bert", tmp_path, mixed)
    assert clear["landmark_probe"] > 0.9 > noise["landmark_probe"]
    assert clear["landmark_logme"] > noise["landmark_logme"]


def drawn(folder, *rows_of_class):
    """The landmarks of a draw with so many rows of each class, all rows of a class being alike and none of another."""
    words = ["good", "bad", "film", "book", "very", "not"]
    rows = [{"text": " ".join([word] * 5), "label": word} for word in words for _ in range(4)]
    task = Task.from_records(rows, kind="classification")
    labels = task.splits["train"]["label"].to_pylist()
    of_class = [[place for place, label in enumerate(labels) if label == word] for word in words]
    kept = [place for places, number in zip(of_class, rows_of_class, strict=False) for place in places[:number]]
    checkpoint = open_checkpoint(
        ModelRef(str(toys.checkpoint(folder / "bert", "bert")), max_length=32), task.schema.kind
    )
    return landmarks(task, task.splits["train"].take(kept), FrozenModel(checkpoint, CPU))


def test_a_class_with_a_single_row_is_not_held_against_the_probe(tmp_path):
    assert drawn(tmp_path, 4, 4, 1, 1)["landmark_probe"] == 1.0


@pytest.mark.parametrize("rows_of_class", [(1, 1, 1, 1, 1, 1), (2, 1, 1, 1, 1, 1)])
def test_where_most_classes_have_a_single_row_there_is_no_probe_and_not_a_score_of_0(rows_of_class, tmp_path):
    found = drawn(tmp_path, *rows_of_class)
    assert "landmark_probe" not in found
    assert np.isfinite(found["landmark_logme"])


def test_a_model_card_says_what_the_configuration_says(tmp_path):
    card = model_card(open_checkpoint(ModelRef(str(toys.checkpoint(tmp_path / "m", "llama"))), "generation"))
    assert (card.family, card.reading, card.experts) == ("llama", "decoder", 0)
    assert card.parameters > 0
    assert card.features["layers"] >= 1


def test_only_so_many_rows_are_read():
    from foretune.training.landmarks import _spread

    table = pa.table({"text": [str(n) for n in range(1000)]})
    assert _spread(table, ZERO_SHOT)["text"].to_pylist()[:2] == ["0", "15"]
    assert len(_spread(table, ZERO_SHOT)) == ZERO_SHOT
    assert len(_spread(table.slice(0, 5), ZERO_SHOT)) == 5
