"""report.html: one page that opens offline, in print and on a phone.

Everything is in the one file: style, figures, numbers. A content security policy forbids every request and every
script, and names the style sheet by its hash, so that a text that slipped through the escaping would still do nothing.
The page holds no date of its own: the same folder gives the same bytes.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from markupsafe import Markup

from foretune.errors import StoreError
from foretune.records import Plan, RunRecord
from foretune.report import (
    answers,
    calibration,
    compare,
    displacement,
    displacement_figures,
    figures,
    html,
    sentences,
    simplex,
    tables,
    units,
)
from foretune.report.predictions import Rows, rows
from foretune.store.folder import read_run

if TYPE_CHECKING:
    import pyarrow as pa

PAGE = "report.html"
LONGEST = 600
"""Characters of a warning or a note: it is a sentence, whatever a label in it may be."""


def write(folder: Path, out: Path | None = None) -> Path:
    """Read a run folder and write its report; returns the file, ``folder/report.html`` unless ``out`` names another.

    Raises:
        StoreError: the folder is no run folder, one of its files cannot be read, or the page cannot be written.
    """
    record = read_run(folder)
    page = render(
        record, _plan(folder), read_table(folder, "predictions.parquet"), read_table(folder, "floors.parquet")
    )
    return html.written(out or folder / PAGE, page)


def render(
    record: RunRecord, plan: Plan | None = None, predictions: pa.Table | None = None, floors: pa.Table | None = None
) -> str:
    """The page as text.

    Args:
        plan: what was recommended, or None when nobody was asked.
        predictions, floors: see ``report.predictions``; either may be None, and what rests on it is left out.
    """
    split = sentences.judged_split(record.evaluations)
    judged = rows(predictions, split) if split else None
    values = {
        "split": split,
        "facts": _facts(record),
        **_verdict(record, split, judged, floors),
        **_expected(record, plan),
        **_curve(record),
        **_simplex(record),
        **_displacement(record),
        **_answers(record, judged),
        **_gaps(record),
        **_rest(record),
    }
    return html.rendered("template.html.j2", ("style.css",), {**values, "contents": _contents(values)})


def verdict(folder: Path) -> list[str]:
    """What may be said of the run in ``folder``, the headline first: the sentences that its report shows."""
    record = read_run(folder)
    split = sentences.judged_split(record.evaluations)
    judged = rows(read_table(folder, "predictions.parquet"), split) if split else None
    differences = compare.differences(record, split, judged, read_table(folder, "floors.parquet")) if split else ()
    constant = sentences.constant_answer(judged.prediction) if judged else None
    return [sentences.headline(record, split), *sentences.verdict(record, split, differences, constant)]


def _facts(record: RunRecord) -> list[tuple[str, str]]:
    """The line at the top: which task, which model, which method, when."""
    config = record.config
    options = ", ".join(f"{key} {_short(value)}" for key, value in sorted(config.tuner.options.items()))
    facts = {
        "task": f"{units.short(_task(record), 80)} ({config.task.kind})",
        "model": units.short(config.model.name, 80),
        "method": f"{config.tuner.name}{f' ({options})' if options else ''}, {config.objective.name}",
        "finished": record.finished[:16].replace("T", " "),
        "run": record.digest,
    }
    return [(name, value) for name, value in facts.items() if value]


def _short(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else units.short(str(value), 40)


def _task(record: RunRecord) -> str:
    return record.card.name if record.card else Path(record.config.task.source).name


def _verdict(
    record: RunRecord,
    split: str | None,
    judged: Rows | None,
    floors: pa.Table | None,
) -> dict[str, Any]:
    differences = compare.differences(record, split, judged, floors) if split else ()
    constant = sentences.constant_answer(judged.prediction) if judged else None
    line = sentences.headline(record, split)
    value = units.score(record.metric, record.evaluations[split].scores.get(record.metric)) if split else units.NONE
    bounds = units.interval(record.metric, record.evaluations[split].intervals.get(record.metric)) if split else ""
    named = value != units.NONE
    words = line.removeprefix(value).strip() + (f", 95{units.NBSP}% interval {bounds}" if bounds else "") + ", one seed"
    nearest = sentences.best(differences)
    sound = record.status == "ok" and constant is None and (nearest is None or nearest.gain > 0)
    compared = bool(split) and any(split in splits for splits in record.floors.values())
    return {
        "headline": line,
        "title": " ".join(units.short(_task(record), 80).split()),
        "score": value if named else None,
        "score_words": words if named else None,
        "tone": "" if sound else "alarm",
        "strip": _strip(record, split) if split else [],
        "verdict": sentences.verdict(record, split, differences, constant),
        "error": record.error,
        "warnings": [units.short(text, LONGEST) for text in (*record.warnings, *sentences.flags(record))],
        "floors": tables.floors(record, split, differences) if split and compared else None,
        "floors_figure": _floors_figure(record, split) if split and compared else None,
        "scores": tables.scores(record) if record.evaluations else None,
    }


def _strip(record: RunRecord, split: str) -> list[tuple[str, str, str]]:
    """The floors, side by side under the headline."""
    metric = record.metric
    beside = [(name, splits[split]) for name, splits in record.floors.items() if split in splits]
    listed = [
        (
            units.floor_title(n),
            units.score(metric, e.scores.get(metric)),
            units.interval(metric, e.intervals.get(metric)),
        )
        for n, e in beside
    ]
    return [found for found in listed if found[1] != units.NONE]


def _floors_figure(record: RunRecord, split: str) -> Markup:
    lines = [figures.dot("this run", record.metric, record.evaluations[split], True)]
    for name, splits in record.floors.items():
        if split in splits:
            lines.append(figures.dot(units.floor_title(name), record.metric, splits[split], False))
    lines = sorted((line for line in lines if math.isfinite(line.value)), key=lambda line: -line.value)
    return figures.dots("floors-figure", "The run beside the floors", record.metric, lines)


def _expected(record: RunRecord, plan: Plan | None) -> dict[str, Any]:
    return {
        "expectation": sentences.expectation(plan, record),
        "expected": tables.expected(plan, record),
        "evidence": [units.short(text, LONGEST) for text in plan.evidence] if plan else [],
    }


def _curve(record: RunRecord) -> dict[str, Any]:
    return {"curve": figures.curve(record), "curve_words": sentences.course(record)}


def _simplex(record: RunRecord) -> dict[str, Any]:
    found = record.landscape
    if found is None:
        return {"simplex": None}
    return {
        "simplex": simplex.figure(found),
        "simplex_caption": simplex.caption(found),
        "simplex_words": simplex.words(record, found),
        "simplex_table": simplex.table(found),
        "drift": figures.drift(record),
    }


def _displacement(record: RunRecord) -> dict[str, Any]:
    return {
        "displaced": displacement_figures.pictures(record),
        "displaced_words": displacement.words(record),
        "displaced_tables": displacement.tables(record.displacement) if record.displacement else (),
    }


def _answers(record: RunRecord, judged: Rows | None) -> dict[str, Any]:
    """What only the predictions can show; by kind, and nothing of it without them."""
    empty = dict.fromkeys(
        ("confusion", "confused", "reliability", "reliability_words", "calibration", "mistakes", "scatter", "residuals")
    )
    found: dict[str, Any] = {**empty, "largest": None, "written": None}
    if judged is None:
        return found
    kind = record.config.task.kind
    if kind == "regression":
        true, predicted = judged.numbers()
        if len(true):
            found["scatter"] = figures.scatter(true, predicted)
            found["residuals"] = figures.residuals(true, predicted)
            found["largest"] = answers.residuals(judged)
    elif kind == "generation":
        found["written"] = answers.written(judged, record.metric)
    else:
        found["confusion"] = answers.confusion(judged, record.labels)
        if found["confusion"] is None:
            found["confused"] = answers.confused(judged, record.labels)
        found["mistakes"] = answers.mistakes(judged)
        found |= _calibration(record, judged)
    return found


def _calibration(record: RunRecord, judged: Rows) -> dict[str, Any]:
    width = 0 if judged.probabilities is None else judged.probabilities.shape[1]
    names = record.labels or tuple(str(i) for i in range(width))  # a choice has positions for labels
    measured = calibration.measure(judged, names, record.temperature)
    if measured is None:
        return {}
    n = sum(b.n for b in measured.after)
    return {
        "reliability": figures.reliability(measured.after, measured.before),
        "reliability_words": f"{units.plural(n, 'example')} in bins of equal width; bars: 95 % Wilson intervals. "
        "On the dashed line, what is said with probability p is right p of the time.",
        "calibration": sentences.calibration(measured.error_before, measured.error_after, record.temperature, n),
    }


def _gaps(record: RunRecord) -> dict[str, Any]:
    if not record.gaps:
        return {"gaps": None}
    metric = record.gaps[0].metric
    lines = [
        figures.dot(units.split_title(split), metric, judged, split == "test")
        for split, judged in record.evaluations.items()
        if split == "test" or split.startswith("ood:")
    ]
    return {
        "gaps": tables.gaps(record),
        "gap_words": [sentences.gap(gap, compare.greater_is_better(gap.metric)) for gap in record.gaps],
        "gaps_figure": figures.dots("gaps-figure", "In and out of domain", metric, lines),
    }


def _rest(record: RunRecord) -> dict[str, Any]:
    return {
        "cost": tables.cost(record),
        "seconds": figures.seconds(record.cost),
        "total_seconds": units.seconds(record.cost.seconds),
        "identity": tables.identity(record),
        "config": _yaml(record.config.to_json()),
        "data": tables.data(record),
        "notes": [units.short(text, LONGEST) for text in record.notes],
    }


CONTENTS = (
    ("verdict", "Verdict", ("headline",)),
    ("warnings", "Warnings", ("warnings",)),
    ("expected", "Expected and achieved", ("expectation",)),
    ("floors", "Floors", ("floors",)),
    ("scores", "All scores", ("scores",)),
    ("curve-section", "Learning curve", ("curve",)),
    ("simplex", "The simplex", ("simplex",)),
    ("displacement", "Where the budget went", ("displaced",)),
    ("confusion", "Confusion", ("confusion", "confused")),
    ("calibration", "Calibration", ("reliability",)),
    ("ood", "Out of domain", ("gaps",)),
    ("regression", "Predicted and true", ("scatter",)),
    ("written", "What it writes", ("written",)),
    ("mistakes", "Sure and wrong", ("mistakes",)),
    ("cost", "Cost", ("cost",)),
    ("data", "Data", ("data", "notes")),
    ("config", "What was run", ("config",)),
)
"""Anchor, name in the list of sections, and the values of which one must be there."""


def _contents(values: Mapping[str, Any]) -> list[tuple[str, str]]:
    return [(anchor, name) for anchor, name, needs in CONTENTS if any(values[need] for need in needs)]


def _yaml(plain: Mapping[str, Any]) -> str:
    import yaml

    order = ("task", "model", "tuner", "objective", "schedule", "seeds")
    text: str = yaml.safe_dump({key: plain[key] for key in order}, sort_keys=False, allow_unicode=True, width=88)
    return text


def _plan(folder: Path) -> Plan | None:
    path = folder / "plan.json"
    try:
        return Plan.from_json(json.loads(path.read_bytes()))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise StoreError(
            f"`{path}` cannot be read as a plan ({error}). Remove it to get the report without one."
        ) from error


def read_table(folder: Path, name: str) -> pa.Table | None:
    """A Parquet file of the run folder, or None when it is not there.

    Raises:
        StoreError: it is there and cannot be read.
    """
    path = folder / name
    if not path.exists():
        return None
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        return pq.ParquetFile(path).read()  # `pq.read_table` imports pyarrow.dataset: 0.2 s
    except (OSError, pa.ArrowException) as error:
        raise StoreError(f"`{path}` is not a readable Parquet file ({error}). Evaluate the run again.") from error
