"""FLOOR 2: what a run will give before it is run: its score, whether it fails, its seconds and bytes."""

from foretune.surrogates.base import LEVEL, Forecast, Surrogate
from foretune.surrogates.cost import CostModel
from foretune.surrogates.dkl import DeepKernel
from foretune.surrogates.dummies import Constant, LastValue, MeanTable
from foretune.surrogates.encode import Encoder
from foretune.surrogates.failure import FailureModel
from foretune.surrogates.prefix import PREFIX_COLUMNS, prefix_features, prefixes
from foretune.surrogates.quantile_boosting import QuantileBoosting
from foretune.surrogates.transfer import Transfer
from foretune.surrogates.zero_shot import ZeroShot

SURROGATES: dict[str, type[Surrogate]] = {
    surrogate.name: surrogate
    for surrogate in (Transfer, ZeroShot, QuantileBoosting, Constant, LastValue, MeanTable, DeepKernel)
}

__all__ = [
    "LEVEL",
    "PREFIX_COLUMNS",
    "SURROGATES",
    "Constant",
    "CostModel",
    "DeepKernel",
    "Encoder",
    "FailureModel",
    "Forecast",
    "LastValue",
    "MeanTable",
    "QuantileBoosting",
    "Surrogate",
    "Transfer",
    "ZeroShot",
    "prefix_features",
    "prefixes",
]
