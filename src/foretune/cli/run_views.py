"""What ``foretune runs`` says of records: pure functions from records to rows and sentences.

No sentence here says "better": two runs are one seed each, and their intervals are over examples alone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

from foretune.records import Evaluation, RunRecord
from foretune.report import units

SHORT = 8
ABSENT = "absent"


def task_name(record: RunRecord) -> str:
    """How a reader calls the task: the card's name, otherwise the source without its folders."""
    return record.card.name if record.card else Path(record.config.task.source).name


def shown_split(record: RunRecord) -> str | None:
    """``test`` where it was judged, otherwise ``dev``."""
    return next((split for split in ("test", "dev") if split in record.evaluations), None)


def scored(metric: str, evaluation: Evaluation | None) -> str:
    """Score, interval and count; a dash where there is none."""
    if evaluation is None or metric not in evaluation.scores:
        return units.NONE
    return units.scored(metric, evaluation.scores[metric], evaluation.intervals.get(metric), evaluation.n)


def best_floor(record: RunRecord, split: str) -> str | None:
    """The name of the floor with the highest score on ``split``."""
    known = {
        name: splits[split].scores[record.metric]
        for name, splits in record.floors.items()
        if split in splits and record.metric in splits[split].scores
    }
    return max(known, key=lambda name: known[name], default=None)


LIST_COLUMNS = ("run", "started", "task", "model", "tuner", "status", "score", "strongest floor", "seed", "time")


def list_row(record: RunRecord) -> tuple[str, ...]:
    """One line of ``runs list``."""
    split = shown_split(record)
    floor = best_floor(record, split) if split else None
    judged = record.floors[floor][split].scores[record.metric] if floor and split else None
    return (
        record.digest[:SHORT],
        record.started[:19].replace("T", " "),
        task_name(record),
        record.config.model.name,
        record.config.tuner.name,
        record.status,
        f"{split} {units.metric(record.metric).title} {scored(record.metric, record.evaluations[split])}"
        if split
        else "",
        f"{units.score(record.metric, judged)} {units.floor_title(floor)}" if floor else "",
        str(record.config.seeds.init),
        _measured(units.seconds, record.cost.seconds),
    )


def summary(record: RunRecord) -> dict[str, Any]:
    """One entry of ``runs list --json``."""
    plain = record.to_json()
    return {
        "digest": record.digest,
        "task": task_name(record),
        "model": record.config.model.name,
        "tuner": record.config.tuner.name,
        "seconds": record.cost.seconds,
        **{key: plain[key] for key in ("status", "metric", "evaluations", "floors", "started", "finished")},
        "seeds": plain["config"]["seeds"],
    }


def flat(plain: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested mappings as dotted keys, in their order.

    >>> flat({"tuner": {"name": "lora", "options": {"rank": 8}}})
    {'tuner.name': 'lora', 'tuner.options.rank': 8}
    """
    out: dict[str, Any] = {}
    for key, value in plain.items():
        out.update(flat(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {f"{prefix}{key}": value})
    return out


def differences(records: Sequence[RunRecord]) -> dict[str, list[Any]]:
    """Dotted key of the configuration -> its value in each record, for those that are not all equal."""
    configs = [flat(record.config.to_json()) for record in records]
    keys = dict.fromkeys(key for config in configs for key in config)
    values = {key: [config.get(key, ABSENT) for config in configs] for key in keys}
    return {key: row for key, row in values.items() if any(value != row[0] for value in row)}


def score_rows(records: Sequence[RunRecord]) -> list[tuple[str, ...]]:
    """(split and metric, one cell per record), every metric that any record has."""
    splits = dict.fromkeys(split for record in records for split in record.evaluations)
    rows = []
    for split in splits:
        judged = [record.evaluations.get(split) for record in records]
        for metric in dict.fromkeys(metric for e in judged if e for metric in e.scores):
            name = f"{units.split_title(split)}, {units.metric(metric).title}"
            rows.append((name, *(scored(metric, e) for e in judged)))
    return rows


def cost_rows(records: Sequence[RunRecord]) -> list[tuple[str, ...]]:
    """What each run took."""
    costs = [record.cost for record in records]
    return [
        ("training time", *(_measured(units.seconds, cost.train_seconds) for cost in costs)),
        ("time in all", *(_measured(units.seconds, cost.seconds) for cost in costs)),
        ("peak memory", *(_measured(units.size, cost.peak_bytes) for cost in costs)),
        ("trainable weights", *(_measured(units.count, cost.trainable_parameters) for cost in costs)),
        ("tokens read per answer", *(_measured("{:.1f}".format, cost.prompt_tokens or 0.0) for cost in costs)),
    ]


def _measured(write: Callable[[float], str], value: float) -> str:
    """A run that failed early measured nothing: a dash, not a zero."""
    return write(value) if value else units.NONE


def statements(records: Sequence[RunRecord]) -> list[str]:
    """What may be said of each pair of runs, from their test scores and intervals alone."""
    return [statement(a, b) for a, b in combinations(records, 2)]


def statement(a: RunRecord, b: RunRecord) -> str:
    """One sentence on two runs.

    Intervals that do not touch still leave the chance between seeds open, so that is all the sentence says.
    """
    pair = f"{a.digest[:SHORT]} and {b.digest[:SHORT]}"
    if a.digest == b.digest:
        return f"{pair} are the same run."
    untested = [record.digest[:SHORT] for record in (a, b) if "test" not in record.evaluations]
    if untested:
        return f"{pair}: no test score of {' and '.join(untested)}, so nothing is said of the two."
    if not same_test(a, b):
        return f"{pair} were not tested on the same rows, so their scores answer different questions."
    if a.metric != b.metric:
        return f"{pair} were selected by different metrics ({a.metric}, {b.metric}), so nothing is said of the two."
    name = f"test {units.metric(a.metric).title}"
    bounds = [record.evaluations["test"].intervals.get(a.metric) for record in (a, b)]
    if bounds[0] is None or bounds[1] is None:
        return f"{pair}: no interval of {name} in one of them, so nothing is said of the two."
    (low_a, high_a), (low_b, high_b) = bounds[0], bounds[1]
    if low_a > high_b or low_b > high_a:
        return (
            f"{pair}: the 95 % intervals of {name} do not overlap; one seed each, so how much of the distance is "
            "chance between seeds is not known."
        )
    return f"{pair} cannot be told apart on {name}: their 95 % intervals overlap; one seed each."


def same_test(a: RunRecord, b: RunRecord) -> bool:
    """Whether both were judged on the same test rows, as far as the configurations say."""
    left, right = a.config.task, b.config.task
    if (left.fingerprint or left.source) != (right.fingerprint or right.source):
        return False
    return bool(left.test) or (a.config.seeds.data == b.config.seeds.data and left.test_fraction == right.test_fraction)
