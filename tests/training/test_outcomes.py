"""How a run can end, and which weights it keeps."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from foretune.errors import DivergedError, ResourceError, UsageError
from foretune.records import Part, RunConfig
from foretune.store.folder import read_run
from foretune.tasks import Task
from foretune.training.engine import Engine
from foretune.training.loop import fit
from foretune.training.prepare import Prepared, prepare, trainable
from foretune.training.progress import Progress
from foretune.training.run import judge_all, train

Config = Callable[..., RunConfig]
Tasks = Callable[..., Task]


class Planted(Engine):
    """An engine whose measurements on dev are planted: (examples right, loss) in turn."""

    def member_outputs(
        self, encoded: object, ensemble: object = None, labelled: bool = True
    ) -> tuple[np.ndarray, float]:
        right, loss = next(PLANTED)
        truth = encoded.targets  # type: ignore[attr-defined]
        answers = np.where(np.arange(len(truth)) < right, truth, 1 - truth)
        return np.eye(2)[answers][None], loss


PLANTED: object = iter(())


def kept(
    planted: list[tuple[int, float]], config: Config, task: Tasks, **schedule: object
) -> tuple[int, int, Prepared]:
    """The chosen step, the last step, and the run, one planted measurement after each step."""
    global PLANTED
    PLANTED = iter(planted)
    run = prepare(config(steps=len(planted), evaluations=len(planted), **schedule), task())
    run = replace(run, engine=Planted(**vars(run.engine)))
    state = fit(run)
    assert state.best is not None
    return -state.best[2], state.step, run


@pytest.mark.parametrize(
    ("planted", "chosen"),
    [
        ([(3, 0.9), (5, 0.9), (4, 0.1)], 2),
        ([(5, 0.9), (5, 0.5), (5, 0.7)], 2),
        ([(5, 0.5), (5, 0.5), (5, 0.5)], 1),
        ([(5, math.nan), (5, 0.9), (4, 0.1)], 2),
        ([(4, 0.5), (4, 0.6), (5, 9.0)], 3),
    ],
    ids=["metric", "then-lower-loss", "then-earlier", "nan-loss-last", "metric-before-loss"],
)
def test_the_best_checkpoint_is_by_metric_then_loss_then_time(
    planted: list[tuple[int, float]], chosen: int, config: Config, task: Tasks
) -> None:
    assert kept(planted, config, task)[:2] == (chosen, 3)


def test_the_weights_left_are_those_of_the_chosen_step(config: Config, task: Tasks) -> None:
    *_, early = kept([(5, 0.5), (4, 0.5), (4, 0.5)], config, task)
    *_, late = kept([(3, 0.5), (4, 0.5), (5, 0.5)], config, task)
    run = prepare(config(steps=3, evaluations=3), task())
    seen: list[dict[str, torch.Tensor]] = []

    class Watch(Progress):
        def step(self, step: int, loss: float, seconds_left: float) -> None:
            seen.append({name: p.detach().clone() for name, p in trainable(run.engine.bare).items()})

    fit(run, progress=Watch())
    for left, step in ((early, 0), (late, 2)):
        weights = trainable(left.engine.bare)
        assert all(torch.equal(weights[name], seen[step][name]) for name in weights)


@pytest.mark.parametrize(("patience", "last"), [(1, 3), (2, 5), (3, 8), (None, 8)])
def test_patience_ends_a_run_after_so_many_measurements_without_a_gain(
    patience: int | None, last: int, config: Config, task: Tasks
) -> None:
    planted = [(2, 0.5), (3, 0.5), (3, 0.6), (4, 0.7), (4, 0.8), (4, 0.9), (5, 0.9), (1, 0.9)]
    planted = (
        planted if patience != 2 else [(2, 0.5), (2, 0.6), (3, 0.5), (3, 0.6), (3, 0.7), (9, 0.1), (9, 0.1), (9, 0.1)]
    )
    assert kept(planted, config, task, patience=patience)[1] == last


def test_early_stopping_is_noted(config: Config, task: Tasks) -> None:
    record = train(config(steps=30, evaluations=30, patience=2, lr=1e-12), task=task(), floors=False)
    assert record.steps_done < 30
    assert any("2 evaluations without a gain" in note for note in record.notes)


def test_a_deadline_stops_the_run_with_a_note_and_an_evaluation(config: Config, task: Tasks, tmp_path: Path) -> None:
    record = train(config(steps=50), task=task(), folder=tmp_path, deadline_seconds=0.0, floors=False)
    assert (record.status, record.steps_done, record.chosen_step) == ("ok", 1, 1)
    assert any("step 1 of 50: the time budget ended" in note for note in record.notes)
    assert record.curve.of("dev", "accuracy")[0] == [1]
    assert "test" in record.evaluations


def test_a_loss_that_is_no_number_is_a_record_that_says_when(config: Config, task: Tasks, tmp_path: Path) -> None:
    asked = config(tuner=Part("full"), lr=1e30, clip=None, warmup=0.0)
    with pytest.raises(DivergedError, match=r"step \d+ of 12 with a learning rate of 1e\+30"):
        train(asked, task=task(), folder=tmp_path, floors=False)
    record = read_run(tmp_path)
    assert record.status == "diverged"
    assert record.evaluations == {}
    assert 1 <= record.steps_done < 12
    assert len(record.curve.of("train", "loss")[1]) == record.steps_done


class Breaks(Progress):
    """Raises at the third step."""

    def __init__(self, error: BaseException) -> None:
        self.error = error

    def step(self, step: int, loss: float, seconds_left: float) -> None:
        if step == 3:
            raise self.error


@pytest.mark.parametrize(
    ("error", "status", "raised"),
    [
        (ValueError("what nobody foresaw"), "failed", ValueError),
        (MemoryError(), "oom", ResourceError),
        (torch.OutOfMemoryError("CUDA out of memory"), "oom", ResourceError),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried ..."), "oom", ResourceError),
        (KeyboardInterrupt(), "stopped", KeyboardInterrupt),
    ],
    ids=["error", "memory", "cuda", "cpu-allocator", "second-ctrl-c"],
)
def test_an_error_in_the_middle_is_a_record_with_its_status(
    error: BaseException, status: str, raised: type[BaseException], config: Config, task: Tasks, tmp_path: Path
) -> None:
    with pytest.raises(raised) as caught:
        train(config(), task=task(), folder=tmp_path, progress=Breaks(error), floors=False)
    record = read_run(tmp_path)
    assert record.status == status
    assert record.error is not None
    assert record.error.startswith(type(error).__name__)
    assert record.evaluations == {}
    assert len(record.curve.of("train", "loss")[1]) == 2
    assert record.cost.train_seconds > 0
    assert record.config.model.fingerprint
    if status == "oom":
        assert "batches of 8" in str(caught.value)
        assert "--micro-batch" in str(caught.value)


def test_an_error_before_the_first_step_is_a_record_too(config: Config, task: Tasks, tmp_path: Path) -> None:
    with pytest.raises(UsageError):
        train(config(tuner=Part("lroa")), task=task(), folder=tmp_path, floors=False)
    record = read_run(tmp_path)
    assert record.status == "failed"
    assert "Did you mean `lora`" in str(record.error)


def test_a_run_without_a_folder_writes_nothing(
    config: Config, task: Tasks, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert train(config(steps=1), task=task()).status == "ok"
    assert list(tmp_path.iterdir()) == []


def test_a_dev_set_that_is_all_right_leaves_the_temperature_alone_and_says_so(config: Config, task: Tasks) -> None:
    global PLANTED
    run = prepare(config(), task())
    rows = len(run.encoded["dev"])
    for right in (rows, rows - 2):
        PLANTED = iter([(right, 0.1)] * 2)
        found = judge_all(replace(run, engine=Planted(**vars(run.engine))))
        assert (found.temperature == 1.0) == (right == rows)
        assert any("not calibrated" in note for note in found.notes) == (right == rows)
        assert found.evaluations["dev"].scores["accuracy"] == right / rows
