"""A collection leaves one record for every run, whatever fails and whoever is killed, and nothing else."""

from __future__ import annotations

import os
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from foretune.collection import CollectionPlan, collect
from foretune.collection.local import collected, opened, run_missing
from foretune.collection.runs import FOLDER, Runs
from foretune.collection.worker import work
from foretune.errors import ResourceError, UsageError
from foretune.records import RunRecord
from foretune.store.folder import write_run
from foretune.store.metadata import from_records
from foretune.store.metadataset import metadataset
from foretune.training.floor_record import FLOORS


def test_every_run_has_one_record_and_nothing_else_is_left(done: Runs):
    assert not done.missing()
    held = [record.digest for record in done.store]
    assert sorted(held) == sorted(job.digest for job in done.jobs)
    assert not list((done.root / FOLDER).iterdir())


def test_a_run_that_fails_is_a_record_and_the_others_go_on(done: Runs):
    by_tuner: dict[str, Counter[str]] = {}
    for record in done.store:
        by_tuner.setdefault(record.config.tuner.name, Counter())[record.status] += 1
    assert by_tuner["prompt-tuning"]["failed"] > 0
    assert set(by_tuner["head"]) == set(by_tuner["lora"]) == {"ok"}
    failed = [record for record in done.store if record.status == "failed"]
    assert all(record.error and not record.evaluations for record in failed)
    assert {record.config.tuner.options["length"] for record in failed} == {50}
    assert collected(done).statuses["failed"] == len(failed)


def test_scores_on_test_are_recorded_for_replays_and_out_of_domain_ones_are_not(done: Runs):
    finished = [r for r in done.store if r.status == "ok" and r.config.tuner.name != FLOORS]
    assert all(set(record.evaluations) == {"dev", "test"} for record in finished)
    assert all(record.evaluations["test"].n == 8 for record in finished)
    assert all(not record.floors for record in finished)


def test_what_is_learned_from_it_has_landmarks_whole_settings_and_no_floors(done: Runs):
    made = from_records(done.store)
    assert len(made.tasks) == 2
    assert all({"landmark_probe", "landmark_logme", "tokens_mean", "words_mean"} <= set(t.features) for t in made.tasks)
    assert len(made.runs) == len(done.jobs) - 2
    lora = next(run for run in made.runs if run.config["tuner"] == "lora")
    assert lora.config["tuner.dropout"] == 0.0
    dataset = metadataset([made])
    assert np.isfinite(dataset.score[dataset.succeeded]).all()
    assert np.isfinite(dataset.test[dataset.succeeded]).all()
    shared = Counter(map(str, dataset.config_ids[dataset.task == 0]))
    assert set(shared) & set(map(str, dataset.config_ids[dataset.task == 1]))


def test_the_same_collection_again_runs_nothing(done: Runs):
    events: list[Any] = []
    work(Runs(done.plan, done.root), events.append)
    assert events == []


def test_a_larger_collection_runs_only_what_is_new(done: Runs, tmp_path: Path):
    import shutil

    shutil.copytree(done.root, tmp_path / "store")
    more = opened(replace(done.plan, tuners=("prompt-tuning", "head", "bitfit")), store=tmp_path / "store")
    assert 0 < len(more.missing()) < len(more.jobs)
    again = opened(replace(done.plan, repeats=0.25), store=tmp_path / "store")
    assert {job.config.seeds.init for job in again.missing()} == {1, 2}


def test_a_run_that_ended_before_the_store_knew_is_not_repeated(done: Runs, tmp_path: Path):
    runs = Runs(done.plan, tmp_path)
    for record in done.store:
        write_run(runs.root / FOLDER / record.digest, record)
    work(runs)
    before = {record.digest: record.finished for record in done.store}
    repeated = [r.digest for r in runs.store if r.finished != before[r.digest]]
    assert {done.store.find(each).status for each in repeated} <= {"failed"}
    assert not list((runs.root / FOLDER).iterdir())


def test_folders_that_a_kill_left_are_removed(done: Runs, tmp_path: Path):
    import shutil

    shutil.copytree(done.root, tmp_path / "store")
    left = tmp_path / "store" / FOLDER / done.jobs[3].digest
    write_run(left, RunRecord(done.jobs[3].config, "running"))
    collect(done.plan, store=tmp_path / "store")
    assert not left.exists()


def test_two_workers_share_the_runs(done: Runs, scores, tmp_path: Path):
    events = []
    told = collect(done.plan, store=tmp_path, workers=2, watch=events.append)
    ended = [event for event in events if event.event == "end"]
    assert len(ended) == told.total == len(done.jobs)
    assert told.statuses == collected(done).statuses
    assert ended[-1].done == ended[-1].total
    assert scores(opened(done.plan, store=tmp_path)) == scores(done)


def test_a_backend_that_could_not_go_on_is_heard_only_where_something_is_missing(plan, done: Runs, tmp_path: Path):
    full = ResourceError("The disk is full.")
    asked: list[int | None] = []

    def backend(runs: Runs, workers: int | None, tell: Any) -> ResourceError:
        asked.append(workers)
        return full

    with pytest.raises(ResourceError, match="disk is full"):
        run_missing(opened(plan(), store=tmp_path), workers=3, backend=backend)
    assert run_missing(Runs(done.plan, done.root), backend=backend) == collected(done)
    assert asked == [3]


def test_a_number_of_workers_that_cannot_be_is_refused(done: Runs, tmp_path: Path):
    with pytest.raises(UsageError, match="at least 1, but got 0"):
        collect(done.plan, store=tmp_path, workers=0)


def check_killed(plan: CollectionPlan, scores: Any, out: Path) -> None:
    whole, resumed = (opened(plan, store=out / name) for name in ("whole", "killed"))
    held = [record.digest for record in resumed.store]
    assert len(held) == len(set(held)), "a finished run was repeated"
    assert not resumed.missing()
    assert scores(resumed) == scores(whole)


@pytest.mark.skipif(os.name == "nt", reason="needs fork")
def test_a_collection_killed_twice_ends_with_the_same_runs(plan, scores, kill_workers, tmp_path: Path):
    asked = plan(configs=3, repeats=0)
    asked = replace(asked, tasks=asked.tasks[:1])
    assert kill_workers("collection", asked, replace(asked, configs=2), tmp_path, kills=2, seed=1)
    check_killed(asked, scores, tmp_path)


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="needs fork")
def test_a_collection_killed_twenty_times_ends_with_the_same_runs(plan, scores, kill_workers, tmp_path: Path):
    asked = plan(configs=12, steps=[10, 20])
    assert kill_workers("collection", asked, plan(configs=2, repeats=0), tmp_path, kills=20, seed=0) == 20
    check_killed(asked, scores, tmp_path)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no signal that kills")
def test_a_run_whose_worker_is_killed_each_time_is_recorded_and_the_others_go_on(plan, tmp_path: Path):
    asked = plan(configs=2, repeats=0, tuners=["lora"], steps=[4, 8])
    asked = replace(asked, tasks=asked.tasks[:1])
    begun: list[str] = []

    def kill() -> None:
        (worker,) = (c for c in psutil.Process().children() if "foretune.collection.worker" in c.cmdline())
        worker.kill()

    def watch(event: Any) -> None:
        if event.event == "begin":
            begun.append(event.tuner)
            if event.tuner == FLOORS:
                kill()

    told = collect(asked, store=tmp_path, workers=1, watch=watch)
    assert begun == [FLOORS] * 3 + ["lora"] * 2
    assert told.statuses == {"failed": 1, "ok": 2}
    runs = opened(asked, store=tmp_path)
    errors = {record.error for record in runs.records() if record.status == "failed"}
    assert errors == {"its worker died 3 times, as one does that takes more memory than there is"}
    assert not runs.missing()
