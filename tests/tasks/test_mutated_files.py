"""Whatever bytes a file holds, the outcome is a task or an error of ours."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from foretune.errors import ForetuneError
from foretune.tasks import Task, audit, draw

RECORDS = [{"text": f'row {i}, "said"\nÄpfel und 苹果 {i * i}', "label": ("ja", "nein, nie")[i % 2]} for i in range(12)]


def delimited(delimiter: str) -> bytes:
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, ["text", "label"], delimiter=delimiter)
    writer.writeheader()
    writer.writerows(RECORDS)
    return text.getvalue().encode()


def parquet() -> bytes:
    sink = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(RECORDS), sink)
    return sink.getvalue()


FILES = {
    ".csv": delimited(","),
    ".tsv": delimited("\t"),
    ".jsonl": "\n".join(json.dumps(r, ensure_ascii=False) for r in RECORDS).encode(),
    ".json": json.dumps(RECORDS).encode(),
    ".parquet": parquet(),
}

AWKWARD = (
    b"\xff",
    b"\0",
    b'"',
    b",",
    b";",
    b"\t",
    b"\r",
    b"\n",
    b"{",
    b"]",
    b"1e999",
    b"NaN",
    b"\\ud800",
    b"\xef\xbb\xbf",
    b"|",
)


@st.composite
def mutated(draw_: st.DrawFn) -> tuple[str, bytes]:
    """One to eight edits of a good file: flipped bits, cuts, swapped delimiters, insertions, moved pieces."""
    ending = draw_(st.sampled_from(sorted(FILES)))
    data = bytearray(FILES[ending])
    for _ in range(draw_(st.integers(1, 8))):
        at = draw_(st.integers(0, max(len(data) - 1, 0)))
        to = draw_(st.integers(at, min(at + 60, len(data))))
        edit = draw_(st.sampled_from(["flip", "cut", "end", "insert", "swap", "repeat", "random"]))
        if edit == "flip" and data:
            data[at] ^= 1 << draw_(st.integers(0, 7))
        elif edit == "cut":
            del data[at:to]
        elif edit == "end":
            del data[at:]
        elif edit == "insert":
            data[at:at] = draw_(st.sampled_from(AWKWARD))
        elif edit == "swap":
            old, new = draw_(st.permutations([b",", b";", b"\t", b'"', b"\n", b"|"]))[:2]
            data = data.replace(old, new)
        elif edit == "repeat":
            data[at:at] = data[at:to]
        else:
            data[at:to] = draw_(st.binary(max_size=20))
    return ending, bytes(data)


def load(path: Path, data: bytes) -> str:
    path.write_bytes(data)
    try:
        task = Task.from_csv(path)
        draw(task)
        audit(task)
        task.describe_schema()
    except ForetuneError:
        return "refused"
    return "task"


@settings(max_examples=600, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(mutated())
def test_a_mutated_file_is_a_task_or_a_clear_error(tmp_path: Path, case: tuple[str, bytes]) -> None:
    ending, data = case
    load(tmp_path / f"mutated{ending}", data)


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(ending=st.sampled_from(sorted(FILES)), data=st.binary(max_size=400) | st.text(max_size=200).map(str.encode))
def test_random_bytes_are_a_task_or_a_clear_error(tmp_path: Path, ending: str, data: bytes) -> None:
    load(tmp_path / f"random{ending}", data)


@pytest.mark.parametrize("ending", sorted(FILES))
def test_the_files_are_good_before_they_are_mutated(tmp_path: Path, ending: str) -> None:
    assert load(tmp_path / f"good{ending}", FILES[ending]) == "task"
