"""DEHB over a pool: promoted candidates go on, nothing is written or started, and absence is named."""

import importlib
import threading

import numpy as np
import pytest

from foretune.errors import UsageError
from foretune.recommenders.base import blank
from foretune.recommenders.dehb import DEHB
from foretune.store.metadataset import CELLS, metadataset
from foretune.testing.recommender_contract import RecommenderContract, observed, toy_collection, toy_held

pytest.importorskip("dehb")


class TestDEHB(RecommenderContract):
    def make(self, pool, past, default, seed):
        return DEHB(pool, past, default=default, seed=seed)


@pytest.fixture(scope="module")
def wide():
    return toy_held(metadataset([toy_collection(tasks=2, configs=80)]))


def course(held, made, trials):
    for _ in range(trials):
        trial = made.ask()
        yield trial
        made.tell(observed(held, trial))


def test_the_first_bracket_halves_nine_to_three_to_one_and_goes_on_with_the_best(wide):
    made = DEHB(blank(wide.pool))
    trials = list(course(wide, made, 13))
    assert [trial.until for trial in trials] == [1] * 9 + [3] * 3 + [CELLS]
    assert len({trial.place for trial in trials[:9]}) == 9
    first = wide.pool.curves["score"][[trial.place for trial in trials[:9]], 0]
    best = {trials[number].place for number in np.argsort(-first)[:3]}
    assert {trial.place for trial in trials[9:12]} == best
    assert trials[12].place in best


def test_it_costs_less_than_running_all_and_finds_a_good_candidate(wide):
    regrets = []
    for seed in range(4):
        made = DEHB(blank(wide.pool), seed=seed)
        while made.seen.sum() < 12 * CELLS:
            made.tell(observed(wide, made.ask()))
        regrets.append(np.nanmax(wide.pool.score) - made.view.score[made.incumbent()])
    spread = np.nanmax(wide.pool.score) - np.nanmedian(wide.pool.score)
    assert np.mean(regrets) < 0.3 * spread


def test_what_it_did_not_ask_for_counts_as_seen(wide):
    usual, surprised = DEHB(blank(wide.pool), seed=2), DEHB(blank(wide.pool), seed=2)
    trials = list(course(wide, usual, 9))
    surprised.tell(observed(wide, trials[4]))
    asked = [trial.place for trial in course(wide, surprised, 9)]
    assert asked[:4] == [trial.place for trial in trials[:4]]
    assert trials[4].place not in asked
    assert len(set(asked)) == 9


def test_no_file_is_written_no_thread_started_and_nothing_printed(tmp_path, monkeypatch, capfd, wide):
    DEHB(blank(wide.pool))
    capfd.readouterr()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("tempfile.gettempdir", lambda: str(tmp_path))
    before = set(threading.enumerate())
    list(course(wide, DEHB(blank(wide.pool)), 20))
    assert list(tmp_path.iterdir()) == []
    assert set(threading.enumerate()) == before
    assert capfd.readouterr() == ("", "")


def test_without_the_package_the_extra_is_named(monkeypatch):
    def absent(name):
        raise ModuleNotFoundError(name=name)

    monkeypatch.setattr(importlib, "import_module", absent)
    with pytest.raises(UsageError, match=r"foretune\[dehb\]"):
        DEHB(blank(toy_held().pool))
