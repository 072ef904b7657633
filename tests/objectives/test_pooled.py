"""Classification, regression and choice: pooling, units, ragged candidates, cuts."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch

from foretune.errors import DataError, UsageError
from foretune.models import Checkpoint, build, open_checkpoint
from foretune.objectives import make
from foretune.objectives.base import pooled_logits
from foretune.objectives.choice import MultipleChoice
from foretune.objectives.head import Head
from foretune.objectives.regression import Regression
from foretune.records import ModelRef, Part
from foretune.tasks.schema import SPLIT_COLUMNS
from foretune.testing import toys


def opened(folder: Path, name: str, kind: str, pooling: str = "auto", max_length: int = 256) -> Checkpoint:
    return open_checkpoint(
        ModelRef(str(toys.checkpoint(folder / name, name)), pooling=pooling, max_length=max_length), kind
    )


def table(*rows: dict[str, object]) -> pa.Table:
    blank = {"pair": None, "choices": None, "label": None}
    return pa.Table.from_pylist([{"row": i, **blank, **row} for i, row in enumerate(rows, 1)], schema=SPLIT_COLUMNS)


@pytest.mark.parametrize("name", ["bert", "llama", "deberta-v2"])
def test_mean_pooling_is_the_head_on_the_mean_of_the_hidden_states(name: str, tmp_path: Path) -> None:
    checkpoint = opened(tmp_path, name, "classification", "mean")
    model = build(checkpoint, 3).module
    texts = table({"text": "the good film was very very bad"}, {"text": "food"})
    encoded = Head().encode(texts, None, checkpoint)
    batch = Head().batch(encoded, np.arange(2), checkpoint)
    inputs = {key: batch[key] for key in ("input_ids", "attention_mask", "token_type_ids") if key in batch}
    head = dict(model.named_children()).get("classifier") or dict(model.named_children())["score"]
    with torch.no_grad():
        hidden = model.base_model(**inputs).last_hidden_state
        mask = batch["attention_mask"].unsqueeze(-1)
        expected = head((hidden * mask).sum(1) / mask.sum(1))
        found = pooled_logits(model, batch, 0)
    assert found.shape == (2, 3)
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-6)


def test_token_logits_of_virtual_positions_in_front_are_left_out() -> None:
    class Net(torch.nn.Module):
        def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> object:
            virtual = torch.full((*input_ids.shape[:1], 2, 1), 1e6)
            return type("Out", (), {"logits": torch.cat([virtual, input_ids[..., None].float()], 1)})

    batch = {"input_ids": torch.tensor([[4, 6], [5, 0]]), "attention_mask": torch.tensor([[1, 1], [1, 0]])}
    assert pooled_logits(Net(), batch, 2).tolist() == [[5.0], [5.0]]


def test_pairs_are_told_apart_from_one_text_and_cut_from_the_longer(tmp_path: Path) -> None:
    checkpoint = opened(tmp_path, "bert", "classification", max_length=8)
    rows = table({"text": "good film", "pair": "bad"}, {"text": "good", "pair": "the food was very very very bad"})
    encoded = Head().encode(rows, None, checkpoint)
    assert encoded.types is not None
    assert encoded.types[0].tolist() == [0, 0, 0, 0, 1, 1]
    good = checkpoint.tokenizer("good", add_special_tokens=False)["input_ids"][0]
    assert encoded.tokens[1][1] == good
    assert encoded.lengths.tolist() == [6, 8]
    assert encoded.cut == 1


def test_texts_beyond_the_limit_are_cut_and_counted(tmp_path: Path) -> None:
    checkpoint = opened(tmp_path, "bert", "classification", max_length=6)
    rows = table({"text": "a"}, {"text": "one two three four"}, {"text": "one two three four a"}, {"text": "a " * 30})
    encoded = Head().encode(rows, None, checkpoint)
    assert encoded.lengths.tolist() == [3, 6, 6, 6]
    assert encoded.cut == 2
    assert encoded.tokens[3].tolist()[-1] == checkpoint.tokenizer.eos_token_id


def test_a_tokenizer_written_in_python_counts_its_cuts_too(tmp_path: Path) -> None:
    import transformers

    folder = toys.checkpoint(tmp_path / "bytes", "t5", vocab_size=400)
    for file in folder.glob("token*"):
        file.unlink()
    transformers.ByT5Tokenizer().save_pretrained(folder)
    checkpoint = open_checkpoint(ModelRef(str(folder), max_length=6), "classification")
    encoded = Head().encode(table({"text": "abcde"}, {"text": "abcdef"}), None, checkpoint)
    assert encoded.lengths.tolist() == [6, 6]
    assert encoded.cut == 1


def test_a_text_without_any_known_token_is_refused_by_its_words(tmp_path: Path) -> None:
    checkpoint = opened(tmp_path, "llama", "classification")
    checkpoint.tokenizer.backend_tokenizer.post_processor = None
    with pytest.raises(DataError, match="token"):
        Head().encode(table({"text": "good"}, {"text": " "}), None, checkpoint)


def test_an_end_token_inside_a_text_does_not_break_pooling_at_the_end(tmp_path: Path) -> None:
    checkpoint = opened(tmp_path, "t5", "classification")
    encoded = Head().encode(table({"text": "good </s> film"}, {"text": "bad"}), None, checkpoint)
    batch = Head().batch(encoded, np.arange(2), checkpoint)
    assert (batch["input_ids"] == checkpoint.tokenizer.eos_token_id).sum(1).tolist() == [1, 1]
    with torch.no_grad():
        assert torch.isfinite(Head().predict(build(checkpoint, 2).module, batch)).all()


def test_changing_the_unit_of_a_regression_changes_only_the_unit(tmp_path: Path) -> None:
    checkpoint = opened(tmp_path, "bert", "regression", "mean")
    rows = table(*({"text": f"the film was {word}"} for word in toys.WORDS[:8]))
    metres = np.linspace(-1.0, 2.0, 8)
    torch.manual_seed(0)
    model = build(checkpoint, 1).module
    found = []
    for scale, shift in ((1.0, 0.0), (1e6, 5e9)):
        encoded = Regression().encode(rows, metres * scale + shift, checkpoint)
        objective = Regression().fitted(encoded, checkpoint)
        batch = objective.batch(encoded, np.arange(8), checkpoint)
        model.zero_grad()
        loss = objective.loss(model, batch)
        loss.backward()
        values = objective.decode(objective.predict(model, batch).detach().numpy(), checkpoint)
        gradient = model.classifier.weight.grad.clone()
        found.append((loss.detach(), gradient, (values - shift) / scale))
    (loss, gradient, values), (other_loss, other_gradient, other_values) = found
    torch.testing.assert_close(loss, other_loss, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(gradient, other_gradient, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(values, other_values, rtol=1e-6, atol=1e-6)


def test_a_regression_that_knows_nothing_predicts_the_mean(tmp_path: Path) -> None:
    checkpoint = opened(tmp_path, "bert", "regression", "mean")
    encoded = Regression().encode(table({"text": "a"}, {"text": "the"}), np.array([3.0, 5.0]), checkpoint)
    objective = Regression().fitted(encoded, checkpoint)
    assert objective.decode(np.zeros((1, 1), np.float32), checkpoint).tolist() == [4.0]


def test_candidates_may_differ_in_number_and_their_place_does_not_matter(tmp_path: Path) -> None:
    checkpoint = opened(tmp_path, "bert", "choice", "mean")
    model = build(checkpoint, 1).module
    objective = MultipleChoice()
    rows = table(
        {"text": "the film", "choices": ["good", "bad", "sad"]},
        {"text": "the film", "choices": ["sad", "good"]},
        {"text": "a", "choices": ["one", "two", "three", "four"]},
    )
    encoded = objective.encode(rows, np.array([0, 1, 3]), checkpoint)
    assert np.diff(encoded.groups).tolist() == [3, 2, 4]
    with torch.no_grad():
        out = objective.padded(objective.predict(model, objective.batch(encoded, np.arange(2), checkpoint)), encoded)
        loss = objective.loss(model, objective.batch(encoded, np.arange(2), checkpoint))
    assert out.shape == (2, 4)
    assert torch.isinf(out).tolist() == [[False, False, False, True], [False, False, True, True]]
    torch.testing.assert_close(out[0, [2, 0]], out[1, [0, 1]])
    expected = -(out[0, :3].log_softmax(0)[0] + out[1, :2].log_softmax(0)[1])
    torch.testing.assert_close(loss, expected)


def test_label_smoothing_changes_the_loss_as_its_formula_says(tmp_path: Path) -> None:
    checkpoint = opened(tmp_path, "bert", "classification")
    model = build(checkpoint, 2).module
    encoded = Head().encode(table({"text": "good"}), np.array([1]), checkpoint)
    batch = Head().batch(encoded, np.arange(1), checkpoint)
    with torch.no_grad():
        logs = Head().predict(model, batch).log_softmax(1)[0]
        found = Head(label_smoothing=0.2).loss(model, batch)
    torch.testing.assert_close(found, -(0.9 * logs[1] + 0.1 * logs[0]))


def test_several_models_answer_with_their_mean_probability_or_value() -> None:
    logits = np.array([[[4.0, 0.0]], [[-1.0, 0.0]], [[-1.0, 0.0]]])
    pooled = np.exp(Head().pool(logits))
    expected = np.mean(np.exp(logits[..., 0]) / np.exp(logits).sum(-1))
    np.testing.assert_allclose(pooled, [[expected, 1 - expected]])
    values = np.array([[[1.0], [2.0]], [[3.0], [-2.0]]])
    assert Regression().pool(values).tolist() == [[2.0], [0.0]]


def test_pooled_candidates_stay_ragged() -> None:
    logits = np.array([[[1.0, 2.0, -np.inf]], [[0.0, 5.0, -np.inf]]], np.float32)
    pooled = MultipleChoice().pool(logits)
    assert pooled[0, 2] == -np.inf
    assert np.exp(pooled).sum() == pytest.approx(1)


def test_one_model_pooled_with_itself_gives_its_own_probabilities() -> None:
    logits = np.random.default_rng(0).normal(size=(1, 5, 3)).astype(np.float32)
    once, thrice = Head().pool(logits), Head().pool(np.repeat(logits, 3, 0))
    np.testing.assert_allclose(once, thrice)
    np.testing.assert_allclose(once, torch.from_numpy(logits[0]).double().log_softmax(-1))


def test_texts_have_no_mean() -> None:
    writer = make(Part("response"))
    assert [make(Part(name)).pools for name in ("head", "regression", "choice", "response")] == [
        True,
        True,
        True,
        False,
    ]
    with pytest.raises(UsageError, match="`response` cannot average"):
        writer.pool(np.zeros((2, 3, 4)))


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("head", {"label_smoothing": 1.0}),
        ("head", {"label_smoothing": "much"}),
        ("response", {"max_new_tokens": -1}),
        ("response", {"references": ""}),
        ("regression", {"unit": "metre"}),
        ("hed", {}),
    ],
)
def test_options_that_cannot_be_are_refused(name: str, options: dict[str, object]) -> None:
    with pytest.raises(UsageError) as caught:
        make(Part(name, options))
    assert next(iter(options), "head") in str(caught.value)
