"""Predictions -> tables of text: what is taken for what, the surest mistakes, the largest errors, what was written."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from foretune.evaluation import generation
from foretune.report import units
from foretune.report.predictions import Rows
from foretune.report.tables import LABEL_LIMIT, Column, Table

MATRIX_CLASSES = 20
"""Up to here a confusion matrix can be read; beyond, the most confused pairs are listed."""

EXAMPLES = 20
TEXT_LIMIT = 320
SHADES = 9
REFERENCES = "\x1f"
"""Stands between several accepted responses in a label, as ``tasks`` joins them."""

PER_RESPONSE = {
    "exact_match": generation.exact_match,
    "token_f1": generation.token_f1,
    "rouge_l": generation.rouge_l,
    "chrf": generation.chrf,
    "bleu": generation.bleu,
    "gsm8k": generation.gsm8k,
}


@dataclass(frozen=True)
class Cell:
    """One count of a confusion matrix with its shade, 0 (none of the row) to ``SHADES`` (all of it)."""

    count: int
    shade: int
    hit: bool


@dataclass(frozen=True)
class Confusion:
    """Rows are labels, columns predictions, both in the same order."""

    labels: tuple[str, ...]
    cells: tuple[tuple[Cell, ...], ...]
    totals: tuple[int, ...]


def confusion(rows: Rows, labels: Sequence[str]) -> Confusion | None:
    """The matrix of counts, or None beyond ``MATRIX_CLASSES`` classes."""
    names = _names(rows, labels)
    if len(names) > MATRIX_CLASSES:
        return None
    pairs = Counter(zip(rows.label, rows.prediction, strict=True))
    cells, totals = [], []
    for label in names:
        counts = [pairs[label, other] for other in names]
        total = sum(counts)
        totals.append(total)
        cells.append(tuple(Cell(c, _shade(c, total), label == n) for c, n in zip(counts, names, strict=True)))
    return Confusion(tuple(units.short(n, LABEL_LIMIT) for n in names), tuple(cells), tuple(totals))


def confused(rows: Rows, labels: Sequence[str], limit: int = EXAMPLES) -> Table:
    """The pairs of classes that are confused most often."""
    totals = Counter(rows.label)
    wrong = Counter((y, p) for y, p in zip(rows.label, rows.prediction, strict=True) if y != p)
    order = sorted(wrong.items(), key=lambda item: (-item[1], item[0]))
    listed = [
        (units.short(y, LABEL_LIMIT), units.short(p, LABEL_LIMIT), units.count(k), units.fixed(100 * k / totals[y], 0))
        for (y, p), k in order[:limit]
    ]
    caption = (
        f"The {len(listed)} most confused of {units.plural(len(order), 'pair')} that occur among "
        f"{units.plural(len(_names(rows, labels)), 'class')}; {units.plural(sum(wrong.values()), 'error')} in "
        f"{units.plural(len(rows), 'example')}"
    )
    columns = (Column("Label", "user"), Column("Predicted", "user"), Column("Times", "number"))
    return Table(caption, (*columns, Column("% of the label", "number")), tuple(listed))


def mistakes(rows: Rows) -> Table | None:
    """The wrong predictions that the model was surest of, or None when there is none with a probability."""
    wrong = np.flatnonzero(~rows.correct & np.isfinite(rows.probability))
    if len(wrong) == 0:
        return None
    order = wrong[np.argsort(-rows.probability[wrong], kind="stable")][:EXAMPLES]
    listed = tuple(
        (
            units.count(rows.row[i]),
            units.short(rows.text[i], TEXT_LIMIT),
            units.short(rows.label[i], LABEL_LIMIT),
            units.short(rows.prediction[i], LABEL_LIMIT),
            units.fixed(float(rows.probability[i]), 3),
        )
        for i in order
    )
    columns = (Column("Row", "number"), Column("Text", "user"), Column("Label", "user"), Column("Predicted", "user"))
    caption = (
        f"The {len(listed)} most confident of {units.plural(len(wrong), 'wrong prediction')}; some may be wrong labels"
    )
    return Table(caption, (*columns, Column("Probability", "number")), listed)


def residuals(rows: Rows) -> Table | None:
    """The numbers that a regression missed by most."""
    listed = []
    for i, (label, prediction) in enumerate(zip(rows.label, rows.prediction, strict=True)):
        try:
            listed.append((abs(float(prediction) - float(label)), i))
        except ValueError:
            continue
    if not listed:
        return None
    worst = sorted(listed, key=lambda item: (-item[0], item[1]))[: EXAMPLES // 2]
    found = tuple(
        (
            units.count(rows.row[i]),
            units.short(rows.text[i], TEXT_LIMIT),
            _number(rows.label[i]),
            _number(rows.prediction[i]),
            f"{error:.3g}",
        )
        for error, i in worst
    )
    columns = (Column("Row", "number"), Column("Text", "user"), Column("True", "number"), Column("Predicted", "number"))
    return Table(f"The {len(found)} largest errors", (*columns, Column("Off by", "number")), found)


def written(rows: Rows, name: str) -> Table:
    """Responses beside their references, at equal distances through the file: nobody picked them."""
    chosen = np.unique(np.linspace(0, len(rows) - 1, EXAMPLES // 2).round().astype(int)).tolist()
    each = PER_RESPONSE[name](
        [rows.label[i].split(REFERENCES) for i in chosen], [rows.prediction[i] for i in chosen]
    ).examples
    listed = tuple(
        (
            units.count(rows.row[i]),
            units.short(rows.text[i], TEXT_LIMIT),
            units.short(rows.label[i].replace(REFERENCES, "\n"), TEXT_LIMIT),
            units.short(rows.prediction[i], TEXT_LIMIT),
            units.score(name, float(one)),
        )
        for i, one in zip(chosen, each, strict=True)
    )
    columns = (
        Column("Row", "number"),
        Column("Prompt", "user"),
        Column("Reference", "user"),
        Column("Written", "user"),
        Column(f"Score ({units.metric(name).title})", "number"),
    )
    caption = (
        f"{units.plural(len(listed), 'response')} of {units.count(len(rows))}, at equal distances through the file"
    )
    return Table(caption, columns, listed)


def _names(rows: Rows, labels: Sequence[str]) -> list[str]:
    """The record's labels, then any that only occur in the rows."""
    return list(dict.fromkeys([*labels, *sorted({*rows.label, *rows.prediction} - set(labels))]))


def _shade(count: int, total: int) -> int:
    return 0 if count == 0 else max(1, round(SHADES * count / total))


def _number(text: str) -> str:
    try:
        return f"{float(text):.4g}".replace("-", units.MINUS)
    except ValueError:
        return units.short(text, LABEL_LIMIT)
