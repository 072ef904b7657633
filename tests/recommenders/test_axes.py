"""The box around a pool: a candidate is the nearest to itself, and settings that it lacks have no place in it."""

import numpy as np
import pytest

from foretune.recommenders.axes import Axes
from foretune.records import MetaRun, MetaTask, RunCollection
from foretune.store.metadataset import metadataset

CONFIGS = (
    {"lr": 1e-4, "tuner": "lora", "rank": 4, "seed": 0},
    {"lr": 1e-2, "tuner": "lora", "rank": 64, "seed": 0},
    {"lr": 1e-3, "tuner": "full", "seed": 0},
)


@pytest.fixture
def axes():
    task = MetaTask("a", "a", "a", "accuracy")
    runs = tuple(MetaRun(str(n), "a", config, "stopped", 10) for n, config in enumerate(CONFIGS))
    return Axes.of(metadataset([RunCollection("made up", (task,), runs)]))


def test_numbers_lie_between_0_and_1_on_their_scale_and_what_does_not_vary_has_no_axis(axes):
    assert [(axis.name, axis.levels, axis.needs) for axis in axes.axes] == [
        ("lr", 0, None), ("rank given", 2, None), ("rank", 0, 1), ("tuner", 2, None),
    ]  # fmt: skip
    assert axes.points[:, 0] == pytest.approx([0, 1, 0.5])
    assert axes.points[:2, 2].tolist() == [0, 1]
    assert np.isnan(axes.points[2, 2])


def test_a_candidate_is_the_nearest_to_itself_unless_it_is_out_of_the_question(axes):
    everyone = np.ones(3, bool)
    assert [axes.nearest(point, everyone) for point in axes.points] == [0, 1, 2]
    assert axes.nearest(axes.points[1], np.array([True, False, True])) == 0


def test_among_equals_the_seed_decides():
    task = MetaTask("a", "a", "a", "accuracy")
    runs = tuple(MetaRun(str(n), "a", {"lr": 0.1}, "stopped", 10) for n in range(20))
    pool = metadataset([RunCollection("made up", (task,), runs)])
    firsts = [Axes.of(pool, seed).nearest(np.zeros(0), np.ones(20, bool)) for seed in range(5)]
    assert len(set(firsts)) > 1
