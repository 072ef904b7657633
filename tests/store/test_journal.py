"""The journal keeps what it acknowledged: through kills, torn lines, damage, full disks and many writers."""

import json
import logging
import os
import random
import signal
import subprocess
import sys
import textwrap
import time
import zlib
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from foretune.errors import StoreError
from foretune.records import FORMAT
from foretune.store import JournalStore, default_folder
from foretune.store.journal import append_line, encode_line
from foretune.testing.store_contract import toy_record

LINES = [encode_line(toy_record(seed), 1_000 + seed) for seed in range(4)]
WRITER = """
import sys
from foretune.store import JournalStore
from foretune.testing.store_contract import toy_record
store = JournalStore(sys.argv[1])
for seed in range(int(sys.argv[2]), int(sys.argv[3])):
    store.append(toy_record(seed))
    print(seed, flush=True)
"""


def writer(folder, first, last):
    return subprocess.Popen(
        [sys.executable, "-c", WRITER, str(folder), str(first), str(last)], stdout=subprocess.PIPE, text=True
    )


def seeds(store):
    return [record.config.seeds.data for record in store]


@pytest.mark.skipif(os.name == "nt", reason="SIGKILL is a POSIX signal")
def test_a_kill_at_a_random_moment_loses_nothing_that_was_acknowledged(tmp_path):
    rng = random.Random(0)
    acknowledged = set()
    for turn in range(12):
        process = writer(tmp_path, turn * 10_000, turn * 10_000 + 10_000)
        assert process.stdout is not None
        acknowledged.add(int(process.stdout.readline()))
        time.sleep(rng.uniform(0, 0.05))
        process.send_signal(signal.SIGKILL)
        rest, _ = process.communicate(timeout=60)
        acknowledged.update(int(line) for line in rest.splitlines())
        store = JournalStore(tmp_path)
        assert acknowledged <= set(seeds(store))
        store.append(toy_record(-1 - turn))
        assert seeds(JournalStore(tmp_path)).count(-1 - turn) == 1
    assert len(acknowledged) > 12
    assert len(set(seeds(store))) == len(store)


@settings(max_examples=60, deadline=None)
@given(cut=st.integers(0, sum(map(len, LINES))))
def test_cutting_the_journal_at_any_byte_loses_the_last_record_at_most(tmp_path_factory, cut):
    folder = tmp_path_factory.mktemp("store")
    file = folder / "a.jsonl"
    file.write_bytes(b"".join(LINES)[:cut])
    whole = next(n for n in range(4, -1, -1) if sum(map(len, LINES[:n])) <= cut)
    store = JournalStore(folder)
    assert seeds(store) == list(range(whole))
    assert len(store.damage()) == (cut != sum(map(len, LINES[:whole])))
    store.append(toy_record(9))
    assert seeds(JournalStore(folder)) == [*range(whole), 9]


@settings(max_examples=60, deadline=None)
@given(place=st.integers(0, sum(map(len, LINES)) - 1), byte=st.integers(0, 255))
def test_one_wrong_byte_costs_the_lines_it_touches_and_is_reported(tmp_path_factory, place, byte):
    data = bytearray(b"".join(LINES))
    changed = data[place] != byte
    data[place] = byte
    folder = tmp_path_factory.mktemp("store")
    (folder / "a.jsonl").write_bytes(data)
    store = JournalStore(folder)
    assert len(store) >= 4 - 2 * changed
    assert bool(store.damage()) == changed
    assert all(record == toy_record(record.config.seeds.data) for record in store)


def test_damage_in_the_middle_is_reported_with_file_and_line(tmp_path, caplog):
    file = tmp_path / "host-1-aa.jsonl"
    file.write_bytes(LINES[0] + LINES[1].replace(b"0.75", b"0.95") + b"not json\n" + LINES[2])
    store = JournalStore(tmp_path)
    with caplog.at_level(logging.WARNING):
        assert seeds(store) == [0, 2]
    assert [(d.path, d.line) for d in store.damage()] == [(file, 2), (file, 3)]
    assert "checksum does not match" in str(store.damage()[0])
    assert [r.message for r in caplog.records] == [f"{file}: ignored line(s) 2, 3; line 2: its checksum does not match"]


def test_a_torn_line_is_reported_once_and_forgotten_when_it_is_finished(tmp_path, caplog):
    file = tmp_path / "a.jsonl"
    file.write_bytes(LINES[0] + LINES[1][:50])
    store = JournalStore(tmp_path)
    assert [len(store), len(store), len(caplog.records)] == [1, 1, 1]
    file.write_bytes(LINES[0] + LINES[1])
    assert seeds(store) == [0, 1]
    assert store.damage() == []


def test_a_line_after_a_torn_one_in_the_same_file_is_not_swallowed(tmp_path):
    file = tmp_path / "a.jsonl"
    file.write_bytes(LINES[0][:50])
    append_line(file, LINES[1])
    assert seeds(JournalStore(tmp_path)) == [1]


def test_a_line_with_a_good_checksum_that_is_no_record_is_damage(tmp_path):
    body = b'"record":{"format":1}}'
    (tmp_path / "a.jsonl").write_bytes(b'{"crc":"%08x",%s\n' % (zlib.crc32(body), body) + LINES[1])
    store = JournalStore(tmp_path)
    assert seeds(store) == [1]
    assert [d.line for d in store.damage()] == [1]


def test_every_line_is_json_of_its_own():
    plain = json.loads(LINES[0])
    assert plain["record"] == json.loads(json.dumps(toy_record(0).to_json()))
    assert LINES[0].isascii()


def test_a_newer_format_stops_the_reader_and_names_both_numbers(tmp_path):
    JournalStore(tmp_path).append(replace(toy_record(), format=FORMAT + 1))
    with pytest.raises(StoreError, match=rf"line 1.*format {FORMAT + 1}.*up to {FORMAT}"):
        len(JournalStore(tmp_path))


def test_four_processes_at_once_lose_nothing(tmp_path):
    writers = [writer(tmp_path, 50 * i, 50 * i + 50) for i in range(4)]
    for process in writers:
        process.communicate(timeout=120)
    store = JournalStore(tmp_path)
    assert sorted(seeds(store)) == list(range(200))
    assert len(list(tmp_path.glob("*.jsonl"))) == 4
    assert store.damage() == []


def test_a_reader_sees_what_others_append_meanwhile_in_the_order_of_writing(tmp_path):
    reader, one, other = JournalStore(tmp_path), JournalStore(tmp_path), JournalStore(tmp_path)
    for seed, store in enumerate([one, other, one, other, other]):
        store.append(toy_record(seed))
        assert seeds(reader) == list(range(seed + 1))


def test_a_clock_that_goes_back_does_not_change_the_order_within_a_file(tmp_path):
    (tmp_path / "a.jsonl").write_bytes(encode_line(toy_record(0, "stopped"), 900) + encode_line(toy_record(0), 100))
    (tmp_path / "b.jsonl").write_bytes(encode_line(toy_record(0, "failed"), 500))
    store = JournalStore(tmp_path)
    assert [record.status for record in store] == ["failed", "stopped", "ok"]
    assert store.find(toy_record(0).digest) == toy_record(0)


@pytest.mark.skipif(os.name == "nt", reason="fork is POSIX")
def test_a_forked_child_writes_to_a_file_of_its_own(tmp_path):
    code = f"""
    import os
    from foretune.store import JournalStore
    from foretune.testing.store_contract import toy_record
    store = JournalStore({str(tmp_path)!r})
    store.append(toy_record(0))
    if os.fork() == 0:
        store.append(toy_record(1))
        os._exit(0)
    os.wait()
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(code)], check=True, timeout=60)
    assert seeds(JournalStore(tmp_path)) == [0, 1]
    assert len(list(tmp_path.glob("*.jsonl"))) == 2


def test_a_full_disk_is_said_and_the_store_goes_on_afterwards(tmp_path, run_with_file_limit):
    size = len(LINES[0])
    out = run_with_file_limit(
        int(2.5 * size),
        f"""
        from foretune.store import JournalStore
        store = JournalStore({str(tmp_path)!r})
        store.append(toy_record(0))
        store.append(toy_record(1))
        try:
            store.append(toy_record(2))
        except StoreError as error:
            print(error)
        print(len(store), store.damage())
        limit({10 * size})
        store.append(toy_record(3))
        """,
    )
    (file,) = tmp_path.glob("*.jsonl")
    assert f"`{file}` cannot be written" in out
    assert "2 []" in out
    assert seeds(JournalStore(tmp_path)) == [0, 1, 3]


def test_a_store_that_is_a_file_is_refused_in_words(tmp_path):
    (tmp_path / "file").write_text("")
    store = JournalStore(tmp_path / "file")
    with pytest.raises(StoreError, match=r"cannot be written.*FORETUNE_STORE"):
        store.append(toy_record())
    with pytest.raises(StoreError, match=r"cannot be read.*FORETUNE_STORE"):
        len(store)


def test_reading_makes_no_folder(tmp_path):
    assert list(JournalStore(tmp_path / "none")) == []
    assert not (tmp_path / "none").exists()


def test_the_default_place_follows_the_environment(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("FORETUNE_STORE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert default_folder() == tmp_path / "cache" / "foretune" / "store"
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    assert default_folder() == tmp_path / ".cache" / "foretune" / "store"
    monkeypatch.setenv("FORETUNE_STORE", "~/mine")
    assert default_folder() == tmp_path / "mine"
