"""The collection that the package ships: absent, whole or damaged; small; and without a path of its maker's."""

from __future__ import annotations

from pathlib import Path

import pytest

from foretune.errors import StoreError
from foretune.store import bundled
from foretune.store.collections import TABLES, write_collection
from foretune.store.metadata import from_records
from foretune.testing.store_contract import toy_record


@pytest.fixture
def tables(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.delenv(bundled.INSTEAD, raising=False)
    monkeypatch.setattr(bundled, "FOLDER", tmp_path / "bundled")
    return tmp_path / "bundled"


def test_an_installation_may_have_none(tables: Path):
    assert bundled.bundled() is None
    tables.mkdir()
    assert bundled.bundled() is None


def test_what_was_written_is_what_is_read(tables: Path):
    made = from_records([toy_record()], bundled.NAME)
    write_collection(tables, made)
    assert bundled.bundled() == made


def test_half_a_collection_is_an_error_and_not_none(tables: Path):
    write_collection(tables, from_records([toy_record()]))
    (tables / "runs.parquet").unlink()
    with pytest.raises(StoreError, match="holds no collection"):
        bundled.bundled()


def test_another_collection_may_stand_in_its_place_or_none(tables: Path, tmp_path: Path, monkeypatch):
    write_collection(tables, from_records([toy_record()], "shipped"))
    other = from_records([toy_record()], "other")
    write_collection(tmp_path / "other", other)
    monkeypatch.setenv(bundled.INSTEAD, str(tmp_path / "other"))
    assert bundled.bundled() == other
    monkeypatch.setenv(bundled.INSTEAD, bundled.NONE)
    assert bundled.bundled() is None
    monkeypatch.setenv(bundled.INSTEAD, str(tmp_path / "no-such-folder"))
    with pytest.raises(StoreError, match="no-such-folder"):
        bundled.bundled()


def test_what_is_shipped_is_small_named_and_says_nothing_of_folders(monkeypatch):
    monkeypatch.delenv(bundled.INSTEAD, raising=False)
    shipped = bundled.bundled()
    assert shipped is not None
    assert sum((bundled.FOLDER / f"{name}.parquet").stat().st_size for name in TABLES) <= 5_000_000
    assert all(task.licence and task.model for task in shipped.tasks)
    assert not any("/" in run.error.replace("://", "") for run in shipped.runs)
    assert not any(Path(task.model.name).is_absolute() for task in shipped.tasks if task.model)


def test_what_is_shipped_is_as_large_as_it_is_said_to_be_and_leaves_five_tasks_out(monkeypatch):
    monkeypatch.delenv(bundled.INSTEAD, raising=False)
    shipped = bundled.bundled()
    assert shipped is not None
    assert len(shipped.runs) >= 1_800
    names = {task.name for task in shipped.tasks}
    assert len(names) >= 16
    assert not names & {"cola", "cr", "mrpc", "snli", "trec"}
    assert {task.model.reading for task in shipped.tasks if task.model} == {"encoder", "decoder"}
    told = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
    assert f"{len(shipped.runs):,} runs of {len({run.config['tuner'] for run in shipped.runs})} methods" in told
    assert f"on {len(names)} public data sets" in told
    assert all(run.lines for run in shipped.runs if run.status == "ok")


def test_no_shipped_task_says_that_a_linear_model_is_always_wrong_where_it_could_not_be_judged(monkeypatch):
    """With one row of each class it is judged on classes that it never saw: such a landmark is omitted."""
    monkeypatch.delenv(bundled.INSTEAD, raising=False)
    shipped = bundled.bundled()
    assert shipped is not None
    alone = [task for task in shipped.tasks if task.features.get("classes") == task.rows["train"]]
    assert [task.name for task in alone] == ["banking77"]
    assert not any("landmark_probe" in task.features for task in alone)
    assert sum("landmark_probe" in task.features for task in shipped.tasks) > len(shipped.tasks) / 2
