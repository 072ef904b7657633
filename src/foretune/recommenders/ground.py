"""Ground: whether earlier runs can speak about a task at all, and which of them are nearest to it.

A model of earlier tasks answers for any task; whether the answer means anything is another question, and it is asked
first. ``FEWEST_TASKS`` groups of tasks must have a run with a score, copies counting as one. And the task must not lie
outside what they cover: a range is widened by ``MARGIN`` of itself at either end, for with two dozen features and two
dozen tasks some feature of every new task lies a little beyond. A size beyond its widened range (rows, classes, length,
parameters) or a model family that was never run is outside; of the other features, more than ``SHARE`` must be.

A model beyond the earlier ones is a case of its own. What did well on other tasks is still worth a try on a new one;
what did well on models a tenth of the size is not, for rates that suit those are too high here.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from foretune.records import MetaTask, Value
from foretune.store.metadataset import MetaDataset
from foretune.surrogates import Encoder

FEWEST_TASKS = 3
MARGIN, SHARE, ALIKE = 0.5, 0.25, 2.0
PARAMETERS = "model_parameters"
SIZES = {
    "rows_train": "training rows",
    "classes": "classes",
    "words_mean": "words of a text",
    PARAMETERS: "parameters",
}
"""Features that are outside by themselves, and what they are called."""


WHAT = ("tuner", "objective", "pretrained_further")
"""Settings that decide what a run is: of one that was never run nothing is foretold."""


@dataclass(frozen=True)
class Ground:
    """Why earlier runs cannot speak, in a sentence; empty where nothing is against it.

    Attributes:
        too_few: there is next to nothing.
        foreign: the model lies outside, whatever the task.
        outside: the task does.
    """

    too_few: str = ""
    foreign: str = ""
    outside: str = ""


def ground(past: MetaDataset | None, pool: MetaDataset) -> Ground:
    """What is against learning from ``past`` about the candidates of ``pool`` on their task."""
    if past is None or not len(past):
        return Ground(too_few="No score is foretold: no earlier run was consulted.")
    groups = len(set(past.groups[past.succeeded]))
    if groups < FEWEST_TASKS:
        number = f"{groups} task{'s' if groups != 1 else ''}" if groups else "no task"
        return Ground(
            too_few=f"No score is foretold: earlier runs on {number} have a score, and it takes {FEWEST_TASKS} to "
            "learn what carries over from one to another."
        )
    encoder, task = Encoder.fit(past.take(past.succeeded)), pool.tasks[0]
    never = [name for name in unseen_by_all(encoder, pool) if name.partition("=")[0] in WHAT]
    families = {each.family for each in past.tasks}
    large = oversized(past.tasks, task)
    sizes = [SIZES[name] for name in large if name != PARAMETERS]
    far = beyond(encoder, task)
    if task.family not in families:
        named = f"no earlier run is of a `{task.family or 'nameless'}` model ({', '.join(sorted(families))})"
        return Ground(foreign=f"Earlier runs say nothing of this model: {named}.")
    if PARAMETERS in large:
        known = sorted({each.model.parameters for each in past.tasks if each.model and each.model.parameters})
        span = " to ".join(f"{count:,}" for count in dict.fromkeys((known[0], known[-1])))
        count = task.model.parameters if task.model else 0
        return Ground(
            foreign=f"Earlier runs say nothing of this model: it has {count:,} parameters, theirs have {span}."
        )
    if never:
        said = f"none was made with {' and '.join(never)}"
    elif sizes:
        said = " and ".join(sizes) + " are beyond theirs"
    elif len(far) > SHARE * len(encoder.features):
        said = f"{len(far)} of {len(encoder.features)} features are ({', '.join(far[:3])}, ...)"
    else:
        return Ground()
    return Ground(outside=f"`{task.name}` lies outside what {groups} earlier tasks cover: {said}.")


def unseen_by_all(encoder: Encoder, pool: MetaDataset) -> tuple[str, ...]:
    """Settings, as ``name=value``, that every candidate has and nothing was learned of."""
    first, *rest = (encoder.unseen(config) for config in pool.configs)
    return tuple(name for name in first if all(name in other for other in rest))


def strange(encoder: Encoder, pool: MetaDataset) -> np.ndarray:
    """``(n,)`` whether a candidate alone has a word among its settings of which nothing was learned."""
    shared, numbers = set(unseen_by_all(encoder, pool)), {number.name for number in encoder.numbers}
    return np.array(
        [
            any(name not in shared and name.partition("=")[0] not in numbers for name in encoder.unseen(config))
            for config in pool.configs
        ]
    )


@dataclass(frozen=True)
class Span:
    """The values of a numeric setting in earlier runs, and ``(n,)`` the candidates beyond them."""

    name: str
    low: float
    high: float
    beyond: np.ndarray


def overstretched(past: MetaDataset, pool: MetaDataset) -> tuple[Span, ...]:
    """The numeric settings in which some candidates lie beyond every whole run of a model of this family.

    Trees answer for 2,000 steps what they learned of the longest run: as much as a guess, at five times the price. A
    setting in which all candidates lie beyond was chosen by the user, and is none.
    """
    runs = np.flatnonzero(past.whole & (past.families == pool.tasks[0].family))
    found = []
    for name in dict.fromkeys(name for config in pool.configs for name in config):
        known = _numbers(name, [past.configs[place] for place in runs])
        if np.isnan(known).all():
            continue
        low, high, values = float(np.nanmin(known)), float(np.nanmax(known)), _numbers(name, pool.configs)
        beyond = (values < low) | (values > high)
        if beyond.any() and not beyond.all():
            found.append(Span(name, low, high, beyond))
    return tuple(found)


def _numbers(name: str, configs: Sequence[Mapping[str, Value]]) -> np.ndarray:
    """``(n,)`` the values of a setting, NaN where it is absent or no number."""
    values = [config.get(name) for config in configs]
    return np.array([float(v) if isinstance(v, int | float) and not isinstance(v, bool) else np.nan for v in values])


def oversized(tasks: Sequence[MetaTask], task: MetaTask) -> list[str]:
    """The ``SIZES`` of ``task`` beyond those of ``tasks``, by logarithm; where all are alike, by a factor of ``ALIKE``.

    What is not known, here or of every earlier task, is not beyond anything.
    """
    here, there = sizes_of(task), [sizes_of(each) for each in tasks]
    out = []
    for name, value in here.items():
        known = [each[name] for each in there if name in each]
        if known:
            room = max(MARGIN * (max(known) - min(known)), math.log10(ALIKE))
            if not min(known) - room <= value <= max(known) + room:
                out.append(name)
    return out


def sizes_of(task: MetaTask) -> dict[str, float]:
    """Logarithms of the ``SIZES`` that are known."""
    found = {
        "rows_train": task.rows.get("train"),
        "classes": task.features.get("classes"),
        "words_mean": task.features.get("words_mean"),
        PARAMETERS: task.model.parameters if task.model else None,
    }
    return {name: math.log10(value) for name, value in found.items() if value}


def beyond(encoder: Encoder, task: MetaTask) -> list[str]:
    """The features of ``task`` beyond the range of the tasks in fitting, widened by ``MARGIN``."""
    out = []
    for name, value in known(encoder, task).items():
        low, high = encoder.features[name]
        room = MARGIN * (high - low)
        if not low - room <= value <= high + room:
            out.append(name)
    return out


def known(encoder: Encoder, task: MetaTask) -> Mapping[str, float]:
    """The features of ``task`` that the encoder learned of and that are known, on the scale of its columns."""
    row = dict(zip(encoder.names, encoder.matrix([{}], [task])[0].tolist(), strict=True))
    found = {name: row[f"task.{name}"] for name in encoder.features}
    return {name: value for name, value in found.items() if np.isfinite(value)}


def nearest(past: MetaDataset, task: MetaTask, most: int = 3) -> list[tuple[int, float]]:
    """The places in ``past.tasks`` of the tasks most like ``task``, one of each group, nearest first.

    Returns:
        (place, distance): the root mean square difference of the features known of both, each in units of its range.
    """
    if not past.succeeded.any():
        return []
    encoder = Encoder.fit(past.take(past.succeeded))
    here = known(encoder, task)
    away: dict[str, tuple[float, int]] = {}
    for place, other in enumerate(past.tasks):
        if not past.succeeded[past.task == place].any():
            continue
        there = known(encoder, other)
        both = [name for name in here if name in there and encoder.features[name][1] > encoder.features[name][0]]
        if not both:
            continue
        apart = [(here[n] - there[n]) / (encoder.features[n][1] - encoder.features[n][0]) for n in both]
        found = (float(np.sqrt(np.mean(np.square(apart)))), place)
        away[other.group_key] = min(found, away.get(other.group_key, found))
    return [(place, distance) for distance, place in sorted(away.values())[:most]]
