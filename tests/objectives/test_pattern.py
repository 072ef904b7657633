"""The language-model head scores the labels' words: check 5 of the comparison's specification, and its refusals."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from torch import nn

from foretune.errors import DataError, ModelError, UsageError
from foretune.models import Checkpoint, build, open_checkpoint
from foretune.objectives.pattern import PatternObjective
from foretune.objectives.verbalizers import answer_tokens, ids
from foretune.records import ModelRef, Seeds
from foretune.tasks import Schema, Task
from foretune.testing import toys

FAMILIES = ("bert", "gpt2", "llama", "t5")
TASK = Task.from_records(toys.rows("classification"))
ROWS, LABELS = TASK.splits["train"], TASK.schema.labels
ROOM: dict[str, dict[str, Any]] = {
    "bert": {},
    "gpt2": {"n_positions": 256},
    "llama": {"max_position_embeddings": 256},
    "t5": {},
}


class Case:
    """An objective that knows the toy task, on a toy."""

    def __init__(self, objective: PatternObjective, checkpoint: Checkpoint, model: nn.Module, schema: Schema) -> None:
        self.checkpoint, self.model = checkpoint, model
        self.objective = objective.for_task(schema, {"train": ROWS}, Seeds(), checkpoint)

    def batch(self, rows: list[int], table: pa.Table = ROWS) -> dict[str, torch.Tensor]:
        encoded = self.objective.encode(table, TASK.targets(table), self.checkpoint)
        return self.objective.batch(encoded, np.array(rows), self.checkpoint)

    def scores(self, rows: list[int]) -> torch.Tensor:
        with torch.no_grad():
            return self.objective.predict(self.model, self.batch(rows))


@pytest.fixture(scope="session")
def case(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Case]:
    """``case("bert", pattern=...)``; options are those of the objective."""
    folder = tmp_path_factory.mktemp("patterns")
    kept: dict[str, tuple[Checkpoint, nn.Module]] = {}

    def make(name: str, max_length: int = 256, schema: Schema = TASK.schema, **options: Any) -> Case:
        if f"{name}{max_length}" not in kept:
            path = toys.checkpoint(folder / f"{name}{max_length}", name, **ROOM[name])
            checkpoint = open_checkpoint(ModelRef(str(path), pooling="none", max_length=max_length), "classification")
            kept[f"{name}{max_length}"] = checkpoint, toys.loud(build(checkpoint, 0).module)
        return Case(PatternObjective(**options), *kept[f"{name}{max_length}"], schema)

    return make


def by_hand(case: Case, row: int, answers: list[list[int]]) -> torch.Tensor:
    """What stock transformers gives for each answer to the pattern `{text} and {answer}`, padded on the left."""
    tokenizer, model = case.checkpoint.tokenizer, case.model
    text, family, found = ROWS["text"][row].as_py(), case.checkpoint.family, []
    for answer in answers:
        if family == "encoder":
            prompt = tokenizer(f"{text} and " + "[MASK]" * len(answer))["input_ids"]
            logits = model(input_ids=torch.tensor([prompt])).logits[0]
            at = logits[[i for i, t in enumerate(prompt) if t == tokenizer.mask_token_id]]
        elif family == "encoder-decoder":
            prompt = tokenizer(f"{text} and")["input_ids"]
            begun = [case.checkpoint.config.decoder_start_token_id, *answer[:-1]]
            at = model(input_ids=torch.tensor([prompt]), decoder_input_ids=torch.tensor([begun])).logits[0]
        else:
            prompt = [*tokenizer(f"{text} and")["input_ids"], *answer]
            padding = [tokenizer.pad_token_id] * 5
            logits = model(
                input_ids=torch.tensor([padding + prompt]),
                attention_mask=torch.tensor([[0] * 5 + [1] * len(prompt)]),
                position_ids=torch.tensor([[0] * 5 + list(range(len(prompt)))]),
            ).logits[0]
            at = logits[-len(answer) - 1 : -1]
        found.append(at.log_softmax(-1)[range(len(answer)), answer].sum())
    return torch.stack(found)


WORDS = {"bad": "sad food", "good": "very nice film"}


@pytest.mark.parametrize("name", FAMILIES)
@torch.no_grad()
def test_check_5_the_score_is_that_of_the_language_model_head_whatever_the_padding(
    name: str, case: Callable[..., Case]
) -> None:
    for options in ({}, {"words": WORDS}):
        made = case(name, pattern="{text} and {answer}", **options)
        words = options.get("words", {"bad": "bad", "good": "good"})
        answers = ids(made.checkpoint, [words[label] for label in LABELS])
        together = made.scores(list(range(16)))
        for row in (0, 5, 14):
            torch.testing.assert_close(together[row], by_hand(made, row, answers), rtol=1e-4, atol=1e-4)
            torch.testing.assert_close(made.scores([row])[0], together[row], rtol=1e-4, atol=1e-4)
        assert together.std(0).min() > 1e-3, "a constant would pass every comparison"


@pytest.mark.parametrize("name", FAMILIES)
def test_check_5_permuted_words_permute_the_logits(name: str, case: Callable[..., Case]) -> None:
    first = case(name, words={"good": "nice", "bad": "very sad"}).scores([0, 30])
    second = case(name, words={"bad": "nice", "good": "very sad"}).scores([0, 30])
    torch.testing.assert_close(first, second.flip(1))


class Shifted(nn.Module):
    """A model whose logits are all larger by a constant."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, **inputs: Any) -> Any:
        return SimpleNamespace(logits=self.model(**inputs).logits + 7.0)


@pytest.mark.parametrize("name", FAMILIES)
@torch.no_grad()
def test_check_5_a_constant_added_to_all_logits_changes_nothing(name: str, case: Callable[..., Case]) -> None:
    made = case(name, words=WORDS, calibrate=True)
    batch = made.batch([0, 9])
    for found, shifted in zip(
        made.objective.evaluate(made.model, batch), made.objective.evaluate(Shifted(made.model), batch), strict=True
    ):
        torch.testing.assert_close(found, shifted, rtol=1e-4, atol=1e-4)


def fitted(made: Case, rows: list[int], flip: bool = False, steps: int = 80) -> tuple[nn.Module, float]:
    model = copy.deepcopy(made.model).train()
    optimizer, batch, loss = torch.optim.AdamW(model.parameters(), lr=1e-2), made.batch(rows), torch.tensor(0.0)
    if flip:
        batch["targets"] = 1 - batch["targets"]
    for _ in range(steps):
        loss = made.objective.loss(model, batch) / len(rows)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    return model.eval(), float(loss.detach())


@pytest.mark.parametrize("full_vocabulary", [False, True])
@pytest.mark.parametrize("name", ["bert", "gpt2"])
def test_check_5_both_losses_reach_little_on_8_rows(
    name: str, full_vocabulary: bool, case: Callable[..., Case]
) -> None:
    made = case(name, full_vocabulary=full_vocabulary)
    assert fitted(made, list(range(0, 48, 6)))[1] < 0.05


@pytest.mark.parametrize("name", ["bert", "gpt2"])
def test_check_5_flipped_labels_give_less_than_chance(name: str, case: Callable[..., Case]) -> None:
    made = case(name)
    model, _ = fitted(made, list(range(0, 48, 2)), flip=True)
    held = list(range(1, 48, 2))
    batch = made.batch(held)
    with torch.no_grad():
        answers = made.objective.predict(model, batch).argmax(1)
    assert (answers == batch["targets"]).float().mean() < 0.5


def test_the_loss_over_the_full_vocabulary_is_that_of_the_right_word_among_all(case: Callable[..., Case]) -> None:
    made = case("gpt2", pattern="{text} and {answer}", full_vocabulary=True)
    answers = ids(made.checkpoint, list(LABELS))
    with torch.no_grad():
        loss = made.objective.loss(made.model, made.batch([0, 30]))
        wanted = -sum(by_hand(made, row, answers)[LABELS.index(label)] for row, label in ((0, "good"), (30, "bad")))
    torch.testing.assert_close(loss, wanted, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", FAMILIES)
@torch.no_grad()
def test_normalised_and_calibrated_scores_are_what_their_papers_say(name: str, case: Callable[..., Case]) -> None:
    plain = case(name, pattern="{text} and {answer}", words=WORDS)
    raw = plain.scores([3])
    by_length = case(name, pattern="{text} and {answer}", words=WORDS, normalise="length").scores([3])
    torch.testing.assert_close(by_length, raw / torch.tensor([2.0, 3.0]))

    def of(*texts: str) -> torch.Tensor:
        rows = [{"row": 1, "text": text, "pair": None, "choices": None, "label": "good"} for text in texts]
        table = pa.Table.from_pylist(rows, schema=ROWS.schema)
        return plain.objective.predict(plain.model, plain.batch(list(range(len(texts))), table))

    empty = of("N/A", "[MASK]", "").softmax(-1).mean(0)
    calibrated = case(name, pattern="{text} and {answer}", words=WORDS, calibrate=True).scores([3])
    expected = raw.softmax(-1) / empty
    torch.testing.assert_close(calibrated.softmax(-1), expected / expected.sum(), rtol=1e-4, atol=1e-5)
    prior = case(name, pattern="{text} and {answer}", words=WORDS, normalise="prior").scores([3])
    torch.testing.assert_close(prior, raw - of(""), rtol=1e-4, atol=1e-4)


def test_the_first_token_alone_is_scored_when_asked(case: Callable[..., Case]) -> None:
    first = case("llama", words={"good": "nice film", "bad": "sad film"}, tokens="first").scores([0])
    torch.testing.assert_close(first, case("llama", words={"good": "nice", "bad": "sad"}).scores([0]))


@torch.no_grad()
def test_logits_of_the_places_that_are_read_alone_give_the_same(case: Callable[..., Case]) -> None:
    made = case("llama", words=WORDS)
    assert made.objective.keeps
    batch = made.batch([0, 1, 2])
    whole = replace(made.objective, keeps=False).predict(made.model, batch)
    torch.testing.assert_close(made.objective.predict(made.model, batch), whole)


def test_special_tokens_that_a_user_writes_are_plain_text(case: Callable[..., Case]) -> None:
    made = case("bert")
    row = {"row": 1, "text": "the [MASK] film </s>", "pair": None, "choices": None, "label": "good"}
    tokens = made.batch([0], pa.Table.from_pylist([row], schema=ROWS.schema))["input_ids"][0].tolist()
    assert tokens.count(made.checkpoint.tokenizer.mask_token_id) == 1
    assert tokens.count(made.checkpoint.tokenizer.sep_token_id or 1) == 2


def test_a_space_before_the_answer_belongs_to_its_token_in_a_byte_level_vocabulary(tmp_path: Path) -> None:
    from tokenizers import ByteLevelBPETokenizer
    from transformers import PreTrainedTokenizerFast

    words = ByteLevelBPETokenizer()
    words.train_from_iterator(["the film was good ? Yes", "the film was bad ? No"] * 9, 400, show_progress=False)
    words.save(str(tmp_path / "tokenizer.json"))
    tokenizer = PreTrainedTokenizerFast(tokenizer_file=str(tmp_path / "tokenizer.json"), pad_token="!")
    checkpoint: Any = SimpleNamespace(tokenizer=tokenizer, ref=ModelRef("tiny"))
    found = answer_tokens(checkpoint, ("0", "1"), ("No", "Yes"), " ? ")
    assert [tokenizer.convert_ids_to_tokens(list(answer)) for answer in found] == [["ĠNo"], ["ĠYes"]]
    prompt, whole = ids(checkpoint, ["the film was good ?", "the film was good ? Yes"])
    assert [*prompt, *found[1]] == whole


@pytest.mark.parametrize("name", FAMILIES)
def test_a_long_text_loses_its_end_and_never_the_pattern(name: str, case: Callable[..., Case]) -> None:
    made = case(name, max_length=7, pattern="{text} and {answer}")
    encoded = made.objective.encode(ROWS, None, made.checkpoint)
    whole = case(name, pattern="{text} and {answer}")
    lengths = whole.objective.encode(ROWS, None, whole.checkpoint).tokens.lengths
    assert encoded.cut == int((lengths > 7).sum()) > 0
    assert encoded.tokens.lengths.max() <= 7
    word = made.checkpoint.tokenizer("and", add_special_tokens=False)["input_ids"][0]
    assert all(word in encoded.tokens[i] for i in range(len(encoded.tokens)))


def test_demonstrations_stand_before_every_row_and_their_words_are_the_labels(case: Callable[..., Case]) -> None:
    made = case("llama", pattern="{text} and {answer}", demonstrations=4, words={"good": "nice", "bad": "sad"})
    objective, tokenizer = made.objective, made.checkpoint.tokenizer
    shown = [ROWS["text"][n - 1].as_py() for n in objective.shown]
    words = {"good": "nice", "bad": "sad"}
    lines = [
        f"{text} and {words[ROWS['label'][n - 1].as_py()]}" for text, n in zip(shown, objective.shown, strict=True)
    ]
    assert objective.context == "".join(f"{line}\n\n" for line in lines)
    ids_of_row = made.batch([7])["input_ids"][0].tolist()
    assert ids_of_row == tokenizer(objective.context + ROWS["text"][7].as_py() + " and")["input_ids"]
    assert objective.in_context
    assert not case("llama").objective.in_context


def test_a_demonstration_in_a_judged_split_is_refused(case: Callable[..., Case]) -> None:
    made = case("llama")
    with pytest.raises(DataError, match="A demonstration must not stand in a split that is judged"):
        PatternObjective(demonstrations=2).for_task(
            TASK.schema, {"train": ROWS, "test": ROWS}, Seeds(), made.checkpoint
        )


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (
            {"words": {"good": "nice film", "bad": "nice food"}, "tokens": "first"},
            "must not share their answer's first",
        ),
        ({"words": {"good": "nice", "bad": "nice"}}, "must not share their answer's tokens"),
        ({"words": {"good": "very nice", "bad": "very"}}, r"the shorter would always win.*\(1 of 2 tokens\)"),
        ({"words": {"good": "zebra"}}, "`zebra` of the label `good` is unknown to the tokenizer"),
        ({"pattern": "It is {answer}"}, r"must have `{text}` once"),
        ({"pattern": "{answer} is {text}"}, "answers before it has read"),
        ({"demonstrations": 3}, r"got 3\. Use 2 or 4"),
    ],
)
def test_what_cannot_be_scored_is_refused(options: dict[str, Any], said: str, case: Callable[..., Case]) -> None:
    with pytest.raises(UsageError, match=said):
        case("llama", **options)


def test_an_answer_that_begins_another_is_fine_where_length_or_masks_tell_them_apart(
    case: Callable[..., Case],
) -> None:
    words = {"good": "very nice", "bad": "very"}
    assert case("llama", words=words, normalise="length").objective.answers
    assert case("bert", words=words).objective.answers


def test_options_that_contradict_each_other_are_refused() -> None:
    with pytest.raises(UsageError, match="Use one of them"):
        PatternObjective(calibrate=True, normalise="prior")
    with pytest.raises(UsageError, match="demonstrations >= 0"):
        PatternObjective(demonstrations=-1)


def test_a_pattern_that_leaves_no_room_is_refused(case: Callable[..., Case]) -> None:
    made = case("bert", max_length=4, pattern="{text} one two three four {answer}")
    with pytest.raises(UsageError, match="must leave room for a text"):
        made.objective.encode(ROWS, None, made.checkpoint)


def test_an_encoder_without_a_mask_token_or_without_its_head_is_refused(tmp_path: Path) -> None:
    from transformers import BertModel

    folder = toys.checkpoint(tmp_path / "headless", "bert")
    BertModel(toys.config("bert")).save_pretrained(folder)
    checkpoint = open_checkpoint(ModelRef(str(folder), pooling="none"), "classification")
    with pytest.raises(ModelError, match=r"holds no language-model head.*bert-base-uncased"):
        build(checkpoint, 0)
    checkpoint.tokenizer.mask_token = None
    with pytest.raises(ModelError, match="fill its mask token"):
        PatternObjective().for_task(TASK.schema, {"train": ROWS}, Seeds(), checkpoint)
