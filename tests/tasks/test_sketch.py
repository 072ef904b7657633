"""A sketch: a copy of a task has it, whatever was done to case, order, split or labels; another task does not."""

import json
from dataclasses import replace

from foretune.records import RunRecord
from foretune.store.grouping import overlap
from foretune.tasks import Task
from foretune.tasks.describe import card
from foretune.tasks.sketch import DIGITS, SIZE
from foretune.testing.store_contract import toy_record

WORDS = ("red", "green", "blue", "black", "white")


def rows(count, word="house"):
    return [{"text": f"The {WORDS[n % 5]} {word}, number {n}.", "label": "ab"[n % 2]} for n in range(count)]


def copied(each):
    return [
        {"text": row["text"].upper().replace(",", " "), "label": {"a": "yes", "b": "no"}[row["label"]]} for row in each
    ]


def test_a_copy_with_other_case_order_labels_and_split_has_the_same_sketch():
    first = Task.from_records(rows(300))
    turned = copied(rows(300))[::-1]
    second = Task.from_records(turned[:200])
    whole = Task.from_records(turned)
    assert whole.sketch == first.sketch
    assert len(first.sketch) == SIZE
    assert overlap(first.sketch, second.sketch) > 0.5
    assert overlap(first.sketch, Task.from_records(rows(300, "boat")).sketch) == 0


def test_a_sketch_is_short_hashes_and_no_text():
    made = Task.from_records(rows(20)).sketch
    assert {len(each) for each in made} == {DIGITS}
    assert all(int(each, 16) >= 0 for each in made)
    assert list(made) == sorted(made)


def test_a_card_keeps_the_sketch_through_a_record_and_leaves_it_out_where_there_is_none():
    task = Task.from_records(rows(40))
    made = card("toy", task.schema, task.splits["train"], {"train": 40}, task.sketch)
    record = replace(toy_record(), card=made)
    plain = json.loads(json.dumps(record.to_json()))
    assert RunRecord.from_json(plain).card == made
    assert "sketch" not in toy_record().to_json()["card"]
