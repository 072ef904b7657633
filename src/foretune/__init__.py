"""foretune: know how to tune before you tune.

The public names and nothing else; each is imported when it is first used, so that ``import foretune`` loads no torch.

>>> import foretune
>>> foretune.Seeds.all(3)
Seeds(data=3, init=3, order=3, dropout=3)
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from foretune.comparison import Protocol
    from foretune.errors import ForetuneError
    from foretune.pipeline import Comparison, Result, compare, load, recommend
    from foretune.pipeline.replay import replay
    from foretune.pipeline.tune import tune
    from foretune.records import Plan, RunConfig, RunRecord, Seeds
    from foretune.tasks import Task
    from foretune.tuners import TUNERS, get_peft_model
    from foretune.tuners.dynamic_subset import DynamicSubsetConfig
    from foretune.tuners.prefix.callback import StochasticDevCallback
    from foretune.tuners.prefix.config import PrefixSubspaceConfig
    from foretune.tuners.prefix.model import PrefixModel
    from foretune.tuners.subset.model import dst_optimizer
    from foretune.tuners.subset.peft_model import SubsetModel

__version__ = "0.1.0"

__all__ = [
    "TUNERS",
    "Comparison",
    "DynamicSubsetConfig",
    "ForetuneError",
    "Plan",
    "PrefixModel",
    "PrefixSubspaceConfig",
    "Protocol",
    "Result",
    "RunConfig",
    "RunRecord",
    "Seeds",
    "StochasticDevCallback",
    "SubsetModel",
    "Task",
    "__version__",
    "compare",
    "dst_optimizer",
    "get_peft_model",
    "load",
    "recommend",
    "replay",
    "tune",
]

_HOMES = {
    "Comparison": "foretune.pipeline",
    "DynamicSubsetConfig": "foretune.tuners.dynamic_subset",
    "ForetuneError": "foretune.errors",
    "Plan": "foretune.records",
    "PrefixModel": "foretune.tuners.prefix.model",
    "PrefixSubspaceConfig": "foretune.tuners.prefix.config",
    "Protocol": "foretune.comparison",
    "Result": "foretune.pipeline",
    "RunConfig": "foretune.records",
    "RunRecord": "foretune.records",
    "Seeds": "foretune.records",
    "StochasticDevCallback": "foretune.tuners.prefix.callback",
    "SubsetModel": "foretune.tuners.subset.peft_model",
    "TUNERS": "foretune.tuners",
    "Task": "foretune.tasks",
    "compare": "foretune.pipeline",
    "dst_optimizer": "foretune.tuners.subset.model",
    "get_peft_model": "foretune.tuners",
    "load": "foretune.pipeline",
    "recommend": "foretune.pipeline",
    "replay": "foretune.pipeline",
    "tune": "foretune.pipeline",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'foretune' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return list(__all__)
