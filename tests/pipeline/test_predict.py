"""Predictions as files: every ending holds the same rows, and what stands there before is lost only to a whole file."""

import csv
import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from foretune.errors import StoreError, UsageError
from foretune.pipeline.predict import predict, write

ROWS = [
    {"row": 1, "prediction": 'a, "b"\nc', "probability": 0.75, "probabilities": [0.75, 0.25]},
    {"row": 3, "prediction": "плохо", "probability": None, "probabilities": None},
]
TABLE = pa.Table.from_pylist(ROWS)


def test_every_ending_holds_the_same_rows(tmp_path):
    for name in ("a.csv", "a.jsonl", "deep/er/a.PARQUET"):
        write(TABLE, tmp_path / name)
    with (tmp_path / "a.csv").open(encoding="utf-8", newline="") as file:
        read = list(csv.DictReader(file))
    assert [(row["row"], row["prediction"], row["probability"]) for row in read] == [
        ("1", 'a, "b"\nc', "0.75"),
        ("3", "плохо", ""),
    ]
    assert [json.loads(line) for line in (tmp_path / "a.jsonl").read_text(encoding="utf-8").splitlines()] == ROWS
    assert pq.read_table(tmp_path / "deep/er/a.PARQUET").to_pylist() == ROWS
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["a.csv", "a.jsonl", "deep"]


@pytest.mark.parametrize(("as_json", "lines"), [(False, 4), (True, 2)])
def test_stdout_gets_utf_8_whatever_the_terminal_speaks(as_json, lines, capfdbinary):
    write(TABLE, None, as_json=as_json)
    said = capfdbinary.readouterr().out
    assert "плохо".encode() in said
    assert said.count(b"\n") == lines
    assert b"\r" not in said


def test_an_ending_without_a_format_and_a_place_that_cannot_be_written_are_refused(tmp_path):
    with pytest.raises(UsageError, match=r"\.csv, \.jsonl, \.parquet"):
        write(TABLE, tmp_path / "a.txt")
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="cannot be written"):
        write(TABLE, tmp_path / "file" / "a.csv")


def test_rows_of_every_format_get_the_answers_of_the_result(result, tmp_path):
    texts = ["the good film was", "the awful food was very"]
    (tmp_path / "new.jsonl").write_text("".join(json.dumps({"text": t}) + "\n" for t in texts))
    pq.write_table(pa.table({"text": texts}), tmp_path / "new.parquet")
    (tmp_path / "new.tsv").write_text("text\tlabel\n" + "".join(f"{t}\tunheard of\n" for t in texts))
    wanted = [answer["probabilities"] for answer in result.predict(texts)]
    for name in ("new.jsonl", "new.parquet", "new.tsv"):
        assert predict(result.folder, str(tmp_path / name))["probabilities"].to_pylist() == wanted
