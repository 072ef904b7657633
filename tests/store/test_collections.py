"""Collections on disk: four tables, kept once and whole."""

import json
import math
import os
import subprocess
import sys
from dataclasses import replace

import pytest
from pyarrow import parquet

from foretune.errors import StoreError
from foretune.records import RunCollection
from foretune.store import JournalStore
from foretune.store.collections import TABLES, content_digest, keep, kept, read_collection, write_collection
from foretune.store.importers import read_peft_comparison, read_taskset
from foretune.testing.foreign import peft, taskset


@pytest.fixture
def made(tmp_path):
    first = read_taskset(taskset(tmp_path / "t", runs=3, broken={"Fixed_imdb_patch32_GRU64_avg_bs128": 1}))
    second = read_peft_comparison(peft(tmp_path / "p"))
    return RunCollection("a b/c", (*first.tasks, *second.tasks), (*first.runs, *second.runs), ("a note",))


def same(a: RunCollection, b: RunCollection) -> bool:
    """Equal, where NaN is equal to NaN."""
    runs = [[(replace(run, lines=()), repr(run.lines)) for run in each.runs] for each in (a, b)]
    return (a.name, a.tasks, a.notes) == (b.name, b.tasks, b.notes) and runs[0] == runs[1]


def test_what_was_written_is_read_bit_for_bit(made, tmp_path):
    write_collection(tmp_path / "out", made)
    again = read_collection(tmp_path / "out")
    assert same(again, made)
    assert math.isinf(again.runs[3].line("test", "loss").values[-1])


def test_how_far_a_run_was_run_is_written_and_tables_from_before_that_are_read(made, tmp_path):
    first = replace(made.runs[0], steps_done=7)
    told = replace(made, runs=(first, *made.runs[1:]))
    write_collection(tmp_path / "out", told)
    assert [run.steps_done for run in read_collection(tmp_path / "out").runs[:2]] == [7, None]
    assert content_digest(told) != content_digest(made)
    runs = parquet.read_table(tmp_path / "out" / "runs.parquet")
    parquet.write_table(runs.drop_columns(["steps_done"]), tmp_path / "out" / "runs.parquet")
    assert same(read_collection(tmp_path / "out"), made)


def test_a_collection_is_kept_once_beside_the_journals(made, tmp_path):
    store = tmp_path / "store"
    folder, fresh = keep(store, made)
    assert fresh
    assert keep(store, made) == (folder, False)
    assert kept(store) == {folder.name: folder}
    assert len(JournalStore(store)) == 0
    other = RunCollection(made.name, made.tasks, made.runs[:-1])
    assert keep(store, other)[1]
    assert len(kept(store)) == 2
    assert kept(tmp_path / "nowhere") == {}


def test_a_kill_at_any_point_leaves_no_collection_or_a_whole_one(made, tmp_path):
    code = (
        "import os, sys\n"
        "from foretune.store import collections as c\n"
        "made = c.read_collection(sys.argv[1])\n"
        "calls = 0\n"
        "def dying(path, do):\n"
        "    def call(*args, **kwargs):\n"
        "        global calls\n"
        "        calls += 1\n"
        "        if calls == int(sys.argv[3]): os._exit(9)\n"
        "        return do(*args, **kwargs)\n"
        "    return call\n"
        "from pyarrow import parquet\n"
        "parquet.write_table = dying('w', parquet.write_table)\n"
        "os.fsync = dying('s', os.fsync)\n"
        "c.keep(sys.argv[2], made)\n"
    )
    write_collection(tmp_path / "whole", made)
    for call in (1, 4, 5, 8, 9):  # four tables, four files made to last, the folder's name
        store = tmp_path / f"store{call}"
        words = [sys.executable, "-c", code, str(tmp_path / "whole"), str(store), str(call)]
        assert subprocess.run(words, check=False).returncode == 9
        assert [same(read_collection(path), made) for path in kept(store).values()] == ([True] if call == 9 else [])
        keep(store, made)
        (folder,) = kept(store).values()
        assert same(read_collection(folder), made)


def test_a_folder_that_is_none_and_a_newer_one_are_refused_in_words(made, tmp_path):
    with pytest.raises(StoreError, match=r"holds no collection of runs.*points\.parquet"):
        read_collection(tmp_path)
    from pyarrow import parquet

    write_collection(tmp_path / "out", made)
    path = tmp_path / "out" / "tasks.parquet"
    table = parquet.read_table(path)
    parquet.write_table(table.replace_schema_metadata({"foretune.layout": "99"}), path)
    with pytest.raises(StoreError, match="newer foretune"):
        read_collection(tmp_path / "out")


def test_the_tables_are_plain_relations(made, tmp_path):
    from pyarrow import parquet

    write_collection(tmp_path / "out", made)
    tables = {name: parquet.read_table(tmp_path / "out" / f"{name}.parquet") for name in TABLES}
    assert tables["points"].column_names == ["run", "split", "metric", "step", "value", "elapsed_train_s"]
    assert tables["runs"].num_rows == len(made.runs)
    assert tables["configs"].num_rows == len({run.config_id for run in made.runs})
    assert json.loads(tables["configs"]["values"][0].as_py()) == made.runs[0].config
    assert tables["points"]["elapsed_train_s"][0].as_py() is None


@pytest.mark.skipif(os.name == "nt" or not os.path.exists("/dev/full"), reason="needs a POSIX system")
def test_a_place_that_cannot_be_written_is_one_sentence(made, tmp_path):
    (tmp_path / "store").write_text("a file")
    with pytest.raises(StoreError, match="cannot be written"):
        keep(tmp_path / "store", made)
