"""The gate as arithmetic: which rows are compared, what passes and what does not."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from export_cases import Runs
from hypothesis import given, settings
from hypothesis import strategies as st

from foretune.errors import ExportError, StoreError
from foretune.export import check
from foretune.export.source import Source

HOW: dict[str, Any] = {"kind": "classification"}


def table(probabilities: list[list[float]]) -> pa.Table:
    return pa.table({"probabilities": probabilities, "prediction": [str(int(np.argmax(p))) for p in probabilities]})


@settings(deadline=None)
@given(
    logits=st.lists(st.lists(st.floats(-5, 5), min_size=3, max_size=3), min_size=1, max_size=8),
    row=st.integers(0, 7),
    shift=st.floats(-0.3, 0.3),
)
def test_a_probability_beyond_the_tolerance_fails_and_one_within_it_passes(
    logits: list[list[float]], row: int, shift: float
) -> None:
    exp = np.exp(np.array(logits))
    wanted = (exp / exp.sum(axis=1, keepdims=True)).tolist()
    found = [list(p) for p in wanted]
    found[row % len(found)][0] += shift
    compared = check.compare(HOW, table(wanted), found)
    assert compared.largest == pytest.approx(abs(shift))
    if abs(shift) > check.TOLERANCE:
        assert not compared.passed
    if abs(shift) < check.TOLERANCE / 2:
        assert compared.passed


def test_another_label_passes_only_where_the_record_was_undecided() -> None:
    undecided = check.compare(HOW, table([[0.5002, 0.4998]]), [[0.4998, 0.5002]])
    decided = check.compare(HOW, table([[0.5008, 0.4992]]), [[0.4998, 0.5002]])
    assert undecided.passed
    assert undecided.other == 0
    assert decided.other == 1
    assert not decided.passed


def test_not_a_number_never_passes() -> None:
    assert not check.compare(HOW, table([[0.5, 0.5], [0.1, 0.9]]), [[float("nan")] * 2, [0.1, 0.9]]).passed
    how = {"kind": "regression", "scale": 1.0}
    assert not check.compare(how, pa.table({"prediction": ["1.0"]}), [float("nan")]).passed


def test_another_number_of_classes_is_named() -> None:
    with pytest.raises(ExportError, match="number of probabilities"):
        check.compare(HOW, table([[0.5, 0.5]]), [[0.3, 0.3, 0.4]])


@pytest.mark.parametrize(("scale", "passes"), [(100.0, True), (1.0, False)])
def test_numbers_are_compared_in_standard_deviations(scale: float, passes: bool) -> None:
    how = {"kind": "regression", "scale": scale}
    assert check.compare(how, pa.table({"prediction": ["20.0", "30.0"]}), [20.01, 30.0]).passed is passes


def test_every_text_must_be_the_same() -> None:
    rows = pa.table({"prediction": ["a", "b", "c", "d"]})
    assert check.compare({"kind": "generation"}, rows, list("abcd")).passed
    compared = check.compare({"kind": "generation"}, rows, list("abcx"))
    assert not compared.passed
    assert (compared.other, compared.largest) == (1, 0.25)


def write_predictions(run: Path, splits: dict[str, int]) -> None:
    """Predictions with as many rows of each split, numbered within it."""
    known = pq.read_table(run / "predictions.parquet").slice(0, 1).to_pylist()[0]
    made = [{**known, "split": split, "row": i} for split, n in splits.items() for i in range(n)]
    pq.write_table(pa.Table.from_pylist(made), run / "predictions.parquet")


@pytest.mark.parametrize(
    ("splits", "taken"),
    [
        ({"dev": 50, "test": 200}, {"test": 64}),
        ({"dev": 50, "test": 10, "ood:x": 90}, {"test": 10, "dev": 50, "ood:x": 4}),
        ({"ood:x": 3, "dev": 2}, {"dev": 2, "ood:x": 3}),
    ],
)
def test_the_test_split_comes_first_and_is_sampled_from_end_to_end(
    runs: Runs, tmp_path: Path, splits: dict[str, int], taken: dict[str, int]
) -> None:
    run = Path(shutil.copytree(runs("mean"), tmp_path / "run"))
    write_predictions(run, splits)
    rows = check.recorded(Source.open(run)).to_pylist()
    assert len({(row["split"], row["row"]) for row in rows}) == len(rows)
    for split, n in taken.items():
        numbers = [row["row"] for row in rows if row["split"] == split]
        assert len(numbers) == n
        assert {0, splits[split] - 1} <= set(numbers)
    assert len(rows) == sum(taken.values())


def test_a_run_without_evaluated_rows_cannot_be_checked(runs: Runs, tmp_path: Path) -> None:
    run = Path(shutil.copytree(runs("mean"), tmp_path / "run"))
    rows = pq.read_table(run / "predictions.parquet")
    pq.write_table(rows.slice(0, 0), run / "predictions.parquet")
    with pytest.raises(ExportError, match="no prediction"):
        check.recorded(Source.open(run))


@pytest.mark.parametrize("damage", [Path.unlink, lambda path: path.write_bytes(b"PAR1 and no more")])
def test_predictions_that_cannot_be_read_are_named(runs: Runs, tmp_path: Path, damage: Any) -> None:
    run = Path(shutil.copytree(runs("mean"), tmp_path / "run"))
    damage(run / "predictions.parquet")
    with pytest.raises(StoreError, match=r"predictions\.parquet"):
        check.recorded(Source.open(run))
