"""What is known of candidates: the greedy portfolio, the mean table, and what they say when nothing is known."""

from dataclasses import replace

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from foretune.recommenders import MeanTable, Portfolio, RandomSearch
from foretune.recommenders.base import blank
from foretune.recommenders.known import known_regrets
from foretune.recommenders.mean_table import by_mean
from foretune.recommenders.portfolio import greedy
from foretune.store.metadataset import metadataset
from foretune.testing.recommender_contract import toy_collection, toy_held

tables = arrays(np.float64, st.tuples(st.integers(1, 4), st.integers(1, 6)), elements=st.floats(0, 1))


def joint(table, chosen):
    return np.minimum.reduce(table[:, chosen], axis=1).mean()


@given(tables)
def test_each_choice_lowers_the_joint_mean_most(table):
    chosen = greedy(table, np.ones(len(table)))
    assert sorted(chosen) == list(range(table.shape[1]))
    for k in range(1, len(chosen)):
        taken = joint(table, chosen[: k + 1])
        assert all(taken <= joint(table, [*chosen[:k], other]) + 1e-9 for other in chosen[k:])


def test_a_second_choice_complements_the_first_where_a_table_repeats_it():
    regrets = np.array([[0.0, 0.1, 0.9], [0.0, 0.1, 0.9], [0.9, 0.9, 0.0]])
    assert greedy(regrets, np.ones(3))[:2] == [0, 2]
    assert by_mean(regrets, np.ones(3)) == [0, 1, 2]


def test_a_candidate_known_everywhere_goes_before_one_that_shone_once():
    regrets = np.array([[0.0, 0.2], [np.nan, 0.2], [np.nan, 0.2]])
    assert greedy(regrets, np.ones(3))[0] == 1


def test_tasks_of_one_group_share_one_vote():
    regrets = np.array([[0.0, 0.5], [0.0, 0.5], [0.9, 0.0]])
    assert greedy(regrets, np.ones(3))[0] == 0
    assert greedy(regrets, np.array([0.5, 0.5, 1.0]))[0] == 1


def test_a_candidate_that_nobody_ran_is_in_no_table():
    regrets = np.array([[0.1, np.nan], [0.2, np.nan]])
    assert greedy(regrets, np.ones(2)) == [0]
    assert by_mean(regrets, np.ones(2)) == [0]
    assert greedy(np.zeros((0, 2)), np.zeros(0)) == []


def test_past_runs_are_matched_by_their_settings_and_failures_count_as_bad():
    held = toy_held()
    regrets, weights = known_regrets(held.pool, held.past)
    assert regrets.shape == (5, 20)
    assert np.isfinite(regrets).all()
    assert (regrets[:, -1] > 0.5).all()
    assert weights.tolist() == [1.0] * 5


def test_repeated_runs_count_with_their_mean_and_order_of_runs_does_not_matter():
    once, twice = (toy_held(metadataset([toy_collection(repeats=n)])) for n in (1, 2))
    regrets, _ = known_regrets(twice.pool, twice.past)
    turned = twice.past.take(np.arange(len(twice.past))[::-1])
    again, _ = known_regrets(twice.pool, turned)
    assert np.allclose(regrets, again)
    assert regrets.shape == known_regrets(once.pool, once.past)[0].shape


def test_the_first_pick_is_good_on_the_task_that_was_held_out():
    held = toy_held()
    for kind in (Portfolio, MeanTable):
        trial = kind(blank(held.pool), held.past).ask()
        assert held.regrets[trial.place] < 0.2


def test_nothing_of_the_past_test_scores_is_read():
    held = toy_held()
    hidden = replace(held.past, test=np.full(len(held.past), 123.0))
    for kind in (Portfolio, MeanTable):
        assert kind(blank(held.pool), held.past).order.tolist() == kind(blank(held.pool), hidden).order.tolist()


def test_without_a_known_candidate_they_fall_back_and_say_so():
    held = toy_held()
    for kind in (Portfolio, MeanTable):
        made = kind(blank(held.pool), None, default=4, seed=0)
        assert made.ask().place == 4
        assert "No candidate was run on any of 0 earlier tasks, so the published default" in made.evidence[0]
        assert "the order is random" in kind(blank(held.pool), None).evidence[0]


def test_a_past_on_which_everything_failed_tells_nothing():
    held = toy_held()
    n = len(held.past)
    broken = replace(held.past, status=np.full(n, "failed", object), score=np.full(n, np.nan))
    assert "No candidate" in Portfolio(blank(held.pool), broken).evidence[0]


def test_random_search_has_an_order_of_its_seed_and_no_default_in_front():
    held = toy_held()
    orders = [RandomSearch(blank(held.pool), default=4, seed=seed).order.tolist() for seed in (0, 0, 1)]
    assert orders[0] == orders[1] != orders[2]
    assert orders[0] == np.random.default_rng(0).permutation(20).tolist()


def test_the_best_of_a_part_of_a_run_is_nobodys_regret():
    held = toy_held()
    past = held.past
    whole = np.arange(len(past)) != np.flatnonzero(past.task == 0)[3]
    lucky = replace(past, whole=whole, score=np.where(whole, past.score, np.nan))
    regrets, _ = known_regrets(held.pool, lucky)
    before, _ = known_regrets(held.pool, past.take(whole))
    assert np.isnan(regrets).sum() == 1
    assert np.array_equal(regrets, before, equal_nan=True)
