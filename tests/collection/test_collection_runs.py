"""Which runs a plan asks for, and in which order."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from foretune.collection.local import opened
from foretune.collection.runs import Runs, located
from foretune.errors import DataError, ModelError, UsageError
from foretune.records import RunRecord
from foretune.training.floor_record import FLOORS


def pipeline(job) -> tuple:
    config = job.config
    return config.tuner.name, tuple(sorted(config.tuner.options.items())), config.schedule


@pytest.fixture(scope="module")
def runs(plan, tmp_path_factory: pytest.TempPathFactory) -> Runs:
    return opened(plan(configs=8, shots=[4, 8], repeats=0.25), store=tmp_path_factory.mktemp("empty"))


def test_there_are_as_many_as_the_plan_says_and_each_once(runs: Runs):
    counted = Counter(job.cell for job in runs.jobs)
    assert set(counted.values()) == {1 + 8 + 2 * 2}
    assert len(counted) == 2 * 2
    assert len({job.digest for job in runs.jobs}) == len(runs.jobs)


def test_wherever_a_collection_is_stopped_every_task_has_about_as_many(runs: Runs):
    for end in range(len(runs.jobs)):
        counted = Counter(job.cell for job in runs.jobs[: end + 1])
        assert max(counted.values()) - min(counted[cell] for cell in runs.cells) <= 1


def test_floors_come_first_then_what_is_shared_then_what_is_new(runs: Runs):
    by_cell = [[job for job in runs.jobs if job.cell == cell] for cell in runs.cells]
    assert all(jobs[0].config.tuner.name == FLOORS for jobs in by_cell)
    shared = [[pipeline(job) for job in jobs[1:5]] for jobs in by_cell]
    assert all(each[1:] == shared[0][1:] for each in shared)
    again = [[pipeline(job) for job in jobs[5:9]] for jobs in by_cell]
    assert again == [[*each[-2:], *each[-2:]] for each in shared]
    own = [pipeline(job) for jobs in by_cell for job in jobs[9:]]
    assert len(set(own)) == len(own) == 4 * 4
    assert not {pipe for each in shared for pipe in each} & set(own)


def test_the_published_default_is_among_the_shared_ones_unshortened(runs: Runs):
    for cell in runs.cells:
        first = next(job for job in runs.jobs if job.cell == cell and job.config.tuner.name != FLOORS)
        assert first.config.tuner.options == {"rank": 8, "alpha": 16.0, "targets": "all-linear"}
        assert first.config.schedule.steps == 200


def test_runs_on_one_task_see_the_same_rows_and_repetitions_differ_in_the_other_seeds(runs: Runs):
    cell = runs.cells[0]
    seeds = [job.config.seeds for job in runs.jobs if job.cell == cell]
    assert {each.data for each in seeds} == {0}
    assert [each.init for each in seeds] == [0] * 5 + [1, 1, 2, 2] + [0] * 4
    assert all(each.init == each.order == each.dropout for each in seeds)


def test_what_the_store_has_is_not_missing(plan, tmp_path: Path):
    asked = plan(configs=2, repeats=0)
    runs = opened(asked, store=tmp_path)
    first, second, third, *_ = runs.jobs
    runs.store.append(RunRecord(first.config, "ok"))
    runs.store.append(RunRecord(second.config, "diverged"))
    runs.store.append(RunRecord(third.config, "stopped"))
    assert opened(asked, store=tmp_path).missing() == list(runs.jobs[2:])


def test_out_of_domain_sets_are_left_out_and_test_rows_are_few(runs: Runs):
    task = runs.task("kind")
    assert not task.ood
    assert {job.config.task.test_fraction for job in runs.jobs} == {8 / 48}


def test_a_file_may_lie_where_the_data_of_the_catalog_lie(data: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.chdir(tmp_path)
    assert located("kind.csv", str(data)) == str(data / "kind.csv")
    assert located("absent.csv", str(data)) == "absent.csv"
    (data / "cola").mkdir(exist_ok=True)
    assert located("cola", str(data)) == "cola"


@pytest.mark.parametrize(
    ("change", "kind", "words"),
    [
        ({"shots": [40]}, DataError, "shots=40"),
        ({"shots": [1]}, UsageError, "1 shots of `kind` leave no row"),
        ({"objective": "response"}, UsageError, "serves generation"),
        ({"models": ["no/such-model-here"]}, ModelError, "no/such-model-here"),
        ({"tasks": ["absent.csv"]}, DataError, "absent.csv"),
    ],
)
def test_what_cannot_be_run_is_refused_before_anything_is(plan, tmp_path: Path, change, kind, words):
    with pytest.raises(kind, match=words):
        opened(plan(**change), store=tmp_path)
    assert not list(tmp_path.iterdir())
