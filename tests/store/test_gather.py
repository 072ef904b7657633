"""Import: folders and journals from elsewhere, once."""

import pytest

from foretune.errors import StoreError
from foretune.store import JournalStore, MemoryStore, gather, import_runs, write_run
from foretune.testing.store_contract import toy_record


@pytest.fixture
def runs(tmp_path):
    for seed in range(3):
        write_run(tmp_path / "runs" / f"run{seed}", toy_record(seed))
    (tmp_path / "runs" / "notes").mkdir()
    return tmp_path / "runs"


@pytest.fixture
def journal(tmp_path):
    store = JournalStore(tmp_path / "journal")
    for record in (toy_record(0, "stopped"), toy_record(0), toy_record(1)):
        store.append(record)
    return tmp_path / "journal"


def test_a_run_folder_or_its_file_is_one_record(runs):
    assert gather(runs / "run1") == gather(runs / "run1" / "run.json") == [toy_record(1)]


def test_a_folder_of_run_folders_gives_each(runs):
    assert gather(runs) == [toy_record(0), toy_record(1), toy_record(2)]


def test_a_journal_gives_its_records_whether_file_or_folder(journal):
    (file,) = journal.iterdir()
    assert gather(file) == gather(journal) == [toy_record(0, "stopped"), toy_record(0), toy_record(1)]


def test_importing_twice_adds_nothing(runs, journal):
    store = MemoryStore([toy_record(0)])
    assert import_runs(store, runs) == (2, 1)
    assert import_runs(store, runs) == (0, 3)
    assert import_runs(store, journal) == (1, 2)
    assert len(store) == 4


def test_a_record_that_occurs_twice_in_the_source_is_added_once(runs):
    write_run(runs / "again", toy_record(0))
    assert import_runs(MemoryStore(), runs) == (3, 1)


def test_nothing_is_added_when_one_record_cannot_be_read(runs):
    (runs / "run2" / "run.json").write_text("{")
    store = MemoryStore()
    with pytest.raises(StoreError, match="run2"):
        import_runs(store, runs)
    assert len(store) == 0


def test_a_place_without_runs_is_refused_with_what_is_wanted(runs):
    with pytest.raises(StoreError, match=r"holds no runs.*run\.json"):
        gather(runs / "notes")
    with pytest.raises(StoreError, match=r"cannot be read.*run folder"):
        gather(runs / "nowhere")


def test_json_lines_that_are_no_journal_are_refused(tmp_path):
    (tmp_path / "train.jsonl").write_text('{"text": "a", "label": "b"}\n' * 3)
    with pytest.raises(StoreError, match=r"train\.jsonl.*not a journal.*line 1"):
        gather(tmp_path / "train.jsonl")
