"""Draws are stratified, nested, repeatable and paid for out of the k; checks 1, 2 and 4 of the comparison harness."""

from __future__ import annotations

import random
from collections import Counter
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from foretune.errors import DataError, UsageError
from foretune.tasks import Draw, Task, audit, draw
from foretune.tasks.keys import row_keys


def rows(n: int, classes: int = 3, start: int = 0) -> list[dict[str, Any]]:
    return [{"text": f"example number {i}", "label": f"class {i % classes}"} for i in range(start, start + n)]


def task(n: int = 120, classes: int = 3, **options: Any) -> Task:
    return Task.from_records(rows(n, classes), **options)


def per_class(*tables: Any) -> Counter[str]:
    return Counter(label for table in tables for label in table["label"].to_pylist())


def labelled(drawn: Draw) -> set[int]:
    return {*drawn.ids["train"], *drawn.ids["dev"]}


def test_check_01_ten_seeds_give_ten_sets_exact_per_class_nested_and_repeatable() -> None:
    source = task(300, test=rows(30, start=300))
    draws = {(k, s): draw(source, shots=k, seed=s) for k in (4, 8, 16) for s in range(10)}
    for k in (4, 8, 16):
        assert len({frozenset(labelled(draws[k, s])) for s in range(10)}) == 10
        assert len({draws[k, s].sha256 for s in range(10)}) == 10
    for (k, s), drawn in draws.items():
        assert per_class(drawn.train, drawn.dev) == {f"class {c}": k for c in range(3)}
        assert drawn.sha256 == draw(source, shots=k, seed=s).sha256
        if k < 16:
            wider = draws[2 * k, s]
            assert set(drawn.ids["train"]) < set(wider.ids["train"])
            assert set(drawn.ids["dev"]) < set(wider.ids["dev"])


def test_check_02_constructing_a_trainer_changes_no_draw(tmp_path: Any) -> None:
    import torch
    from transformers import Trainer, TrainingArguments

    source = task()
    alone = [draw(source, shots=4, seed=s).ids for s in (0, 1)]
    first = draw(source, shots=4, seed=0).ids
    arguments = TrainingArguments(output_dir=str(tmp_path), report_to="none", use_cpu=True)
    Trainer(model=torch.nn.Linear(2, 2), args=arguments)
    second = draw(source, shots=4, seed=1).ids
    assert first != second
    assert [first, second] == alone


def test_check_02_drawing_leaves_the_global_generators_alone() -> None:
    random.seed(3)
    np.random.seed(3)
    expected = random.random(), np.random.random()
    random.seed(3)
    np.random.seed(3)
    draw(task(), shots=4)
    assert (random.random(), np.random.random()) == expected


def test_check_04_no_evaluation_text_is_drawn_for_training() -> None:
    source = rows(60)
    copies = [{**source[i], "text": source[i]["text"].upper().replace(" ", " - ") + "!"} for i in (3, 4, 5)]
    leaky = Task.from_records(
        source, dev=[*copies[:1], *rows(9, start=100)], test=[*copies[1:2], *rows(9, start=200)],
        ood={"far": [*copies[2:], *rows(60, start=300)]},
    )  # fmt: skip
    drawn = draw(leaky)
    assert drawn.removed["leaks"] == [4, 5, 6]
    held = {key for table in (drawn.dev, drawn.test, *leaky.ood.values()) for key in row_keys(table)}
    assert not held & set(row_keys(drawn.train))
    assert any("rows 4, 5, 6" in note for note in drawn.notes)


def test_check_04_training_data_under_another_name_is_no_out_of_domain_set() -> None:
    source = rows(60)
    with pytest.raises(DataError, match=r"`reviews` is no out-of-domain set: 50% of its rows stand in train"):
        Task.from_records(source, ood={"reviews": [*source[:10], *rows(10, start=500)]})
    assert Task.from_records(source, ood={"reviews": [source[0], *rows(9, start=500)]}).ood


@given(
    sizes=st.lists(st.integers(2, 30), min_size=2, max_size=6),
    seed=st.integers(0, 2**32),
    fraction=st.sampled_from([0.0, 0.1, 0.25, 0.5, 0.9]),
    held=st.sampled_from([0.1, 0.2, 0.5]),
)
@settings(max_examples=60, deadline=None)
def test_parts_never_overlap_and_every_class_can_be_learned(
    sizes: list[int], seed: int, fraction: float, held: float
) -> None:
    records = [{"text": f"{c} {i}", "label": f"c{c}"} for c, n in enumerate(sizes) for i in range(n)]
    assume(len(records) > 8 and max(sizes) > 2)
    drawn = draw(Task.from_records(records), dev_fraction=fraction, test_fraction=held, seed=seed)
    parts = [set(drawn.ids[name]) for name in ("train", "dev", "test")]
    assert sum(map(len, parts)) == len(set.union(*parts)) == len(records)
    assert len(per_class(drawn.train)) == len(sizes)
    assert parts[2]


@given(
    small=st.integers(1, 19), more=st.integers(1, 10), seed=st.integers(0, 99), fraction=st.floats(0, 0.99),
    given_dev=st.booleans(), numbers=st.booleans(),
)  # fmt: skip
@settings(max_examples=60, deadline=None)
def test_draws_nest_for_any_two_budgets(
    small: int, more: int, seed: int, fraction: float, given_dev: bool, numbers: bool
) -> None:
    source = NUMBERS if numbers else WITH_DEV if given_dev else PLAIN
    less, wider = (draw(source, shots=k, dev_fraction=fraction, seed=seed) for k in (small, small + more))
    for part in ("train", "dev"):
        assert set(less.ids[part]) <= set(wider.ids[part])
    assert less.train.num_rows + less.dev.num_rows == small * (1 if numbers else 2)
    assert less.train.num_rows > 0


PLAIN = task(90, classes=2)
WITH_DEV = task(90, classes=2, dev=rows(10, classes=2, start=1000))
NUMBERS = Task.from_records([{"text": f"words {i}", "score": i / 7} for i in range(50)])


def test_dev_takes_a_quarter_of_the_shots_and_train_the_rest() -> None:
    drawn = draw(task(), shots=8)
    assert set(per_class(drawn.train).values()) == {6}
    assert set(per_class(drawn.dev).values()) == {2}


def test_a_given_dev_split_is_used_up_to_the_budget_and_whole_without_one() -> None:
    source = task(dev=rows(30, start=1000))
    drawn = draw(source, shots=8)
    assert set(per_class(drawn.dev).values()) == {2}
    assert set(drawn.dev["text"].to_pylist()) < set(source.splits["dev"]["text"].to_pylist())
    assert set(per_class(drawn.train).values()) == {6}
    assert draw(source).dev.equals(source.splits["dev"])


def test_the_held_out_test_rows_do_not_depend_on_seed_or_shots() -> None:
    source = task()
    assert len({tuple(draw(source, shots=k, seed=s).ids["test"]) for k in (2, 9, None) for s in range(5)}) == 1
    assert per_class(draw(source).test) == {f"class {c}": 8 for c in range(3)}


def test_a_given_test_split_is_kept_whole() -> None:
    test = rows(20, start=1000)
    assert draw(task(test=test), shots=2).test["text"].to_pylist() == [row["text"] for row in test]


def test_an_out_of_domain_set_changes_no_draw() -> None:
    apart = task(ood={"far": rows(30, start=5000)})
    assert draw(task(), shots=8).ids == draw(apart, shots=8).ids
    assert task().fingerprint != apart.fingerprint


def test_copies_within_train_are_drawn_once() -> None:
    source = rows(40, classes=2)
    repeated = Task.from_records([*source, {**source[0], "text": "EXAMPLE, number 0"}])
    drawn = draw(repeated)
    assert drawn.removed == {"leaks": [], "repeats": [41]}
    assert audit(drawn).sentences() == []


def test_more_shots_than_rows_is_refused_with_the_class_and_the_number() -> None:
    scarce = Task.from_records([*rows(40, classes=2), {"text": "odd", "label": "z"}, {"text": "ends", "label": "z"}])
    with pytest.raises(DataError, match=r"shots=4 and only 2 rows of class `z`.*Use `--shots 2` or less"):
        draw(scarce, shots=4)


def test_a_class_that_stands_in_the_test_set_alone_is_refused() -> None:
    rare = [{"text": "first odd", "label": "z"}, {"text": "second odd", "label": "z"}]
    with pytest.raises(DataError, match="no training rows of class `z` are left"):
        draw(Task.from_records([*rows(40, classes=2), *rare], test=rare))


def test_training_rows_that_are_all_evaluation_rows_are_refused() -> None:
    with pytest.raises(DataError, match="every training row is a copy of an evaluation row"):
        draw(task(30, dev=rows(30)))


@pytest.mark.parametrize("bad", [{"shots": 0}, {"dev_fraction": 1.0}, {"dev_fraction": -0.1}, {"test_fraction": 0.0}])
def test_numbers_out_of_range_are_usage_errors(bad: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        draw(task(), **bad)


def test_an_empty_dev_is_said() -> None:
    drawn = draw(task(), shots=1)
    assert drawn.dev.num_rows == 0
    assert any(note.startswith("dev: empty") for note in drawn.notes)
