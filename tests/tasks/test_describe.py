"""The task card: training rows only, what does not apply is absent, every number is what its name says."""

from __future__ import annotations

import math

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from foretune.records import TaskCard
from foretune.tasks import catalog
from foretune.tasks.describe import card
from foretune.tasks.schema import SPLIT_COLUMNS, Schema


def table(texts, labels=None, pairs=None, choices=None):
    n = len(texts)
    columns = {"row": range(1, n + 1), "text": texts, "pair": pairs or [None] * n, "choices": choices or [None] * n}
    return pa.table({**columns, "label": labels or [None] * n}, schema=SPLIT_COLUMNS)


def features(rows, kind="classification"):
    return card("toy", Schema(kind), rows, {}).features


def test_counts_classes_majority_and_entropy():
    made = card("toy", Schema("classification", labels=("a", "b")), table("wxyz", ["a", "a", "a", "b"]), {"train": 4})
    assert isinstance(made, TaskCard)
    assert (made.name, made.kind, made.rows, made.classes, made.majority) == (
        "toy",
        "classification",
        {"train": 4},
        2,
        0.75,
    )
    assert made.label_entropy == pytest.approx(-(0.75 * math.log(0.75) + 0.25 * math.log(0.25)))
    assert made.features["response_distinct"] == 0.5
    assert made.features["response_entropy"] == pytest.approx(made.label_entropy)


def test_lengths_count_the_text_with_its_pair():
    made = features(table(["a b", "c"], ["x", "y"], pairs=["d e f", "g"]))
    assert (made["words_mean"], made["words_p50"], made["words_max"]) == (3.5, 3.5, 5)
    assert (made["characters_mean"], made["characters_max"]) == ((9 + 3) / 2, 9)


def test_lengths_count_characters_not_bytes():
    assert features(table(["щука 魚"]))["characters_max"] == 6


def test_choices_belong_to_the_input():
    made = features(table(["q"], ["0"], choices=[["a b", "c", "d"]]), "choice")
    assert made["choices_mean"] == 3
    assert made["words_mean"] == 5


def test_rows_that_occurred_before_are_duplicates_and_the_pair_counts():
    assert features(table(["a", "a", "b", "a"]))["duplicate_rate"] == 0.5
    assert features(table(["a", "a"], pairs=["x", "y"]))["duplicate_rate"] == 0


def test_vocabulary_and_redundancy():
    assert features(table(["A a b c"]))["type_token_ratio"] == 0.75
    varied = features(table([f"word{i * 7919 % 10007} text{i}" for i in range(300)]))["gzip_ratio"]
    assert features(table(["the same words"] * 300))["gzip_ratio"] < varied < 1


def test_shares_of_digits_and_code_leave_white_space_out():
    made = features(table(["a1 {}"]))
    assert (made["digit_share"], made["code_share"]) == (0.25, 0.5)


@pytest.mark.parametrize(
    ("text", "script"), [("hello мир", "latin"), ("привет, you", "cyrillic"), ("你好吗", "cjk"), ("नमस्ते", "devanagari")]
)
def test_the_script_of_most_letters_is_one_hot(text, script):
    made = features(table([text]))
    assert {name: value for name, value in made.items() if name.startswith("script_")} == {f"script_{script}": 1.0}


def test_a_text_without_letters_has_no_script():
    assert not [name for name in features(table(["12 + 3"])) if name.startswith("script_")]


def test_the_overlap_of_a_pair():
    assert features(table(["The cat sat"], pairs=["the dog"]))["pair_overlap"] == 0.5


def test_what_does_not_apply_is_absent():
    made = features(table(["a b"], ["x"]))
    assert not {"pair_overlap", "choices_mean", "response_words_mean", "response_ratio"} & set(made)
    assert "response_entropy" not in features(table(["a b"]))


def test_written_responses_are_measured():
    made = card("toy", Schema("generation"), table(["a b", "c d"], ["r", "r s t"]), {})
    assert (made.classes, made.majority, made.label_entropy) == (0, 0.0, 0.0)
    assert (made.features["response_words_mean"], made.features["response_ratio"]) == (2, 1)
    assert made.features["response_entropy"] == pytest.approx(math.log(2))


def test_a_large_sorted_table_is_met_in_all_its_parts():
    half = 5_000
    rows = table(["alpha beta gamma " * 20] * half + ["гамма дельта эпсилон эта " * 20] * half)
    made = features(rows)
    assert made["script_cyrillic"] == 1
    assert made["type_token_ratio"] == pytest.approx(7 / 10_000, rel=0.1)


def test_a_sliced_or_joined_table_is_described_alike():
    rows = table(["a b", "c", "d e f", "c"], ["x", "y", "x", "y"])
    joined = pa.concat_tables([rows.slice(0, 1), rows.slice(1)])
    assert features(joined) == features(rows)


@given(st.lists(st.tuples(st.text(), st.one_of(st.none(), st.text()), st.sampled_from("xy")), max_size=20))
def test_any_text_gives_finite_numbers(rows):
    texts, pairs, labels = ([row[i] for row in rows] for i in range(3))
    made = card("toy", Schema("classification", labels=("x", "y")), table(texts, labels, pairs), {})
    assert all(isinstance(value, float) and math.isfinite(value) for value in made.features.values())
    for name in ("type_token_ratio", "duplicate_rate", "digit_share", "code_share", "pair_overlap"):
        assert 0 <= made.features.get(name, 0) <= 1


def test_the_bundled_task_has_a_card():
    schema, splits, _ = catalog.open("banking77_demo")
    made = card("banking77_demo", schema, splits["train"], {name: rows.num_rows for name, rows in splits.items()})
    assert (made.classes, made.majority, made.rows) == (8, 0.125, {"train": 128, "test": 320})
    assert made.features["script_latin"] == 1
    assert made.features["duplicate_rate"] == 0
