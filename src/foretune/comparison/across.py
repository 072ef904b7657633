"""Across tasks, and against cost: one number for each method, always with what it rests on.

Tasks are fixed: the intervals speak of new runs on these tasks. Methods enter with every task or not at all, for a mean
over other tasks is a mean of something else.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set

import numpy as np

from foretune.comparison.accounting import learning_seconds
from foretune.comparison.answers import Floats
from foretune.comparison.contrasts import Key, Side
from foretune.comparison.evidence import Evidence, Seed, grouped, measured
from foretune.comparison.tuning import WORST, merit
from foretune.evaluation import best_of, front_probability, iqm, over_seeds, probability_of_improvement, rank_tasks
from foretune.records import RunRecord
from foretune.records.verdict import Front, FrontPoint, Ranking, Summary, Tuning

COSTS = ("peak_bytes", "seconds", "trainable_parameters", "item_seconds")
"""What a score is set against; the last is where a method without training pays for its long prompt."""


def summaries(
    sides: Mapping[Key, Side], methods: Sequence[str], tasks: Sequence[str], shots: int
) -> tuple[list[Summary], Ranking | None]:
    """One line for each method that has every run on every task; none where the scores have no common scale."""
    metrics = {sides[m, t, shots].evidence.metric for m in methods for t in tasks if (m, t, shots) in sides}
    held = {m: table for m in methods if (table := _table(sides, m, tasks, shots)) is not None}
    if len(tasks) < 2 or len(metrics) != 1 or not held:
        return [], None
    sign = 1.0 if next(iter(sides.values())).evidence.greater else -1.0
    ranking, places = _ranked({m: sign * table for m, table in held.items()}, shots)
    made = []
    for name, table in held.items():
        others = {m: other for m, other in held.items() if m != name}
        made.append(
            Summary(
                name,
                shots,
                tuple(tasks),
                mean=measured(over_seeds(table.mean(axis=1))),
                iqm=measured(iqm(table, seed=0)),
                improvement={
                    m: measured(probability_of_improvement(sign * table, sign * other, seed=0))
                    for m, other in others.items()
                },
                rank=places.get(name),
            )
        )
    return made, ranking


def _table(sides: Mapping[Key, Side], method: str, tasks: Sequence[str], shots: int) -> Floats | None:
    """(seeds, tasks), or None where a run is missing or there are no two seeds."""
    columns = []
    for task in tasks:
        side = sides.get((method, task, shots))
        if side is None or not side.evidence.complete or not side.evidence.seeded:
            return None
        columns.append(grouped(side.evidence.means()))
    lengths = {len(column) for column in columns}
    return np.stack(columns, axis=1) if len(lengths) == 1 and min(lengths) > 1 else None


def _ranked(tables: Mapping[str, Floats], shots: int) -> tuple[Ranking | None, dict[str, float]]:
    if len(tables) < 3:
        return None, {}
    found = rank_tasks(np.stack([table.mean(axis=0) for table in tables.values()]))
    places = dict(zip(tables, found.mean, strict=True))
    return Ranking(shots, found.p, found.critical_difference, found.n_tasks), places


def fronts(sides: Mapping[Key, Side], methods: Sequence[str], task: str, shots: int) -> list[Front]:
    """Score against each cost on one task, with the probability that no other method beats both.

    A method in which seeds have no say is there too: with every draw it has the same score, at the same cost.
    """
    held = [sides[m, task, shots] for m in methods if (m, task, shots) in sides]
    held = [side for side in held if side.evidence.complete and side.evidence.means()]
    drawn = [set(side.evidence.means()) for side in held if side.evidence.seeded]
    if len(held) < 2 or not drawn or any(other != drawn[0] for other in drawn) or _count(drawn[0]) < 2:
        return []
    sign = 1.0 if held[0].evidence.greater else -1.0
    scores = np.stack([sign * grouped(_spread(side.evidence, side.evidence.means(), drawn[0])) for side in held])
    made = []
    for cost in COSTS:
        figures = [_spent(side.evidence, cost) for side in held]
        if any(figure is None for each in figures for figure in each.values()):
            continue
        known = [{seed: figure for seed, figure in each.items() if figure is not None} for each in figures]
        spent = np.stack([grouped(_spread(side.evidence, k, drawn[0])) for side, k in zip(held, known, strict=True)])
        chances = front_probability(scores, spent, seed=0)
        points = tuple(
            FrontPoint(side.cell.method, side.cell.score, float(each.mean()), chance)
            for side, each, chance in zip(held, spent, chances, strict=True)
            if side.cell.score is not None
        )
        first = held[0].evidence
        made.append(Front(task, shots, first.metric, cost, points, first.greater))
    return made


def _spread(evidence: Evidence, values: Mapping[Seed, float], seeds: Set[Seed]) -> dict[Seed, float]:
    """The values of a run in which seeds have no say, for every one of ``seeds``."""
    return dict(values) if evidence.seeded else dict.fromkeys(seeds, next(iter(values.values())))


def _count(seeds: Set[Seed]) -> int:
    """The draws among ``seeds``, or the initial weights of a single draw, as ``grouped`` has them."""
    return len(grouped(dict.fromkeys(seeds, 0.0)))


def _spent(evidence: Evidence, cost: str) -> dict[Seed, float | None]:
    return {run.seed: _figure(run.record, cost) for run in evidence.runs if run.ok and run.record is not None}


def _figure(record: RunRecord, cost: str) -> float | None:
    figure: float | None = learning_seconds(record) if cost == "seconds" else getattr(record.cost, cost)
    return None if figure is None else float(figure)


def tuning(evidence: Evidence) -> Tuning | None:
    """The expected test score of the best of k trials on dev, the mean over runs; None where nothing was tuned here.

    A trial that failed counts as the worst of its run: whoever tunes has to bear it.
    """
    sign = 1.0 if evidence.greater else -1.0
    curves = []
    for run in evidence.runs:
        found = [
            (merit(r), r.evaluations["test"].scores.get(r.metric, float("nan")))
            for r in run.trials
            if "test" in r.evaluations
        ]
        usable = [(m, score) for m, score in found if m != WORST and np.isfinite([m[0], score]).all()]
        if len(run.trials) < 2 or not usable:
            continue
        lowest = min(usable, key=lambda pair: sign * pair[1])
        usable += [((min(m[0] for m, _ in usable), 0.0), lowest[1])] * (len(run.trials) - len(usable))
        curves.append(best_of([m[0] for m, _ in usable], [score for _, score in usable]))
    if not curves or len({len(curve.expected) for curve in curves}) > 1:
        return None
    expected, deviation = (
        tuple(np.mean([getattr(curve, name) for curve in curves], axis=0).tolist())
        for name in ("expected", "deviation")
    )
    return Tuning(evidence.method, evidence.task, evidence.shots, evidence.metric, expected, deviation)
