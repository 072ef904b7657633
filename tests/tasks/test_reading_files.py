"""What a file says is what arrives; what cannot be read is refused in one sentence that names the place."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from foretune.errors import DataError
from foretune.tasks import Task
from foretune.tasks.encoding import reading
from foretune.tasks.formats import read_file

ROWS = [(f"text number {i}, said «so»", "ja" if i % 2 else "nein") for i in range(10)]


def write(path: Path, text: str, encoding: str = "utf-8") -> Path:
    path.write_bytes(text.encode(encoding))
    return path


def as_csv(path: Path, rows: list[tuple[str, str]] = ROWS, delimiter: str = ",", encoding: str = "utf-8") -> Path:
    with open(path, "w", encoding=encoding, newline="") as file:
        writer = csv.writer(file, delimiter=delimiter)
        writer.writerows([("text", "label"), *rows])
    return path


def pairs(task: Task) -> list[tuple[str, str]]:
    train = task.splits["train"]
    return list(zip(train["text"].to_pylist(), train["label"].to_pylist(), strict=True))


def refusal(path: Path, **options: str) -> str:
    with pytest.raises(DataError) as caught:
        Task.from_csv(path, **options)
    message = str(caught.value)
    assert "\n" not in message
    return message


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
def test_marked_encodings_give_the_same_rows(tmp_path: Path, encoding: str) -> None:
    assert pairs(Task.from_csv(as_csv(tmp_path / "a.csv", encoding=encoding))) == ROWS


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
def test_the_delimiter_of_a_csv_is_found_even_when_texts_hold_commas(tmp_path: Path, delimiter: str) -> None:
    task = Task.from_csv(as_csv(tmp_path / "a.csv", delimiter=delimiter))
    assert pairs(task) == ROWS
    assert (delimiter == ",") == (not task.notes)


def test_labels_and_texts_with_every_awkward_character_survive(tmp_path: Path) -> None:
    awkward = ['a,b"c', "zwei\nZeilen", "<script>alert(1)</script>", "标签", "ярлык", "NA", "null", "007"]
    rows = [(f'said "{i}",\nthen\tleft\u2028', label) for i, label in enumerate(awkward * 2)]
    task = Task.from_csv(as_csv(tmp_path / "a.csv", rows))
    assert pairs(task) == rows
    assert task.schema.labels == tuple(sorted(awkward))


def test_one_and_one_point_zero_stay_different_labels(tmp_path: Path) -> None:
    rows = [(f"text {i}", ("1", "1.0", "2")[i % 3]) for i in range(12)]
    assert Task.from_csv(as_csv(tmp_path / "a.csv", rows)).schema.labels == ("1", "1.0", "2")


def test_every_format_gives_the_same_rows_and_fingerprint(tmp_path: Path) -> None:
    import datasets

    texts, labels = [t for t, _ in ROWS], [i % 2 for i in range(10)]
    numbered = [(t, str(y)) for t, y in zip(texts, labels, strict=True)]
    records = [{"text": t, "label": y} for t, y in zip(texts, labels, strict=True)]
    as_csv(tmp_path / "a.csv", numbered)
    as_csv(tmp_path / "a.tsv", numbered, delimiter="\t")
    write(tmp_path / "a.jsonl", "\n".join(json.dumps(r) for r in records) + "\n")
    write(tmp_path / "b.json", "\n".join(json.dumps(r) for r in records))
    write(tmp_path / "c.json", json.dumps(records, indent=1))
    write(tmp_path / "d.json", json.dumps({str(i): r for i, r in enumerate(records)}))
    pq.write_table(pa.table({"text": texts, "label": labels}), tmp_path / "a.parquet")
    datasets.Dataset.from_list(records).save_to_disk(str(tmp_path / "saved"))
    sources = [*tmp_path.glob("*.*"), tmp_path / "saved"]
    tasks = [Task.from_csv(source) for source in sources]
    assert len(tasks) == 8
    assert all(pairs(task) == numbered for task in tasks)
    assert {task.fingerprint for task in tasks} == {Task.from_records(records).fingerprint}


def test_class_names_of_a_saved_dataset_replace_its_numbers(tmp_path: Path) -> None:
    import datasets

    features = datasets.Features({"text": datasets.Value("string"), "label": datasets.ClassLabel(names=["neg", "pos"])})
    train = datasets.Dataset.from_dict({"text": [t for t, _ in ROWS], "label": [0, 1] * 5}, features=features)
    hidden = datasets.Dataset.from_dict({"text": ["unseen"], "label": [-1]}, features=features)
    saved = datasets.DatasetDict(train=train.shuffle(seed=1), validation=train.select([8, 9]), test=hidden)
    saved.save_to_disk(str(tmp_path / "saved"))
    task = Task.from_source(str(tmp_path / "saved"))
    assert sorted(pairs(task)) == sorted((t, ("neg", "pos")[i % 2]) for i, (t, _) in enumerate(ROWS))
    assert list(task.splits) == ["train", "dev"]
    assert any("no labels" in note for note in task.notes)


def test_floats_in_parquet_keep_their_spelling(tmp_path: Path) -> None:
    table = pa.table({"text": [f"t{i}" for i in range(9)], "score": pa.array([1.0, 0.1, 2.5] * 3, pa.float32())})
    pq.write_table(table, tmp_path / "a.parquet")
    task = Task.from_csv(tmp_path / "a.parquet")
    assert task.schema.kind == "regression"
    assert task.splits["train"]["label"].to_pylist()[:3] == ["1.0", "0.1", "2.5"]


def test_a_tsv_with_stray_quotes_is_read_line_by_line(tmp_path: Path) -> None:
    lines = [f'"word {i} begins a quote\t{i % 2}' for i in range(10)]
    task = Task.from_csv(write(tmp_path / "a.tsv", "sentence\tlabel\n" + "\n".join(lines)))
    assert task.splits["train"]["text"][0].as_py() == '"word 0 begins a quote'
    assert any("quotation marks" in note for note in task.notes)


def test_a_tsv_with_real_quotes_is_unquoted(tmp_path: Path) -> None:
    rows = [(f"a\ttab,\tand\na line {i}", "ab"[i % 2]) for i in range(10)]
    assert pairs(Task.from_csv(as_csv(tmp_path / "a.tsv", rows, delimiter="\t"))) == rows


def test_blank_lines_are_passed_over_but_counted(tmp_path: Path) -> None:
    text = "text,label\n\none,a\n\ntwo,b\n" + "".join(f"more {i},{'ab'[i % 2]}\n" for i in range(8))
    assert Task.from_csv(write(tmp_path / "a.csv", text)).splits["train"]["row"].to_pylist()[:3] == [2, 4, 5]


def test_a_very_long_document_is_read_and_the_csv_limit_put_back(tmp_path: Path) -> None:
    before = csv.field_size_limit()
    rows = [("long " * 40_000 + str(i), "ab"[i % 2]) for i in range(8)]
    assert pairs(Task.from_csv(as_csv(tmp_path / "a.csv", rows))) == rows
    assert csv.field_size_limit() == before


def test_latin_1_is_refused_with_the_position_and_the_command(tmp_path: Path) -> None:
    path = as_csv(tmp_path / "a.csv", [*ROWS[:3], ("café", "ja"), *ROWS], encoding="latin-1")
    message = refusal(path)
    position = path.read_bytes().index(b"\xab")
    assert f"byte 0xab at position {position} (line 2)" in message
    assert "iconv -f latin1" in message


def test_a_wrong_byte_is_located_beyond_the_first_block(tmp_path: Path) -> None:
    head = b"text,label\n" + b"something long enough,a\n" * 60_000
    path = tmp_path / "a.csv"
    path.write_bytes(head + b"\xc3")
    assert f"byte 0xc3 at position {len(head)} (line 60002)" in refusal(path)


def test_ragged_rows_are_named(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", "text,label\none,a\ntwo,b\nthree, with a comma,a\n")
    assert "row 3 (line 4) has 3 fields, but the header has 2" in refusal(path)


def test_an_open_quote_is_named_by_the_line_where_it_begins(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", 'text,label\none,a\n"two,b\nthree,a\n')
    assert "starts on line 3 is not well-formed" in refusal(path)


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("a.csv", b"", "is empty (0 bytes)"),
        ("a.csv", b"\n\n", "holds blank lines only"),
        ("a.csv", b"text,label\n", "holds no rows"),
        ("a.csv", b"text,label\nab\0c,d\n", "line 2 holds a NUL character"),
        ("a.csv", b"text,text\na,b\n", "`text` occurs twice"),
        ("a.csv", b"good film,pos\nbad film,neg\nfine film,pos\n", "the first row must name the columns"),
        ("a.tsv", b"gj04\t1\tfine\nx\t0\tnot\n", "`1` is a number"),
        ("a.jsonl", b'{"text": "a"}\n{"text": \n', "row 2 is not valid JSON"),
        ("a.jsonl", b'{"text": "a"}\n[1]\n', "row 2 must be a JSON object"),
        ("a.jsonl", b'{"text": "\\ud83d"}\n', "half of a surrogate pair"),
        ("a.jsonl", b'{"text": "a"}\n{"text": ["a"]}\n', "row 2 differs"),
        ("a.json", b"[" * 100_000, "nested too deeply"),
        ("a.json", b"3", "row 1 must be a JSON object"),
        ("a.parquet", b"PAR1 but no more", "not a readable Parquet file"),
        ("a.xlsx", b"PK", "must end in one of .csv"),
    ],
)
def test_unreadable_contents_get_one_sentence(tmp_path: Path, name: str, content: bytes, says: str) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    assert says in refusal(path)


def test_a_column_that_is_no_text_is_left_out_and_named(tmp_path: Path) -> None:
    rows = [{"text": f"t{i}", "label": "ab"[i % 2], "meta": [{"x": i}]} for i in range(8)]
    task = Task.from_csv(write(tmp_path / "a.jsonl", "\n".join(map(json.dumps, rows))))
    assert any("`" not in note and "meta (list)" in note for note in task.notes)


CHAT = {"messages": [{"role": "user", "content": "Hello"}, {"role": "assistant", "content": "Good day"}]}
RECORDS = [{"text": text, "label": label} for text, label in ROWS]


@pytest.mark.parametrize(
    ("name", "contents", "says"),
    [
        (
            "a.jsonl",
            "\n".join([json.dumps(CHAT)] * 9),
            ["holds messages (list)", '{"prompt": "...", "response": "..."}'],
        ),
        ("b.jsonl", "\n".join([json.dumps(CHAT | {"text": "a"})] * 9), ["messages (list)", '{"prompt": "..."']),
        ("a.json", json.dumps({"data": RECORDS}), ["a list of 10 under `data`", "a list of flat objects alone"]),
        ("b.json", json.dumps({"columns": ["text"], "data": [["a"]]}), ["a list of 1 under `data`"]),
        (
            "c.json",
            json.dumps({key: {str(i): row[key] for i, row in enumerate(RECORDS)} for key in ("text", "label")}),
            ["one per column (`text`, `label`)", 'orient="records", lines=True'],
        ),
    ],
)
def test_rows_under_another_roof_are_found_and_the_way_out_is_said(
    tmp_path: Path, name: str, contents: str, says: list[str]
) -> None:
    told = refusal(write(tmp_path / name, contents))
    assert all(part in told for part in says)


def with_splits(path: Path, names: list[str]) -> Path:
    rows = [f"text number {i},{'ab'[i % 2]},{name}" for i, name in enumerate(names)]
    return write(path, "\n".join(["text,label,Split", *rows]) + "\n")


def test_a_column_split_parts_the_rows(tmp_path: Path) -> None:
    names = ["train"] * 12 + ["Validation"] * 4 + ["test"] * 4
    task = Task.from_csv(with_splits(tmp_path / "a.csv", names), text="text")
    assert {name: table["row"].to_pylist()[0] for name, table in task.splits.items()} == {
        "train": 1,
        "dev": 13,
        "test": 17,
    }
    assert task.notes == ("a.csv: the column `Split` says which rows are train, dev, test.",)
    assert Task.from_ref(task.ref).fingerprint == task.fingerprint


@pytest.mark.parametrize("names", [["train"] * 19 + ["seen"], ["test"] * 20, ["train"] * 19 + [""]])
def test_a_column_split_that_does_not_part_all_rows_is_not_used_and_that_is_said(
    tmp_path: Path, names: list[str]
) -> None:
    task = Task.from_csv(with_splits(tmp_path / "a.csv", names))
    assert {name: table.num_rows for name, table in task.splits.items()} == {"train": 20}
    assert task.notes == (
        "a.csv: the column `Split` is not used, for it does not name train, dev or test in every row.",
    )


def test_a_column_split_that_is_the_label_parts_nothing(tmp_path: Path) -> None:
    path = with_splits(tmp_path / "a.csv", ["train", "test"] * 10)
    task = Task.from_csv(path, label="Split")
    assert (list(task.splits), task.schema.labels, task.notes) == (["train"], ("test", "train"), ())


def test_a_header_of_numbers_is_accepted_when_the_user_names_it(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", "0,1\n" + "".join(f"words {i},{'ab'[i % 2]}\n" for i in range(8)))
    assert "first row must name the columns" in refusal(path)
    assert Task.from_csv(path, text="0", label="1").schema.labels == ("a", "b")


def test_a_missing_file_gets_the_nearest_name(tmp_path: Path) -> None:
    as_csv(tmp_path / "train.csv")
    assert "Did you mean `train.csv`?" in refusal(tmp_path / "trian.csv")
    with pytest.raises(DataError, match="Did you mean `banking77`"):
        Task.from_source("bankin77")


@pytest.mark.parametrize("source", ["", "a\0b", "x" * 5000, "no/such/place", "/dev/null"])
def test_sources_that_are_nothing_are_refused(source: str) -> None:
    with pytest.raises(DataError):
        Task.from_source(source)


def test_a_device_is_not_read(tmp_path: Path) -> None:
    (tmp_path / "a.csv").symlink_to("/dev/zero")
    assert "must be a regular file" in refusal(tmp_path / "a.csv")


def test_a_file_without_permission_is_a_data_error() -> None:
    with pytest.raises(DataError, match="may not be read"), reading(Path("secret.csv")):
        raise PermissionError(13, "Permission denied")


def test_a_hub_id_without_a_network_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    def offline(*_: object) -> None:
        raise ConnectionError("no route\nto host")

    monkeypatch.setattr(datasets, "load_dataset", offline)
    with pytest.raises(DataError, match=r"`org/name` is neither an existing path nor a catalog name.*\(no route\)"):
        Task.from_source("org/name")


def test_a_folder_gives_its_splits(tmp_path: Path) -> None:
    as_csv(tmp_path / "train.csv")
    as_csv(tmp_path / "validation.tsv", [("a new one", "ja")], delimiter="\t")
    write(tmp_path / "test.jsonl", json.dumps({"text": "another", "label": "nein"}))
    write(tmp_path / "README.md", "about")
    task = Task.from_source(str(tmp_path))
    assert {name: table.num_rows for name, table in task.splits.items()} == {"train": 10, "dev": 1, "test": 1}


def test_a_folder_with_two_training_files_is_refused(tmp_path: Path) -> None:
    as_csv(tmp_path / "train.csv")
    as_csv(tmp_path / "train.tsv", delimiter="\t")
    assert "both train" in refusal(tmp_path)


def test_a_folder_without_data_or_without_train_is_refused(tmp_path: Path) -> None:
    assert "holds none" in refusal(tmp_path)
    as_csv(tmp_path / "first.csv")
    as_csv(tmp_path / "second.csv")
    assert "must hold a file called train.*, but holds first.csv, second.csv" in refusal(tmp_path)


def test_a_damaged_datasets_folder_is_refused(tmp_path: Path) -> None:
    write(tmp_path / "state.json", "{}")
    write(tmp_path / "dataset_info.json", "{")
    assert "not a readable `datasets` folder" in refusal(tmp_path)


def test_rows_may_lack_columns_or_bring_new_ones_late(tmp_path: Path) -> None:
    lines = [json.dumps({"a": str(i)}) for i in range(5000)] + [json.dumps({"b": ["x", 1]})]
    rows, _ = read_file(write(tmp_path / "a.jsonl", "\n".join(lines)))
    assert rows.table["a"].null_count == 1
    assert rows.table["b"].to_pylist()[-1] == ["x", "1"]
    assert rows.numbers[-1].as_py() == 5001
