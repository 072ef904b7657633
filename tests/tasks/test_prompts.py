"""Patterns are data that say exactly what is written; demonstrations are balanced draws of rows that are not judged."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from foretune.errors import DataError, UsageError
from foretune.tasks.prompts import PATTERNS, Pattern, check_unseen, context, draw_shown, find_pattern, words_for
from foretune.tasks.schema import SPLIT_COLUMNS

GOLDEN = Path(__file__).parent / "golden_prompts"

ROWS = {
    "nli": [
        ("A man sleeps.", "A man is awake.", "not_entailment"),
        ("A dog runs in the park.", "An animal moves.", "entailment"),
        ("Two women talk.", "Women are talking.", None),
    ],
    "qqp": [
        ("How do I cook rice?", "What is the best way to cook rice?", "1"),
        ("Who was Ada Lovelace?", "Where was Ada Lovelace born?", "0"),
        ("Why is the sky blue?", "What makes the sky blue?", None),
    ],
    "cola": [
        ("They drank the pub dry.", None, "1"),
        ("The gardener planted roses the.", None, "0"),
        ("Bill floated into the cave.", None, None),
    ],
}
LABELS = {"nli": ("entailment", "not_entailment"), "qqp": ("0", "1"), "cola": ("0", "1")}


def table(rows: list[tuple[str, str | None, str | None]]) -> pa.Table:
    made = [
        {"row": i + 1, "text": text, "pair": pair, "choices": None, "label": label}
        for i, (text, pair, label) in enumerate(rows)
    ]
    return pa.Table.from_pylist(made, schema=SPLIT_COLUMNS)


@pytest.mark.parametrize("name", [name for name in PATTERNS if not name.endswith("it-is")])
def test_check_9_a_prompt_of_the_published_patterns_is_the_golden_file(name: str) -> None:
    task = name.partition("-")[0]
    *shown, (text, pair, _) = ROWS[task]
    pattern = find_pattern(name, paired=task != "cola")
    words = dict(zip(LABELS[task], words_for(pattern, LABELS[task], {}), strict=True))
    prompt = context(pattern, table(shown), words) + pattern.around(text, pair)[0]
    assert prompt == (GOLDEN / f"{name}.txt").read_text(encoding="utf-8")


def test_check_9_every_golden_file_is_of_a_pattern() -> None:
    assert {path.stem for path in GOLDEN.glob("*.txt")} | {"it-is", "pair-it-is"} == set(PATTERNS)


@pytest.mark.parametrize(
    ("template", "said"),
    [
        ("It is {answer}", "`{text}` once"),
        ("{text} {text} {answer}", "`{text}` once"),
        ("{text} is nice", "`{answer}` once"),
        ("{text} {label} {answer}", "{label}"),
        ("{text} {pair} {pair} {answer}", "{pair} {pair}"),
    ],
)
def test_a_pattern_without_its_places_is_refused(template: str, said: str) -> None:
    with pytest.raises(UsageError) as refused:
        Pattern(template)
    assert said in str(refused.value)


def test_a_pattern_for_another_number_of_texts_is_refused() -> None:
    with pytest.raises(UsageError, match=r"one text, but the pattern .* has a {pair}"):
        find_pattern("nli-minimal", paired=False)
    with pytest.raises(UsageError, match=r"two texts, but the pattern .* has no {pair}"):
        find_pattern("{text} {answer}", paired=True)


def test_a_misspelt_pattern_gets_the_nearest_name() -> None:
    with pytest.raises(UsageError, match="Did you mean `nli-gpt-3`"):
        find_pattern("nli-gpt3", paired=True)


@given(st.text(), st.one_of(st.none(), st.text()))
def test_what_a_row_says_is_written_as_it_stands_whatever_it_holds(text: str, pair: str | None) -> None:
    before, after = Pattern("1 {text} 2 {answer} 3 {pair} 4").around(text, pair)
    assert (before, after) == (f"1 {text} 2 ", f" 3 {pair or ''} 4")


def test_words_are_those_given_then_the_patterns_then_the_labels_own() -> None:
    nli = PATTERNS["nli-minimal"]
    assert words_for(nli, ("entailment", "not_entailment"), {"entailment": "Sure"}) == ("Sure", "No")
    assert words_for(PATTERNS["it-is"], ("card_lost", "other"), {}) == ("card lost", "other")


def test_a_label_that_the_pattern_has_no_word_for_is_refused() -> None:
    with pytest.raises(UsageError, match=r"not for the label `neutral`.*--objective-option"):
        words_for(PATTERNS["nli-minimal"], ("contradiction", "entailment", "neutral"), {})


def test_a_word_for_a_label_that_there_is_not_is_refused() -> None:
    with pytest.raises(UsageError, match=r"`god` is none. Did you mean `good`"):
        words_for(PATTERNS["it-is"], ("good", "bad"), {"god": "x"})


def many() -> pa.Table:
    return table([(f"text {i}", None, "ab"[i % 2]) for i in range(40)])


def test_demonstrations_are_balanced_nested_and_drawn_by_one_seed_and_ordered_by_the_other() -> None:
    rows = many()
    draws = {n: draw_shown(rows, ("a", "b"), n, 3, 5) for n in (0, 2, 4, 16)}
    for n, drawn in draws.items():
        assert drawn["label"].to_pylist().count("a") == drawn["label"].to_pylist().count("b") == n // 2
    numbers = {n: drawn["row"].to_pylist() for n, drawn in draws.items()}
    assert set(numbers[2]) < set(numbers[4]) < set(numbers[16])
    assert draw_shown(rows, ("a", "b"), 16, 3, 5)["row"].to_pylist() == numbers[16]
    other_order = draw_shown(rows, ("a", "b"), 16, 3, 6)["row"].to_pylist()
    assert other_order != numbers[16]
    assert sorted(other_order) == sorted(numbers[16])
    assert set(draw_shown(rows, ("a", "b"), 16, 4, 5)["row"].to_pylist()) != set(numbers[16])


def test_demonstrations_that_cannot_be_balanced_are_refused() -> None:
    with pytest.raises(UsageError, match=r"2 labels, but got 3\. Use 2 or 4"):
        draw_shown(many(), ("a", "b"), 3, 0, 0)
    with pytest.raises(UsageError, match="25 training rows of each label, but `a` has 20"):
        draw_shown(many(), ("a", "b"), 50, 0, 0)


def test_a_demonstration_that_stands_in_a_judged_split_is_refused_with_both_rows() -> None:
    shown = many().slice(4, 3)
    judged = table([("unseen", None, "a"), ("  TEXT 5! ", None, "b")])
    check_unseen(shown, {"train": many(), "test": judged.slice(0, 1)})
    with pytest.raises(DataError, match=r"row 6 of train is also row 2 of far"):
        check_unseen(shown, {"train": many(), "ood:far": judged})
