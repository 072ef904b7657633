"""Tables as files: CSV with bare numbers for programs, Markdown and LaTeX with finished cells for papers.

Everything that came from a user is escaped for where it goes. In CSV a text that a spreadsheet would take for a formula
gets an apostrophe in front of it.
"""

from __future__ import annotations

import csv
import io
import math
import re
from collections.abc import Iterable, Iterator, Mapping

from foretune.records import CellResult, Contrast, Measured, MissingCell, OtherTests, Verdict
from foretune.report import units
from foretune.report import verdict_words as words
from foretune.report.tables import Table

FIELDS = (
    *("what", "task", "shots", "method", "against", "name", "metric", "value", "low", "high", "interval", "level"),
    *("seeds", "items", "tasks", "p", "adjusted_p", "contrasts", "claim", "detectable", "margin", "equivalence_p"),
    *("over_seeds_p", "sign_flip_p", "mcnemar_p"),
    *("runs", "runs_ok", "labels", "trainable_parameters", "adapter_bytes", "peak_bytes", "train_seconds"),
    *("pretraining_seconds", "teacher_seconds", "seconds"),
    *("tokens", "prompt_tokens", "item_seconds", "flags"),
)
"""The columns of the CSV: one long table, whose first column says what a row is about."""

LATEX = {
    **{char: f"\\{char}" for char in "&%$#_{}"},
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': r"\textquotedbl{}",
    units.NBSP: "~",
    units.MINUS: "$-$",
    "–": "--",
    "×": r"$\times$",
    "…": r"\dots{}",
    "\u2068": "",
    "\u2069": "",
}

FITTED = r"\resizebox{\ifdim\width>\linewidth\linewidth\else\width\fi}{!}{"
"""What shrinks a table that is wider than the text, and leaves the others alone."""


def as_csv(verdict: Verdict) -> str:
    """One row per score, floor, out-of-domain score, gap, forgetting, contrast, summary and missing cell.

    Numbers are bare and unrounded, in the metric's own unit, with intervals cut to its scale; an empty field is what
    is not known.
    """
    out = io.StringIO()
    writer = csv.DictWriter(out, FIELDS, restval="", lineterminator="\n")
    writer.writeheader()
    for row in _rows(verdict):
        writer.writerow({name: _field(value) for name, value in row.items()})
    return out.getvalue()


def as_markdown(tables: Iterable[Table], title: str) -> str:
    """GitHub's pipe tables under their captions.

    >>> from foretune.report.tables import Column
    >>> print(as_markdown([Table("a|b", (Column("Method"), Column("Score", "number")), (("lora", "0.5"),))], "T"))
    # T
    <BLANKLINE>
    **a\\|b**
    <BLANKLINE>
    | Method | Score |
    |---|---:|
    | lora | 0.5 |
    <BLANKLINE>
    """
    return "\n\n".join([f"# {markdown(title)}", *map(piped, tables)]) + "\n"


def piped(table: Table) -> str:
    """One table of ``as_markdown``."""
    lines = [f"**{markdown(table.caption)}**", "", _piped([column.name for column in table.columns])]
    lines.append(f"|{'|'.join('---:' if column.kind == 'number' else '---' for column in table.columns)}|")
    return "\n".join([*lines, *map(_piped, table.rows)])


def as_latex(tables: Iterable[Table], title: str) -> str:
    """``table`` environments with booktabs' rules, to be read in by ``\\input``."""
    parts = [f"% {latex(title)}\n% needs \\usepackage{{booktabs,graphicx}}; other scripts need XeLaTeX or LuaLaTeX"]
    for table in tables:
        columns = "".join("r" if column.kind == "number" else "l" for column in table.columns)
        body = [_row(column.name for column in table.columns), "\\midrule", *map(_row, table.rows)]
        parts.append(
            "\n".join(
                [
                    "\\begin{table}[t]\n\\centering\\small",
                    f"\\caption{{{latex(table.caption)}}}",
                    f"{FITTED}%\n\\begin{{tabular}}{{{columns}}}\n\\toprule",
                    *body,
                    "\\bottomrule\n\\end{tabular}}\n\\end{table}",
                ]
            )
        )
    return "\n\n".join(parts) + "\n"


def markdown(text: str) -> str:
    """A text inside Markdown: on one line, with nothing that Markdown or HTML would obey.

    >>> markdown("a_b|<i>")
    'a\\\\_b\\\\|&lt;i&gt;'
    """
    flat = words.one_line(text).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return re.sub(r"([\\`*_{}\[\]#|~])", r"\\\1", flat)


def latex(text: str) -> str:
    """A text inside LaTeX: on one line, with nothing that LaTeX would obey.

    >>> latex("50 % of a_b \\\\input")
    '50 \\\\% of a\\\\_b \\\\textbackslash{}input'
    """
    return "".join(LATEX.get(char, char) for char in words.one_line(text))


def _rows(verdict: Verdict) -> Iterator[Mapping[str, object]]:
    for cell in verdict.cells:
        head = {"task": cell.task, "shots": cell.shots, "method": cell.method, "metric": cell.metric}
        yield {"what": "score", **head, **_measured(cell.metric, cell.score), **_cost(cell)}
        yield {"what": "score over seeds", **head, **_measured(cell.metric, cell.over_seeds)}
        for name, floor in cell.floors.items():
            yield {"what": "floor", **head, "name": name, **_measured(cell.metric, floor)}
        for outside in cell.outside:
            yield {"what": "out of domain", **head, "name": outside.name, **_measured(cell.metric, outside.score)}
            if outside.gap is not None:
                yield {"what": "gap", **head, "name": outside.name, **_measured("", outside.gap)}
            for part in outside.parts:
                name = f"{outside.name}: {part.kind}: {part.name}"
                yield {"what": "out of domain", **head, "name": name, **_measured(cell.metric, part.score)}
        if cell.forgetting is not None:
            yield {"what": "forgetting", **head, "metric": "nll", **_measured("", cell.forgetting)}
    for contrast in verdict.contrasts:
        yield _contrast(contrast)
        if contrast.unadjusted is not None:
            both = {"method": contrast.first, "against": contrast.second, "name": contrast.measure}
            place = {"task": contrast.task, "shots": contrast.shots, "metric": contrast.metric}
            told = _measured("", contrast.unadjusted)
            yield {"what": "contrast, unadjusted", **place, **both, **told, "p": contrast.p}
    for each in verdict.across:
        head = {"task": "all", "shots": each.shots, "method": each.method}
        yield {"what": "mean over tasks", **head, **_measured("", each.mean)}
        yield {"what": "interquartile mean over tasks", **head, **_measured("", each.iqm)}
        yield {"what": "mean rank over tasks", **head, "value": each.rank}
        for other, found in each.improvement.items():
            yield {"what": "probability of improvement", **head, "against": other, **_measured("accuracy", found)}
    for front in verdict.fronts:
        for point in front.points:
            head = {"task": front.task, "shots": front.shots, "method": point.method}
            yield {"what": "probability of the front", **head, "name": front.cost, "value": point.probability}
    yield from (_missing(cell) for cell in verdict.missing)


def _measured(metric: str, found: Measured | None) -> dict[str, object]:
    if found is None:
        return {}
    shown = words.clipped(metric, found)
    ends = {"value": found.value, "low": shown.low, "high": shown.high, "interval": found.interval}
    return {
        **ends,
        "level": found.level,
        "seeds": found.n_seeds,
        "items": found.n_items,
        "tasks": found.n_tasks,
    }


def _cost(cell: CellResult) -> dict[str, object]:
    spent = cell.spent
    return {
        "runs": len(cell.runs),
        "runs_ok": len(cell.runs) - len(cell.failed),
        "labels": cell.labels if spent.labels is None else spent.labels,
        "trainable_parameters": spent.trainable_parameters,
        "adapter_bytes": spent.adapter_bytes,
        "peak_bytes": spent.peak_bytes,
        "train_seconds": spent.seconds.get("train"),
        "pretraining_seconds": spent.seconds.get("pretraining"),
        "teacher_seconds": spent.seconds.get("teacher"),
        "seconds": spent.all_seconds,
        "tokens": spent.tokens,
        "prompt_tokens": spent.prompt_tokens,
        "item_seconds": spent.item_seconds,
        "flags": "; ".join(cell.flags),
    }


def _contrast(contrast: Contrast) -> dict[str, object]:
    return {
        "what": "contrast",
        "task": contrast.task,
        "shots": contrast.shots,
        "method": contrast.first,
        "against": contrast.second,
        "name": contrast.measure,
        "metric": contrast.metric,
        **_measured("", contrast.difference),
        "p": contrast.p,
        "adjusted_p": contrast.adjusted_p,
        "contrasts": contrast.contrasts,
        "claim": contrast.kind,
        "detectable": contrast.detectable,
        "margin": contrast.margin,
        "equivalence_p": contrast.equivalence_p,
        **_other_tests(contrast.others),
        "flags": "; ".join(contrast.flags),
    }


def _other_tests(others: OtherTests | None) -> dict[str, object]:
    if others is None:
        return {}
    return {
        "over_seeds_p": others.over_seeds.p,
        "sign_flip_p": others.sign_flip_p,
        "mcnemar_p": "; ".join(f"{p:.4g}" for p in others.mcnemar_p),
    }


def _missing(cell: MissingCell) -> dict[str, object]:
    return {
        "what": "missing",
        "task": cell.task,
        "shots": cell.shots,
        "method": cell.method,
        "runs": len(cell.seeds) or None,
        "flags": cell.reason,
    }


def _field(value: object) -> object:
    if value is None or (isinstance(value, float) and not math.isfinite(value)):
        return ""
    if isinstance(value, str):
        flat = words.one_line(value)
        return f"'{flat}" if flat.startswith(("=", "+", "-", "@")) else flat
    return value


def _piped(cells: Iterable[str]) -> str:
    return f"| {' | '.join(markdown(cell) for cell in cells)} |"


def _row(cells: Iterable[str]) -> str:
    return f"{' & '.join(latex(cell) for cell in cells)} \\\\"
