"""What a method costs: seconds of tuning that are the same for all, seconds of a step, the price of trials."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from foretune.comparison.accounting import WARM, cut_short, step_seconds
from foretune.comparison.cells import Cells
from foretune.comparison.evidence import gather
from foretune.comparison.harness import opened
from foretune.comparison.verdict import judge
from foretune.comparison.worker import work
from foretune.records import LearningCurve, Point
from foretune.report import verdict_tables

TUNED = {"methods": [{"name": "lora", "lr": [1e-4, 2e-2]}], "tuning_trials": 2, "contrasts": "none", "steps": 8}


def test_a_step_takes_what_it_takes_after_the_first_five(done: Cells):
    record = gather(done, "lora", "kind", 4).runs[0].record
    slow_start = [10.0 * min(i, WARM) + 0.5 * max(0, i - WARM) for i in range(1, 13)]
    points = tuple(Point(i, "train", "loss", 1.0, s) for i, s in enumerate(slow_start, 1))
    assert step_seconds(replace(record, curve=LearningCurve(points))) == pytest.approx(0.5)
    assert step_seconds(replace(record, curve=LearningCurve(points[:WARM]))) is None
    assert step_seconds(record) > 0


def test_the_seconds_of_tuning_are_shared_out_and_part_of_what_a_trial_is(protocol, tmp_path: Path):
    limited, free = (opened(protocol(**TUNED, **more), store=tmp_path) for more in ({"tuning_seconds": 60.0}, {}))
    jobs = [job for job in limited.missing() if job.cell.method == "lora"]
    assert {job.config.seconds for job in jobs} == {30.0}
    assert {job.config.seconds for job in free.missing()} == {None}
    assert not {job.digest for job in jobs} & {job.digest for job in free.missing()}


def test_a_trial_is_judged_as_it_stands_when_its_share_is_spent(protocol, tmp_path: Path):
    cells = opened(protocol(**TUNED, tuning_seconds=1e-6), store=tmp_path)
    work(cells)
    evidence = gather(cells, "lora", "kind", 4)
    assert {trial.steps_done for run in evidence.runs for trial in run.trials} == {1}
    assert cut_short(evidence) == (4, 4)
    verdict = judge(cells)
    assert any("4 of 4 trials of lora" in note for note in verdict.notes)
    (cell,) = verdict.cells
    assert cell.score is not None
    assert cell.spent.trials == 2


def test_trials_and_the_seconds_of_a_step_stand_in_the_table_of_times(done: Cells):
    verdict = judge(done)
    names = [column.name for column in verdict_tables.times(verdict, "kind").columns]
    assert {"Trials", "One step"} <= set(names)
    assert {cell.spent.trials for cell in verdict.cells} == {1}
    assert cut_short(gather(done, "lora", "kind", 4)) == (0, 3)
