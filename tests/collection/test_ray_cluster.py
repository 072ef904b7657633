"""On a Ray cluster of two nodes a collection ends with the runs that it ends with on one machine, whoever is killed."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest

from foretune.collection import CollectionPlan, collect
from foretune.collection.local import opened
from foretune.collection.runs import FOLDER, Runs
from foretune.collection.work import Collecting
from foretune.collection.worker import work
from foretune.errors import DataError, UsageError
from foretune.training.ray_cluster import on_ray

pytest.importorskip("ray")
pytestmark = pytest.mark.ray


@pytest.fixture(scope="module")
def asked(plan) -> CollectionPlan:
    short = plan(configs=2, repeats=0, tuners=["lora", "full"], steps=[20, 40])
    return replace(short, test_rows=None)


@pytest.fixture(scope="module")
def local(asked: CollectionPlan, tmp_path_factory: pytest.TempPathFactory) -> Runs:
    runs = opened(asked, store=tmp_path_factory.mktemp("local"))
    work(runs)
    return runs


def test_two_nodes_share_the_runs_and_a_killed_worker_is_replaced(
    cluster: str, asked: CollectionPlan, local: Runs, scores, tmp_path: Path, killing: Any
):
    events, watch = killing
    collect(asked, store=tmp_path, watch=watch, backend=on_ray(cluster))
    runs = opened(asked, store=tmp_path)
    assert [event.event for event in events].count("end") == len(runs.jobs)
    assert [event.event for event in events].count("begin") == len(runs.jobs) + 1
    assert scores(runs) == scores(local)
    assert len(list(runs.store)) == len(runs.jobs)
    assert not (runs.root / FOLDER).exists()


def test_a_run_whose_workers_always_die_is_recorded_and_the_others_go_on(
    cluster: str, asked: CollectionPlan, tmp_path: Path, running: Callable[[], psutil.Process]
):
    first = replace(asked, tasks=asked.tasks[:1])
    begun: list[int] = []
    threads: list[threading.Thread] = []

    def watch(event: Any) -> None:
        if event.event == "begin" and event.tuner == "lora":
            begun.append(event.done)
            threads.append(threading.Thread(target=lambda: running().kill()))
            threads[-1].start()
        elif threads:
            threads[-1].join()

    told = collect(first, store=tmp_path, workers=1, watch=watch, backend=on_ray(cluster))
    failed = [record for record in opened(first, store=tmp_path).records() if record.status == "failed"]
    assert len(begun) == 3 * len(failed)
    assert {record.config.tuner.name for record in failed} == {"lora"}
    assert {record.error for record in failed} == {
        "its worker died 3 times, as one does that takes more memory than there is"
    }
    assert told.statuses == {"failed": len(failed), "ok": told.total - len(failed)}


def test_a_killed_driver_repeats_nothing_that_ended(
    cluster: str, asked: CollectionPlan, local: Runs, scores, tmp_path: Path
):
    file = tmp_path / "plan.yaml"
    file.write_text(asked.to_yaml(), encoding="utf-8")
    command = [sys.executable, "-m", "foretune", "collect", str(file), "--store", str(tmp_path / "store")]
    runs = opened(asked, store=tmp_path / "store")
    driver = subprocess.Popen([*command, "--ray", cluster], start_new_session=True, stdout=subprocess.DEVNULL)
    try:
        while len(runs.store) < 2:
            assert driver.poll() is None
            time.sleep(0.02)
    finally:
        driver.kill()
        driver.wait()
    before = [record.digest for record in runs.store]
    stopped = subprocess.Popen([*command, "--ray", cluster], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    while len(runs.store) < len(before) + 1 and stopped.poll() is None:
        time.sleep(0.02)
    stopped.send_signal(signal.SIGINT)
    _, said = stopped.communicate(timeout=120)
    assert (stopped.returncode, said) == (130, "Stopped. What is done is in the store: the same command goes on.\n")
    assert runs.missing()
    collect(asked, store=tmp_path / "store", backend=on_ray(cluster))
    held = [record.digest for record in runs.store]
    assert len(before) < len(held) == len(set(held)), "a finished run was repeated"
    assert scores(runs) == scores(local)


def test_a_node_that_cannot_open_the_data_says_so(
    cluster: str, asked: CollectionPlan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    runs = opened(asked, store=tmp_path)
    away = replace(asked.tasks[0], source=str(tmp_path / "away.csv"))
    monkeypatch.setattr(runs, "plan", replace(asked, tasks=(away, *asked.tasks[1:])))
    with pytest.raises(DataError, match=r"On the node `.+`: .*away\.csv"):
        raise on_ray(cluster)(Collecting(runs), 1, lambda told: None) or AssertionError("nothing was wrong")


def test_a_cluster_that_is_not_there_is_refused_in_a_sentence(asked: CollectionPlan, tmp_path: Path):
    with pytest.raises(UsageError, match=r"`127\.0\.0\.1:9` cannot be joined.*Start it"):
        collect(asked, store=tmp_path, backend=on_ray("127.0.0.1:9"))


def test_without_a_running_cluster_auto_starts_one_and_stops_it(
    asked: CollectionPlan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    short = replace(asked, tasks=asked.tasks[:1])
    file = tmp_path / "plan.yaml"
    file.write_text(short.to_yaml(), encoding="utf-8")
    words = [sys.executable, "-m", "foretune", "collect", str(file), "--store", str(tmp_path / "s"), "--json"]
    with tempfile.TemporaryDirectory(prefix="ray") as session:  # a path short enough for a socket
        monkeypatch.setenv("RAY_TMPDIR", session)
        done = subprocess.run([*words, "--ray", "auto", "--workers", "1"], capture_output=True, text=True, timeout=250)
        assert done.returncode == 0, done.stderr
        assert list(Path(session).glob("*/session_*")) or list(Path(session).glob("session_*"))
        left = [process.pid for process in psutil.process_iter(["cmdline"]) if session in str(process.info["cmdline"])]
    assert not left
    assert json.loads(done.stdout)["total"] == 3
    assert not opened(short, store=tmp_path / "s").missing()


def test_without_ray_the_way_to_it_is_said(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(UsageError, match=r"pip install 'foretune\[ray\]'"):
        on_ray("auto")
