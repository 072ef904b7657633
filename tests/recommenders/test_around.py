"""What a run takes beside its steps is told from earlier ones, in the rows that are judged here."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from foretune.recommenders.around import FLOORS, around
from foretune.records import MetaRun, MetaTask, RunCollection
from foretune.store.metadataset import MetaDataset, metadataset

SMALL = MetaTask("a", "a", "a", "accuracy", rows={"train": 20, "dev": 10, "test": 100})


def past(**seconds: float | None) -> MetaDataset:
    """A run of each tuner with these seconds of evaluation, and 1 second to set up."""
    runs = [
        MetaRun(
            name, "a", {"tuner": name}, "ok", 10, cost={} if s is None else {"eval_seconds": s, "setup_seconds": 1.0}
        )
        for name, s in seconds.items()
    ]
    return metadataset([RunCollection("test", (SMALL,), tuple(runs))])


def test_dev_is_judged_ten_times_test_once_and_floors_see_every_row():
    assert around(past(lora=20.0), SMALL, "lora") == pytest.approx(1.0 + 0.1 * (200 + 130) + FLOORS)
    more = replace(SMALL, rows={"train": 40, "dev": 20, "test": 200})
    assert around(past(lora=20.0), more, "lora") == pytest.approx(1.0 + 0.1 * (400 + 260) + FLOORS)


def test_a_tuner_that_judges_with_several_members_is_told_by_its_own_runs():
    runs = past(lora=20.0, simplex=200.0)
    assert around(runs, SMALL, "simplex") > 5 * around(runs, SMALL, "lora")
    both = around(past(lora=20.0, full=40.0), SMALL, "another")
    assert around(past(lora=20.0), SMALL, "lora") < both < around(past(lora=40.0), SMALL, "lora")


def test_what_no_run_says_is_nothing():
    assert around(past(lora=None), SMALL, "lora") == 0.0
    assert np.isfinite(around(past(lora=None, full=20.0), SMALL, "lora"))
