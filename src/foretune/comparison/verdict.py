"""From protocol and records to a verdict: what may be claimed, with everything that a reader needs to doubt it.

Only here are test scores compared. Cells without a record stay missing and are listed; runs that failed are shown as
failed; nothing is claimed of a cell that is not complete.
"""

from __future__ import annotations

import datetime as dt
import math
from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

from foretune.comparison import across
from foretune.comparison.accounting import cut_short, forgetting, spent
from foretune.comparison.answers import Floats, read_answers, row_values
from foretune.comparison.cells import Cells
from foretune.comparison.contrasts import Key, Side, compare, overall
from foretune.comparison.evidence import ROWS, Evidence, estimate, gather, leaks, measure, measured, on_scale
from foretune.comparison.flags import raised
from foretune.comparison.methods import BUDGET
from foretune.comparison.outside import constant, outside, sets
from foretune.comparison.plan import FLOORS, Plan
from foretune.records import RunRecord
from foretune.records.verdict import ALL, CellResult, CellRun, Measured, MissingCell, Verdict


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
    contrasts = compare(sides, protocol.pairs, grid, **family, declared=declared(plan, "test"))
    for split in dict.fromkeys(split for side in sides.values() for split in sets(side.evidence)):
        contrasts += compare(sides, protocol.pairs, grid, **family, split=split, declared=declared(plan, split))
    tasks = [spec.called for spec in protocol.tasks]
    contrasts += overall(sides, protocol.pairs, tasks, protocol.shots, **family, declared=declared(plan, ALL))
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
        notes=(
            *_notes(cells),
            *_about_tuning(cells, sides),
            *_about_held(cells, sides),
            *_about_teachers(sides),
            *_warnings(sides),
        ),
    )


def declared(plan: Plan, split: str) -> int:
    """How many contrasts the protocol asks for on ``split``, whatever has been run: pairs in which seeds have a say.
    ``ALL``: of means over all tasks."""
    tasks = [spec.called for spec in plan.protocol.tasks]
    if split == ALL:
        asked = [any(plan.seeded(m, task) for m in pair for task in tasks) for pair in plan.protocol.pairs]
        return len(plan.protocol.shots) * sum(asked) if len(tasks) > 1 else 0
    name = split.removeprefix("ood:")
    return sum(
        any(plan.seeded(method, task) for method in pair)
        for task, _ in plan.grid()
        if name == split or name in plan.task(task).ood
        for pair in plan.protocol.pairs
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
        trained=method.trained,
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
        spent=spent(evidence, cells.tuning(evidence.method, evidence.shots)),
        outside=tuple(outside(evidence, split, task) for split in sets(evidence)),
        forgetting=forgetting(evidence),
        constant=constant(judged),
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
            scores = None if answers is None else row_values(schema.metric, answers, schema)
            items = None if items is None or scores is None else {**items, (seed, 0): scores}
        if not all(math.isfinite(value) for value in means.values()):
            continue
        found[name] = _floor(means, items, records, name, schema.metric)
    return found | _zero_shot(cells, task, schema.metric)


def _zero_shot(cells: Cells, task: str, metric: str) -> dict[str, Measured]:
    """What the untrained model has that is shown nothing: one run for all draws."""
    job = cells.plan.zero_shot(task)
    record = None if job is None else cells.record(job)
    judged = None if record is None else record.evaluations.get("test")
    if job is None or judged is None or not math.isfinite(value := judged.scores.get(metric, math.nan)):
        return {}
    low, high = judged.intervals.get(metric, (math.nan, math.nan))
    return {job.cell.method: Measured(value, low, high, ROWS, n_seeds=1, n_items=judged.n)}


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
    return Measured(next(iter(means.values())), low, high, ROWS, n_seeds=len(means), n_items=first.n)


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
        found += _without_floors(cells, task, shots)
    return tuple(found)


def _without_floors(cells: Cells, task: str, shots: int) -> list[MissingCell]:
    """The draws whose floors failed: the floors of a table are then those of the other draws."""
    failed: dict[str, list[tuple[int, int]]] = {}
    for seed in cells.plan.protocol.data_seeds:
        record = cells.record(cells.plan.floors(task, shots, seed))
        if record is not None and record.status != "ok":
            failed.setdefault(record.error or record.status, []).append((seed, seed))
    found = [MissingCell(FLOORS, task, shots, tuple(seeds), reason) for reason, seeds in failed.items()]
    job = cells.plan.zero_shot(task)
    record = None if job is None else cells.record(job)
    if job is not None and record is not None and record.status != "ok":
        reason = f"{job.cell.method}: {record.error or record.status}"
        found.append(MissingCell(FLOORS, task, shots, ((job.cell.data_seed, job.cell.init_seed),), reason))
    return found


def _whole(cells: Cells) -> tuple[str, ...]:
    """What the methods did not get alike: trials, steps, rows in a batch."""
    protocol = cells.plan.protocol
    trained = [method for method in protocol.methods if method.trained]
    trials = {method.name: len(protocol.trials(method)) for method in trained}
    found = [("unequal_tuning", "trials", trials)]
    for name, unit in zip(BUDGET, ("steps", "rows a batch"), strict=True):
        usual = getattr(protocol, name)
        found.append(("unequal_budget", unit, {m.name: m.schedule.get(name, usual) for m in trained}))
    return tuple(
        f"{flag}: " + ", ".join(f"{method} {'by epochs' if n is None else f'{n} {unit}'}" for method, n in own.items())
        for flag, unit, own in found
        if len(set(own.values())) > 1
    )


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
    if labels := _tuning_labels(cells):
        rates.append(f"The tuning tasks took {labels:,} further labels, which no cell counts.")
    return tuple(dict.fromkeys((*said, *rates, *prints)))


def _tuning_labels(cells: Cells) -> int:
    """Labelled rows that the tuning tasks took, those of each draw once."""
    protocol, found = cells.plan.protocol, {}
    for method in protocol.methods:
        for record in (r for shots in protocol.shots for r in cells.tuning(method.name, shots)):
            if record.card is not None and record.sample is not None:
                found[record.sample] = record.card.rows.get("train", 0) + record.card.rows.get("dev", 0)
    return sum(found.values())


def _about_tuning(cells: Cells, sides: Mapping[Key, Side]) -> tuple[str, ...]:
    """The seconds that every run may spend on its trials, and which methods they did not suffice for."""
    budget = cells.plan.protocol.tuning_seconds
    if budget is None:
        return ()
    counts: dict[str, list[tuple[int, int]]] = {}
    for (method, _, _), side in sides.items():
        counts.setdefault(method, []).append(cut_short(side.evidence))
    told = {method: tuple(map(sum, zip(*each, strict=True))) for method, each in counts.items()}
    cut = [f"{n} of {total} trials of {method}" for method, (n, total) in told.items() if n]
    ended = f" The clock ended {', '.join(cut)} before their steps were done." if cut else ""
    return (f"All trials of a run together may take {budget:g} s, in equal shares.{ended}",)


def _about_held(cells: Cells, sides: Mapping[Key, Side]) -> tuple[str, ...]:
    """What forgetting was measured on, once for each task."""
    held, said = cells.plan.protocol.forgetting, {}
    for (_, task, _), side in sides.items():
        found = next((r.record.forgetting for r in side.evidence.runs if r.record and r.record.forgetting), None)
        if held is not None and found is not None:
            said[task] = (
                f"{task}: forgetting is the rise of the loss on {found.texts:,} texts of `{held.source}` "
                f"({found.tokens:,} predicted tokens), {found.before:.3f} nats per token without what was learned."
            )
    return tuple(said.values())


def _about_teachers(sides: Mapping[Key, Side]) -> tuple[str, ...]:
    """A student between its two references: its teacher with the context, and the same model untrained without one."""
    said = []
    for (method, task, shots), side in sides.items():
        metric, found = side.evidence.metric, [r.record for r in side.evidence.runs if r.ok and r.record is not None]
        told = [r.teaching for r in found if r.teaching and metric in r.teaching.with_context.get("test", {})]
        if told:
            above, below = (
                fmean(references["test"][metric] for references in each)
                for each in ([t.with_context for t in told], [t.without_context for t in told])
            )
            student = fmean(run.score(metric) for run in side.evidence.runs if run.ok)
            said.append(
                f"{method} on {task} with {shots or 'all'} labels: the teacher with its demonstrations has {metric} "
                f"{above:.3f}, the untrained model without them {below:.3f}, the student {student:.3f}."
            )
    return tuple(said)


def _warnings(sides: Mapping[Key, Side]) -> tuple[str, ...]:
    """What runs warned of, once for each task, with the methods whose runs did."""
    methods: dict[tuple[str, str], dict[str, None]] = {}
    for (method, task, _), side in sides.items():
        for run in side.evidence.runs:
            for warning in run.record.warnings if run.record is not None else ():
                methods.setdefault((task, warning), {})[method] = None
    return tuple(f"{task}: {warning} ({', '.join(names)})" for (task, warning), names in methods.items())
