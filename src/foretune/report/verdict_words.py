"""The phrases that sentences, tables and pictures of a comparison share: places, scores, differences, p values."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence

from foretune.evaluation.named import METRICS
from foretune.records import ALL, SCORE, CellResult, Contrast, Measured
from foretune.report import units

SMALLEST_P = 0.001
MOST_DIGITS = 4
"""Decimals that are added to an end of an interval until it no longer looks like 0."""

COSTS = {
    "seconds": ("training time", units.seconds),
    "item_seconds": ("time of one prediction", units.seconds),
    "peak_bytes": ("peak memory", units.size),
    "adapter_bytes": ("size on disk", units.size),
    "trainable_parameters": ("trained parameters", units.large),
    "tokens": ("training tokens", units.large),
}
"""What a cost is called, and how it is written."""


def code(name: str) -> str:
    """A name of the user's inside a sentence: on one line, without the quote that would end it.

    >>> code("lo`ra")
    "`lo'ra`"
    """
    return f"`{units.short(' '.join(name.replace('`', chr(39)).split()), 60)}`"


def one_line(text: str) -> str:
    """A text without line breaks and control characters; no-break spaces stay.

    >>> one_line(" a\\n b\\x1b[31m")
    'a b[31m'
    """
    return " ".join(re.split(r"[^\S\u00a0]+", re.sub(r"[\x00-\x08\x0e-\x1f\x7f-\x9f]", "", text).strip()))


def names(found: Iterable[str]) -> str:
    """``a``, ``b`` and ``c``.

    >>> names(["lora", "full", "icl"])
    '`lora`, `full` and `icl`'
    """
    return listed([code(name) for name in found])


def listed(found: Sequence[str]) -> str:
    """The texts with commas and an "and"."""
    return found[0] if len(found) == 1 else f"{', '.join(found[:-1])} and {found[-1]}"


def labels(shots: int, shots_are: str) -> str:
    """A label budget in words; 0 is every row there is.

    >>> labels(16, "per_class").replace(units.NBSP, " "), labels(0, "per_class")
    ('16 labels per class', 'all labels')
    """
    if not shots:
        return "all labels"
    return units.plural(shots, "label") + (" per class" if shots_are == "per_class" else "")


def budget(shots: int | None) -> str:
    """A label budget as a number in a table.

    >>> budget(1200), budget(0), budget(None)
    ('1,200', 'all', '–')
    """
    if shots is None:
        return units.NONE
    return units.count(shots) if shots else ALL


def place(task: str, shots: int | None, shots_are: str, n_tasks: int) -> str:
    """Where something holds: on which task, with how many labels.

    >>> place(ALL, None, "total", 3).replace(units.NBSP, " ")
    'across 3 tasks and all label budgets'
    """
    where = f"across {units.plural(n_tasks, 'task')}" if task == ALL else f"on {code(task)}"
    return f"{where} and all label budgets" if shots is None else f"{where} with {labels(shots, shots_are)}"


def measure(contrast: Contrast) -> str:
    """What was compared, where it is not the score in domain."""
    if contrast.measure == SCORE:
        return ""
    name = contrast.measure
    return f"out of domain ({code(name[4:])}) " if name.startswith("ood:") else f"in {name.replace('_', ' ')} "


def scored(metric: str, found: Measured | None) -> str:
    """A score with its interval, cut to the metric's own scale.

    >>> scored("accuracy", Measured(0.98, 0.94, 1.02)).replace(units.NBSP, " ")
    '98.0 % [94.0, 100.0]'
    """
    if found is None:
        return units.NONE
    shown = clipped(metric, found)
    return " ".join(text for text in (units.score(metric, shown.value), bounds(metric, shown)) if text)


def clipped(metric: str, found: Measured) -> Measured:
    """The same score with the ends of its interval inside the metric's scale: no accuracy lies above 1."""
    known = METRICS.get(metric)
    if known is None or math.isnan(found.low) or math.isnan(found.high):
        return found
    low, high = (min(max(end, known.low), known.high) for end in (found.low, found.high))
    return Measured(found.value, low, high, found.interval, found.level, n_seeds=found.n_seeds, n_items=found.n_items)


def bounds(metric: str, found: Measured) -> str:
    """``[low, high]`` with as many decimals as it takes to see on which side of 0 each end lies.

    >>> bounds("accuracy", Measured(0.02, 0.0004, 0.04)).replace(units.NBSP, " ")
    '[0.04, 4.00]'
    """
    ends = (found.low, found.high)
    if not all(math.isfinite(end) for end in ends):
        return ""
    form = units.metric(metric)
    digits = form.digits
    while digits < form.digits + MOST_DIGITS and any(_hidden(end * form.scale, digits) for end in ends):
        digits += 1
    low, high = (units.fixed(end * form.scale, digits) for end in ends)
    return f"[{low},{units.NBSP}{high}]"


def _hidden(value: float, digits: int) -> bool:
    return value != 0 and float(f"{value:.{digits}f}") == 0


def difference(metric: str, found: Measured) -> str:
    """A signed difference with its interval."""
    return " ".join(text for text in (units.difference(metric, found.value), bounds(metric, found)) if text)


def amount(metric: str, value: float) -> str:
    """A size without a sign: ``2.1 points of accuracy``, ``0.031 in Matthews correlation``."""
    form = units.metric(metric)
    text = units.difference(metric, abs(value)).removeprefix("+")
    return f"{text} of {form.title}" if form.scale == 100 else f"{text} in {form.title}"


def margin(metric: str, value: float) -> str:
    """A margin as it was declared.

    >>> margin("accuracy", 0.01).replace(units.NBSP, " "), margin("mcc", 0.02)
    ('1 point', '0.02')
    """
    if units.metric(metric).scale != 100:
        return f"{value:g}"
    points = f"{value * 100:g}"
    return f"{points}{units.NBSP}point{'' if points == '1' else 's'}"


def p_value(value: float | None, *, equals: bool = True) -> str:
    """``= 0.012``, ``< 0.001``, or a dash.

    >>> p_value(0.0123), p_value(0.0001), p_value(None), p_value(0.2, equals=False)
    ('= 0.012', '< 0.001', '–', '0.200')
    """
    if value is None or not math.isfinite(value):
        return units.NONE
    if value < SMALLEST_P:
        return f"< {SMALLEST_P}"
    return f"{'= ' if equals else ''}{value:.3f}"


def basis(found: Measured) -> str:
    """What a number rests on: seeds and test rows. Tasks are named by ``place``."""
    counted = ((found.n_seeds, "seed"), (found.n_items, "test row"))
    return ", ".join(units.plural(n, noun) for n, noun in counted if n is not None)


def cost_title(name: str) -> str:
    """What a cost is called."""
    return COSTS[name][0] if name in COSTS else name.replace("_", " ")


def tick(name: str, value: float) -> str:
    """A cost that is a round number, as short as an axis needs it.

    >>> [tick("seconds", v).replace(units.NBSP, " ") for v in (10, 300)], tick("tokens", 3e6)
    (['10 s', '5 min'], '3M')
    """
    if not value:
        return "0"
    if name in ("trainable_parameters", "tokens"):
        size, letter = next(pair for pair in ((1e9, "G"), (1e6, "M"), (1e3, "k"), (0.0, "")) if value >= pair[0])
        return f"{value / (size or 1):g}{letter}"
    return re.sub(rf"\.0+(?=\D|$)|(?<=min) 0{units.NBSP}s|(?<=h) 0{units.NBSP}min", "", cost(name, value))


def cost(name: str, value: float | None) -> str:
    """A cost with its unit, or a dash where it was not measured."""
    if value is None or not math.isfinite(value):
        return units.NONE
    return COSTS[name][1](value) if name in COSTS else f"{value:,.3g}"


def runs(cell: CellResult) -> str:
    """How many runs a cell rests on, and what became of the others.

    >>> from foretune.records import CellRun
    >>> cell = CellResult("full", "cola", 16, 32, "accuracy", True, (CellRun(0, 0, "ok", 0.7), CellRun(1, 0, "oom")))
    >>> runs(cell)
    '1 of 2 (1 oom)'
    """
    good, lost = len(cell.runs) - len(cell.failed), [run.status for run in cell.failed]
    if not lost:
        return units.count(good)
    told = ", ".join(f"{lost.count(status)} {status}" for status in dict.fromkeys(lost))
    return f"{good} of {len(cell.runs)} ({told})"


def common(values: Sequence[str]) -> str | None:
    """The one value that all share; None where they differ or there is none."""
    return values[0] if values and len(set(values)) == 1 else None
