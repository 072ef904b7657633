"""A task knows its labels as numbers, shows what was understood, and can be opened again."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from foretune.errors import DataError, UsageError
from foretune.records import TaskRef
from foretune.tasks import Schema, Task, draw
from foretune.tasks.schema import SPLIT_COLUMNS
from foretune.testing import toys


def rows(n: int = 20, start: int = 0) -> list[dict[str, Any]]:
    return [{"sentence": f"words of row {i}", "category": "ab"[i % 2]} for i in range(start, start + n)]


def test_what_was_understood_is_shown() -> None:
    lines = Task.from_records(rows(), test=rows(4, start=90), name="mine").describe_schema()
    assert lines == [
        "mine: classification, judged by accuracy",
        "text = column `sentence`",
        "label = column `category` (2 classes: `a`, `b`)",
        "rows: train 20, test 4",
    ]


def test_a_range_or_a_coding_is_shown_for_other_kinds() -> None:
    scored = Task.from_records([{"text": f"t {i}", "score": i / 4} for i in range(9)])
    assert "label = column `score` (numbers from 0 to 2)" in scored.describe_schema()
    asked = Task.from_records([{"question": f"q {i}", "choices": ["x", "y"], "label": "AB"[i % 2]} for i in range(9)])
    assert "label = column `label` (written as letter)" in asked.describe_schema()


def test_targets_have_the_type_of_their_kind() -> None:
    named = Task.from_records(rows())
    assert named.targets(named.splits["train"]).dtype == np.int64
    scored = Task.from_records([{"text": f"t {i}", "score": f"{i}e-1"} for i in range(9)])
    assert scored.targets(scored.splits["train"]).tolist() == [i / 10 for i in range(9)]
    written = Task.from_records([{"prompt": f"p {i}", "response": f"r {i}"} for i in range(9)])
    with pytest.raises(UsageError, match="responses, not numeric targets"):
        written.targets(written.splits["train"])


def test_targets_refuse_a_label_that_the_schema_does_not_know() -> None:
    task = Task.from_records(rows())
    other = Task.from_records([{"sentence": f"s {i}", "category": "bc"[i % 2]} for i in range(8)])
    with pytest.raises(DataError, match=r"`c` does not \(rows 2, 4, 6, 8\)"):
        task.targets(other.splits["train"])


def test_classes_that_an_out_of_domain_set_merges_are_renamed() -> None:
    train = Task.from_records([{"text": f"t {i}", "label": ("no", "maybe", "yes")[i % 3]} for i in range(12)])
    far = Task.from_records([{"text": f"u {i}", "label": ("yes", "other")[i % 2]} for i in range(12)])
    merged = {"far": {"yes": "yes", "no": "other", "maybe": "other"}}
    schema = replace(train.schema, ood_label_map=merged)
    task = Task.from_splits("t", schema, train.splits, {"far": far.splits["train"]})
    assert task.schema.labels == ("maybe", "no", "yes")
    assert task.class_map("far").tolist() == [0, 0, 1]
    assert task.targets(task.ood["far"], ood="far")[:2].tolist() == [1, 0]
    assert task.class_map("elsewhere").tolist() == [0, 1, 2]
    with pytest.raises(DataError, match="`other` does not"):
        Task.from_splits("t", train.schema, train.splits, {"far": far.splits["train"]})


def test_a_reference_opens_the_same_task_after_a_round_trip_through_json(tmp_path: Path) -> None:
    toys.table(tmp_path / "train.csv", rows())
    toys.table(tmp_path / "test.csv", rows(4, start=50))
    toys.table(tmp_path / "far.csv", rows(4, start=70))
    task = Task.from_csv(
        tmp_path / "train.csv",
        text="sentence",
        metric="macro_f1",
        test=tmp_path / "test.csv",
        ood={"far": tmp_path / "far.csv"},
    )
    again = Task.from_ref(TaskRef(**json.loads(json.dumps(vars(task.ref)))))
    assert again.ref == task.ref
    assert again.schema == task.schema
    assert draw(again, shots=4).sha256 == draw(task, shots=4).sha256


def test_a_catalog_reference_opens_the_same_task() -> None:
    task = Task.from_source("banking77_demo")
    assert task.ref.source == "banking77_demo"
    assert Task.from_ref(task.ref).fingerprint == task.fingerprint


def test_data_that_changed_since_the_run_are_refused(tmp_path: Path) -> None:
    ref = Task.from_csv(toys.table(tmp_path / "train.csv", rows())).ref
    toys.table(tmp_path / "train.csv", rows(21))
    with pytest.raises(DataError, match="have changed since the run"):
        Task.from_ref(ref)


def test_rows_from_memory_cannot_be_opened_again() -> None:
    with pytest.raises(DataError, match="built in Python"):
        Task.from_ref(Task.from_records(rows()).ref)


def test_the_fingerprint_knows_contents_and_order_but_not_names(tmp_path: Path) -> None:
    renamed = [{"text": row["sentence"], "label": row["category"]} for row in rows()]
    same = {
        Task.from_csv(toys.table(tmp_path / name, data)).fingerprint
        for name, data in [("x.csv", rows()), ("y.csv", renamed)]
    }
    assert same == {Task.from_records(rows()).fingerprint}
    assert Task.from_records(rows()[::-1]).fingerprint not in same


def test_a_task_is_named_after_its_file_or_the_folder_of_train(tmp_path: Path) -> None:
    (tmp_path / "intents").mkdir()
    assert Task.from_csv(toys.table(tmp_path / "intents" / "train.csv", rows())).name == "intents"
    assert Task.from_csv(toys.table(tmp_path / "mails.csv", rows())).name == "mails"


def test_tables_of_another_shape_are_refused() -> None:
    table = Task.from_records(rows()).splits["train"]
    assert table.schema.equals(SPLIT_COLUMNS)
    with pytest.raises(UsageError, match="SPLIT_COLUMNS"):
        Task.from_splits("t", Schema("classification"), {"train": table.select(["row", "text"])})
    with pytest.raises(UsageError, match="splits must be `train`"):
        Task.from_splits("t", Schema("classification"), {"validation": table})
    assert Task.from_splits("t", Schema("classification"), {"train": table}).schema.labels == ("a", "b")


# -- groups of an out-of-domain set -----------------------------------------------------------------------------------


def labelled(count=10):
    return [{"text": f"{word} number {i}", "label": word} for i in range(count // 2) for word in ("yes", "no")]


def elsewhere(**more):
    return [
        {"text": f"elsewhere {i}", "label": ("yes", "no")[i % 2], **{k: v[i] for k, v in more.items()}}
        for i in range(4)
    ]


def test_an_out_of_domain_set_may_name_the_part_that_a_row_belongs_to():
    rows = elsewhere(shop=["north", "south", " north ", ""])
    task = Task.from_records(labelled(), ood={"shops": rows, "plain": elsewhere()}, group="shop")
    assert task.ood["shops"]["group"].to_pylist() == ["north", "south", "north", None]
    assert task.schema.ood_groups == {"shops": "shop"}
    assert "group" not in task.ood["plain"].column_names
    again = Task.from_splits("again", task.schema, task.splits, task.ood)
    assert again.schema.ood_groups == {"shops": "shop"}


def test_groups_change_neither_what_a_run_learns_from_nor_its_identity():
    rows = elsewhere(shop=["north", "south", "north", "south"])
    plain, grouped = (Task.from_records(labelled(), ood={"shops": rows}, **g) for g in ({}, {"group": "shop"}))
    assert (plain.fingerprint, plain.draw_key, plain.ref) == (grouped.fingerprint, grouped.draw_key, grouped.ref)


def test_a_group_that_no_out_of_domain_set_has_is_refused():
    with pytest.raises(DataError, match="none has `shopp`"):
        Task.from_records(labelled(), ood={"shops": elsewhere(shop=["a", "b", "a", "b"])}, group="shopp")
    with pytest.raises(DataError, match="none has `shop`"):
        Task.from_records(labelled(), group="shop")


def test_a_column_with_another_value_in_every_row_names_no_parts():
    rows = [{"text": f"elsewhere {i}", "label": ("yes", "no")[i % 2], "id": str(i)} for i in range(60)]
    with pytest.raises(DataError, match="at most 50 names, but `id` has 60"):
        Task.from_records(labelled(), ood={"shops": rows}, group="id")


def test_a_set_with_groups_may_be_a_test_set_too(tmp_path):
    rows = elsewhere(shop=["a", "b", "a", "b"])
    task = Task.from_records(labelled(), test=rows, ood={"shops": elsewhere(shop=["a", "b", "a", "b"])}, group="shop")
    assert "group" not in task.splits["test"].column_names
