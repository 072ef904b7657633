"""From protocol and records to a verdict: what may be claimed, with everything that a reader needs to doubt it.

Only here are test scores compared. Cells without a record stay missing and are listed; runs that failed are shown as
failed; nothing is claimed of a cell that is not complete.
"""

from __future__ import annotations

import datetime as dt
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from foretune.comparison import across
from foretune.comparison.answers import Answers, Floats, item_scores, read_answers
from foretune.comparison.cells import Cells
from foretune.comparison.contrasts import Key, Side, compare
from foretune.comparison.evidence import Evidence, estimate, gather, grouped, leaks, measure, measured, on_scale
from foretune.comparison.flags import raised
from foretune.comparison.gaps import gap
from foretune.records import RunRecord
from foretune.records.verdict import CellResult, CellRun, Measured, MissingCell, Outside, OutsidePart, Spent, Verdict


def judge(cells: Cells) -> Verdict:
    """What the store holds of a plan, and what may be said of it."""
    plan, protocol = cells.plan, cells.plan.protocol
    names, grid = [method.name for method in protocol.methods], plan.grid()
    sides: dict[Key, Side] = {}
    for task, shots in grid:
        below = floors(cells, task, shots)
        found = {name: gather(cells, name, task, shots) for name in names}
        leaked = leaks(cells, plan.task(task), shots)
        untrained = {n: score for n, e in found.items() if not e.seeded and (score := measure(e)[0]) is not None}
        trials = _usual_trials(cells, found)
        for name, evidence in found.items():
            if any(run.record is not None for run in evidence.runs):
                others = {n: score for n, score in untrained.items() if n != name}
                cell = _cell(cells, evidence, {**below, **others}, leaked, trials)
                sides[name, task, shots] = Side(evidence, cell)
    shown = [side.cell for side in sides.values()]
    family: dict[str, Any] = {"margin": protocol.margin, "alpha": protocol.alpha}
    contrasts = compare(sides, protocol.pairs, grid, **family)
    outside = dict.fromkeys(split for side in sides.values() for split in _outside(side.evidence))
    for split in outside:
        contrasts += compare(sides, protocol.pairs, grid, **family, split=split)
    tasks = [spec.called for spec in protocol.tasks]
    summed = [across.summaries(sides, names, tasks, shots) for shots in protocol.shots]
    return Verdict(
        digest=protocol.digest,
        protocol=protocol.to_yaml(),
        model=protocol.model.name,
        created=dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
        methods=tuple(names),
        tasks=tuple(tasks),
        shots=protocol.shots,
        cells=tuple(shown),
        contrasts=tuple(contrasts),
        across=tuple(summary for found, _ in summed for summary in found),
        rankings=tuple(ranking for _, ranking in summed if ranking is not None),
        fronts=tuple(front for task, shots in grid for front in across.fronts(sides, names, task, shots)),
        tuning=tuple(curve for side in sides.values() if (curve := across.tuning(side.evidence)) is not None),
        flags=_whole(cells),
        missing=missing(cells, names),
        shots_are=protocol.shots_are,
        notes=_notes(cells),
    )


def _cell(
    cells: Cells,
    evidence: Evidence,
    below: Mapping[str, Measured],
    leaked: Mapping[int, tuple[int, int]],
    trials: int | None,
) -> CellResult:
    plan, metric = cells.plan, evidence.metric
    method = plan.protocol.method(evidence.method)
    task = plan.task(evidence.task)
    score, over = measure(evidence)
    head = not plan.objective(method, task).language
    flags = raised(
        evidence.facts(leaked),
        budget=plan.labels(task, evidence.shots),
        draws_start=head and method.trained,
        trials=trials if method.trained else None,
    )
    judged = [run.answers["test"] for run in evidence.runs if "test" in run.answers]
    return CellResult(
        method=evidence.method,
        task=evidence.task,
        shots=evidence.shots,
        labels=evidence.labels if evidence.seeded else 0,
        metric=metric,
        greater_is_better=evidence.greater,
        runs=tuple(
            CellRun(
                run.cell.data_seed,
                run.cell.init_seed,
                run.record.status,
                value if math.isfinite(value := run.score(metric)) else None,
                run.record.digest,
                run.record.error,
            )
            for run in evidence.runs
            if run.record is not None
        ),
        score=score,
        over_seeds=over,
        floors=dict(below),
        spent=spent(evidence),
        outside=tuple(_out(evidence, split) for split in _outside(evidence)),
        constant=_constant(judged),
        flags=flags,
    )


def floors(cells: Cells, task: str, shots: int) -> dict[str, Measured]:
    """Floor -> its score on the test rows, over the draws; none while they have not been measured."""
    plan, schema = cells.plan, cells.plan.task(task).schema
    records: dict[int, RunRecord] = {}
    for seed in plan.protocol.data_seeds:
        record = cells.record(plan.floors(task, shots, seed))
        if record is not None and record.status == "ok":
            records[seed] = record
    found = {}
    for name in dict.fromkeys(name for record in records.values() for name in record.floors):
        means: dict[tuple[int, int], float] = {}
        items: dict[tuple[int, int], Floats] | None = {}
        for seed, record in records.items():
            means[seed, 0] = record.floors[name]["test"].scores.get(schema.metric, math.nan)
            path = cells.folder(record.digest) / "floors.parquet"
            answers = read_answers(path, schema, floor=name).get("test")
            scores = None if answers is None else item_scores(schema.metric, answers, schema)
            items = None if items is None or scores is None else {**items, (seed, 0): scores}
        if not all(math.isfinite(value) for value in means.values()):
            continue
        found[name] = _floor(means, items, records, name, schema.metric)
    return found


def _floor(
    means: Mapping[tuple[int, int], float],
    items: Mapping[tuple[int, int], Floats] | None,
    records: Mapping[int, RunRecord],
    name: str,
    metric: str,
) -> Measured:
    alike = len({round(value, 12) for value in means.values()}) == 1
    if len(means) > 1 and not alike:
        return on_scale(measured(estimate(means, items)), metric)
    first = next(iter(records.values())).floors[name]["test"]
    low, high = first.intervals.get(metric, (math.nan, math.nan))
    return Measured(next(iter(means.values())), low, high, "over test rows", n_seeds=len(means), n_items=first.n)


def spent(evidence: Evidence) -> Spent:
    """Means over the runs that ended well; the phases of tuning are those of all trials but the chosen one."""
    records = [run.record for run in evidence.runs if run.ok and run.record is not None]
    if not records:
        return Spent()

    def mean(values: Sequence[float]) -> float:
        return float(np.mean(values))

    costs = [record.cost for record in records]
    seconds = {
        "train": mean([cost.train_seconds for cost in costs]),
        "eval": mean([cost.eval_seconds for cost in costs]),
        "setup": mean([cost.setup_seconds for cost in costs]),
    }
    extra = [
        sum(trial.cost.seconds for trial in run.trials if run.record is not None and trial.digest != run.record.digest)
        for run in evidence.runs
        if run.ok
    ]
    if any(extra):
        seconds["tuning"] = mean(extra)
    prompts = [cost.prompt_tokens for cost in costs if cost.prompt_tokens is not None]
    answered = [(record.cost.eval_seconds, _answered(record)) for record in records]
    return Spent(
        trainable_parameters=mean([cost.trainable_parameters for cost in costs]),
        total_parameters=mean([cost.total_parameters for cost in costs]),
        adapter_bytes=mean([cost.adapter_bytes for cost in costs]),
        peak_bytes=mean([cost.peak_bytes for cost in costs]),
        seconds=seconds,
        tokens=mean([cost.tokens for cost in costs]),
        prompt_tokens=mean(prompts) if prompts else None,
        item_seconds=mean([s / n for s, n in answered if n]) if all(n for _, n in answered) else None,
        labels=float(evidence.labels) if evidence.seeded else 0.0,
    )


def _answered(record: RunRecord) -> int:
    """Rows that were evaluated: dev at every measurement and once more at the end, test and out-of-domain sets once."""
    dev = record.evaluations["dev"].n if "dev" in record.evaluations else 0
    times = len(record.curve.of("dev", record.metric)[0])
    return dev * times + sum(evaluation.n for evaluation in record.evaluations.values())


def _out(evidence: Evidence, split: str) -> Outside:
    score, _ = measure(evidence, split)
    answers = [run.answers[split] for run in evidence.runs if split in run.answers]
    classes = len(set(answers[0].label)) if answers else 0
    labelled = bool(evidence.schema.labels)
    return Outside(
        split.removeprefix("ood:"),
        score if score is not None else Measured(math.nan),
        gap=gap(evidence, split),
        chance=1 / classes if labelled and classes and evidence.metric == "accuracy" else None,
        parts=_parts(evidence, split) if labelled and evidence.metric == "accuracy" else (),
        constant=_constant(answers),
    )


def _parts(evidence: Evidence, split: str) -> tuple[OutsidePart, ...]:
    """The accuracy on the rows of each label: a constant classifier has 100 and 0."""
    items = evidence.items(split)
    first = next((run.answers[split] for run in evidence.runs if split in run.answers), None)
    if not items or first is None:
        return ()
    labels, parts = np.array(first.label), []
    for label in sorted(set(first.label)):
        rows = {seed: scores[labels == label] for seed, scores in items.items()}
        means = {seed: float(scores.mean()) for seed, scores in rows.items()}
        if len(grouped(means)) > 1 and (labels == label).sum() > 1:
            score = on_scale(measured(estimate(means, rows)), evidence.metric)
            parts.append(OutsidePart("label", label, score))
        else:
            parts.append(
                OutsidePart("label", label, Measured(float(np.mean(list(means.values()))), n_seeds=len(means)))
            )
    return tuple(parts)


def _constant(judged: Sequence[Answers]) -> str | None:
    """The one label that every run gives to every row."""
    given = {answers.constant for answers in judged}
    return given.pop() if len(given) == 1 else None


def _outside(evidence: Evidence) -> list[str]:
    records = [run.record for run in evidence.runs if run.ok and run.record is not None]
    return list(dict.fromkeys(s for record in records for s in record.evaluations if s.startswith("ood:")))


def _usual_trials(cells: Cells, found: Mapping[str, Evidence]) -> int | None:
    """The trials of most trained methods, which the others are compared with; None for a method alone."""
    protocol = cells.plan.protocol
    counts = [len(protocol.trials(method)) for method in protocol.methods if method.trained]
    return max(set(counts), key=counts.count) if len(counts) > 1 and not protocol.tuning_tasks else None


def missing(cells: Cells, names: Sequence[str]) -> tuple[MissingCell, ...]:
    """What the protocol asks for and the store does not have."""
    found = []
    for task, shots in cells.plan.grid():
        for name in names:
            absent = tuple(
                (cell.data_seed, cell.init_seed)
                for cell in cells.plan.cells(name, task, shots)
                if cells.outcome(cell)[0] is None
            )
            if absent:
                found.append(MissingCell(name, task, shots, absent))
    return tuple(found)


def _whole(cells: Cells) -> tuple[str, ...]:
    protocol = cells.plan.protocol
    counts = {method.name: len(protocol.trials(method)) for method in protocol.methods if method.trained}
    if len(set(counts.values())) < 2:
        return ()
    return ("unequal_tuning: " + ", ".join(f"{name} {count} trials" for name, count in counts.items()),)


def _notes(cells: Cells) -> tuple[str, ...]:
    plan = cells.plan
    said = [note for spec in plan.protocol.tasks for note in plan.task(spec.called).notes]
    rates = []
    for method in plan.protocol.methods:
        if plan.protocol.tuning_tasks and method.trained:
            for shots in plan.protocol.shots:
                rate = cells.tuned(method.name, shots)
                if rate is not None:
                    rates.append(f"{method.name} learns at {rate:g} with {shots} shots, chosen on the tuning tasks.")
    prints = [
        f"{s.called}: rows with the fingerprint {plan.task(s.called).fingerprint[:12]}." for s in plan.protocol.tasks
    ]
    return tuple(dict.fromkeys((*said, *rates, *prints)))
