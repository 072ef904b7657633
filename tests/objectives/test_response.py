"""The response loss: prompts carry none, the end is learned, chat templates are used once, writing ignores padding."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch

from foretune.errors import UsageError
from foretune.models import Checkpoint, build, open_checkpoint
from foretune.objectives.base import Encoded
from foretune.objectives.response import IGNORED, Response
from foretune.records import ModelRef
from foretune.tasks.schema import SPLIT_COLUMNS
from foretune.testing import toys

END = 1


def opened(folder: Path, name: str, *, chat: bool = False, max_length: int = 32) -> Checkpoint:
    saved = toys.checkpoint(folder / name, name, chat=chat)
    return open_checkpoint(ModelRef(str(saved), max_length=max_length), "generation")


def table(*rows: tuple[str, str | None]) -> pa.Table:
    return pa.Table.from_pylist(
        [
            {"row": i, "text": text, "pair": None, "choices": None, "label": label}
            for i, (text, label) in enumerate(rows, 1)
        ],
        schema=SPLIT_COLUMNS,
    )


def encoded(checkpoint: Checkpoint, *rows: tuple[str, str | None], **options: object) -> tuple[Response, Encoded]:
    objective = Response(**options)  # type: ignore[arg-type]
    found = objective.encode(table(*rows), None, checkpoint)
    return (objective.fitted(found, checkpoint) if found.responses is not None else objective), found


def words(checkpoint: Checkpoint, text: str) -> list[int]:
    ids: list[int] = checkpoint.tokenizer(text, add_special_tokens=False)["input_ids"]
    return ids


def test_the_loss_of_a_decoder_is_the_sum_over_response_tokens_and_the_end(tmp_path: Path) -> None:
    checkpoint = opened(tmp_path, "llama")
    model = build(checkpoint, 0).module
    objective, rows = encoded(checkpoint, ("the film was", "very good"), ("a", "bad"), separator=" it ")
    expected = 0.0
    for prompt, response in (("the film was it", "very good"), ("a it", "bad")):
        ids, written = [END, *words(checkpoint, prompt)], [*words(checkpoint, response), END]
        with torch.no_grad():
            logs = model(input_ids=torch.tensor([ids + written])).logits[0].log_softmax(-1)
        expected -= sum(float(logs[len(ids) + i - 1, token]) for i, token in enumerate(written))
    with torch.no_grad():
        found = objective.loss(model, objective.batch(rows, np.arange(2), checkpoint))
    assert float(found) == pytest.approx(expected, rel=1e-5)
    assert objective.weight(rows, np.arange(2)) == 5


def test_the_loss_of_an_encoder_decoder_is_the_sum_over_response_tokens_and_the_end(tmp_path: Path) -> None:
    checkpoint = opened(tmp_path, "t5")
    model = build(checkpoint, 0).module
    objective, rows = encoded(checkpoint, ("the film was", "very good"), ("a", "bad"))
    expected = 0.0
    for prompt, response in (("the film was", "very good"), ("a", "bad")):
        ids, written = [*words(checkpoint, prompt), END], [*words(checkpoint, response), END]
        with torch.no_grad():
            start = torch.tensor([[toys.PADDING, *written[:-1]]])
            logs = model(input_ids=torch.tensor([ids]), decoder_input_ids=start).logits[0].log_softmax(-1)
        expected -= sum(float(logs[i, token]) for i, token in enumerate(written))
    with torch.no_grad():
        found = objective.loss(model, objective.batch(rows, np.arange(2), checkpoint))
    assert float(found) == pytest.approx(expected, rel=1e-5)
    assert objective.weight(rows, np.arange(2)) == 5


def test_prompts_carry_no_loss_and_every_response_ends(tmp_path: Path) -> None:
    checkpoint = opened(tmp_path, "gpt2")
    objective, rows = encoded(checkpoint, ("the film was", "very good"), ("a", "bad"))
    labels = objective.batch(rows, np.arange(2), checkpoint)["labels"].tolist()
    good, bad = words(checkpoint, "very good"), words(checkpoint, "bad")
    assert [token for token in labels[0] if token != IGNORED] == [*good, END]
    assert labels[0][:4] == [IGNORED] * 4
    assert [token for token in labels[1] if token != IGNORED] == [*bad, END]


def test_the_chat_template_is_used_once_and_opens_once(tmp_path: Path) -> None:
    checkpoint = opened(tmp_path, "llama", chat=True)
    expected = [END, *words(checkpoint, "a good film the")]
    _, rows = encoded(checkpoint, ("good film", "bad"))
    assert rows.tokens[0].tolist() == expected
    _, plain = encoded(checkpoint, ("good film", "bad"), chat=False, separator=" was")
    assert plain.tokens[0].tolist() == [END, *words(checkpoint, "good film was")]


def test_what_a_chat_template_puts_last_stays_even_if_it_is_the_end_token(tmp_path: Path) -> None:
    checkpoint = opened(tmp_path, "llama", chat=True)
    checkpoint.tokenizer.chat_template = "{{ messages[0]['content'] }} {{ eos_token }}"
    _, rows = encoded(checkpoint, ("good", "bad"))
    assert rows.tokens[0].tolist() == [*words(checkpoint, "good"), END]


@pytest.mark.parametrize("name", ["llama", "gpt2", "qwen3", "t5"])
def test_writing_in_a_padded_batch_equals_writing_one_by_one(name: str, tmp_path: Path) -> None:
    checkpoint = opened(tmp_path, name)
    model = build(checkpoint, 0).module
    texts = ("the film was very very good", "a", "food was bad", "one two three four and it was sad")
    objective, rows = encoded(checkpoint, *((text, "good") for text in texts), max_new_tokens=8)
    with torch.inference_mode():
        together = objective.predict(model, objective.batch(rows, np.arange(4), checkpoint))
        alone = [objective.predict(model, objective.batch(rows, np.array([i]), checkpoint)) for i in range(4)]
    assert together.shape == (4, 8)
    assert together.tolist() == torch.cat(alone).tolist()
    assert len({tuple(row) for row in together.tolist()}) > 1


def test_answers_are_texts_without_special_tokens(tmp_path: Path) -> None:
    checkpoint = opened(tmp_path, "llama")
    good = words(checkpoint, "very good")
    assert Response().decode(np.array([[*good, END, 0.0]]), checkpoint) == ["very good"]


def test_a_long_prompt_gives_way_to_its_response_and_keeps_its_end(tmp_path: Path) -> None:
    checkpoint = opened(tmp_path, "llama", max_length=8)
    long = " ".join(["a"] * 20 + ["the", "film"])
    objective, rows = encoded(checkpoint, (long, "very very good"), ("film", "bad"))
    batch = objective.batch(rows, np.arange(2), checkpoint)
    assert batch["input_ids"].shape == (2, 8)
    end = words(checkpoint, f"the film{objective.separator}")
    assert batch["input_ids"][0].tolist()[2:4] == end
    assert batch["labels"][0].tolist()[4:] == [*words(checkpoint, "very very good"), END]
    assert rows.cut == 1


def test_what_is_written_does_not_depend_on_the_length_of_the_right_response(tmp_path: Path) -> None:
    checkpoint = opened(tmp_path, "llama", max_length=12)
    objective, _ = encoded(checkpoint, ("a", "good"))
    long = " ".join(["one", "two"] * 12)
    prompts = []
    for response in ("good", "good bad sad it was a film and", None):
        rows = objective.encode(table((long, response)), None, checkpoint)
        prompts.append(objective.batch(rows, np.arange(1), checkpoint)["prompt_ids"].tolist())
    assert prompts[0] == prompts[1] == prompts[2]


@pytest.mark.parametrize("length", [4, 10, 16, 40])
def test_writing_after_a_prompt_of_any_length_stays_within_the_limit(length: int, tmp_path: Path) -> None:
    checkpoint = opened(tmp_path, "gpt2", max_length=toys.LENGTH)
    model = build(checkpoint, 0).module
    objective, _ = encoded(checkpoint, ("a", " ".join(["good"] * 9)))
    rows = objective.encode(table((" ".join(["film"] * length), None)), None, checkpoint)
    assert objective.longest(rows) <= toys.LENGTH
    with torch.inference_mode():
        written = objective.predict(model, objective.batch(rows, np.arange(1), checkpoint))
    assert written.shape == (1, objective.max_new_tokens)


def test_a_limit_without_room_for_a_prompt_is_refused(tmp_path: Path) -> None:
    checkpoint = opened(tmp_path, "llama", max_length=8)
    with pytest.raises(UsageError, match="max_new_tokens"):
        encoded(checkpoint, ("a", "good"), max_new_tokens=8)


def test_the_first_of_several_references_is_learned(tmp_path: Path) -> None:
    checkpoint = opened(tmp_path, "llama")
    _, rows = encoded(checkpoint, ("a", "good|bad"), references="|")
    assert rows.responses is not None
    assert rows.responses[0].tolist() == [*words(checkpoint, "good"), END]


def test_a_response_is_given_half_as_much_room_again_unless_said_otherwise(tmp_path: Path) -> None:
    checkpoint = opened(tmp_path, "t5")
    nine = " ".join(["good"] * 9)
    assert encoded(checkpoint, ("a", nine))[0].max_new_tokens == 15
    assert encoded(checkpoint, ("a", nine), max_new_tokens=3)[0].max_new_tokens == 3


def test_positions_are_counted_per_sequence_for_an_encoder_decoder(tmp_path: Path) -> None:
    checkpoint = opened(tmp_path, "t5", max_length=10)
    long = " ".join(["good"] * 20)
    objective, rows = encoded(checkpoint, (long, long))
    assert objective.longest(rows) <= 10
