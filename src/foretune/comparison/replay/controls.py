"""Controls: the same race on a past from which one kind of knowledge was taken. What wins all the same won by luck.

``shuffled-targets`` hands every outcome of a past task to another of its configurations; ``shuffled-features`` hands
every task the description of another one, the held-out task too. A recommender that gets no worse was not using
what was shuffled. The third control, removal of duplicates, is an option of the dataset: one task per group.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from foretune.store.metadataset import MetaDataset

Control = Callable[[MetaDataset, MetaDataset, np.random.Generator], tuple[MetaDataset, MetaDataset]]
"""(pool, past, generator) -> the same, shuffled."""


def shuffled_targets(
    pool: MetaDataset, past: MetaDataset, generator: np.random.Generator
) -> tuple[MetaDataset, MetaDataset]:
    """Within each past task, outcomes of one run go to the configuration of another."""
    given = np.arange(len(past))
    for number in range(len(past.tasks)):
        runs = np.flatnonzero(past.task == number)
        given[runs] = generator.permutation(runs)
    return pool, replace(
        past,
        status=past.status[given],
        curves={role: values[given] for role, values in past.curves.items()},
        start={role: values[given] for role, values in past.start.items()},
        seconds=past.seconds[given],
        whole=past.whole[given],
        reached=past.reached[given],
        score=past.score[given],
        test=past.test[given],
        cost={name: values[given] for name, values in past.cost.items()},
    )


def shuffled_features(
    pool: MetaDataset, past: MetaDataset, generator: np.random.Generator
) -> tuple[MetaDataset, MetaDataset]:
    """Every task gets features and sizes of the next one in a random circle, so that none keeps its own."""
    tasks = (*past.tasks, *pool.tasks)
    circle = generator.permutation(len(tasks))
    described = list(tasks)
    for place, other in zip(circle, np.roll(circle, 1), strict=True):
        source = tasks[other]
        described[place] = replace(
            tasks[place], features=source.features, features_version=source.features_version, rows=source.rows
        )
    return replace(pool, tasks=tuple(described[len(past.tasks) :])), replace(
        past, tasks=tuple(described[: len(past.tasks)])
    )


CONTROLS: dict[str, Control] = {"shuffled-targets": shuffled_targets, "shuffled-features": shuffled_features}


def one_per_group(dataset: MetaDataset) -> tuple[MetaDataset, tuple[str, ...]]:
    """The dataset with the first task of each group alone, and the names of those that were removed."""
    first: dict[str, int] = {}
    for number, task in enumerate(dataset.tasks):
        first.setdefault(task.group_key, number)
    kept = sorted(first.values())
    removed = tuple(task.name for number, task in enumerate(dataset.tasks) if number not in set(kept))
    return (dataset.take(np.isin(dataset.task, kept)), removed) if removed else (dataset, ())
