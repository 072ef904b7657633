"""The audit names copies, leaks and contradictions by row."""

from __future__ import annotations

import os
from typing import Any

import pytest

from foretune.errors import DataError
from foretune.tasks import Task, audit, draw
from foretune.tasks.keys import normalise, row_keys


def rows(n: int = 20, start: int = 0) -> list[dict[str, Any]]:
    return [{"text": f"words of row {i}", "label": "ab"[i % 2]} for i in range(start, start + n)]


def test_clean_data_have_no_findings() -> None:
    findings = audit(Task.from_records(rows(), test=rows(8, start=100)))
    assert not findings
    assert findings.sentences() == []


def test_copies_and_contradictions_are_named_by_row() -> None:
    source = rows()
    findings = audit(Task.from_records([*source, source[4], {"text": "Words of ROW 7.", "label": "a"}]))
    assert findings.duplicates == {"train": ((5, 21), (8, 22))}
    assert findings.contradictions == {"train": ((8, 22),)}
    assert findings.sentences()[0] == "train: copies of an earlier row: rows 21, 22."
    assert "rows 8 = 22" in findings.sentences()[1]


def test_leaks_are_named_on_both_sides_with_their_share() -> None:
    source = rows()
    findings = audit(Task.from_records(source, test=[*rows(9, start=50), source[2]]))
    leak = findings.leaks[0]
    assert (leak.left, leak.right, leak.left_rows, leak.right_rows, leak.share) == ("train", "test", (3,), (10,), 0.1)
    assert "train row 3; test row 10 (10.0% of test)" in leak.sentence()


def test_a_draw_is_audited_by_its_own_parts() -> None:
    source = rows(40)
    drawn = draw(Task.from_records(source, test=[source[1], *rows(9, start=50)]))
    assert audit(drawn).leaks == ()
    assert audit({"train": drawn.test, "test": drawn.test}).leaks[0].share == 1.0


def test_all_text_fields_count_together() -> None:
    pairs = [{"premise": "same", "hypothesis": f"other {i}", "label": "ab"[i % 2]} for i in range(10)]
    assert not audit(Task.from_records(pairs))
    moved = Task.from_records([{"premise": f"a{i}", "hypothesis": "b", "label": "xy"[i % 2]} for i in range(10)])
    joined = Task.from_records([{"premise": "a", "hypothesis": f"{i}b", "label": "xy"[i % 2]} for i in range(10)])
    assert not set(row_keys(moved.splits["train"])) & set(row_keys(joined.splits["train"]))


@pytest.mark.parametrize(
    ("left", "right", "same"),
    [
        ("It's  GOOD!", "its good", True),
        ("Ça va", "ça, va?", True),
        ("cafe\u0301", "café", True),
        ("की", "का", False),
        ("ไม่", "ไม", False),
        ("好 电影", "好电影。", True),
        (":-)", ":-(", False),
        ("x1", "x2", False),
    ],
)
def test_equality_of_texts_in_many_scripts(left: str, right: str, same: bool) -> None:
    assert (normalise(left) == normalise(right)) is same


@pytest.mark.slow
@pytest.mark.skipif("FORETUNE_DATA" not in os.environ, reason="needs FORETUNE_DATA")
def test_check_04_verbatim_cola_rows_are_caught() -> None:
    drawn = draw(Task.from_source("cola"))
    assert len(set(drawn.removed["leaks"])) == 20
    held = {*row_keys(drawn.test), *row_keys(Task.from_source("cola").ood["out_of_domain"])}
    assert not held & set(row_keys(drawn.train))


@pytest.mark.slow
@pytest.mark.skipif("FORETUNE_DATA" not in os.environ, reason="needs FORETUNE_DATA")
@pytest.mark.parametrize("sst", ["sst2", "sst2_sentences"])
def test_check_04_mr_is_refused_as_out_of_domain_for_sst(sst: str) -> None:
    with pytest.raises(DataError, match="`mr` is no out-of-domain set"):
        Task.from_source(sst, ood={"mr": "mr"})
    assert "cr" in Task.from_source(sst, ood={"cr": "cr"}).ood
