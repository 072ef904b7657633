"""Halving: brackets, promotions by what was seen at a rung, and nothing left behind."""

import numpy as np
import pytest

from foretune.comparison.replay.race import observed, race
from foretune.errors import UsageError
from foretune.recommenders import ASHA, Halving, RandomSearch
from foretune.recommenders.base import blank
from foretune.recommenders.halving import rungs
from foretune.store.metadataset import CELLS
from foretune.testing.recommender_contract import RecommenderContract, toy_held


def served(made, held, most=1000):
    trials = []
    while len(trials) < most and (trial := made.ask()) is not None:
        made.tell(observed(held, trial))
        trials.append(trial)
    return trials


def test_the_first_bracket_is_nine_three_one():
    held = toy_held()
    trials = served(Halving(blank(held.pool), seed=1), held, 13)
    assert [trial.until for trial in trials] == [1] * 9 + [3] * 3 + [10]
    begun = {trial.place for trial in trials[:9]}
    assert len(begun) == 9
    assert {trial.place for trial in trials[9:12]} <= begun
    assert trials[12].place in {trial.place for trial in trials[9:12]}


def test_those_who_go_on_were_the_best_at_their_rung():
    held = toy_held()
    trials = served(Halving(blank(held.pool), seed=1), held, 12)
    scores = held.pool.curves["score"]
    begun = [trial.place for trial in trials[:9]]
    best = sorted(begun, key=lambda place: -scores[place, 0])[:3]
    assert {trial.place for trial in trials[9:12]} == set(best)


@pytest.mark.parametrize("kind", [Halving, ASHA])
def test_a_patient_user_sees_every_candidate_in_the_end(kind):
    held = toy_held()
    made = kind(blank(held.pool), seed=2)
    served(made, held)
    assert made.over.all()
    assert made.seen[~held.failed].min() == CELLS


def test_asha_promotes_as_soon_as_a_rung_has_three():
    held = toy_held()
    trials = served(ASHA(blank(held.pool), seed=1), held, 4)
    assert [trial.until for trial in trials] == [1, 1, 1, 3]


def test_an_eta_below_two_is_refused_in_words():
    held = toy_held()
    for kind in (Halving, ASHA):
        with pytest.raises(UsageError, match="from 2 on, but got eta=1"):
            kind(blank(held.pool), eta=1)


@pytest.mark.parametrize("eta", [2, 3, 4, 5, 11])
def test_rungs_rise_to_the_full_run(eta):
    found = rungs(eta)
    assert list(found) == sorted(set(found))
    assert found[-1] == CELLS
    assert found[0] >= 1


def test_halving_finds_a_good_candidate_for_less_than_random_search_pays():
    held = toy_held()

    def start(kind):
        return lambda pool, past, default, seed: kind(pool, past, default=default, seed=seed)

    means = [
        np.mean([held.regrets[race(held, start(kind), (2.0,), seed).incumbents[0]] for seed in range(20)])
        for kind in (Halving, RandomSearch)
    ]
    assert means[0] < means[1]


class TestOtherEta(RecommenderContract):
    def make(self, pool, past, default, seed):
        return Halving(pool, past, default=default, seed=seed, eta=4)
