"""Out of domain: the score of a cell on each further set, its gap, and the score on each part of the set.

A mean hides what such sets are made to show. On HANS a classifier that always says "entailment" has one half of all
rows right, 100 % of one label and 0 % of the other; so the rows of each label, and of each group where the set has
groups (the heuristics of HANS), are judged by themselves, and a constant classifier is named.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pyarrow as pa

from foretune.comparison.answers import Answers
from foretune.comparison.evidence import ROWS, Evidence, estimate, grouped, measure, measured, on_scale
from foretune.comparison.gaps import gap
from foretune.evaluation import wilson
from foretune.records.verdict import Measured, Outside, OutsidePart
from foretune.tasks import Task

LABEL = "label"


def sets(evidence: Evidence) -> list[str]:
    """The out-of-domain splits that some run was judged on."""
    records = [run.record for run in evidence.runs if run.ok and run.record is not None]
    return list(dict.fromkeys(s for record in records for s in record.evaluations if s.startswith("ood:")))


def outside(evidence: Evidence, split: str, task: Task) -> Outside:
    """What is said of one set, ``ood:NAME``, of ``task``."""
    score, _ = measure(evidence, split)
    answers = [run.answers[split] for run in evidence.runs if split in run.answers]
    name = split.removeprefix("ood:")
    classes = len(set(answers[0].label)) if answers else 0
    guessed = bool(evidence.schema.labels and classes) and evidence.metric == "accuracy"
    return Outside(
        name,
        score if score is not None else Measured(math.nan),
        gap=gap(evidence, split),
        chance=1 / classes if guessed else None,
        parts=parts(evidence, split, task.ood.get(name)),
        constant=constant(answers),
    )


def constant(judged: Sequence[Answers]) -> str | None:
    """The one label that every run gives to every row."""
    given = {answers.constant for answers in judged}
    return given.pop() if len(given) == 1 else None


def parts(evidence: Evidence, split: str, table: pa.Table | None) -> tuple[OutsidePart, ...]:
    """The score on the rows of each label (accuracy alone) and of each group of ``table``, the rows of the set.

    None of them where the metric is no mean over rows, for it has no rows to take.
    """
    items = evidence.item_scores(split)
    first = next((run.answers[split] for run in evidence.runs if split in run.answers), None)
    if not items or first is None:
        return ()
    told: dict[str, Sequence[str | None]] = {}
    if evidence.schema.labels and evidence.metric == "accuracy":
        told[LABEL] = first.label
    name = split.removeprefix("ood:")
    if table is not None and "group" in table.column_names and tuple(table["row"].to_pylist()) == first.row:
        told[evidence.schema.ood_groups.get(name, "group")] = table["group"].to_pylist()
    found = []
    for kind, names in told.items():
        of = np.array([each or "" for each in names])
        distinct = list(dict.fromkeys(sorted(filter(None, names))))
        if len(distinct) > 1:
            found += [OutsidePart(kind, each, _part(evidence, items, of == each)) for each in distinct]
    return tuple(found)


def _part(evidence: Evidence, items: dict[tuple[int, int], np.ndarray], rows: np.ndarray) -> Measured:
    own = {seed: scores[rows] for seed, scores in items.items()}
    means = {seed: float(scores.mean()) for seed, scores in own.items()}
    if len(grouped(means)) > 1:
        crossing = own if rows.sum() > 1 else None
        return on_scale(measured(estimate(means, crossing)), evidence.metric)
    value, n = float(np.mean(list(means.values()))), int(rows.sum())
    single = Measured(value, n_seeds=1, n_items=n)
    if evidence.metric != "accuracy" or len(own) > 1:
        return single
    low, high = wilson(round(value * n), n)
    return replace(single, low=low, high=high, interval=ROWS)
