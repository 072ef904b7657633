"""Pictures of a comparison: learning curves over labels, score against cost, contrasts with their margin.

A method keeps its shape, its dashes and its colour in every picture; shape and words alone are enough to read them.
No picture shows a point without its interval, and the front is a probability, never a line through the points.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import accumulate
from unicodedata import east_asian_width

from markupsafe import Markup

from foretune.records import CellResult, Contrast, Front, Measured, Tuning, Verdict
from foretune.report import units
from foretune.report import verdict_tables as tables
from foretune.report import verdict_words as words
from foretune.report.svg import WIDTH, Drawing, Scale, label, padded, polyline, ticks

LEFT, RIGHT, HEIGHT = 46.0, WIDTH - 14, 176.0
SHAPES, DASHES = 6, 4
"""Methods in one picture; the others get a picture of their own on the same scale."""
ROW = 36.0
HALF = 168.0
"""Room for a name that shares its line with another one."""
WIDE = frozenset("MWmw@%")
FINE = (1, 1.5, 2, 3, 4, 5, 6, 8)
TIMES = tuple(m * unit for unit in (1, 60, 3600) for m in (1, 2, 3, 4, 5, 7, 10, 15, 20, 30, 40))
PARTS = (1e-4, 1e-3, 1e-2, 1e-1)
ROUND = {
    "seconds": (
        (*(m * part for part in PARTS for m in (1, 3)), *(m * unit for unit in (1, 60, 3600) for m in (1, 3, 10, 30))),
        (*(m * part for part in PARTS for m in (1, 2, 5)), *TIMES),
    ),
    "other": tuple(tuple(m * 10.0**power for power in range(16) for m in steps) for steps in ((1, 3), FINE)),
}
"""Where the axis of a cost may have a tick: few of them over a wide range, more over a narrow one."""


@dataclass(frozen=True)
class Axis:
    """A logarithmic scale on which 0, where it occurs, has a place of its own at the left."""

    values: tuple[float, ...]

    @property
    def scale(self) -> Scale:
        """From powers of ten to drawing units."""
        powers = [math.log10(value) for value in self.values if value > 0]
        low, high = (min(powers), max(powers)) if powers else (0.0, 0.0)
        margin = 0.08 * (high - low) or 0.3
        start = LEFT + (44 if any(value <= 0 for value in self.values) else 0)
        return Scale(low - margin, high + margin, start, RIGHT)

    def __call__(self, value: float) -> float:
        """Where a value lies.

        >>> axis = Axis((0.0, 1.0, 100.0))
        >>> axis(0) < axis(1) < axis(10) < axis(100)
        True
        """
        return LEFT + 14 if value <= 0 else self.scale(math.log10(value))

    def ticks(self, cost: str) -> list[float]:
        """Round values with room for their labels; the values themselves where no round one lies between them."""
        low, high = 10**self.scale.low, 10**self.scale.high
        found: list[float] = sorted({value for value in self.values if value > 0})
        for candidates in ROUND["seconds" if cost.endswith("seconds") else "other"]:
            inside = [value for value in candidates if low <= value <= high]
            found = inside or found
            if len(inside) >= 3:
                break
        return _apart(([0.0] if min(self.values) <= 0 else []) + found, self, 54)


def curves(verdict: Verdict, task: str) -> tuple[Markup, ...]:
    """Score over label budgets with intervals, floors dotted; nothing with fewer than two budgets."""
    cells = [cell for cell in tables.of(verdict, task) if cell.score is not None]
    if len({cell.shots for cell in cells}) < 2:
        return ()
    metric = tables.metric_of(cells)
    scores = [words.clipped(metric, cell.score) for cell in cells if cell.score]
    marks = [m.value for cell in cells for m in cell.floors.values()]
    y = _vertical(metric, [v for m in scores for v in (m.value, m.low, m.high)] + marks)
    methods = [method for method in verdict.methods if any(cell.method == method for cell in cells)]
    parts = [methods[i : i + SHAPES] for i in range(0, len(methods), SHAPES)]
    where = verdict.tasks.index(task) if task in verdict.tasks else 0
    return tuple(
        _curves(f"curves-{where}-{i}", verdict, task, [c for c in cells if c.method in part], part, y)
        for i, part in enumerate(parts)
    )


def _curves(
    name: str, verdict: Verdict, task: str, cells: Sequence[CellResult], methods: Sequence[str], y: Scale
) -> Markup:
    metric, form = tables.metric_of(cells), units.metric(tables.metric_of(cells))
    told = "; ".join(f"{c.method} with {c.shots}: {words.scored(metric, c.score)}" for c in cells)
    floors = tables.floor_names(cells)
    foot = y.start + 44
    halves = math.ceil(len(methods) / 2)
    drawing = Drawing(name, foot + 20 * (halves + len(floors)), f"Learning curves on {task}", told)
    given = [shots for shots in verdict.shots if shots]
    last = 4.0 * max(given, default=1)
    axis = Axis(tuple(float(shots or last) for shots in verdict.shots))

    def x(shots: int) -> float:
        return axis(shots or last)

    _frame(drawing, y, form)
    for value in _apart([shots or last for shots in verdict.shots], axis, 26):
        _tick(drawing, axis(value), y.start, label(value) if value in given else "all")
    drawing.text("name end", RIGHT, y.start + 34, words.labels(2, verdict.shots_are)[2:])
    for k, floor in enumerate(floors):
        level = {c.shots: c.floors[floor].value for c in cells if floor in c.floors}
        drawing.add(
            "path", f"floor f{k % DASHES}", d=polyline(sorted((x(s), y(v * form.scale)) for s, v in level.items()))
        )
    for i, method in enumerate(methods):
        shift = (i - (len(methods) - 1) / 2) * 6.5
        own = sorted((cell for cell in cells if cell.method == method), key=lambda cell: x(cell.shots))
        places = [(x(c.shots) + shift, words.clipped(metric, c.score)) for c in own if c.score]
        style = _style(verdict, method)
        drawing.add("path", f"curve m{style}", d=polyline([(at, y(m.value * form.scale)) for at, m in places]))
        for at, found in places:
            _upright(drawing, style, at, y, found, form.scale)
            _mark(drawing, style, at, y(found.value * form.scale))
    _legend(drawing, verdict, methods, foot)
    for k, floor in enumerate(floors):
        top = foot + 20 * (halves + k)
        drawing.add("path", f"floor f{k % DASHES}", d=f"M0 {top:.1f}h18")
        drawing.text("name", 22, top + 4, _cut(f"floor: {units.floor_title(floor)}", 2 * HALF))
    return drawing.markup()


def pareto(verdict: Verdict, front: Front, name: str) -> Markup | None:
    """Score against cost; below it each method's probability of lying on the front. None where nothing was measured."""
    points = [p for p in front.points if math.isfinite(p.cost) and math.isfinite(p.score.value)]
    if not points:
        return None
    form, x = units.metric(front.metric), Axis(tuple(point.cost for point in points))
    scores = [words.clipped(front.metric, point.score) for point in points]
    y = _vertical(front.metric, [v for m in scores for v in (m.value, m.low, m.high)])
    told = "; ".join(
        f"{p.method} {words.scored(front.metric, p.score)} for {words.cost(front.cost, p.cost)}, "
        f"on the front with probability {_percent(p.probability)}"
        for p in points
    )
    foot = y.start + 66
    title = f"{form.title[0].upper()}{form.title[1:]} against {words.cost_title(front.cost)}"
    drawing = Drawing(name, foot + 20 * len(points), title, told)
    _frame(drawing, y, form)
    for value in x.ticks(front.cost):
        _tick(drawing, x(value), y.start, words.tick(front.cost, value))
    drawing.text("name end", RIGHT, y.start + 34, f"{words.cost_title(front.cost)}, logarithmic")
    if not front.greater_is_better:
        drawing.text("name end", RIGHT, y.end - 12, "less is preferred")
    drawing.text("name", 0, foot - 8, "probability of lying on the front")
    for point, found in zip(points, scores, strict=True):
        style = _style(verdict, point.method)
        _upright(drawing, style, x(point.cost), y, found, form.scale)
        _mark(drawing, style, x(point.cost), y(found.value * form.scale), hollow=point.probability < 0.5)
    for i, point in enumerate(sorted(points, key=lambda p: -p.probability)):
        top, style = foot + 8 + 20 * i, _style(verdict, point.method)
        _mark(drawing, style, 8, top, hollow=point.probability < 0.5)
        drawing.text("label", 22, top + 4, _cut(point.method))
        drawing.add("rect", "track", x=WIDTH - 152, y=top - 3, width=100, height=6)
        drawing.add("rect", f"fill m{style}", x=WIDTH - 152, y=top - 3, width=100 * point.probability, height=6)
        drawing.text("value end", WIDTH, top + 4, _percent(point.probability))
    return drawing.markup()


def forest(contrasts: Sequence[Contrast], name: str, title: str) -> Markup | None:
    """Contrasts of one metric one below the other, with adjusted intervals and the margin as a band."""
    drawn = [c for c in contrasts if math.isfinite(c.difference.value)]
    if not drawn:
        return None
    form = units.metric(drawn[0].metric)
    margin = max((c.margin for c in drawn if c.margin is not None), default=0.0) * form.scale
    ends = [v * form.scale for c in drawn for v in (c.difference.value, c.difference.low, c.difference.high)]
    reach = max([abs(v) for v in ends if math.isfinite(v)] + [margin * 1.5, 1e-9]) * 1.06
    x = Scale(-reach, reach, 10, WIDTH - 10)
    told = "; ".join(
        f"{c.first} minus {c.second} {words.difference(c.metric, c.difference)}: {tables.KINDS[c.kind]}" for c in drawn
    )
    bottom = 18 + ROW * len(drawn)
    drawing = Drawing(name, bottom + 38, title, told)
    if margin:
        drawing.add("rect", "band", x=x(-margin), y=14, width=x(margin) - x(-margin), height=bottom - 14)
    for value in ticks(-reach, reach, 7):
        drawing.line("zero" if value == 0 else "grid", x(value), 14, x(value), bottom)
        drawing.text("tick mid", x(value), bottom + 16, f"{value:g}".replace("-", units.MINUS))
    unit = "points of " if form.scale == 100 else ""
    drawing.text("name end", WIDTH - 10, bottom + 32, f"{unit}{form.title}")
    for i, contrast in enumerate(drawn):
        _contrast(drawing, x, 14 + ROW * i, contrast, form.scale)
    return drawing.markup()


def _contrast(drawing: Drawing, x: Scale, top: float, contrast: Contrast, scale: int) -> None:
    both = f"{_cut(contrast.first, 108)} {units.MINUS} {_cut(contrast.second, 108)}"
    found, middle = contrast.difference, top + 26
    drawing.text("label halo", 10, top + 15, both)
    drawing.text("label halo end", WIDTH - 10, top + 15, words.difference(contrast.metric, found))
    if math.isfinite(found.low) and math.isfinite(found.high):
        low, high = x(found.low * scale), x(found.high * scale)
        ends = f"M{low:.1f} {middle - 4:.1f}v8M{high:.1f} {middle - 4:.1f}v8"
        drawing.add("path", "whisker plain", d=f"M{low:.1f} {middle:.1f}H{high:.1f}{ends}")
    at = x(found.value * scale)
    if contrast.kind == "refused":
        drawing.add("path", "struck", d=f"M{at - 4:.1f} {middle - 4:.1f}l8 8m0 -8l-8 8")
    elif contrast.kind == "equivalent":
        drawing.add("rect", "known", x=at - 4.5, y=middle - 4.5, width=9, height=9)
    else:
        drawing.add("circle", "open" if contrast.kind == "undecided" else "known", cx=at, cy=middle, r=5)


def tuning(verdict: Verdict, found: Sequence[Tuning], name: str) -> Markup | None:
    """The expected score of the trial chosen among k, with one standard deviation between tunings; None without any."""
    if not found:
        return None
    metric = found[0].metric
    form = units.metric(metric)
    each = [
        (
            t,
            [words.clipped(metric, Measured(v, v - d, v + d)) for v, d in zip(t.expected, t.deviation, strict=True)],
        )
        for t in found
    ]
    y = _vertical(metric, [v for _, line in each for m in line for v in (m.value, m.low, m.high)])
    told = "; ".join(
        f"{t.method} from {units.score(metric, t.expected[0])} to {units.score(metric, t.expected[-1])}" for t in found
    )
    foot = y.start + 44
    drawing = Drawing(name, foot + 20 * math.ceil(len(found) / 2), "Expected score after tuning", told)
    last = max(2, *(len(t.expected) for t in found))
    x = Scale(1, last, LEFT + 16, RIGHT - 16)
    _frame(drawing, y, form)
    for k in range(1, last + 1, math.ceil(last / 10)):
        _tick(drawing, x(k), y.start, label(k))
    drawing.text("name end", RIGHT, y.start + 34, "trials of tuning")
    for i, (one, line) in enumerate(each):
        style, shift = _style(verdict, one.method), (i - (len(each) - 1) / 2) * 4
        places = [(x(k) + shift, m) for k, m in enumerate(line, 1)]
        drawing.add("path", f"curve m{style}", d=polyline([(at, y(m.value * form.scale)) for at, m in places]))
        for at, m in places:
            _upright(drawing, style, at, y, m, form.scale)
        _mark(drawing, style, places[-1][0], y(places[-1][1].value * form.scale))
    _legend(drawing, verdict, [one.method for one, _ in each], foot)
    return drawing.markup()


def _vertical(metric: str, values: Iterable[float]) -> Scale:
    return Scale(*padded([v * units.metric(metric).scale for v in values]), 30 + HEIGHT, 30)


def _frame(drawing: Drawing, y: Scale, form: units.Metric) -> None:
    for value in ticks(y.low, y.high, 4):
        drawing.line("grid", LEFT, y(value), RIGHT, y(value))
        drawing.text("tick end", LEFT - 6, y(value) + 4, label(value))
    drawing.line("axis", LEFT, y.start, RIGHT, y.start)
    drawing.text("name", 0, y.end - 12, f"{form.title}{f', {form.unit.strip()}' if form.unit else ''}")


def _tick(drawing: Drawing, x: float, y: float, text: str) -> None:
    drawing.line("tickmark", x, y, x, y + 4)
    drawing.text("tick mid", x, y + 17, text)


def _apart(values: Sequence[float], x: Axis, room: float) -> list[float]:
    """The values whose labels do not touch the one before."""
    kept: list[float] = []
    for value in sorted(values):
        if not kept or x(value) - x(kept[-1]) >= room:
            kept.append(value)
    return kept


def _upright(drawing: Drawing, style: int, x: float, y: Scale, found: Measured, scale: int) -> None:
    if math.isfinite(found.low) and math.isfinite(found.high):
        low, high = y(found.low * scale), y(found.high * scale)
        drawing.add(
            "path",
            f"whisker m{style}",
            d=f"M{x:.1f} {low:.1f}V{high:.1f}M{x - 3:.1f} {low:.1f}h6M{x - 3:.1f} {high:.1f}h6",
        )


def _mark(drawing: Drawing, style: int, x: float, y: float, hollow: bool = False) -> None:
    """Disc, square, diamond, triangle up, triangle down, bar: one shape for each style."""
    css = f"mark m{style}{' maybe' if hollow else ''}"
    if style == 0:
        drawing.add("circle", css, cx=x, cy=y, r=4.6)
        return
    shapes = {
        1: "m-4.2 -4.2h8.4v8.4h-8.4z",
        2: "m0 -6l6 6l-6 6l-6 -6z",
        3: "m0 -5.6l5.4 9.6h-10.8z",
        4: "m0 5.6l5.4 -9.6h-10.8z",
        5: "m-6 -2h12v4h-12z",
    }
    drawing.add("path", css, d=f"M{x:.1f} {y:.1f}{shapes[style]}")


def _legend(drawing: Drawing, verdict: Verdict, methods: Sequence[str], top: float) -> None:
    """Mark and name of each method, two in a row."""
    for i, method in enumerate(methods):
        x, y = 8 + (WIDTH / 2) * (i % 2), top + 20 * (i // 2)
        _mark(drawing, _style(verdict, method), x, y)
        drawing.text("name", x + 14, y + 4, _cut(method))


def _cut(name: str, room: float = HALF) -> str:
    """As much of a name as has room, by an estimate of how wide its letters are."""
    flat = " ".join(name.split())
    widths = [12.5 if char in WIDE or east_asian_width(char) in "WF" else 7.0 for char in flat]
    if sum(widths) <= room:
        return flat
    kept = sum(so_far <= room - 12 for so_far in accumulate(widths))
    return f"{flat[:kept]}…"


def _style(verdict: Verdict, method: str) -> int:
    return verdict.methods.index(method) % SHAPES if method in verdict.methods else 0


def _percent(value: float) -> str:
    return f"{100 * value:.0f}{units.NBSP}%"
