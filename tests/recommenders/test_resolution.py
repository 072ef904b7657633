"""What chance makes of dev scores is told from what the runs did, and a ranking is not blamed for it."""

from dataclasses import replace

import numpy as np
import pytest
from earlier_runs import dataset
from hypothesis import given
from hypothesis import strategies as st

from foretune.recommenders.foresight import foresee
from foretune.recommenders.left_out import agreement, ranks_left_out
from foretune.recommenders.resolution import resolved


def scored(made, of, draw):
    """``made`` with the scores of its tasks ``of`` replaced by ``draw(number of runs)``."""
    score = made.score.copy()
    for place in of:
        mine = made.task == place
        score[mine] = draw(int(mine.sum()))
    return replace(made, score=score)


def with_dev(made, rows):
    return replace(made, tasks=tuple(replace(task, rows={**task.rows, "dev": rows}) for task in made.tasks))


@given(st.integers(0, 2**32 - 1), st.floats(0.2, 0.8), st.sampled_from([16, 48, 116]))
def test_scores_that_chance_alone_moved_leave_little(seed, chance, rows):
    """On average nothing is left; a single task of 200 runs is held to a third."""
    draw = np.random.default_rng(seed)
    made = with_dev(dataset(tasks=1, per_task=200), rows)
    found = resolved(scored(made, [0], lambda n: draw.binomial(rows, chance, n) / rows))
    assert 0 <= found[0] < 1 / 3


def test_scores_that_the_runs_moved_stay():
    made = with_dev(dataset(tasks=2, per_task=30), 100)
    assert (resolved(scored(made, [0, 1], lambda n: np.linspace(0.2, 0.9, n))) > 0.9).all()


@pytest.mark.parametrize("change", [{"rows": {}}, {"metric": "loss"}])
def test_where_chance_is_not_known_a_task_counts_in_full(change):
    made = dataset(tasks=1)
    made = scored(made, [0], lambda n: np.linspace(0.5, 0.501, n))
    assert resolved(made)[0] == 0
    assert resolved(replace(made, tasks=(replace(made.tasks[0], **change),)))[0] == 1


def test_equal_scores_leave_nothing():
    assert resolved(scored(dataset(tasks=1), [0], lambda n: np.full(n, 0.5)))[0] == 0


def test_tasks_at_chance_neither_raise_nor_lower_what_is_trusted():
    draw = np.random.default_rng(0)
    made = dataset(tasks=6, per_task=40)
    clear = scored(made, [3, 4, 5], lambda n: np.full(n, 0.5))
    mixed = scored(made, [3, 4, 5], lambda n: 0.5 + 1e-3 * draw.standard_normal(n))
    rho, groups = agreement(mixed, ranks_left_out(mixed))
    assert groups == 3
    assert rho > 0.5
    assert agreement(clear, ranks_left_out(clear))[1] == 3


def test_nothing_but_chance_is_no_ground():
    draw = np.random.default_rng(0)
    made = dataset(tasks=4)
    noise = foresee(scored(made, range(4), lambda n: 0.5 + 1e-3 * draw.standard_normal(n)))
    assert not noise.trusted
    assert "differ by more than the chance of its dev rows" in noise.doubt
