"""Recorded: which of the runs of a task is that of the published default, without which none is held against it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

import numpy as np

from foretune.errors import UsageError
from foretune.records import MetaTask, Value
from foretune.registry import did_you_mean
from foretune.store.metadataset import MetaDataset
from foretune.surrogates.encode import Encoder

Published = Mapping[str, Value] | Callable[[MetaTask], Mapping[str, Value] | None]
"""Which candidate is the published default: settings, to which the nearest counts; or those of each task, which a
candidate must have (None: not known there)."""

DECADE = {"log10": 1.0, "log10(1-x)": 1.0, "log2": float(np.log10(2))}


def marked(past: MetaDataset, default: Published | None) -> MetaDataset:
    """``past`` with the runs of each task's published default marked, repetitions with other seeds too.

    Raises:
        UsageError: a setting that no run of a task has.
    """
    found = np.zeros(len(past), bool)
    for number in range(len(past.tasks) if default is not None else 0):
        runs = np.flatnonzero(past.task == number)
        place = place_of(past.take(runs), default)
        if place is not None:
            found[runs] = past.config_ids[runs] == past.config_ids[runs[place]]
    return replace(past, default=found)


def place_of(pool: MetaDataset, default: Published | None) -> int | None:
    """Where the published default stands among runs of one task; None where it is not there.

    Raises:
        UsageError: a setting that no candidate has.
    """
    if isinstance(default, Mapping):
        return nearest(pool, default)
    settings = None if default is None else default(pool.tasks[0])
    if settings is None:
        return None
    same = (place for place, config in enumerate(pool.configs) if settings.items() <= config.items())
    return next(same, None)


def nearest(pool: MetaDataset, settings: Mapping[str, Value]) -> int:
    """The candidate nearest to ``settings``: words must agree first; numbers in decades, or shares of their range.

    Raises:
        UsageError: a setting that no candidate has.
    """
    known = {name for config in pool.configs for name in config}
    missing = [name for name in settings if name not in known]
    if missing:
        name = missing[0]
        raise UsageError(
            f"the default has a setting `{name}`, which no candidate on `{pool.tasks[0].name}` has."
            f"{did_you_mean(name, known)} Known: {', '.join(sorted(known))}."
        )
    scales = {number.name: number for number in Encoder.fit(pool).numbers}
    distance = np.zeros(len(pool))
    for name, wanted in settings.items():
        for place, config in enumerate(pool.configs):
            value = config.get(name)
            if name not in scales or type(value) not in (int, float) or type(wanted) not in (int, float):
                distance[place] += 0.0 if value == wanted else 1e6
                continue
            number = scales[name]
            span = DECADE.get(number.scale, 0.0)
            apart = number.scaled(float(value)) - number.scaled(float(wanted))  # type: ignore[arg-type]
            distance[place] += (apart * span if span else apart / max(number.high - number.low, 1e-12)) ** 2
    return int(distance.argmin())
