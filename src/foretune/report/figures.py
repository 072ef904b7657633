"""Figures as inline SVG. Shape, line style and words carry the meaning; colour only repeats it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

from foretune.records import Cost, Evaluation, RunRecord
from foretune.report import units
from foretune.report.calibration import Bin
from foretune.report.svg import WIDTH, Drawing, Scale, axes, cloud, padded, polyline, ticks

LEFT, RIGHT = 46.0, WIDTH - 8
ENDLESS = 1e100
"""A loss beyond this has diverged; like infinity, it cannot be drawn."""


@dataclass(frozen=True)
class Dot:
    """One line of a dot plot. The result of the run is a filled disc, everything beside it a hollow diamond."""

    name: str
    value: float
    low: float
    high: float
    own: bool


def dot(name: str, metric: str, judged: Evaluation, own: bool) -> Dot:
    """The line of one evaluation; without an interval its ends are NaN."""
    low, high = judged.intervals.get(metric, (math.nan, math.nan))
    return Dot(name, judged.scores.get(metric, math.nan), low, high, own)


def dots(name: str, title: str, metric: str, lines: Sequence[Dot]) -> Markup:
    """Scores with their intervals, one below the other on one scale.

    A share is drawn from 0 to 100 %, for a cut axis makes small differences look large.
    """
    form = units.metric(metric)
    values = [v * form.scale for line in lines for v in (line.value, line.low, line.high)]
    low, high = (0.0, 100.0) if form.scale == 100 else padded(values)
    x = Scale(low, high, 10, WIDTH - 10)
    row, foot = 46.0, 26.0
    told = "; ".join(f"{d.name} {units.scored(metric, d.value, (d.low, d.high))}" for d in lines)
    drawing = Drawing(name, row * len(lines) + foot, title, told)
    bottom = row * len(lines) + 2
    for value in ticks(low, high):
        drawing.line("grid", x(value), 4, x(value), bottom)
        drawing.text("tick mid", x(value), bottom + 16, f"{value:g}{form.unit}".replace("-", units.MINUS))
    for i, line in enumerate(lines):
        css = "own" if line.own else "other"
        top = i * row
        drawing.text(f"label halo {css}", 10, top + 17, units.short(line.name, 34))
        drawing.text(
            f"label halo end {css}", WIDTH - 10, top + 17, units.scored(metric, line.value, (line.low, line.high))
        )
        _whisker(drawing, x, top + 31, line, form.scale, css)
    return drawing.markup()


def _whisker(drawing: Drawing, x: Scale, y: float, line: Dot, scale: int, css: str) -> None:
    if math.isfinite(line.low) and math.isfinite(line.high):
        low, high = x(line.low * scale), x(line.high * scale)
        drawing.add(
            "path",
            f"whisker {css}",
            d=f"M{low:.1f} {y:.1f}H{high:.1f}M{low:.1f} {y - 4:.1f}v8M{high:.1f} {y - 4:.1f}v8",
        )
    if math.isfinite(line.value):
        at = x(line.value * scale)
        if line.own:
            drawing.add("circle", "disc", cx=at, cy=y, r=5.5)
        else:
            drawing.add("path", "diamond", d=f"M{at:.1f} {y - 5.5:.1f}l5.5 5.5l-5.5 5.5l-5.5 -5.5z")


def curve(record: RunRecord) -> Markup | None:
    """The dev metric above, the losses below, over the same steps, with the chosen step marked; None without points."""
    own = _finite(*record.curve.of("dev", record.metric))
    losses = [(split, _finite(*record.curve.of(split, "loss"))) for split in ("train", "dev")]
    drawn = [(split, line) for split, line in losses if line]
    if not own and not drawn:
        return None
    panels = bool(own) + bool(drawn)
    last = max([s for line in (own, *(p for _, p in drawn)) for s, _ in line])
    x = Scale(0, max(last, 1), LEFT, RIGHT)
    drawing = Drawing("curve", 12 + 182 * panels + 14, "Learning curve", _told(record, own, last))
    top = 30.0
    if own:
        form = units.metric(record.metric)
        points = [(s, v * form.scale) for s, v in own]
        y = Scale(*padded([v for _, v in points], 0.12), top + 126, top)
        last_panel = "" if drawn else "step"
        axes(drawing, x, y, last_panel, f"{form.title} on dev{f', {form.unit.strip()}' if form.unit else ''}")
        _chosen(drawing, x, y, record, dict(points))
        _line(drawing, x, y, points, "own")
        top += 182
    if drawn:
        y = Scale(*padded([v for _, line in drawn for _, v in line], 0.08), top + 126, top)
        axes(drawing, x, y, "step", "loss")
        _legend(drawing, top - 12, [split for split, _ in drawn])
        if record.chosen_step is not None:
            drawing.line("chosen", x(record.chosen_step), y.start, x(record.chosen_step), y.end)
        for split, line in drawn:
            _line(drawing, x, y, line, "train" if split == "train" else "dev")
    return drawing.markup()


def drift(record: RunRecord) -> Markup | None:
    """How alike the vertices of a simplex are over training: their cosine above, their distance below; None without.

    Both scales begin at 0, and that of the cosine ends at 1: a drift looks as large as it is.
    """
    cosines, distances = (_finite(*record.curve.of("train", f"vertex_{name}")) for name in ("cosine", "distance"))
    if not cosines or not distances:
        return None
    steps, top = [s for s, _ in cosines], 30.0
    x = Scale(0, max(*steps, 1), LEFT, RIGHT)
    told = f"Mean cosine {cosines[0][1]:.2f} at step {steps[0]}, {cosines[-1][1]:.2f} at step {steps[-1]}; "
    told += f"mean distance {distances[0][1]:.4g} and {distances[-1][1]:.4g}."
    drawing = Drawing("drift", 332, "Vertices over training", told)
    panels = (
        ("cosine between vertices", "", cosines, "vertex_cosine_max", 1.0),
        ("distance between vertices", "step", distances, "vertex_distance_min", 0.0),
    )
    for name, below, mean, extreme, high in panels:
        closest = _finite(*record.curve.of("train", extreme))
        values = [v for _, v in (*mean, *closest)]
        y = Scale(min(0.0, *values), max(high, *values) * (1.0 if high else 1.08) or 1.0, top + 106, top)
        axes(drawing, x, y, below, name)
        if record.chosen_step is not None:
            drawing.line("chosen", x(record.chosen_step), y.start, x(record.chosen_step), y.end)
        if closest:
            drawing.add("path", "curve dev", d=polyline([(x(s), y(v)) for s, v in closest]))
        _line(drawing, x, y, mean, "own")
        top += 162
    return drawing.markup()


def _told(record: RunRecord, own: Sequence[tuple[int, float]], last: int) -> str:
    told = f"{units.plural(last, 'step')}."
    if own:
        first, final = units.score(record.metric, own[0][1]), units.score(record.metric, own[-1][1])
        told += f" {units.metric(record.metric).title} on dev goes from {first} to {final}."
    if record.chosen_step is not None:
        told += f" The weights of step {units.count(record.chosen_step)} were kept."
    return told


def _chosen(drawing: Drawing, x: Scale, y: Scale, record: RunRecord, points: dict[int, float]) -> None:
    step = record.chosen_step
    if step is None:
        return
    at = x(step)
    drawing.line("chosen", at, y.start, at, y.end)
    side = "end" if at > (LEFT + RIGHT) / 2 else ""
    text = f"kept: step {units.count(step)}"
    drawing.text(f"note halo {side}".strip(), at + (-7 if side else 7), y.start - 8, text)
    if step in points:
        drawing.add("circle", "ring", cx=at, cy=y(points[step]), r=7)


def _line(drawing: Drawing, x: Scale, y: Scale, points: Sequence[tuple[int, float]], css: str) -> None:
    placed = [(x(s), y(v)) for s, v in points]
    drawing.add("path", f"curve {css}", d=polyline(placed))
    if len(placed) <= 60:
        drawing.add("path", f"dots {css}", d=cloud(placed))


def _legend(drawing: Drawing, y: float, splits: Sequence[str]) -> None:
    at = RIGHT
    for split in reversed(splits):
        drawing.text("name end", at, y, split)
        drawing.line(f"curve {split}", at - 62, y - 4, at - 36, y - 4)
        at -= 84


def reliability(after: Sequence[Bin], before: Sequence[Bin]) -> Markup:
    """Share of right answers against the stated probability, with Wilson intervals, over the number of examples.

    Args:
        after: the bins of the saved probabilities.
        before: those before the temperature; empty where none was fitted.
    """
    told = "; ".join(f"stated {b.confidence:.2f}, right {b.accuracy:.2f}, n {b.n}" for b in after)
    drawing = Drawing("reliability", 346, "Reliability diagram", told)
    x, y = Scale(0, 1, LEFT, RIGHT), Scale(0, 1, 236, 30)
    axes(drawing, x, y, "", "share that is right")
    drawing.line("ideal", x(0), y(0), x(1), y(1))
    drawing.text("note halo", x(0.04), y(0.9), "above the line: too modest")
    drawing.text("note halo end", x(0.97), y(0.06), "below the line: too sure")
    for found in before:
        px, py = x(found.confidence), y(found.accuracy)
        drawing.add("path", "cross", d=f"M{px - 4:.1f} {py - 4:.1f}l8 8m0 -8l-8 8")
    drawing.add("path", "curve own", d=polyline([(x(b.confidence), y(b.accuracy)) for b in after]))
    for found in after:
        px = x(found.confidence)
        drawing.add("path", "whisker own", d=f"M{px:.1f} {y(found.low):.1f}V{y(found.high):.1f}")
        drawing.add("circle", "disc", cx=px, cy=y(found.accuracy), r=4.5)
    _counts(drawing, x, after)
    if before:
        drawing.add("circle", "disc", cx=RIGHT - 168, cy=14, r=4.5)
        drawing.text("name", RIGHT - 158, 18, "as saved")
        drawing.add("path", "cross", d=f"M{RIGHT - 92:.1f} 10l8 8m0 -8l-8 8")
        drawing.text("name end", RIGHT, 18, "uncalibrated")
    return drawing.markup()


def _counts(drawing: Drawing, x: Scale, bins: Sequence[Bin]) -> None:
    most = max(b.n for b in bins)
    y = Scale(0, most, 318, 284)
    for found in bins:
        left, right = x(found.start) + 1, x(found.end) - 1
        drawing.add("rect", "bar", x=left, y=y(found.n), width=right - left, height=max(318 - y(found.n), 0.5))
    drawing.line("axis", x.start, 318, x.end, 318)
    drawing.text("name", 0, 277, f"examples per bin, at most {units.count(most)}")
    drawing.text("name end", x.end, 338, "stated probability of the answer")


def scatter(true: NDArray[np.float64], predicted: NDArray[np.float64]) -> Markup:
    """Predicted against true, both axes alike, every example drawn."""
    bounds = padded([*true.tolist(), *predicted.tolist()], 0.05)
    drawing = Drawing("scatter", 356, "Predicted against true", f"{units.plural(len(true), 'example')}.")
    x, y = Scale(*bounds, LEFT, RIGHT), Scale(*bounds, 314, 30)
    axes(drawing, x, y, "true", "predicted")
    drawing.line("ideal", x(bounds[0]), y(bounds[0]), x(bounds[1]), y(bounds[1]))
    drawing.add("path", _density(len(true)), d=cloud([(x(t), y(p)) for t, p in zip(true, predicted, strict=True)]))
    return drawing.markup()


def residuals(true: NDArray[np.float64], predicted: NDArray[np.float64]) -> Markup:
    """Predicted minus true, against predicted: a slope or a fan shows what the model does not capture."""
    off = predicted - true
    told = f"Mean {off.mean():.3g}, standard deviation {off.std():.3g}, {units.plural(len(off), 'example')}."
    drawing = Drawing("residuals", 356, "Residuals", told)
    span = max(abs(v) for v in padded([0.0, *off.tolist()], 0.05))
    x, y = Scale(*padded(predicted.tolist(), 0.05), LEFT, RIGHT), Scale(-span, span, 314, 30)
    axes(drawing, x, y, "predicted", "predicted minus true")
    drawing.line("ideal", x.start, y(0), x.end, y(0))
    drawing.add("path", _density(len(off)), d=cloud([(x(p), y(r)) for p, r in zip(predicted, off, strict=True)]))
    return drawing.markup()


def _density(n: int) -> str:
    return "cloud" if n <= 1000 else "cloud dense"


def seconds(cost: Cost) -> Markup | None:
    """Where the time went, as one bar; None when no second was measured."""
    parts = [
        ("training", cost.train_seconds),
        ("evaluation", cost.eval_seconds),
        ("set-up", cost.setup_seconds),
        ("floors", cost.floor_seconds),
    ]
    if cost.seconds <= 0:
        return None
    told = ", ".join(f"{name} {units.seconds(value)}" for name, value in parts)
    drawing = Drawing("seconds", 84, "Where the time went", told)
    at = 0.0
    for i, (name, value) in enumerate(parts):
        width = WIDTH * value / cost.seconds
        drawing.add("rect", f"part part{i}", x=at, y=4, width=max(width - 1.5, 0.5), height=20)
        at += width
        column, line = (i % 2) * WIDTH / 2, (i // 2) * 22 + 48
        drawing.add("rect", f"part part{i}", x=column, y=line - 10, width=11, height=11)
        drawing.text("name", column + 18, line, f"{name} {units.seconds(value)}")
    return drawing.markup()


def _finite(steps: Sequence[int], values: Sequence[float]) -> list[tuple[int, float]]:
    return [(s, v) for s, v in zip(steps, values, strict=True) if abs(v) < ENDLESS]
