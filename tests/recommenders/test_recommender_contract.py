"""Every recommender without a surrogate passes the contract. Check 10."""

import pytest

from foretune.recommenders import ASHA, RECOMMENDERS, Default, Halving, MeanTable, Portfolio, RandomSearch
from foretune.recommenders.base import Recommender, Trial, blank
from foretune.testing.recommender_contract import RecommenderContract, toy_held


class Simple(RecommenderContract):
    kind: type[Recommender]

    def make(self, pool, past, default, seed):
        return self.kind(pool, past, default=default, seed=seed)


class TestDefault(Simple):
    kind = Default


class TestRandomSearch(Simple):
    kind = RandomSearch


class TestHalving(Simple):
    kind = Halving


class TestASHA(Simple):
    kind = ASHA


class TestPortfolio(Simple):
    kind = Portfolio


class TestMeanTable(Simple):
    kind = MeanTable


class Stubborn(Recommender):
    """Asks for the same for ever."""

    name = "stubborn"
    evidence = ("None.",)

    def ask(self):
        return Trial(0)


class TestTheContractItself:
    def test_it_catches_a_recommender_that_asks_for_what_is_over(self):
        held = toy_held()
        with pytest.raises(AssertionError):
            TestDefault().course(held, Stubborn(blank(held.pool)))


def test_every_name_is_that_of_its_class():
    assert all(kind.name == name for name, kind in RECOMMENDERS.items())
