"""Every surrogate of the registry keeps the contract."""

from foretune.surrogates import SURROGATES, LastValue, MeanTable, QuantileBoosting, Transfer, ZeroShot
from foretune.testing.surrogate_contract import SurrogateContract


class TestZeroShot(SurrogateContract):
    reads_curves = False

    def make(self):
        return ZeroShot(forests=2, trees=40)


class TestQuantileBoosting(SurrogateContract):
    def make(self):
        return QuantileBoosting(iterations=40)


class TestTransfer(SurrogateContract):
    def make(self):
        return Transfer(forests=2, trees=40, iterations=40)


class TestLastValue(SurrogateContract):
    reads_settings = False

    def make(self):
        return LastValue()


class TestMeanTable(SurrogateContract):
    reads_curves = False

    def make(self):
        return MeanTable()


def test_the_registry_calls_each_by_its_name():
    assert {"transfer", "extra-trees", "quantile-boosting", "constant", "last-value", "mean-table"} <= set(SURROGATES)
    assert all(name == surrogate.name for name, surrogate in SURROGATES.items())
