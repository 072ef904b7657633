"""comparison.html and its companions: what a reader sees of a comparison, verdict in words first.

The page is drawn from a ``Verdict`` alone; it holds no date of its own, so that the same verdict gives the same bytes.
Figures of one kind stay together under their task. What is long is folded, never left out.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from markupsafe import Markup

from foretune.errors import StoreError
from foretune.records import ALL, SCORE, Contrast, Front, Verdict
from foretune.report import html, table_files, units, verdict_sentences, verdict_warnings
from foretune.report import verdict_figures as figures
from foretune.report import verdict_tables as tables
from foretune.report import verdict_words as words
from foretune.report.tables import Table

PAGE, RECORD = "comparison.html", "verdict.json"
SHOWN = 6
"""Sentences of a kind that stand on the page unfolded, and lines of a kind in the terminal."""


def write(verdict: Verdict, folder: Path) -> tuple[Path, ...]:
    """Write ``comparison.html``, ``verdict.json``, ``tables.csv``, ``tables.md`` and ``tables.tex``; returns the paths.

    Raises:
        StoreError: a file cannot be written.
    """
    title = f"Comparison {verdict.digest} on {verdict.model}"
    made = list(tables.every(verdict))
    texts = {
        PAGE: render(verdict),
        RECORD: json.dumps(verdict.to_json(), ensure_ascii=False, allow_nan=False, indent=1) + "\n",
        "tables.csv": table_files.as_csv(verdict),
        "tables.md": table_files.as_markdown(made, title),
        "tables.tex": table_files.as_latex(made, title),
    }
    return tuple(html.written(folder / name, text) for name, text in texts.items())


def read(path: Path) -> Verdict:
    """Read a ``verdict.json``, or the one in a folder.

    Raises:
        StoreError: it is not there, or is no verdict.
    """
    path = path / RECORD if path.is_dir() else path
    try:
        return Verdict.from_json(json.loads(path.read_bytes()))
    except FileNotFoundError as error:
        raise StoreError(f"`{path}` does not exist. Run the comparison first, or name its folder.") from error
    except (OSError, ValueError, TypeError) as error:
        raise StoreError(f"`{path}` cannot be read as a verdict ({error}). Write it again from the store.") from error


def summary(verdict: Verdict) -> list[str]:
    """The verdict as lines for a terminal: headline, what was found, what is missing or flagged."""
    lines = [f"{verdict_sentences.headline(verdict)}.", *_some(verdict_sentences.lead(verdict), "more places")]
    found = verdict_sentences.claims(verdict, ("better", "worse", "equivalent"))
    lines += _some(found, "more findings")
    if not found:
        lines += _some(verdict_sentences.claims(verdict, ("undecided", "refused")), "more contrasts")
    lines += _some(verdict_warnings.failures(verdict) + verdict_warnings.absent(verdict), "more failed or missing")
    for warned in verdict_warnings.warned(verdict):
        lines.append(f"{warned.name}: {warned.meaning} ({units.plural(len(warned.places), 'place')})")
    return [words.one_line(line) for line in lines]


def render(verdict: Verdict) -> str:
    """The page as text."""
    several = len(verdict.tasks) > 1
    values = {
        "headline": verdict_sentences.headline(verdict),
        "tone": "" if any(cell.score for cell in verdict.cells) else "alarm",
        "facts": _facts(verdict),
        "lead": verdict_sentences.lead(verdict),
        "claims": _claims(verdict),
        "shown": SHOWN,
        "warnings": verdict_warnings.warned(verdict),
        "constants": verdict_warnings.constants(verdict),
        "lacking": verdict_warnings.failures(verdict) + verdict_warnings.absent(verdict),
        "across": _across(verdict) if several else None,
        "tasks": [_task(verdict, i, task) for i, task in enumerate(verdict.tasks)],
        "outside": _outside(verdict),
        "fronts": tables.fronts(verdict),
        "protocol": verdict.protocol,
        "digest": verdict.digest,
        "notes": verdict.notes,
    }
    return html.rendered(
        "comparison.html.j2", ("style.css", "comparison.css"), {**values, "contents": _contents(values)}
    )


@dataclass(frozen=True)
class Picture:
    """A figure and what stands below it."""

    svg: Markup
    caption: str


@dataclass(frozen=True)
class TaskView:
    """What the page shows of one task."""

    key: str
    name: str
    scores: Table
    details: Table
    costs: tuple[Table, ...]
    contrasts: tuple[Table, ...]
    leading: tuple[Picture, ...]
    fronts: tuple[Picture, ...]
    forests: tuple[Picture, ...]


def _facts(verdict: Verdict) -> list[tuple[str, str]]:
    seeds = {len({(run.data_seed, run.init_seed) for run in cell.runs}) for cell in verdict.cells}
    spread = f"{min(seeds)} to {max(seeds)}" if len(seeds) > 1 else str(next(iter(seeds), 0))
    budgets = words.listed([words.budget(n) for n in verdict.shots]) if verdict.shots else units.NONE
    facts = {
        "model": units.short(verdict.model, 80),
        "methods": units.count(len(verdict.methods)),
        "tasks": units.count(len(verdict.tasks)),
        "labels per class" if verdict.shots_are == "per_class" else "labels": budgets,
        "seeds": spread,
        "runs": units.count(sum(len(cell.runs) for cell in verdict.cells)),
        "made": verdict.created[:16].replace("T", " "),
        "protocol": verdict.digest,
    }
    return [(name, value) for name, value in facts.items() if value]


def _claims(verdict: Verdict) -> list[tuple[str, list[str]]]:
    groups = (
        ("Differences that were found", ("better", "worse")),
        ("Equivalent within the declared margin", ("equivalent",)),
        ("No difference found", ("undecided",)),
        ("Nothing claimed", ("refused",)),
    )
    found = ((title, verdict_sentences.claims(verdict, kinds)) for title, kinds in groups)
    return [(title, sentences) for title, sentences in found if sentences]


def _across(verdict: Verdict) -> dict[str, Any] | None:
    made = [table for shots in verdict.shots if (table := tables.across(verdict, shots))]
    contrasts = tables.contrasts(verdict, ALL)
    if not made and contrasts is None:
        return None
    ranks = [
        f"With {words.labels(each.shots, verdict.shots_are)}, Friedman's test over "
        f"{units.plural(each.n_tasks, 'task')} gives p {words.p_value(each.p)}; mean ranks further apart than "
        f"{units.fixed(each.critical_difference, 2)} differ."
        for each in verdict.rankings
    ]
    return {
        "tables": made,
        "improvement": [table for shots in verdict.shots if (table := tables.improvement(verdict, shots))],
        "contrasts": contrasts,
        "ranks": ranks,
        "pictures": [
            *_forests(verdict, ALL, "across", SCORE),
            *(p for _, p in _fronts(verdict, ALL, "across-front")),
        ],
    }


def _task(verdict: Verdict, i: int, task: str) -> TaskView:
    drawn = _fronts(verdict, task, f"front-{i}")
    most = max((front.shots for front, _ in drawn), key=lambda shots: shots or math.inf, default=None)
    first = [picture for front, picture in drawn if front.shots == most][:1]
    caption = "Bars: 95 % intervals. Dotted: floors. Marks of one budget stand side by side."
    if 0 in verdict.shots:
        caption += " All labels stand at the right, outside the logarithmic scale."
    curves = [Picture(svg, caption) for svg in figures.curves(verdict, task)]
    tried = [each for each in verdict.tuning if each.task == task]
    tuned = [
        Picture(
            svg,
            f"With {words.labels(shots, verdict.shots_are)}: the score to expect of the trial that is chosen "
            "among k. Bars: one standard deviation between tunings.",
        )
        for shots in dict.fromkeys(each.shots for each in tried)
        if (svg := figures.tuning(verdict, [t for t in tried if t.shots == shots], f"tuning-{i}-{shots}"))
    ]
    return TaskView(
        f"task-{i}",
        task,
        tables.scores(verdict, task),
        tables.details(verdict, task),
        (tables.costs(verdict, task), tables.times(verdict, task)),
        tuple(t for t in (tables.contrasts(verdict, task), tables.other_tests(verdict, task)) if t is not None),
        (*curves, *first, *tuned),
        tuple(picture for _, picture in drawn if picture not in first),
        _forests(verdict, task, f"forest-{i}", SCORE),
    )


def _fronts(verdict: Verdict, task: str, key: str) -> list[tuple[Front, Picture]]:
    found = []
    for i, front in enumerate(front for front in verdict.fronts if front.task == task):
        svg = figures.pareto(verdict, front, f"{key}-{i}")
        if svg is not None:
            caption = (
                f"With {words.labels(front.shots, verdict.shots_are)}. On the front: no other method scores at least "
                "as well for at most the cost. Hollow: less likely than not."
            )
            found.append((front, Picture(svg, caption)))
    return found


def _forests(verdict: Verdict, task: str, key: str, measure: str) -> tuple[Picture, ...]:
    groups: dict[tuple[int | None, str], list[Contrast]] = {}
    for contrast in verdict.contrasts:
        if contrast.task == task and contrast.measure == measure:
            groups.setdefault((contrast.shots, contrast.metric), []).append(contrast)
    made = []
    for i, ((shots, _), group) in enumerate(groups.items()):
        where = words.place(task, shots, verdict.shots_are, len(verdict.tasks)).replace("`", "")
        svg = figures.forest(group, f"{key}-{i}", f"Contrasts {where}")
        if svg is not None:
            made.append(Picture(svg, _read(group, where)))
    return tuple(made)


def _read(group: list[Contrast], where: str) -> str:
    """How to read a forest, naming only what stands in it."""
    marks = {
        "undecided": "hollow: no difference found",
        "equivalent": "square: equivalent within the margin",
        "refused": "cross: nothing claimed",
    }
    kinds = {contrast.kind for contrast in group}
    found = ["filled: a difference was found"] if kinds & {"better", "worse"} else []
    found += [text for kind, text in marks.items() if kind in kinds]
    margins = [c.margin for c in group if c.margin is not None]
    band = f" Band: the margin of {words.margin(group[0].metric, max(margins))}." if margins else ""
    return f"First minus second {where}, adjusted intervals; {'; '.join(found)}.{band}"


def _outside(verdict: Verdict) -> dict[str, Any] | None:
    made = tables.outside(verdict)
    if not made:
        return None
    told = [verdict_warnings.gap(verdict, cell, each) for cell in verdict.cells for each in cell.outside]
    measures = dict.fromkeys(c.measure for c in verdict.contrasts if c.measure != SCORE)
    return {
        "tables": made,
        "parts": tables.parts(verdict),
        "tally": verdict_warnings.gaps(verdict),
        "gaps": [text for text in told if text is not None],
        "pictures": [
            picture
            for i, measure in enumerate(measures)
            for j, task in enumerate((ALL, *verdict.tasks))
            for picture in _forests(verdict, task, f"outside-{i}-{j}", measure)
        ],
    }


def _contents(values: Mapping[str, Any]) -> list[tuple[str, str]]:
    found = [("verdict", "Verdict", True), ("claims", "Claims", values["claims"])]
    found += [
        ("warnings", "Warnings", values["warnings"] or values["constants"]),
        ("lacking", "Failed and missing", values["lacking"]),
        ("across", "Across tasks", values["across"]),
    ]
    found += [(view.key, units.short(view.name, 40), True) for view in values["tasks"]]
    found += [
        ("outside", "Out of domain", values["outside"]),
        ("fronts", "Score against cost", values["fronts"]),
        ("reading", "How to read this", True),
        ("protocol", "Protocol", True),
    ]
    return [(key, name) for key, name, there in found if there]


def _some(sentences: list[str], rest: str) -> list[str]:
    left = len(sentences) - SHOWN
    return sentences[:SHOWN] + ([f"And {units.count(left)} {rest}: see {PAGE}."] if left > 0 else [])
