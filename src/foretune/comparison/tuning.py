"""Tuning: which of the rates that were tried a method is judged with. Dev scores alone are read here, never test's."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence

from foretune.evaluation import METRICS
from foretune.records import RunRecord

Merit = tuple[float, float]
"""The score on dev, more is better, and the negative loss there, which tells ties apart."""

WORST: Merit = (-math.inf, -math.inf)


def merit(record: RunRecord | None) -> Merit:
    """What a run is chosen by; the worst there is, where it did not end well or dev was not measured."""
    if record is None or record.status != "ok" or "dev" not in record.evaluations:
        return WORST
    scores = record.evaluations["dev"].scores
    value, loss = scores.get(record.metric, math.nan), scores.get("nll", math.nan)
    value = value if METRICS[record.metric].greater_is_better else -value
    return (value if math.isfinite(value) else -math.inf, -loss if math.isfinite(loss) else -math.inf)


def chosen(trials: Sequence[RunRecord]) -> RunRecord:
    """The trial with the highest merit; of equal ones the first, that is the lowest rate of a grid in order."""
    return max(trials, key=merit)


def chosen_rate(trials: Mapping[float, Sequence[RunRecord]]) -> float:
    """The rate with the highest mean merit over tuning tasks and seeds; the first of equal ones."""
    means = {
        rate: tuple(statistics.fmean(each) for each in zip(*map(merit, records), strict=True))
        for rate, records in trials.items()
    }
    return max(means, key=lambda rate: means[rate])
