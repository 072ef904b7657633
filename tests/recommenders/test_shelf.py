"""What several recommenders learn of one past is learned once, and each is charged for it."""

from dataclasses import replace
from time import perf_counter, sleep

import earlier_runs
import pytest

from foretune.errors import DataError
from foretune.recommenders.foresight import foresee
from foretune.recommenders.shelf import clock, shared, sharing
from foretune.recommenders.transfer import Transfer

PAST, OTHER = earlier_runs.dataset(tasks=3, per_task=4), earlier_runs.dataset(tasks=3, per_task=4)


def test_a_part_is_learned_once_of_one_past_with_one_seed():
    with sharing(PAST):
        one, two = foresee(PAST, 0), foresee(PAST, 0, curves=True)
        assert one.cost is two.cost
        assert one.ranks is two.ranks
        assert one.failure is not two.failure  # one of them reads curves
        assert one.cost is not foresee(PAST, 1).cost
        assert one.cost is not foresee(OTHER, 0).cost
    assert foresee(PAST, 0).cost is not one.cost


def test_what_is_taken_over_counts_as_if_it_had_been_learned_anew():
    with sharing(PAST):
        for _ in range(2):
            began = clock()
            assert shared(PAST, "slow", lambda: sleep(0.05) or "learned") == "learned"
            assert clock() - began >= 0.05
    assert clock() == pytest.approx(perf_counter(), abs=0.05)


def test_what_cannot_be_learned_is_on_no_shelf():
    def nothing():
        raise DataError("Too little.")

    with sharing(PAST):
        for _ in range(2):
            with pytest.raises(DataError):
                shared(PAST, "part", nothing)


def test_where_the_ranking_may_not_decide_nothing_else_is_learned():
    class Doubtful(earlier_runs.Oracle):
        trusted = False

        def learn(self):
            raise AssertionError("it was learned in vain")

    new = replace(earlier_runs.task(2, rows=90), task_id="new", group_key="new")
    pool = earlier_runs.pool_of(new, PAST, 5)
    made = Transfer(pool.runs, PAST, default=0, known=pool.known, fit=lambda past, seed: Doubtful())
    assert made.rule == "portfolio"
    assert "could not rank" in made.evidence[0]
