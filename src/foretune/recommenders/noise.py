"""Noise: what a score would have been with another seed, or with other dev rows of the same number.

Two scores that differ by less than a repetition does are tied. And a dev set of a dozen rows moves a score by more than
most pipelines do: where the dev set at hand is smaller than those of the earlier tasks, an interval that was checked on
these is too narrow here.

What is foretold is an anchor and a gain, and the sum may lie beyond the ends of the metric. No reader is told such a
score (``possible``); among themselves candidates are compared by the sums, for at the end of the scale all are alike.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from foretune.evaluation import METRICS
from foretune.recommenders.forecasts import TAIL, Forecasts
from foretune.recommenders.resolution import PROPORTIONS, chance_variance
from foretune.records import MetaTask
from foretune.store.metadataset import MetaDataset

FEWEST_REPEATS = 5
"""Runs of a configuration on a task beyond the first, over all of them, from which a noise floor is told."""


def noise_floor(past: MetaDataset, task: MetaTask) -> tuple[float | None, str]:
    """The difference below which two scores of ``task`` cannot be told apart, and what it is.

    The standard deviation of a score over repetitions of a pipeline with other seeds, pooled over the past runs that
    have the metric; where there are too few, of a proportion near the middle on as many rows as dev has.
    """
    squares, spare = 0.0, 0
    same = np.array([other.metric == task.metric for other in past.tasks])[past.task] & past.succeeded
    found: dict[tuple[int, str], list[float]] = {}
    for place in np.flatnonzero(same):
        found.setdefault((int(past.task[place]), str(past.config_ids[place])), []).append(float(past.score[place]))
    for scores in found.values():
        squares += float(np.var(scores)) * len(scores)
        spare += len(scores) - 1
    if spare >= FEWEST_REPEATS:
        return (squares / spare) ** 0.5, "the spread of a run over seeds"
    rows = task.rows.get("dev", 0)
    if task.metric in PROPORTIONS and rows:
        return 0.5 / rows**0.5, f"which {rows} dev rows cannot resolve"
    return None, ""


def widened(told: Forecasts, past: MetaDataset, task: MetaTask) -> Forecasts:
    """``told`` with intervals that allow for a dev set smaller than those of ``past``: the variance of a proportion on
    so many rows, less what the earlier dev sets had of it, is added to that of the interval. Of an accuracy alone.

    Returns:
        ``told`` itself where there is nothing to allow for.
    """
    rows = [other.rows["dev"] for other in past.tasks if other.metric == task.metric and other.rows.get("dev")]
    here = task.rows.get("dev", 0)
    if task.metric != "accuracy" or not rows or not here:
        return told
    more = 1 / here - float(np.mean(1 / np.array(rows)))
    if more <= 0:
        return told
    spread = TAIL**2 * chance_variance(told.mean, 1 / more)
    low, high = (np.sqrt((end - told.mean) ** 2 + spread) for end in (told.low, told.high))
    return replace(told, low=told.mean - low, high=told.mean + high)


def possible(told: Forecasts, metric: str) -> Forecasts:
    """``told`` with scores and intervals within the range of ``metric``, so that ``low <= mean <= high`` still holds.

    The order is left alone, and so is everything of a metric that foretune does not have.
    """
    if metric not in METRICS:
        return told
    ends = METRICS[metric].low, METRICS[metric].high
    return replace(told, mean=np.clip(told.mean, *ends), low=np.clip(told.low, *ends), high=np.clip(told.high, *ends))
