"""Texts without labels: how they are read, and which of them a task does not allow."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from foretune.errors import DataError
from foretune.tasks import Task, draw
from foretune.tasks.unlabelled import evaluation_rows, open_texts, undrawn

TEXTS = [f"an ordinary text, number {i}" for i in range(20)]


def write(path: Path, texts: list[str], column: str = "text") -> Path:
    if path.suffix == ".txt":
        path.write_text("\n\n".join(texts) + "\n", encoding="utf-8")
    elif path.suffix == ".csv":
        path.write_text("\n".join([column, *(f'"{text}"' for text in texts)]), encoding="utf-8")
    else:
        path.write_text("\n".join(json.dumps({column: text}) for text in texts), encoding="utf-8")
    return path


def rows(count: int = 40) -> list[dict[str, str]]:
    return [{"text": f"{'good' if i % 2 else 'bad'} row {i}", "label": "ab"[i % 2]} for i in range(count)]


def test_every_format_gives_the_same_texts(tmp_path):
    found = [open_texts(write(tmp_path / f"a{ending}", TEXTS)) for ending in (".txt", ".csv", ".jsonl")]
    assert [texts.table["text"].to_pylist() for texts in found] == [TEXTS] * 3
    assert len({texts.fingerprint for texts in found}) == 1
    assert found[0].table["label"].null_count == len(TEXTS)


def test_a_task_is_read_by_its_own_columns_and_its_labels_are_not_looked_at(tmp_path):
    task = Task.from_records(
        [{"said": r["text"], "also": f"{i}", "label": r["label"]} for i, r in enumerate(rows())],
        text="said",
        pair="also",
    )
    pool = tmp_path / "pool.jsonl"
    pool.write_text("\n".join(json.dumps({"said": t, "also": "b", "label": "never seen"}) for t in TEXTS), "utf-8")
    found = open_texts(pool, task.schema)
    assert (found.table["text"][0].as_py(), found.table["pair"][0].as_py()) == (TEXTS[0], "b")


def test_another_name_of_the_column_is_found_where_it_is_the_only_text(tmp_path):
    task = Task.from_records(rows())
    assert open_texts(write(tmp_path / "a.csv", TEXTS, "comment"), task.schema).table["text"].to_pylist() == TEXTS


@given(st.data())
def test_what_judges_a_run_is_never_among_the_texts(data):
    task = Task.from_records(rows())
    judged = [text for table in evaluation_rows(task, 0.2) for text in table["text"].to_pylist()]
    spoiled = data.draw(st.lists(st.sampled_from(judged), max_size=6))
    disguised = [
        data.draw(st.sampled_from([text, text.upper(), f"  {text}!!", text.replace(" ", "  ")])) for text in spoiled
    ]
    mixed = data.draw(st.permutations(TEXTS + disguised))
    found = open_texts([{"text": text} for text in mixed]).without(evaluation_rows(task, 0.2))
    assert sorted(found.table["text"].to_pylist()) == sorted(TEXTS)
    assert len(found.left_out) == len(disguised)
    assert [mixed[i - 1] for i in found.left_out] == [text for text in mixed if text in disguised]


def test_the_rows_that_judge_are_those_of_every_seed():
    task = Task.from_records(rows(), ood={"far": [{"text": f"far {i}", "label": "ab"[i % 2]} for i in range(8)]})
    judged = evaluation_rows(task, 0.2)
    assert [table.num_rows for table in judged] == [8, 8]
    for seed in range(3):
        assert draw(task, seed=seed).test.equals(judged[0])


def test_half_of_a_pair_and_a_prompt_with_its_answer_count_as_rows_too():
    pairs = Task.from_records([{**r, "pair": f"second {i}"} for i, r in enumerate(rows())], text="text", pair="pair")
    prompts = Task.from_records([{"prompt": r["text"], "response": f"answer {i}"} for i, r in enumerate(rows())])
    judged = evaluation_rows(pairs, 0.2)[0].slice(0, 1).to_pylist()[0]
    asked = evaluation_rows(prompts, 0.2)[0].slice(0, 1).to_pylist()[0]
    for task, spoiled in (
        (pairs, [judged["text"], judged["pair"], f"{judged['text']} {judged['pair']}"]),
        (prompts, [asked["text"], f"{asked['text']} {asked['label']}"]),
    ):
        found = open_texts([{"text": text} for text in TEXTS + spoiled]).without(evaluation_rows(task, 0.2))
        assert len(found.left_out) == len(spoiled)


def test_held_out_texts_are_not_trained_on_and_do_not_hang_on_a_seed():
    task = open_texts([{"text": f"text {i}"} for i in range(100)]).task()
    first, second = draw(task, seed=0), draw(task, seed=1)
    assert first.dev.equals(second.dev)
    assert first.dev.num_rows == 5
    assert not {*first.train["text"].to_pylist()} & {*first.dev["text"].to_pylist()}


def test_what_was_not_drawn_has_no_labels_and_no_row_of_a_split():
    task = Task.from_records(rows())
    drawn = draw(task, shots=4)
    tables = {"train": drawn.train, "dev": drawn.dev, "test": drawn.test}
    rest = undrawn(task, tables)
    assert rest.table["label"].null_count == rest.table.num_rows == 40 - sum(len(t) for t in tables.values())
    assert rest.left_out == ()


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.txt", "one\ntwo", "at least 8 texts"),
        ("a.txt", "\n \n", "holds no texts|at least 8"),
        ("a.csv", "a,b\n" + "\n".join(f"some text {i},other text {i}" for i in range(9)), "Call it `text`"),
        ("a.pdf", "x", "must end in one of"),
    ],
)
def test_a_source_that_cannot_be_read_is_refused_in_words(tmp_path, name, content, message):
    (tmp_path / name).write_text(content, encoding="utf-8")
    with pytest.raises(DataError, match=message):
        open_texts(tmp_path / name)


def test_a_missing_file_is_refused_by_name(tmp_path):
    with pytest.raises(DataError, match=r"texst\.txt"):
        open_texts(tmp_path / "texst.txt")


def test_texts_that_are_all_of_the_test_set_are_refused():
    task = Task.from_records(rows())
    with pytest.raises(DataError, match="no evaluation rows"):
        open_texts([{"text": row["text"]} for row in rows()[:9]]).without([task.splits["train"]])
