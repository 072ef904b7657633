"""Optuna over a pool: told what ran and not what was wished for, quiet, and named where it is absent."""

import importlib

import numpy as np
import pytest

from foretune.errors import UsageError
from foretune.recommenders.base import blank
from foretune.recommenders.tpe import TPE
from foretune.store.metadataset import metadataset
from foretune.testing.recommender_contract import RecommenderContract, observed, toy_collection, toy_held

optuna = pytest.importorskip("optuna")


class TestTPE(RecommenderContract):
    def make(self, pool, past, default, seed):
        return TPE(pool, past, default=default, seed=seed)


def test_it_learns_where_the_good_candidates_are():
    held = toy_held(metadataset([toy_collection(tasks=2, configs=200)]))
    early, late = [], []
    for seed in range(4):
        made, scores = TPE(blank(held.pool), seed=seed), []
        for _ in range(30):
            trial = made.ask()
            made.tell(observed(held, trial))
            scores.append(made.view.score[trial.place])
        early.append(np.nanmean(scores[:10]))
        late.append(np.nanmean(scores[15:]))
    assert np.mean(late) > np.mean(early) + 0.03


def test_asking_again_gives_the_same_trial_and_leaves_no_trace():
    held = toy_held()
    once, twice = TPE(blank(held.pool), seed=3), TPE(blank(held.pool), seed=3)
    for _ in range(14):
        assert twice.ask() == twice.ask()
        trial = once.ask()
        assert trial == twice.ask()
        once.tell(observed(held, trial))
        twice.tell(observed(held, trial))


def test_optuna_is_told_the_settings_that_ran_and_a_failure_as_pruned():
    held = toy_held()
    made = TPE(blank(held.pool))
    for place in (0, len(held.pool) - 1):
        made.tell(observed(held, type(made.ask())(place)))
    complete, pruned = [trial for trial in made._study.trials if trial.state.name != "FAIL"]
    assert complete.params["lr"] == made._axes.points[0, 0] == 0.0
    assert (complete.state.name, pruned.state.name) == ("COMPLETE", "PRUNED")


def test_nothing_is_printed_and_what_others_hear_of_optuna_is_as_before(capfd):
    before = optuna.logging.get_verbosity()
    made = TPE(blank(toy_held().pool))
    made.ask()
    assert capfd.readouterr() == ("", "")
    assert optuna.logging.get_verbosity() == before


def test_without_optuna_the_extra_is_named(monkeypatch):
    def absent(name):
        raise ModuleNotFoundError(name=name)

    monkeypatch.setattr(importlib, "import_module", absent)
    with pytest.raises(UsageError, match=r"foretune\[optuna\]"):
        TPE(blank(toy_held().pool))
