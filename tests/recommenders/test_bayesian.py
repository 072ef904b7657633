"""Bayesian optimisation from scratch: it finds the good end of a pool, whatever the scale of the scores."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from foretune.errors import UsageError
from foretune.recommenders.base import blank
from foretune.recommenders.bayesian import Bayesian, expected_improvement, normal_scores
from foretune.store.metadataset import metadataset
from foretune.testing.recommender_contract import RecommenderContract, observed, toy_collection, toy_held


class TestBayesian(RecommenderContract):
    def make(self, pool, past, default, seed):
        return Bayesian(pool, past, default=default, seed=seed)


def places(made, held, runs):
    found = []
    for _ in range(runs):
        trial = made.ask()
        found.append(trial.place)
        made.tell(observed(held, trial))
    return found


@pytest.fixture(scope="module")
def wide():
    return toy_held(metadataset([toy_collection(tasks=2, configs=60)]))


def test_it_gets_nearer_to_the_best_than_random_draws_do(wide):
    regret = {n_init: [] for n_init in (5, 60)}
    for n_init in regret:
        for seed in range(5):
            made = Bayesian(blank(wide.pool), seed=seed, n_init=n_init)
            places(made, wide, 12)
            regret[n_init].append(np.nanmax(wide.pool.score) - np.nanmax(made.view.score))
    assert np.mean(regret[5]) < 0.5 * np.mean(regret[60])


def test_the_scale_of_the_scores_does_not_matter(wide):
    def cubed(dataset):
        curves = {role: np.exp(30 * values) for role, values in dataset.curves.items()}
        return replace(dataset, curves=curves, score=np.exp(30 * dataset.score))

    steep = replace(wide, pool=cubed(wide.pool))
    plain, other = (places(Bayesian(blank(held.pool), seed=1), held, 9) for held in (wide, steep))
    assert plain == other


def test_a_pool_of_equal_candidates_is_run_in_the_order_of_the_seed():
    held = toy_held()
    same = replace(held.pool, configs=(held.pool.configs[0],) * len(held.pool))
    orders = [places(Bayesian(blank(same), seed=seed, n_init=1), held, 8) for seed in (0, 0, 1)]
    assert orders[0] == orders[1] != orders[2]


def test_no_draw_at_random_is_refused():
    with pytest.raises(UsageError, match="n_init >= 1"):
        Bayesian(blank(toy_held().pool), n_init=0)


def test_what_it_rests_on_says_how_many_runs_were_drawn(wide):
    made = Bayesian(blank(wide.pool), n_init=2)
    places(made, wide, 3)
    assert "3 runs are over, 2 of them drawn at random" in made.evidence[0]


@given(st.lists(st.integers(-5, 5), min_size=1, max_size=20))
def test_normal_scores_keep_the_order_and_equal_values_equal(values):
    values = np.array(values, float)
    scores = normal_scores(values)
    assert np.array_equal(np.sign(values[:, None] - values), np.sign(scores[:, None] - scores))


@given(st.floats(-3, 3), st.floats(0, 3), st.floats(-3, 3))
def test_expected_improvement_is_never_negative_nor_below_the_certain_one(mean, sd, best):
    value = expected_improvement(np.array([mean]), np.array([sd]), best)[0]
    assert value >= max(mean - best, 0) - 1e-9
