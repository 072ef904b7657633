"""A comparison -> tables of text. Floors stand in every table of scores; a failed or missing cell says so."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from statistics import fmean

from foretune.records import ALL, SCORE, CellResult, Contrast, Measured, Outside, Spent, Summary, Verdict
from foretune.report import units, verdict_warnings
from foretune.report import verdict_words as words
from foretune.report.tables import LABEL_LIMIT, Column, Table

KINDS = {
    "better": "first is better",
    "worse": "second is better",
    "equivalent": "equivalent",
    "undecided": "no difference found",
    "refused": "nothing claimed",
}


def scores(verdict: Verdict, task: str) -> Table:
    """Methods and floors by label budget: each score with its interval and its runs."""
    cells = of(verdict, task)
    metric = metric_of(cells)
    rows = [
        (_short(method), *(_cell_with_runs(verdict.cell(method, task, shots)) for shots in verdict.shots))
        for method in verdict.methods
    ]
    for floor in floor_names(cells):
        each = (_floor(verdict, task, shots, floor) for shots in verdict.shots)
        rows.append((f"floor: {units.floor_title(floor)}", *(words.scored(metric, found) for found in each)))
    columns = (Column("Method", "user"), *(Column(words.labels(n, verdict.shots_are), "number") for n in verdict.shots))
    return Table(_caption(verdict, task, cells, metric), columns, tuple(rows))


def details(verdict: Verdict, task: str) -> Table:
    """One row per cell and floor: both intervals, what became of the runs, forgetting, flags."""
    rest = (
        ("Over seeds alone", lambda c: words.scored(c.metric, c.over_seeds)),
        ("Runs", words.runs),
        ("Forgetting, nats per token", lambda c: _nats(c.forgetting)),
        ("Flags", verdict_warnings.marks),
    )
    kinds = [cell.score.interval for cell in of(verdict, task) if cell.score and cell.score.interval]
    crossed = bool(kinds) and all(kind.startswith("crossed") for kind in kinds)
    title = "Score, crossed interval" if crossed else "Score"
    return _per_cell(verdict, task, f"Every cell on {_short(task)}", title, rest)


def costs(verdict: Verdict, task: str) -> Table:
    """One row per cell and floor: the score and what one run costs, as a mean over the runs that ended well."""
    rest = (
        ("Labels paid", lambda c: words.cost("labels", c.labels if c.spent.labels is None else c.spent.labels)),
        ("Trained weights", lambda c: _trained(c.spent)),
        ("On disk", lambda c: words.cost("adapter_bytes", c.spent.adapter_bytes)),
        ("Peak memory", lambda c: words.cost("peak_bytes", c.spent.peak_bytes)),
        ("Tokens", lambda c: words.cost("tokens", c.spent.tokens)),
        ("Prompt tokens per item", lambda c: words.cost("prompt_tokens", c.spent.prompt_tokens)),
        ("One prediction", lambda c: words.cost("seconds", c.spent.item_seconds)),
    )
    return _per_cell(verdict, task, f"Cost of one run on {_short(task)}", "Score", rest)


def times(verdict: Verdict, task: str) -> Table:
    """One row per cell: where the seconds of one run go, each phase by itself."""
    phases = {
        "Training": "train",
        "Stage before": "pretraining",
        "Teacher": "teacher",
        "Tuning": "tuning",
        "Evaluation": "eval",
        "Loading": "setup",
    }
    rows = []
    for shots in verdict.shots:
        for cell in filter(None, (verdict.cell(method, task, shots) for method in verdict.methods)):
            each = (words.cost("seconds", cell.spent.seconds.get(phase)) for phase in phases.values())
            trials = "" if cell.spent.trials is None else units.count(round(cell.spent.trials))
            step = words.cost("seconds", cell.spent.step_seconds)
            whole = words.cost("seconds", cell.spent.all_seconds)
            rows.append((_short(cell.method), words.budget(shots), *each, whole, step, trials))
    headings = ("Method", "Labels", *phases, "All together", "One step", "Trials")
    columns = tuple(Column(name, "number" if i else "user") for i, name in enumerate(headings))
    return _lean(f"Time of one run on {_short(task)}, phase by phase", columns, rows)


def _per_cell(
    verdict: Verdict, task: str, caption: str, score: str, rest: Sequence[tuple[str, Callable[[CellResult], str]]]
) -> Table:
    cells = of(verdict, task)
    rows: list[tuple[str, ...]] = []
    for shots in verdict.shots:
        for method in verdict.methods:
            cell = verdict.cell(method, task, shots)
            told = [text(cell) for _, text in rest] if cell else [""] * len(rest)
            rows.append((_short(method), words.budget(shots), _cell(cell), *told))
        for floor in floor_names(cells):
            found = _floor(verdict, task, shots, floor)
            if found is not None:
                told = [words.scored(metric_of(cells), found), *[""] * len(rest)]
                rows.append((f"floor: {units.floor_title(floor)}", words.budget(shots), *told))
    headings = ("Method", "Labels", score, *(name for name, _ in rest))
    return _lean(caption, tuple(Column(name, "number" if i else "user") for i, name in enumerate(headings)), rows)


def contrasts(verdict: Verdict, task: str) -> Table | None:
    """Every contrast on a task (or on ``ALL``) in figures; None where there is none."""
    found = [contrast for contrast in verdict.contrasts if contrast.task == task]
    if not found:
        return None
    spent = list(dict.fromkeys(name for contrast in found for name in contrast.ratios))
    headings = (
        *("First minus second", "Of", "Labels", "Difference, adjusted interval", "Adjusted p", "Detectable", "Claim"),
        *(f"{words.cost_title(name).capitalize()}, ratio" for name in spent),
        "Flags",
    )
    rows = [(*_contrast(contrast), *(_ratio(contrast, name) for name in spent), _flags(contrast)) for contrast in found]
    kinds = ("user", "user", *("number",) * 4, "claim", *("number",) * len(spent), "user")
    where = f"across {units.plural(len(verdict.tasks), 'task')}" if task == ALL else f"on {_short(task)}"
    metric = words.common([contrast.metric for contrast in found])
    if metric is None:
        unit = ""
    else:
        form = units.metric(metric)
        unit = f", in {'points of ' if form.scale == 100 else ''}{form.title}"
        rows = [tuple(text.replace(f"{units.NBSP}points", "") for text in row) for row in rows]
    caption = f"Contrasts {where}{unit}, turned so that above zero speaks for the first"
    return _lean(caption, tuple(map(Column, headings, kinds)), rows)


def other_tests(verdict: Verdict, task: str) -> Table | None:
    """The contrasts on a task by the tests that no claim rests on; None where there are no two seeds."""
    found = [(each, each.others) for each in verdict.contrasts if each.task == task and each.others is not None]
    if not found:
        return None
    rows = [
        (
            *_contrast(each)[:3],
            words.difference(each.metric, others.over_seeds),
            words.p_value(others.over_seeds.p, equals=False),
            words.p_value(others.sign_flip_p, equals=False),
            _within(others.mcnemar_p, each.alpha),
        )
        for each, others in found
    ]
    headings = ("First minus second", "Of", "Labels", "Difference, t over seeds", "Its p", "Sign-flip p", "McNemar")
    caption = (
        f"The same contrasts on {_short(task)} by other tests, not adjusted and without a say in any claim: new seeds "
        "on these rows, and within each run new rows"
    )
    return _lean(caption, tuple(map(Column, headings, ("user", "user", *("number",) * 5))), rows)


def across(verdict: Verdict, shots: int) -> Table | None:
    """Methods and floors over all tasks with one label budget; None where nothing was summarised."""
    found = [summary for summary in verdict.across if summary.shots == shots]
    if not found:
        return None
    tasks = found[0].tasks
    metric = words.common([metric_of(of(verdict, task)) for task in tasks]) or "score"
    rows = [_summary(summary, metric) for summary in found]
    cells = [cell for task in tasks for cell in of(verdict, task)]
    for floor in floor_names(cells):
        each = [_floor(verdict, task, shots, floor) for task in tasks]
        if all(found is not None for found in each):
            mean = Measured(fmean(found.value for found in each if found is not None))
            rows.append((f"floor: {units.floor_title(floor)}", words.scored(metric, mean), *("",) * 3))
    names = ("Method", "Mean", "Interquartile mean", "Mean rank", "Seeds")
    columns = tuple(Column(name, "number" if i else "user") for i, name in enumerate(names))
    title = units.metric(metric).title
    caption = (
        f"{title[0].upper()}{title[1:]} over {units.plural(len(tasks), 'task')} ({', '.join(map(_short, tasks))}) "
        f"with {words.labels(shots, verdict.shots_are)}"
    )
    return Table(caption, columns, tuple(rows))


def improvement(verdict: Verdict, shots: int) -> Table | None:
    """How often a run of the row's method is above one of the column's; None where nobody asked."""
    found = [summary for summary in verdict.across if summary.shots == shots and summary.improvement]
    if not found:
        return None
    others = [method for method in verdict.methods if any(method in each.improvement for each in found)]
    rows = [(_short(each.method), *(_chance(each.improvement.get(other)) for other in others)) for each in found]
    return Table(
        "Probability that a run of the row is above one of the column on a task taken at random; 50 % is no difference "
        f"({words.labels(shots, verdict.shots_are)}, intervals not adjusted)",
        (Column("Method", "user"), *(Column(_short(other), "number") for other in others)),
        tuple(rows),
    )


def outside(verdict: Verdict) -> tuple[Table, ...]:
    """A table for each out-of-domain set and the task it belongs to: score, gap with its own interval, chance."""
    made = []
    for (task, name), found in _outside(verdict).items():
        rows = []
        for cell, judged in found:
            both = (words.scored(cell.metric, score) for score in (cell.score, judged.score))
            lost = words.difference(cell.metric, judged.gap) if judged.gap else units.NONE
            chance = units.NONE if judged.chance is None else units.score(cell.metric, judged.chance)
            constant = f"always {units.quoted(judged.constant)}" if judged.constant is not None else ""
            rows.append((_short(cell.method), words.budget(cell.shots), *both, lost, chance, constant))
        headings = ("Method", "Labels", "In domain", "Out of domain", "Gap", "Blind guess", "Constant")
        columns = tuple(map(Column, headings, ("user", *("number",) * 5, "user")))
        caption = f"Learned on {_short(task)}, tested on {_short(name)}: score and what is lost, with an interval each"
        made.append(_lean(caption, columns, rows))
    return tuple(made)


def parts(verdict: Verdict) -> tuple[Table, ...]:
    """By label and by heuristic: a table for each set that has such parts."""
    made = []
    for (task, name), found in _outside(verdict).items():
        headings = list(dict.fromkeys((part.kind, part.name) for _, judged in found for part in judged.parts))
        rows = []
        for cell, judged in found:
            scored = {(p.kind, p.name): _bare(cell.metric, p.score) for p in judged.parts}
            each = (scored.get(heading, units.NONE) for heading in headings)
            rows.append((_short(cell.method), words.budget(cell.shots), *each))
        titles = ("Method", "Labels", *(f"{kind}: {_short(part)}" for kind, part in headings))
        columns = tuple(Column(title, "number" if i else "user") for i, title in enumerate(titles))
        caption = (
            f"Learned on {_short(task)}, tested on {_short(name)}, part by part{_unit(found[0][0].metric)}; a constant "
            "classifier is always right on one label and never on another"
        )
        if headings:
            made.append(Table(caption, columns, tuple(rows)))
    return tuple(made)


def fronts(verdict: Verdict) -> Table | None:
    """The probability of each method of lying on the front of score against cost."""
    rows = [
        (
            "all tasks" if front.task == ALL else _short(front.task),
            words.budget(front.shots),
            words.cost_title(front.cost),
            _short(point.method),
            words.scored(front.metric, point.score),
            words.cost(front.cost, point.cost),
            f"{100 * point.probability:.0f}{units.NBSP}%",
        )
        for front in verdict.fronts
        for point in front.points
    ]
    if not rows:
        return None
    names = ("Task", "Labels", "Against", "Method", "Score", "Cost", "On the front")
    kinds = ("user", "number", "text", "user", "number", "number", "number")
    return Table(
        "Probability of lying on the front of score against cost, by resampling seeds",
        tuple(map(Column, names, kinds)),
        tuple(rows),
    )


def every(verdict: Verdict) -> Iterator[Table]:
    """All tables, in the order of the page."""
    found = [make(verdict, shots) for make in (across, improvement) for shots in verdict.shots]
    found.append(contrasts(verdict, ALL))
    for task in verdict.tasks:
        found += [make(verdict, task) for make in (scores, details, costs, times, contrasts, other_tests)]
    found += [*outside(verdict), *parts(verdict), fronts(verdict)]
    return (table for table in found if table is not None)


def of(verdict: Verdict, task: str) -> list[CellResult]:
    """The cells of a task."""
    return [cell for cell in verdict.cells if cell.task == task]


def metric_of(cells: Sequence[CellResult]) -> str:
    """The metric of a task's cells."""
    return words.common([cell.metric for cell in cells]) or "score"


def floor_names(cells: Sequence[CellResult]) -> list[str]:
    """Every floor that some cell has, in the order in which they come."""
    return list(dict.fromkeys(name for cell in cells for name in cell.floors))


def _floor(verdict: Verdict, task: str, shots: int, name: str) -> Measured | None:
    """A floor is measured on the same rows for all methods: the first cell that has it speaks for them."""
    found = (cell.floors[name] for cell in of(verdict, task) if cell.shots == shots and name in cell.floors)
    return next(found, None)


def _cell(cell: CellResult | None) -> str:
    """A score as it stands where the runs have a column of their own."""
    if cell is None or not cell.runs:
        return "missing"
    return "failed" if cell.score is None else words.scored(cell.metric, cell.score)


def _cell_with_runs(cell: CellResult | None) -> str:
    told = _cell(cell)
    return f"{told}, {words.runs(cell)}" if cell is not None and cell.failed else told


def _lean(caption: str, columns: Sequence[Column], rows: Sequence[tuple[str, ...]]) -> Table:
    """The table without the columns in which nothing stands."""
    kept = [i for i in range(len(columns)) if any(row[i] not in ("", units.NONE) for row in rows)]
    return Table(caption, tuple(columns[i] for i in kept), tuple(tuple(row[i] for i in kept) for row in rows))


def _caption(verdict: Verdict, task: str, cells: Sequence[CellResult], metric: str) -> str:
    title = units.metric(metric).title
    down = "" if all(cell.greater_is_better for cell in cells) else ", less is preferred"
    scored = [cell for cell in cells if cell.score is not None]
    rows = words.common([units.count(c.score.n_items) for c in scored if c.score and c.score.n_items])
    seeds = sorted({len(cell.runs) - len(cell.failed) for cell in scored})
    told = [f"n{units.NBSP}={units.NBSP}{rows} test rows"] if rows else []
    if seeds:
        told.append(f"{seeds[0]} to {seeds[-1]} seeds" if seeds[0] != seeds[-1] else units.plural(seeds[0], "seed"))
    kind = words.common([c.score.interval for c in scored if c.score and c.score.interval])
    told.append(f"95 % intervals{f' ({kind})' if kind else ''}")
    return f"{title[0].upper()}{title[1:]} on {task}{down}: {', '.join(told)}"


def _contrast(contrast: Contrast) -> tuple[str, ...]:
    return (
        f"{_short(contrast.first)} {units.MINUS} {_short(contrast.second)}",
        "" if contrast.measure == SCORE else _short(contrast.measure),
        words.budget(contrast.shots),
        words.difference(contrast.metric, contrast.difference),
        words.p_value(contrast.adjusted_p, equals=False),
        units.difference(contrast.metric, contrast.detectable).removeprefix("+"),
        KINDS[contrast.kind],
    )


def _within(p: Sequence[float], alpha: float) -> str:
    if not p:
        return units.NONE
    return f"p ≤ {alpha:g} in {sum(each <= alpha for each in p)} of {units.plural(len(p), 'run')}"


def _ratio(contrast: Contrast, name: str) -> str:
    value = contrast.ratios.get(name)
    return units.NONE if value is None else f"{value:.2g}×"


def _flags(contrast: Contrast) -> str:
    """The names alone: their figures stand with the warnings, and with every cell."""
    told = []
    for method in (contrast.first, contrast.second):
        mine = [flag.removeprefix(f"{method}: ") for flag in contrast.flags if flag.startswith(f"{method}: ")]
        if names := dict.fromkeys(flag.partition(":")[0].strip().replace("_", " ") for flag in mine):
            told.append(f"{_short(method)}: {', '.join(names)}")
    return "; ".join(told)


def _summary(summary: Summary, metric: str) -> tuple[str, ...]:
    runs = summary.mean or summary.iqm
    seeds = units.NONE if runs is None or runs.n_seeds is None else units.count(runs.n_seeds)
    return (
        _short(summary.method),
        words.scored(metric, summary.mean),
        words.scored(metric, summary.iqm),
        units.fixed(summary.rank, 2),
        seeds,
    )


def _outside(verdict: Verdict) -> dict[tuple[str, str], list[tuple[CellResult, Outside]]]:
    """Task and set -> the cells with what was found there."""
    found: dict[tuple[str, str], list[tuple[CellResult, Outside]]] = {}
    for cell in verdict.cells:
        for judged in cell.outside:
            found.setdefault((cell.task, judged.name), []).append((cell, judged))
    return found


def _bare(metric: str, found: Measured) -> str:
    """A score without its unit, which then stands in the caption (``_unit``)."""
    unit = units.metric(metric).unit
    return words.scored(metric, found).replace(unit, "") if unit else words.scored(metric, found)


def _unit(metric: str) -> str:
    form = units.metric(metric)
    return f", {form.title}{f' in {form.unit.strip()}' if form.unit else ''}"


def _chance(found: Measured | None) -> str:
    if found is None:
        return units.NONE
    value, low, high = (units.fixed(100 * each, 0) for each in (found.value, found.low, found.high))
    return f"{value}{units.NBSP}%" + (f" [{low},{units.NBSP}{high}]" if units.NONE not in (low, high) else "")


def _trained(spent: Spent) -> str:
    told = words.cost("trainable_parameters", spent.trainable_parameters)
    if not spent.total_parameters or spent.trainable_parameters is None:
        return told
    return f"{told} ({100 * spent.trainable_parameters / spent.total_parameters:.3g}{units.NBSP}%)"


def _nats(found: Measured | None) -> str:
    if found is None:
        return units.NONE
    return " ".join(text for text in (units.fixed(found.value, 3), words.bounds("nll", found)) if text)


def _short(name: str) -> str:
    return units.short(" ".join(name.split()), LABEL_LIMIT)
