"""Old formats stay readable; newer ones are refused in words."""

import json
from pathlib import Path

import pytest

from foretune.errors import StoreError
from foretune.records import FORMAT, RunRecord
from foretune.store import JournalStore, read_run, write_run
from foretune.store.upgrade import UPGRADES, load_record
from foretune.testing.store_contract import toy_record

OLD = sorted((Path(__file__).parent / "old_formats").glob("format_*.json"))


def test_every_older_format_has_an_upgrade_and_a_kept_file():
    assert len(UPGRADES) == FORMAT
    assert [path.stem for path in OLD] == [f"format_{n}" for n in range(FORMAT)]


@pytest.mark.parametrize("path", OLD, ids=lambda path: path.stem)
def test_every_kept_file_still_loads_and_survives_a_journal(path, tmp_path):
    record = load_record(json.loads(path.read_text()), str(path))
    assert record.format == FORMAT
    assert RunRecord.from_json(record.to_json()).to_json() == record.to_json()
    JournalStore(tmp_path).append(record)
    found = JournalStore(tmp_path).find(record.digest)
    assert found is not None
    assert found.to_json() == record.to_json()


def test_format_0_loses_no_score():
    record = load_record(json.loads(OLD[0].read_text()), "old")
    assert record.evaluations["test"].scores == {"accuracy": 0.7, "macro_f1": 0.69}
    assert record.evaluations["ood:v1.1"].scores == {"accuracy": 0.6}
    assert {split: e.n for split, e in record.evaluations.items()} == {"dev": 8, "test": 100, "ood:v1.1": 50}
    assert record.config.tuner.name == "a-tuner-that-is-gone"


def test_an_upgrade_does_not_touch_what_it_was_given():
    plain = json.loads(OLD[0].read_text())
    load_record(plain, "old")
    assert plain == json.loads(OLD[0].read_text())


def test_a_newer_format_is_refused_with_both_numbers(tmp_path):
    plain = {**toy_record().to_json(), "format": FORMAT + 1}
    (tmp_path / "run.json").write_text(json.dumps(plain))
    with pytest.raises(StoreError, match=rf"format {FORMAT + 1}.*up to {FORMAT}"):
        read_run(tmp_path)


@pytest.mark.parametrize("version", ["1", -1, 1.5, None])
def test_a_format_that_is_no_number_is_refused(version):
    with pytest.raises(StoreError, match="not a run record"):
        load_record({**toy_record().to_json(), "format": version}, "run.json")


@pytest.mark.parametrize("key", ["config", "status", "curve", "evaluations"])
def test_a_record_that_lacks_a_part_is_refused_in_words(key, tmp_path):
    plain = toy_record().to_json()
    del plain[key]
    with pytest.raises(StoreError, match=r"run\.json.*is not a run record"):
        load_record(plain, str(tmp_path / "run.json"))


def test_a_run_folder_of_an_older_format_is_read_and_written_back_in_the_new_one(tmp_path):
    (tmp_path / "run.json").write_text(OLD[0].read_text())
    write_run(tmp_path, read_run(tmp_path))
    assert json.loads((tmp_path / "run.json").read_text())["format"] == FORMAT
