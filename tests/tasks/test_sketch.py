"""A sketch: a copy of a task has it, whatever was done to case, order, split or labels; another task does not."""

import json
import random
from dataclasses import replace

import pytest

from foretune.records import RunRecord
from foretune.records.sketch import DIGITS, LOOSE, SIZE, packed, unpacked
from foretune.store.grouping import SHARED, overlap
from foretune.tasks import Task
from foretune.tasks.describe import card
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
    assert len(unpacked(first.sketch)) == 300
    assert overlap(first.sketch, second.sketch) > 0.5
    assert overlap(first.sketch, Task.from_records(rows(300, "boat")).sketch) == 0


def test_a_sketch_is_short_hashes_and_no_text():
    made = unpacked(Task.from_records(rows(400)).sketch)
    assert len(made) == 400
    assert {len(each) for each in made} == {DIGITS}
    assert all(int(each, 16) >= 0 for each in made)
    assert list(made) == sorted(made)


def test_a_sketch_of_many_rows_keeps_the_smallest_hashes_in_few_bytes():
    made = Task.from_records(rows(4500)).sketch
    assert len(unpacked(made)) == SIZE
    assert unpacked(made)[:LOOSE] == made[:LOOSE]
    assert len(json.dumps(made)) < 36_000


@pytest.mark.parametrize("excerpt", [50, 100, 300, 1000])
@pytest.mark.parametrize("source", [10_000, 60_000])
def test_check_9_an_excerpt_of_a_large_source_is_recognised_as_often_as_the_tables_of_the_docs_say(source, excerpt):
    rng = random.Random(source + excerpt)
    every = [f"{rng.getrandbits(48):012x}" for _ in range(source)]
    small, before = packed(sorted(every)[:SIZE]), packed(sorted(every)[:LOOSE])
    window, old = SIZE / source, LOOSE / source

    def found(kept):
        return sum(overlap(kept, packed(sorted(rng.sample(every, excerpt)))) > SHARED for _ in range(50)) / 50

    for kept, share in ((small, window), (before, old)):
        expected = 1 - (1 - share) ** excerpt - excerpt * share * (1 - share) ** (excerpt - 1)
        assert found(kept) == pytest.approx(expected, abs=0.2)
    other = packed(sorted(f"{rng.getrandbits(48):012x}" for _ in range(excerpt)))
    assert overlap(small, other) == 0


def test_a_card_keeps_the_sketch_through_a_record_and_leaves_it_out_where_there_is_none():
    task = Task.from_records(rows(400))
    made = card("toy", task.schema, task.splits["train"], {"train": 400}, task.sketch)
    record = replace(toy_record(), card=made)
    plain = json.loads(json.dumps(record.to_json()))
    assert RunRecord.from_json(plain).card == made
    assert "sketch" not in toy_record().to_json()["card"]
