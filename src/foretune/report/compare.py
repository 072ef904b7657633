"""The run beside its floors: differences with intervals, paired over examples where the floors' predictions exist.

Paired is worth the trouble: run and floor fail on the same hard examples, and what they share cancels out. For shares
of right answers the interval is Newcombe's (``evaluation/paired.py``).
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from foretune.evaluation.named import METRICS
from foretune.evaluation.paired import newcombe
from foretune.records import Evaluation, RunRecord
from foretune.report.predictions import COLUMNS, Rows, rows
from foretune.report.sentences import Difference

if TYPE_CHECKING:
    import pyarrow as pa


def greater_is_better(metric: str) -> bool:
    """The metric's direction; of one that ``evaluation`` does not know, that more is better."""
    return METRICS[metric].greater_is_better if metric in METRICS else True


def differences(record: RunRecord, split: str, judged: Rows | None, floors: pa.Table | None) -> tuple[Difference, ...]:
    """Result minus floor in the task's metric, one for each floor that was judged on ``split``."""
    own = record.evaluations[split]
    found = []
    for name, splits in record.floors.items():
        if split not in splits:
            continue
        beside = _floor_rows(floors, name, split) if record.metric == "accuracy" else None
        if judged and beside and (judged.row, judged.label) == (beside.row, beside.label):
            found.append(_paired(record.metric, name, judged.correct, beside.correct))
        else:
            found.append(_unpaired(record.metric, name, own, splits[split]))
    return tuple(found)


def _floor_rows(floors: pa.Table | None, name: str, split: str) -> Rows | None:
    if floors is None:
        return None
    import pyarrow.compute as pc

    return rows(floors.filter(pc.equal(floors["floor"], name)).select(COLUMNS), split)


def _paired(metric: str, name: str, own: NDArray[np.bool_], floor: NDArray[np.bool_]) -> Difference:
    value = float(own.mean() - floor.mean())
    return Difference(name, metric, value, *newcombe(own, floor), paired=True)


def _unpaired(metric: str, name: str, own: Evaluation, floor: Evaluation) -> Difference:
    """From two intervals alone: it excludes zero just when they do not overlap, which is stricter than 95 % asks."""
    nowhere = (math.nan, math.nan)
    low, high = own.intervals.get(metric, nowhere)
    floor_low, floor_high = floor.intervals.get(metric, nowhere)
    value = own.scores.get(metric, math.nan) - floor.scores.get(metric, math.nan)
    ends = (low - floor_high, high - floor_low)
    return Difference(name, metric, value, *ends, paired=False, greater=greater_is_better(metric))
