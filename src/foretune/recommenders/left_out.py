"""LeftOut: what a ranking is worth on tasks that it was not learned from, from the earlier runs alone.

Every group of tasks is left out once, and a forest learned from the others ranks its runs; failures are ranked too. Two
questions are asked of these ranks. Do they agree with what the runs scored (``agreement``)? And would whoever had
followed them, and run the first alone, have done better than with the published default (``raced``)? The second is the
harder one where the default is good: among fifty runs it may be near the best, and a ranking that is right on the
whole still picks a worse one.

The default comes first unless the first choices were worse than it, by more than noise, on at most one task in twenty
and better on more tasks than worse. So nothing is recommended over the default that earlier tasks do not speak for.
Noise is what a repetition moves a score by (``noise.noise_floor``): of two equally good pipelines one is behind by more
than that on a quarter of tasks, so a ranking that only draws level does not pass, and is not meant to.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from foretune.recommenders.known import known_regrets
from foretune.recommenders.noise import noise_floor
from foretune.recommenders.portfolio import greedy
from foretune.recommenders.resolution import resolved
from foretune.store.metadataset import MetaDataset
from foretune.surrogates import conformal
from foretune.surrogates.encode import Encoder
from foretune.surrogates.zero_shot import forest, rank_within

TREES = 40
"""Of the forests that check a ranking; the plan's own have more."""

WORSE = 0.05
"""Share of tasks on which a first choice may be worse than the published default by more than noise."""

RULE = f"The default gives way to what was better on more tasks than worse, and worse on {WORSE:.0%} at most."


@dataclass(frozen=True)
class Against:
    """First choices against the published default, each on a task that was left out.

    Attributes:
        tasks: on which the default was run.
        better, worse: on how many of them the first choice was, by more than noise.
    """

    tasks: int
    better: int
    worse: int

    @property
    def ahead(self) -> bool:
        """Whether the first choice may come before the default; where nothing could be checked, it may."""
        return not self.tasks or (self.worse <= WORSE * self.tasks and self.better > self.worse)

    @property
    def found(self) -> str:
        """What was found, and what follows where the default comes first, in sentences."""
        if not self.tasks:
            return "No earlier task has a run of the published default, so nothing could be held against it."
        settings = "1 setting" if self.tasks == 1 else f"{self.tasks} settings"
        said = (
            f"Left out in turn, in {settings} (task, rows, model) the first choice was better than the published "
            f"default by more than noise in {self.better or 'none'} and worse in {self.worse or 'none'}."
        )
        return said if self.ahead else f"{said} {RULE}"


def ranks_left_out(past: MetaDataset, seed: int = 0) -> np.ndarray:
    """``(n,)`` the expected rank of each run within its task, from runs on other groups; NaN where there are none."""
    guess = np.full(len(past), np.nan)
    for held in _held(past, seed):
        train, test = past.take(~held & past.whole), np.flatnonzero(held & past.whole)
        if not len(test):
            continue
        encoder = Encoder.fit(train)
        guess[test] = 0.0  # where nothing varies in what is learned from, no run is preferred to another
        if encoder.names:
            learned = forest(encoder.of(train), rank_within(train), seed, TREES)
            guess[test] = learned.predict(encoder.of(past.take(test)))
    return guess


def agreement(past: MetaDataset, ranks: np.ndarray) -> tuple[float, int]:
    """How well ``ranks`` ``(n,)`` agree with what the runs scored.

    Returns:
        mean Spearman correlation over tasks whose scores differ by more than chance, and the number of their groups.
        The weight of a task is the share that is more, over the number of tasks of its group.
    """
    from scipy.stats import spearmanr

    judged = past.succeeded & np.isfinite(ranks)
    keys = [task.group_key for task in past.tasks]
    found: list[tuple[str, float, float]] = []
    for place, share in enumerate(resolved(past)):
        mine = judged & (past.task == place)
        truth = past.score[mine] * past.sign[mine]
        if share > 0 and len(set(truth)) > 1:
            constant = len(set(ranks[mine])) == 1
            rho = 0.0 if constant else float(spearmanr(truth, ranks[mine]).statistic)
            found.append((keys[place], rho, share / keys.count(keys[place])))
    if not found:
        return float("nan"), 0
    groups, rhos, weights = zip(*found, strict=True)
    return float(np.average(rhos, weights=weights)), len(set(groups))


def first_ranked(past: MetaDataset, ranks: np.ndarray, tuner: str = "") -> dict[int, str]:
    """Task -> the configuration that is ranked first on it; of equals the published default.

    Args:
        tuner: the only one that may be chosen; empty is any.
    """
    allowed = _of(past, tuner) & np.isfinite(ranks)
    found = {}
    for place in range(len(past.tasks)):
        mine = np.flatnonzero(allowed & (past.task == place))
        if len(mine):
            best = mine[np.lexsort((~past.default[mine], -ranks[mine]))[0]]
            found[place] = str(past.config_ids[best])
    return found


def first_known(past: MetaDataset, tuner: str = "") -> dict[int, str]:
    """Task -> the first configuration of the greedy portfolio of the other groups, of those that were run on it."""
    allowed, groups, found = _of(past, tuner) & past.whole, past.groups, {}
    for place, task in enumerate(past.tasks):
        mine, others = allowed & (past.task == place), past.take(groups != task.group_key)
        if mine.any() and len(others):
            pool = past.take(mine)
            order = greedy(*known_regrets(pool, others))
            if order:
                found[place] = str(pool.config_ids[order[0]])
    return found


def raced(past: MetaDataset, first: dict[int, str], tuner: str = "") -> Against:
    """``first``, a configuration for each of some tasks, against the published default of each, on dev.

    Of several runs of a configuration their mean counts; one that failed is worse than any that did not.
    """
    tasks = better = worse = 0
    allowed = _of(past, tuner) & past.whole
    floors: dict[tuple[str, int], float] = {}
    for place, config in first.items():
        task = past.tasks[place]
        mine = allowed & (past.task == place)
        default = mine & past.default
        if not default.any():
            continue
        key = task.metric, task.rows.get("dev", 0)
        if key not in floors:
            floors[key] = noise_floor(past, task)[0] or 0.0
        gain = _worth(past, mine & (past.config_ids == config)) - _worth(past, default)
        tasks, better, worse = tasks + 1, better + (gain > floors[key]), worse + (gain < -floors[key])
    return Against(tasks, int(better), int(worse))


def _worth(past: MetaDataset, runs: np.ndarray) -> float:
    """The mean score of ``runs``, more being better; of those that all failed a number below any score."""
    scores = (past.score * past.sign)[runs & past.succeeded]
    return float(scores.mean()) if len(scores) else -1e300


def _of(past: MetaDataset, tuner: str) -> np.ndarray:
    """``(n,)`` the runs of ``tuner``; all where none is named."""
    return np.array([not tuner or config.get("tuner") == tuner for config in past.configs], bool)


def _held(past: MetaDataset, seed: int) -> Iterator[np.ndarray]:
    """Folds that leave out whole groups; where there are few groups, each in turn.

    Groups whose scores can be told apart are in different folds as far as there are folds: with two such groups hidden
    at once, nothing would be left from which either could be ranked, whatever the past is worth.
    """
    keys = [task.group_key for task in past.tasks]
    weight: dict[str, float] = dict.fromkeys(keys, 0.0)
    for key, share in zip(keys, resolved(past), strict=True):
        weight[key] += float(share) / keys.count(key)
    made = False
    for held in conformal.left_out(past, seed, weight):
        made = True
        yield held
    if not made:
        groups = past.groups
        for name in sorted(set(groups)) if len(set(groups)) > 1 else ():
            yield groups == name
