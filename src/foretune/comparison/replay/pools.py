"""Pools: which recorded runs a recommender may choose among, what it may have learned from, and how it is judged.

One pool for each held-out task. The past is the training side of a fold of ``store.metadataset.folds``, without test
scores, so that nothing can be chosen on them. Of a configuration that was run with several seeds the first run stands
in the pool; the others measure the noise floor.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from foretune.comparison.replay.costs import Costs, costs
from foretune.errors import DataError, UsageError
from foretune.evaluation.regret import PERCENTILE, filled, normalised_regret
from foretune.recommenders.recorded import Published, marked, place_of
from foretune.records import MetaTask
from foretune.registry import did_you_mean
from foretune.store.metadataset import Fold, MetaDataset, folds

PROTOCOLS = {
    "leave-one-task-out": "task",
    "leave-one-family-out": "family",
    "leave-one-task-and-family-out": "task-and-family",
}
LEARN_FROM = ("dev", "test")


@dataclass(frozen=True)
class Held:
    """A held-out task with all that a race on it needs.

    Attributes:
        task: that is held out.
        fold: the name of what was left out.
        pool: ``n`` recorded runs on it, one per configuration.
        past: what a recommender may learn from.
        left_out: names of tasks that are neither: copies of this one.
        default: the place of the published default in the pool; None where it has none.
        on_test: whether regret is on test; on dev where the collection has no test scores.
        scores: ``(n,)`` what each run is worth, more being better, without a gap.
        regrets: ``(n,)`` normalised, of the same.
        preference: ``(n,)`` dev scores of full runs, more being better, NaN where the run failed.
        failed: ``(n,)`` whether it did.
        costs: of each run.
    """

    task: MetaTask
    fold: str
    pool: MetaDataset
    past: MetaDataset
    left_out: tuple[str, ...]
    default: int | None
    on_test: bool
    scores: np.ndarray
    regrets: np.ndarray
    preference: np.ndarray
    failed: np.ndarray
    costs: Costs

    @property
    def raw(self) -> np.ndarray:
        """``(n,)`` simple regret in the unit of the metric."""
        return np.asarray(self.scores.max() - self.scores)


def held_out(
    dataset: MetaDataset,
    protocol: str,
    *,
    unseen: bool = False,
    split: int = 0,
    default: Published | None = None,
    learn_from: str = "dev",
) -> tuple[list[Held], tuple[str, ...]]:
    """The held-out tasks of a protocol, and what was left out of it and why, in sentences.

    Args:
        protocol: one of ``PROTOCOLS``.
        unseen: whether configurations are parted too: one half is known of other tasks, the other half is the pool.
        split: the seed that parts them, by ``numpy.random.default_rng(split).permutation``.
        default: tells the published default among the candidates.
        learn_from: which score of the past stands as its score, ``dev`` or ``test``.

    Raises:
        UsageError: no such protocol, or no such score.
        DataError: no task can be held out.
    """
    if protocol not in PROTOCOLS:
        raise UsageError(
            f"`{protocol}` is not a protocol.{did_you_mean(protocol, PROTOCOLS)} Known: {', '.join(PROTOCOLS)}."
        )
    if learn_from not in LEARN_FROM:
        raise UsageError(f"one learns from the scores of {' or '.join(LEARN_FROM)}, but not from `{learn_from}`.")
    parts = _parts(dataset, split) if unseen else None
    found: list[Held] = []
    said: list[str] = []
    pasts: dict[bytes, MetaDataset] = {}
    for fold in folds(dataset, PROTOCOLS[protocol]):
        for number in np.unique(dataset.task[fold.test]):
            task = dataset.tasks[number]
            runs = np.flatnonzero(fold.test & (dataset.task == number))
            if not dataset.succeeded[runs].any():
                said.append(
                    f"`{task.name}` was not raced on: all of its {len(runs):,} runs failed or have no dev score."
                )
                continue
            held = _held(dataset, fold, int(number), runs, parts, default, learn_from, pasts)
            if held is None:
                said.append(f"`{task.name}` was not raced on: parting the configurations leaves it no pool or no past.")
            else:
                found.append(held)
    if not found:
        raise DataError(f"No task can be held out. {' '.join(said)}")
    return found, tuple(said)


def _held(
    dataset: MetaDataset,
    fold: Fold,
    number: int,
    runs: np.ndarray,
    parts: tuple[np.ndarray, np.ndarray] | None,
    default: Published | None,
    learn_from: str,
    pasts: dict[bytes, MetaDataset],
) -> Held | None:
    """``pasts`` are those that were made before: tasks with the same past have the very same."""
    train = fold.train
    if parts is not None:
        known, rank = parts
        train = train & known
        runs = runs[~known[runs]]
        runs = runs[np.argsort(rank[runs], kind="stable")]
    _, first = np.unique(dataset.config_ids[runs].astype(str), return_index=True)
    runs = runs[np.sort(first)]
    if not len(runs) or not train.any():
        return None
    pool, side = dataset.take(runs), train.tobytes()
    place = place_of(pool, default)
    if side not in pasts:
        pasts[side] = marked(_hidden(dataset.take(train), learn_from), default)
    on_test = bool(np.isfinite(pool.test[pool.succeeded]).any())
    if not pool.succeeded.any():
        return None
    judged = np.where(pool.succeeded, pool.test if on_test else pool.score, np.nan)
    scores = filled(judged, pool.tasks[0].sign, untrained(pool))
    neither = np.setdiff1d(np.unique(dataset.task[~fold.train & ~fold.test]), [number])
    return Held(
        task=pool.tasks[0],
        fold=fold.name,
        pool=pool,
        past=pasts[side],
        left_out=tuple(dataset.tasks[place].name for place in neither),
        default=place,
        on_test=on_test,
        scores=scores,
        regrets=normalised_regret(scores),
        preference=np.where(pool.succeeded, pool.sign * pool.score, np.nan),
        failed=pool.failed,
        costs=costs(pool),
    )


def _parts(dataset: MetaDataset, split: int) -> tuple[np.ndarray, np.ndarray]:
    """``(n,)`` whether a run's configuration is of the known half, and its place in the permutation."""
    ids = list(dict.fromkeys(dataset.config_ids))
    drawn = np.random.default_rng(split).permutation(len(ids))
    place = dict(zip((ids[number] for number in drawn), range(len(ids)), strict=True))
    rank = np.array([place[name] for name in dataset.config_ids])
    return rank < len(ids) // 2, rank


def _hidden(past: MetaDataset, learn_from: str) -> MetaDataset:
    """The past without its test scores, or with them in the place of the dev scores where that is asked for."""
    hidden = np.full(len(past), np.nan)
    return replace(past, score=past.test if learn_from == "test" else past.score, test=hidden)


def untrained(pool: MetaDataset) -> float | None:
    """The mean score before the first step, where it was measured."""
    start = pool.start["score"]
    return float(start[np.isfinite(start)].mean()) if np.isfinite(start).any() else None


def noise_floor(dataset: MetaDataset) -> tuple[float, int] | None:
    """What a seed alone does: the pooled standard deviation of normalised regret over repeated configurations.

    Returns:
        The deviation, and the number of configurations that were repeated; None where none was.
    """
    squares, free, repeated = 0.0, 0, 0
    for values in _repeats(dataset):
        squares += float(((values - values.mean()) ** 2).sum())
        free += len(values) - 1
        repeated += 1
    return (float(np.sqrt(squares / free)), repeated) if free else None


def _repeats(dataset: MetaDataset) -> Iterator[np.ndarray]:
    """Scores of each configuration that succeeded more than once on a task, in units of normalised regret."""
    for number, task in enumerate(dataset.tasks):
        runs = np.flatnonzero((dataset.task == number) & dataset.succeeded)
        if not len(runs):
            continue
        judged = dataset.test[runs] if np.isfinite(dataset.test[runs]).any() else dataset.score[runs]
        scores = filled(judged, task.sign, untrained(dataset.take(runs)))
        span = scores.max() - np.percentile(scores, PERCENTILE)
        if not span > 0:
            continue
        ids = dataset.config_ids[runs]
        for name in dict.fromkeys(ids):
            if (ids == name).sum() > 1:
                yield scores[ids == name] / span
