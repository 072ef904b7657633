"""FLOOR 3: what to run next; ours and the baselines behind one door. No torch."""

from __future__ import annotations

from foretune.recommenders.base import Observation, Recommender, Trial, blank
from foretune.recommenders.bayesian import Bayesian
from foretune.recommenders.default import Default
from foretune.recommenders.dehb import DEHB
from foretune.recommenders.halving import ASHA, Halving
from foretune.recommenders.mean_table import MeanTable
from foretune.recommenders.plan import Planner, plan
from foretune.recommenders.pool import Pool, make_pool
from foretune.recommenders.portfolio import Portfolio
from foretune.recommenders.published import BATCH_SIZE, published
from foretune.recommenders.random_search import RandomSearch
from foretune.recommenders.situation import FAMILIES, Measured, Method, Situation
from foretune.recommenders.tpe import TPE
from foretune.recommenders.transfer import MODES, Transfer

RECOMMENDERS: dict[str, type[Recommender]] = {
    r.name: r for r in (Default, Transfer, Portfolio, MeanTable, RandomSearch, Halving, ASHA, Bayesian, TPE, DEHB)
}

__all__ = [
    "ASHA",
    "BATCH_SIZE",
    "DEHB",
    "FAMILIES",
    "MODES",
    "RECOMMENDERS",
    "TPE",
    "Bayesian",
    "Default",
    "Halving",
    "MeanTable",
    "Measured",
    "Method",
    "Observation",
    "Planner",
    "Pool",
    "Portfolio",
    "RandomSearch",
    "Recommender",
    "Situation",
    "Transfer",
    "Trial",
    "blank",
    "make_pool",
    "plan",
    "published",
]
