"""Columns and kinds are found where one reading is possible, and refused, with the option, where two are."""

from __future__ import annotations

import random
from collections import Counter
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from foretune.errors import DataError, UsageError
from foretune.tasks import Task
from foretune.tasks.labels import means_numbers, number, order

WORDS = ("walk", "along", "river", "until", "sea", "back", "night", "before", "plan", "and", "then", "it")


def sentence(i: int) -> str:
    return " ".join(random.Random(i).choices(WORDS, k=8)) + f" {i}"


def records(n: int = 24, **columns: Any) -> list[dict[str, Any]]:
    """Rows whose cells are ``f(i)``, or one constant."""
    return [{name: f(i) if callable(f) else f for name, f in columns.items()} for i in range(n)]


def kind_and_columns(rows: list[dict[str, Any]], **options: Any) -> tuple[str, dict[str, Any]]:
    schema = Task.from_records(rows, **options).schema
    return schema.kind, {role: name for role, name in schema.columns.items() if role != "coding"}


def refusal(rows: list[dict[str, Any]], **options: Any) -> str:
    with pytest.raises(DataError) as caught:
        Task.from_records(rows, **options)
    return str(caught.value)


def test_text_and_label_are_found_by_name_among_other_columns() -> None:
    rows = records(id=lambda i: i, sentence=sentence, source="web", label=lambda i: i % 3, topic="x")
    assert kind_and_columns(rows) == ("classification", {"text": "sentence", "label": "label"})


def test_text_and_label_are_found_by_content_where_names_say_nothing() -> None:
    rows = records(spalte=lambda i: ("gut", "schlecht")[i % 2], äußerung=sentence)
    assert kind_and_columns(rows) == ("classification", {"text": "äußerung", "label": "spalte"})


@pytest.mark.parametrize(
    "pair", [("premise", "hypothesis"), ("sentence1", "sentence2"), ("#1 String", "#2 String"), ("text_a", "text_b")]
)
def test_pairs_are_found_by_name(pair: tuple[str, str]) -> None:
    rows = records(
        **{pair[1]: lambda i: sentence(-i - 1), pair[0]: sentence, "gold_label": lambda i: ["no", "yes"][i % 2]}
    )
    assert kind_and_columns(rows) == ("classification", {"text": pair[0], "pair": pair[1], "label": "gold_label"})


def test_the_user_overrides_every_column() -> None:
    rows = records(text=sentence, other=lambda i: sentence(i + 99), label="same", mood=lambda i: i % 2)
    found = kind_and_columns(rows, text="other", pair="text", label="mood")
    assert found == ("classification", {"text": "other", "pair": "text", "label": "mood"})


def test_a_text_named_by_the_user_is_not_made_a_pair() -> None:
    rows = records(premise=sentence, hypothesis=lambda i: sentence(-i), label=lambda i: i % 2)
    assert "pair" not in kind_and_columns(rows, text="hypothesis")[1]


@pytest.mark.parametrize(
    ("labels", "kind"), [("1.5 2 2.5", "regression"), ("1 2 5", "classification"), ("1.0 2.0", "classification")]
)
def test_fractions_make_a_regression_and_whole_numbers_do_not(labels: str, kind: str) -> None:
    values = labels.split()
    assert kind_and_columns(records(text=sentence, score=lambda i: values[i % len(values)]))[0] == kind


def test_many_whole_numbers_are_classes_only_when_they_count_up() -> None:
    assert not means_numbers(Counter({str(i): 3 for i in range(77)}))
    assert means_numbers(Counter({str(i * 37): 3 for i in range(77)}))
    assert means_numbers(Counter({str(i): 1 for i in range(77)}))


def test_the_kind_can_be_overridden() -> None:
    rows = records(text=sentence, score=lambda i: i % 4)
    assert kind_and_columns(rows, kind="regression")[0] == "regression"
    fractions = records(text=sentence, version=lambda i: f"1.{i % 2}")
    assert Task.from_records(fractions, label="version", kind="classification").schema.labels == ("1.0", "1.1")


@pytest.mark.parametrize("names", [("choice1", "choice2"), ("ending0", "ending1"), ("option_a", "option_b")])
@pytest.mark.parametrize("coded", [(0, 1), (1, 2), ("A", "B"), ("a", "b")])
def test_multiple_choice_in_columns_with_any_coding(names: tuple[str, str], coded: tuple[Any, Any]) -> None:
    rows = records(
        question=sentence, label=lambda i: coded[i % 2], **dict.fromkeys(names, lambda i: sentence(i * 7 + 3))
    )
    task = Task.from_records(rows)
    assert task.schema.columns["choices"] == list(names)
    assert task.targets(task.splits["train"]).tolist() == [0, 1] * 12


def test_multiple_choice_in_a_list_with_the_right_text_as_label() -> None:
    rows = records(
        stem=sentence, options=lambda i: [f"first {i}", f"second {i}", f"third {i}"], answer=lambda i: f"third {i}"
    )
    task = Task.from_records(rows, text="stem")
    assert task.schema.kind == "choice"
    assert set(task.targets(task.splits["train"]).tolist()) == {2}


def test_a_choice_label_that_could_count_from_0_or_1_is_refused() -> None:
    rows = records(question=sentence, choice1="one way", choice2="another way", label=1)
    assert "index from 0 or as index from 1" in refusal(rows)


def test_a_choice_label_that_names_nothing_is_refused() -> None:
    rows = records(question=sentence, choice1="one way", choice2="another way", label=lambda i: i % 5)
    assert "none of these fits" in refusal(rows)


def test_choices_without_a_clear_question_ask_for_the_text() -> None:
    rows = records(premise=sentence, question=sentence, choice1="x y", choice2="z w", label=lambda i: i % 2)
    assert "`question`, `premise` could each be the text. Say which with `--text`" in refusal(rows)


@pytest.mark.parametrize("pair", [("prompt", "completion"), ("question", "answer"), ("article", "highlights")])
def test_prompt_and_response_are_found_by_name(pair: tuple[str, str]) -> None:
    rows = records(**{pair[0]: sentence, pair[1]: lambda i: sentence(i * 31) * 3})
    assert kind_and_columns(rows) == ("generation", {"prompt": pair[0], "response": pair[1]})


def test_question_and_a_recurring_answer_are_a_classification() -> None:
    rows = records(question=sentence, passage=lambda i: sentence(i * 5), answer=lambda i: i % 2 == 0)
    assert kind_and_columns(rows) == ("classification", {"text": "question", "pair": "passage", "label": "answer"})
    assert Task.from_records(rows).schema.labels == ("false", "true")


def test_a_prompt_in_two_columns_is_joined_and_an_empty_part_skipped() -> None:
    rows = records(
        instruction="Translate.", input=lambda i: sentence(i) if i else None, output=lambda i: sentence(i * 3)
    )
    task = Task.from_records(rows)
    assert task.schema.columns["prompt"] == ["instruction", "input"]
    assert task.splits["train"]["text"].to_pylist()[:2] == ["Translate.", f"Translate.\n\n{sentence(1)}"]


def test_nested_translations_are_columns() -> None:
    rows = records(translation=lambda i: {"en": sentence(i), "de": sentence(-i - 1)})
    assert "`--prompt` and `--response`" in refusal(rows)
    found = kind_and_columns(rows, prompt="translation.en")
    assert found == ("generation", {"prompt": "translation.en", "response": "translation.de"})
    assert Task.from_records(rows, prompt="translation.en").schema.metric == "chrf"


def test_several_accepted_responses_are_kept_apart() -> None:
    task = Task.from_records(records(question=sentence, answers=lambda i: [f"a {i}", f"b {i}"]))
    assert task.schema.references is not None
    assert task.splits["train"]["label"][3].as_py().split(task.schema.references) == ["a 3", "b 3"]


@pytest.mark.parametrize(
    ("answer", "metric"),
    [("so 3 + 4 = 7\n#### 1,234", "gsm8k"), ("Paris", "exact_match"), ("a long answer in many words " * 4, "rouge_l")],
)
def test_responses_decide_the_metric(answer: str, metric: str) -> None:
    rows = records(prompt=sentence, completion=answer)
    assert Task.from_records(rows).schema.metric == metric


def test_a_column_called_label_wins_over_prompt_and_response() -> None:
    rows = records(document=sentence, summary=lambda i: sentence(i * 3), label=lambda i: i % 2)
    assert kind_and_columns(rows, text="summary")[0] == "classification"


def test_two_possible_labels_are_refused_with_the_option() -> None:
    message = refusal(records(text=sentence, intent=lambda i: i % 2, topic=lambda i: i % 3))
    assert "`intent`, `topic` could each be the label. Say which with `--label`" in message


def test_two_possible_texts_are_refused_with_the_option() -> None:
    message = refusal(records(review=sentence, title=lambda i: sentence(i + 40), label=lambda i: i % 2))
    assert "`review`, `title` could each be the text. Say which with `--text`" in message


def test_a_misspelt_column_gets_the_nearest_name() -> None:
    message = refusal(records(text=sentence, category=lambda i: i % 2), label="catgory")
    assert "has no column `catgory`. Did you mean `category`?" in message
    assert "`text`, `category`" in message


def test_several_labels_per_row_are_refused() -> None:
    assert "several labels" in refusal(records(text=sentence, label=lambda i: ["a", "b"]), label="label")


def test_an_unknown_kind_or_metric_is_a_usage_error() -> None:
    rows = records(text=sentence, label=lambda i: i % 2)
    with pytest.raises(UsageError, match="`kind` must be one of"):
        Task.from_records(rows, kind="clustering")
    with pytest.raises(UsageError, match="Did you mean `accuracy`"):
        Task.from_records(rows, metric="acuracy")
    with pytest.raises(UsageError, match="make a generation task"):
        Task.from_records(rows, prompt="text", response="label", kind="choice")
    with pytest.raises(UsageError, match="must be different columns"):
        Task.from_records(rows, text="text", pair="text")


def test_a_catalog_task_takes_no_column_options() -> None:
    with pytest.raises(UsageError, match=r"\./banking77_demo"):
        Task.from_source("banking77_demo", label="category")


@given(st.lists(st.floats(allow_nan=False, allow_infinity=False).map(repr), min_size=1))
def test_numeric_labels_stand_in_order_of_value(labels: list[str]) -> None:
    values = [number(label) for label in order(labels)]
    assert None not in values
    assert values == sorted(values, key=float)


@given(st.lists(st.text(max_size=5), min_size=1))
def test_class_names_are_each_there_once_whatever_their_order_of_arrival(labels: list[str]) -> None:
    assert order(labels) == order(reversed(labels))
    assert sorted(order(labels)) == sorted(set(labels))
