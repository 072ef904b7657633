"""What a surrogate was asked before changes no answer, not by a bit."""

import numpy as np
import pytest

from foretune.surrogates import CostModel, FailureModel, QuantileBoosting, Transfer, ZeroShot
from foretune.surrogates.again import Again
from foretune.testing.surrogate_contract import at, hidden, made_store

PAST, TASK = made_store(tasks=6, configs=12), made_store(tasks=1, first=6)


def courses():
    """A pool whose first candidate gets on while the others wait, then the second."""
    seen = at(TASK, 0)
    for place in (0, 0, 0, 1):
        seen = seen.copy()
        seen[place] += 1
        yield seen


@pytest.mark.parametrize(
    "make",
    [
        lambda: ZeroShot(forests=2, trees=20),
        lambda: QuantileBoosting(iterations=20),
        lambda: Transfer(forests=2, trees=20, iterations=20),
    ],
)
def test_a_surrogate_that_is_asked_after_every_cell_says_what_a_fresh_one_says(make):
    often = make().fit(PAST, 0)
    for seen in courses():
        told, fresh = often.predict(hidden(TASK, seen), seen), make().fit(PAST, 0).predict(hidden(TASK, seen), seen)
        for name in ("order", "mean", "low", "high"):
            assert np.array_equal(getattr(told, name), getattr(fresh, name), equal_nan=True)


def test_so_do_the_chance_of_failing_and_the_seconds():
    failure, cost = FailureModel().fit(PAST, 0), CostModel(20).fit(PAST, 0)
    for seen in courses():
        pool = hidden(TASK, seen)
        assert np.array_equal(failure.predict(pool, seen), FailureModel().fit(PAST, 0).predict(pool, seen))
        assert np.array_equal(
            cost.seconds(pool, seen, seen + 1), CostModel(20).fit(PAST, 0).seconds(pool, seen, seen + 1)
        )


def test_rows_are_worked_out_once_and_no_row_is_fine():
    worked = []

    def answer(rows):
        worked.extend(rows[:, 0].tolist())
        return rows.sum(axis=1)

    again = Again(answer)
    assert again(np.zeros((0, 2))).tolist() == []
    assert again(np.array([[1.0, 2.0], [1.0, 2.0], [3.0, np.nan]])).tolist()[:2] == [3.0, 3.0]
    again(np.array([[3.0, np.nan], [4.0, 0.0]]))
    assert worked == [1.0, 3.0, 4.0]
