"""Rows that nothing can be learned from are refused before a model is loaded, with their numbers."""

from __future__ import annotations

from typing import Any

import pytest

from foretune.errors import DataError
from foretune.tasks import Schema, Task, read_rows


def rows(n: int = 20) -> list[dict[str, Any]]:
    return [{"text": f"words of row {i}", "label": "ab"[i % 2]} for i in range(n)]


def refusal(data: list[dict[str, Any]], **options: Any) -> str:
    with pytest.raises(DataError) as caught:
        Task.from_records(data, **options)
    return str(caught.value)


def changed(data: list[dict[str, Any]], at: list[int], **cells: Any) -> list[dict[str, Any]]:
    return [{**row, **cells} if i in at else row for i, row in enumerate(data, 1)]


def test_one_class_only() -> None:
    message = refusal(changed(rows(), list(range(1, 21)), label="a"), label="label")
    assert "two classes or more, but all 20 rows are `a`" in message


def test_a_class_with_one_example_is_named_with_its_row() -> None:
    assert "`rare` has one (row 7)" in refusal(changed(rows(), [7], label="rare"))


def scored(n: int = 40) -> list[dict[str, Any]]:
    return [{"text": f"words of row {i}", "label": f"{i % 20 / 10}"} for i in range(n)]


ALMOST = (
    "39 of 40 labels are numbers, but not `n/a` in row 7. If numbers are meant, correct it and use `--kind regression`"
)


def test_numbers_with_a_slip_among_them_are_named_where_they_make_classes_and_where_they_cannot() -> None:
    assert ALMOST in refusal(changed(scored(), [7], label="n/a"))
    twice = [row for row in changed(scored(), [7], label="n/a") for _ in (0, 1)]
    several = Task.from_records([{**row, "text": f"{i} {row['text']}"} for i, row in enumerate(twice)])
    assert several.schema.kind == "classification"
    assert any("78 of 80 labels are numbers, but not `n/a` in rows 13, 14." in note for note in several.notes)
    assert Task.from_records(twice, kind="classification").notes == ()


def test_decimal_commas_are_named_with_the_way_to_write_a_number() -> None:
    commas = [{**row, "label": row["label"].replace(".", ",")} for row in scored()]
    (note,) = Task.from_records(commas, text="text", label="label").notes
    assert "correct them (a number is written `0.0`) and use `--kind regression`" in note
    assert "not `0,0` in rows 1, 2, 3" in refusal(commas, kind="regression")


def test_whole_numbers_that_are_class_names_need_no_word() -> None:
    stars = [{"text": f"words of row {i}", "label": ["1", "2", "3", "unknown"][i % 4]} for i in range(40)]
    assert Task.from_records(stars).notes == ()


def test_labels_as_long_as_texts_are_cut_and_the_column_is_taken_for_a_text() -> None:
    message = refusal([{"text": f"words {i}", "label": f"{i} " + "long " * 1000} for i in range(20)], label="label")
    assert "20 of 20 labels occur once: the column seems to hold texts. Name the column of the label" in message
    assert len(message) < 800


def test_labels_that_differ_in_capitals_only_are_named() -> None:
    task = Task.from_records(changed(rows(), [1, 3], label="A"))
    assert task.notes == ("label: `A`, `a` differ in capitals only, and are classes of their own.",)


def test_how_rows_are_counted_is_said_of_a_table_with_a_header(tmp_path) -> None:
    lines = [f"words {i},{'ab'[i % 2]}" for i in range(20)]
    (tmp_path / "a.csv").write_text("\n".join(["text,label", *lines, "few,rare"]) + "\n", encoding="utf-8")
    with pytest.raises(DataError, match=r"`rare` has one \(row 21\).*\(Rows are counted after the header.\)$"):
        Task.from_csv(tmp_path / "a.csv")
    assert "counted" not in refusal(changed(rows(), [7], label="rare"))


@pytest.mark.parametrize("empty", ["", "  \t", None])
def test_empty_texts_are_named_by_row(empty: str | None) -> None:
    assert "the text must not be empty, but is in rows 3, 9" in refusal(changed(rows(), [3, 9], text=empty))


def test_only_the_first_five_rows_are_listed() -> None:
    assert "rows 1, 2, 3, 4, 5 and 12 more" in refusal(changed(rows(40), list(range(1, 18)), text=" "))


@pytest.mark.parametrize("empty", ["", " ", None])
def test_missing_labels_are_named_by_row(empty: str | None) -> None:
    assert "every row needs a label, but row 4 has none" in refusal(changed(rows(), [4], label=empty))


def test_an_empty_second_text_is_refused() -> None:
    paired = [{**row, "text_b": "second"} for row in rows()]
    assert "row 2" in refusal(changed(paired, [2], text_b=""), text="text", pair="text_b")


def test_too_few_rows() -> None:
    assert "at least 8 labelled rows, but has 6" in refusal(rows(6))


@pytest.mark.parametrize("where", ["dev", "test"])
def test_a_label_that_training_does_not_know_is_named(where: str) -> None:
    further = [{"text": "new", "label": "a"}, {"text": "newer", "label": "aa"}]
    message = refusal(rows(), **{where: further})
    assert f"{where}: every label must occur in train, but `aa` does not (row 2). Did you mean `a`?" in message
    assert "Known: `a`, `b`" in message


def test_a_label_unknown_out_of_domain_names_the_set() -> None:
    assert "the out-of-domain set `shop`" in refusal(rows(), ood={"shop": [{"text": "new", "label": "c"}]})


def test_a_test_file_without_labels_or_without_the_columns_is_refused() -> None:
    assert "lacks `label`" in refusal(rows(), test=[{"text": "new"}])
    assert "lacks `text`" in refusal(rows(), test=[{"label": "a"}])


def test_regression_labels_must_be_numbers_and_differ() -> None:
    scored = [{"text": f"words {i}", "score": i / 2} for i in range(20)]
    assert "must be a number such as 3.5, but not `high` in row 5" in refusal(
        changed(scored, [5], score="high"), kind="regression"
    )
    assert "all are 1" in refusal(changed(scored, list(range(1, 21)), score=1), label="score", kind="regression")


def test_choices_need_text() -> None:
    asked = [{"question": f"which {i}", "choices": ["x", "y"], "label": i % 2} for i in range(20)]
    assert "two or more choices with text, but not row 3" in refusal(changed(asked, [3], choices=["x", " "]))


def test_labels_with_space_around_them_are_the_same_class() -> None:
    assert Task.from_records(changed(rows(), [2, 3], label=" b ")).schema.labels == ("a", "b")


def test_rows_to_predict_need_no_label() -> None:
    task = Task.from_records(rows())
    table = read_rows([{"text": "what is this"}], task.schema)
    assert table["text"].to_pylist() == ["what is this"]
    assert table["label"].null_count == 1
    with pytest.raises(DataError, match="every row needs a label here, but row 1 has none"):
        task.targets(table)


def test_further_rows_may_name_their_columns_differently() -> None:
    task = Task.from_records(
        rows(), ood={"other": [{"review": f"other {i}", "sentiment": "ab"[i % 2]} for i in range(8)]}
    )
    assert task.ood["other"]["label"].to_pylist() == ["a", "b"] * 4


def test_further_choices_are_read_where_the_schema_does_not_say_how_labels_are_written() -> None:
    asked = [{"question": f"which {i}", "choices": ["x", "y"], "label": "AB"[i % 2]} for i in range(8)]
    schema = Schema("choice", {"text": "question", "choices": ["choices"], "label": "label"})
    assert read_rows(asked, schema)["label"].to_pylist() == ["0", "1"] * 4
