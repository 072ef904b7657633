"""Pictures of where the budget of a subset went: bars per layer and kind of matrix, a histogram, a curve.

Bars stand on one scale from 0 and carry their numbers beside them, so that nothing rests on a colour.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

from markupsafe import Markup

from foretune.records import Displacement, RunRecord, Share
from foretune.report import displacement, units
from foretune.report.figures import LEFT, RIGHT
from foretune.report.svg import WIDTH, Drawing, Scale, axes, cloud, polyline, ticks

ROW, BAR, FOOT, TOP, BESIDE = 31.0, 24.0, 40.0, 22.0, 62.0
LONGEST = 24

COURSES = (
    ("churn", "own", "exchanged in a step"),
    ("dense", "dev", "steps so far in which all weights competed"),
    ("certified", "other", "silos certified to keep their subset"),
)
"""Number of the curve, how its line is drawn, what it is a share of."""


def pictures(record: RunRecord) -> tuple[tuple[Markup, str], ...]:
    """Every figure that the record has the numbers for, with its caption."""
    found = record.displacement
    drawn: list[tuple[Markup | None, str]] = []
    if found is not None:
        each = "A row per kind of matrix, a bar per layer, all on one scale. Dotted: the mean over all."
        drawn += [
            (budget(found), f"What share of each matrix is in the subset. {each}"),
            (distance(found), f"How far the subset of each matrix is from the base. {each}"),
            (histogram(found), "How far each weight of the subset is from the base, on a logarithmic scale."),
        ]
    drawn.append(
        (
            course(record),
            "At the steps at which each was recorded. Dotted: the kept step.",
        )
    )
    return tuple((svg, caption) for svg, caption in drawn if svg is not None)


def uneven(found: Displacement) -> bool:
    """Whether some layer's matrix has clearly more or less of the budget than its size alone would give it."""
    mean = found.total.density
    return any(
        abs(share.density / mean - 1) > displacement.UNEVEN for share in displacement.cells(found) if share.weights
    )


def budget(found: Displacement) -> Markup | None:
    """The density of the subset in every matrix, layer after layer; None where it is the same everywhere."""
    if not uneven(found):
        return None
    whole = found.total
    shares = "; ".join(
        f"{name} {displacement.percent(s.chosen, whole.chosen)}" for name, s in displacement.kinds(found)
    )
    return _bars(
        Bars("budget", "Share of the weights in the subset", f"Share of the subset: {shares}.", "of the subset"),
        found,
        lambda share: share.density,
        lambda share: displacement.percent(share.chosen, whole.chosen),
        whole.density,
    )


def distance(found: Displacement) -> Markup:
    """The mean displacement of the subset in every matrix, layer after layer."""
    means = "; ".join(f"{name} {displacement.power(s.mean)}" for name, s in displacement.kinds(found))
    return _bars(
        Bars(
            "distance",
            "Mean distance from the base",
            f"Mean of {displacement.GAP}: {means}.",
            f"mean {displacement.GAP}",
        ),
        found,
        lambda share: share.mean,
        lambda share: displacement.power(share.mean),
        found.total.mean,
    )


def histogram(found: Displacement) -> Markup | None:
    """How many weights of the subset moved how far; None where none moved."""
    if not found.counts:
        return None
    edges = [(found.first_bin + i) / found.per_decade for i in range(len(found.counts) + 1)]
    low, high = math.floor(edges[0]), math.ceil(edges[-1])
    most = max(found.counts)
    words = f"{displacement.middle(found)} {displacement.rounded(found)}"
    drawing = Drawing("histogram", 226, "Histogram of the distance from the base", words)
    x, y = Scale(low, high, LEFT, RIGHT - 8), Scale(0, most * 1.05, 180, 30)
    for value in ticks(0, most, 4):
        drawing.line("grid", x.start, y(value), x.end, y(value))
        drawing.text("tick end", x.start - 6, y(value) + 4, _short_count(value))
    for exponent in range(low, high + 1, max(1, math.ceil((high - low) / 8))):
        drawing.line("tickmark", x(exponent), y.start, x(exponent), y.start + 4)
        drawing.text("tick mid", x(exponent), y.start + 17, f"10{displacement.raised(exponent)}")
    for i, (count, lost) in enumerate(zip(found.counts, found.lost, strict=True)):
        left, width = x(edges[i]) + 0.5, max(x(edges[i + 1]) - x(edges[i]) - 1, 0.5)
        kept = y(count - lost)
        if count > lost:
            drawing.add("rect", "bar", x=left, y=kept, width=width, height=y.start - kept)
        if lost:
            drawing.add("rect", "hollow", x=left + 0.5, y=y(count), width=max(width - 1, 0.5), height=kept - y(count))
    drawing.line("axis", x.start, y.start, x.end, y.start)
    drawing.text("name", 0, 14, "weights")
    drawing.text("name end", x.end, y.start + 36, displacement.GAP)
    if any(found.lost):
        drawing.add("rect", "hollow", x=x.end - 150, y=4.5, width=11, height=11)
        drawing.text("name end", x.end, 14, "the base again in bf16")
    return drawing.markup()


def course(record: RunRecord) -> Markup | None:
    """What share of the subset a step exchanged, over training, and the shares of silos beside it; None without."""
    lines = [(css, words, points) for name, css, words in COURSES if (points := displacement.points(record, name))]
    if not any(css == "own" for css, _, _ in lines):
        return None
    head = 14.0 + 18 * len(lines)
    drawing = Drawing("course", head + 162, "The subset over training", displacement.settled(record))
    steps = [step for _, _, points in lines for step, _ in points]
    values = [value for _, _, points in lines for _, value in points]
    x = Scale(0, max(*steps, 1), LEFT, RIGHT)
    y = Scale(0, (1.0 if len(lines) > 1 else max(values) * 1.08) or 1.0, head + 120, head)
    axes(drawing, x, y, "step", "", ytext=lambda value: f"{100 * value:.3g}{units.NBSP}%")
    if record.chosen_step is not None:
        drawing.line("chosen", x(record.chosen_step), y.start, x(record.chosen_step), y.end)
    for i, (css, words, points) in enumerate(lines):
        drawing.line(f"curve {css}", 0, 10 + 18 * i, 26, 10 + 18 * i)
        drawing.text("name", 34, 14 + 18 * i, words)
        placed = [(x(step), y(value)) for step, value in points]
        drawing.add("path", f"curve {css}", d=polyline(placed))
        if len(placed) <= 60:
            drawing.add("path", f"dots {css}", d=cloud(placed))
    return drawing.markup()


@dataclass(frozen=True)
class Bars:
    """What a picture of bars is called, tells those who do not see it, and says beside each row."""

    name: str
    title: str
    told: str
    beside: str


def _bars(
    what: Bars, found: Displacement, value: Callable[[Share], float], beside: Callable[[Share], str], mean: float
) -> Markup:
    """A row per kind of matrix, a bar per layer, all on one scale from 0; dashed: the mean over all of them."""
    rows = list(displacement.kinds(found))
    left = 8 + 6.4 * max(len(_cut(name)) for name, _ in rows)
    spans = list(_columns(found, left, WIDTH - BESIDE))
    drawing = Drawing(what.name, TOP + ROW * len(rows) + FOOT, what.title, what.told)
    drawing.text("name end", WIDTH, 12, what.beside)
    top = max((value(share) for share in displacement.cells(found) if math.isfinite(value(share))), default=0.0) or 1.0
    for j, (name, together) in enumerate(rows):
        floor = TOP + ROW * (j + 1) - 3
        drawing.text("name", 0, floor - 4, _cut(name))
        drawing.text("value end", WIDTH, floor - 4, beside(together))
        drawing.line("grid", left, floor, WIDTH - BESIDE, floor)
        for i, (at, width) in enumerate(spans):
            share = found.at(i, j)
            if share.weights and math.isfinite(value(share)):
                height = max(BAR * (value(share) / top), 0.6)
                drawing.add("rect", "bar", x=at, y=floor - height, width=width, height=height)
        if 0 <= mean <= top:
            drawing.line("even", left, floor - BAR * (mean / top), WIDTH - BESIDE, floor - BAR * (mean / top))
    _layer_axis(drawing, found, spans, TOP + ROW * len(rows))
    return drawing.markup()


def _columns(found: Displacement, start: float, end: float) -> Iterator[tuple[float, float]]:
    """Where the bar of each layer begins and how wide it is; a gap stands between stacks of layers."""
    stacks = [displacement.stack_of(name)[0] for name in found.layers]
    breaks = sum(a != b for a, b in pairwise(stacks))
    width = (end - start - 12.0 * breaks) / len(stacks)
    for i, stack in enumerate(stacks):
        start += 12.0 if i and stack != stacks[i - 1] else 0.0
        yield start + 0.1 * width, 0.8 * width
        start += width


def _layer_axis(drawing: Drawing, found: Displacement, spans: Sequence[tuple[float, float]], y: float) -> None:
    """The numbers of the layers, as many as there is room for, above the name of their stack."""
    placed: dict[str, list[tuple[str, float]]] = {}
    for name, (at, width) in zip(found.layers, spans, strict=True):
        stack, number = displacement.stack_of(name)
        placed.setdefault(stack, []).append((number, at + width / 2))
    for name, mine in zip(displacement.stack_names(list(placed)), placed.values(), strict=True):
        first, last = mine[0][1], mine[-1][1]
        room = max(1, int((last - first) // 26))
        for number, x in mine[:: max(1, math.ceil((len(mine) - 1) / room))]:
            drawing.text("tick mid", x, y + 14, number)
        drawing.text("name mid", (first + last) / 2, y + 31, name)


def _short_count(value: float) -> str:
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= size:
            return f"{value / size:.3g}{letter}"
    return f"{value:.3g}"


def _cut(name: str) -> str:
    return name if len(name) <= LONGEST else f"…{name[1 - LONGEST :]}"
