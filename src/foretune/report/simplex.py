"""The simplex of a run: the dev score over it as a picture and a table, and what may be said of it.

Every tile carries its number, so the picture serves those who see no colours, and a printer without ink for them.
Nothing here is a claim: the examples are few, they chose the checkpoint, and one run was trained.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from fractions import Fraction

from markupsafe import Markup

from foretune.records import Landscape, Place, RunRecord
from foretune.report import figures, units
from foretune.report.compare import greater_is_better
from foretune.report.svg import WIDTH, Drawing
from foretune.report.tables import Column, Table

FAINT, STRONG = 0.08, 0.44
"""Opacity of the worst and of the best tile: ink stays readable on both."""

SWATCHES = 6

SHARES = ("accuracy", "exact_match", "gsm8k")
"""Metrics in which one more right answer is one over the number of examples."""

SAME = 0.05
"""A mean cosine that changes by less has hardly changed."""


def figure(found: Landscape) -> Markup:
    """The metric over the triangle of three vertices; for other numbers of vertices one line per point."""
    if found.n == 3:
        return _triangle(found)
    ordered = sorted(found.places, key=lambda place: place is not found.midpoint)
    lines = [figures.Dot(name(p), _drawable(p.score), math.nan, math.nan, p is found.midpoint) for p in ordered]
    return figures.dots("simplex-figure", f"The simplex on {found.split}", found.metric, lines)


def caption(found: Landscape) -> str:
    """What the picture shows."""
    title = units.metric(found.metric).title
    if found.n != 3:
        return f"{title[:1].upper()}{title[1:]} on {found.split}. Disc: the midpoint. Diamonds: vertices, and one edge."
    return (
        f"Each tile is the model at one mixture of the three vertices, with its {title} on {found.split}. "
        "The stronger the colour, the better. Framed: the midpoint."
    )


def name(place: Place) -> str:
    """What a point is called.

    >>> name(Place((0.0, 1.0), 0.5)), name(Place((0.5, 0.5), 0.5)), name(Place((0.75, 0.25, 0.0), 0.5))
    ('vertex 1', 'midpoint', '3/4 vertex 0, 1/4 vertex 1')
    """
    if max(place.weights) == 1:
        return f"vertex {place.weights.index(1)}"
    if len(set(place.weights)) == 1:
        return "midpoint"
    return ", ".join(f"{_fraction(w)} vertex {i}" for i, w in enumerate(place.weights) if w)


def table(found: Landscape) -> Table:
    """Every point in numbers."""
    measured = any(place.nll is not None for place in found.places)
    rows = []
    for place in found.places:
        row = (", ".join(map(_fraction, place.weights)), units.score(found.metric, place.score))
        rows.append((*row, units.score("nll", place.nll)) if measured else row)
    columns = [Column("Weights of the vertices"), Column(units.metric(found.metric).title, "number")]
    if measured:
        columns.append(Column(units.metric("nll").title, "number"))
    return Table(f"The simplex on {found.split}, one seed", tuple(columns), tuple(rows))


def scores(found: Landscape) -> str:
    """Midpoint, vertices and the whole, in one sentence.

    >>> found = Landscape("mcc", "dev", (Place((1.0, 0.0), 0.25), Place((0.0, 1.0), 0.5), Place((0.5, 0.5), 0.75)))
    >>> scores(found)
    'On dev the midpoint of the simplex scores 0.750, the 2 vertices 0.250 to 0.500, all 3 points 0.250 to 0.750.'
    """
    middle, corners = found.midpoint, found.corners
    parts = [f"the midpoint of the simplex scores {units.score(found.metric, middle.score)}"] if middle else []
    if corners:
        parts.append(f"the {len(corners)} vertices {_range(found.metric, corners)}")
    parts.append(f"all {units.count(len(found.places))} points {_range(found.metric, found.places)}")
    return f"On {found.split} {', '.join(parts)}."


def words(record: RunRecord, found: Landscape) -> tuple[str, ...]:
    """What was measured on the simplex, and how little it says."""
    judged = record.evaluations.get(found.split)
    step = ""
    if judged is not None and found.metric in SHARES:
        step = f" One of the {units.plural(judged.n, 'example')} is {_size(found.metric, 1 / judged.n)}."
    modest = "These examples also chose the checkpoint, and one run was trained: no claim rests on the picture."
    said = (f"{scores(found)}{step} {modest}", _members(record, found), _drifted(record))
    return tuple(sentence for sentence in said if sentence)


def _members(record: RunRecord, found: Landscape) -> str:
    chosen = record.chosen_step
    means, errors = (
        dict(zip(*record.curve.of(found.split, f"{found.metric}_{what}"), strict=True))
        for what in ("member_mean", "monte_carlo_error")
    )
    if chosen is None or chosen not in means or chosen not in errors or found.member_sd is None:
        return ""
    return (
        f"At the kept step {units.plural(found.members, 'member')}, drawn at random for every example, scored "
        f"{units.score(found.metric, means[chosen])} on average, with a Monte-Carlo error of "
        f"{_size(found.metric, errors[chosen])}; one member's score has a standard deviation of "
        f"{_size(found.metric, found.member_sd)} over such draws. That is the noise of the draw, not that of the few "
        "examples."
    )


def _drifted(record: RunRecord) -> str:
    steps, cosines = record.curve.of("train", "vertex_cosine")
    closest = record.curve.of("train", "vertex_cosine_max")[1]
    distances = record.curve.of("train", "vertex_distance")[1]
    if len(steps) < 2 or not all(map(math.isfinite, cosines)):
        return ""
    change = cosines[-1] - cosines[0]
    if abs(change) < SAME:
        what = "their directions are about as different as at the start"
    else:
        what = f"they have drifted {'together' if change > 0 else 'apart'} in direction"
    said = (
        f"The mean cosine between vertices was {units.fixed(cosines[0], 2)} at step {units.count(steps[0])} and "
        f"{units.fixed(cosines[-1], 2)} at step {units.count(steps[-1])}: {what}."
    )
    if distances:
        said += f" Their mean distance was {distances[0]:.4g}, then {distances[-1]:.4g}."
    if closest and closest[-1] > 0.95:
        said += f" The closest pair is at {units.fixed(closest[-1], 2)}: nearly one vertex."
    return said


def _triangle(found: Landscape) -> Markup:
    """Hexagonal tiles: vertex 0 on top, 1 at the lower left, 2 at the lower right."""
    side = round(1 / min(w for place in found.places for w in place.weights if w > 0))
    step = WIDTH / (side + 1)
    radius, row = step / math.sqrt(3), step * math.sqrt(3) / 2
    bottom = radius + 4 + side * row
    told = [scores(found), *(f"{name(p)} {units.score(found.metric, p.score)}." for p in found.corners)]
    drawing = Drawing("simplex-figure", bottom + radius + 26, f"The simplex on {found.split}", " ".join(told))
    shade = _shades(found)
    for place in sorted(found.places, key=lambda place: place is found.midpoint):
        top, left, right = place.weights
        x = WIDTH / 2 + (right - left) * side * step / 2
        y = radius + 4 + (1 - top) * side * row
        css = "tile framed" if place is found.midpoint else "tile"
        drawing.add("path", css, d=_hexagon(x, y, radius - 1), fill_opacity=shade(place.score))
        drawing.text("value mid", x, y + 5, _number(found.metric, place.score))
    spots = (
        ("label", WIDTH / 2 + step / 2 + 6, radius + 9),
        ("label", 0, bottom + radius + 18),
        ("label end", WIDTH, bottom + radius + 18),
    )
    for place in found.corners:
        css, x, y = spots[place.weights.index(1)]
        drawing.text(css, x, y, f"{name(place)}: {units.score(found.metric, place.score)}")
    _scale(drawing, found, shade)
    return drawing.markup()


def _scale(drawing: Drawing, found: Landscape, shade: Callable[[float], str]) -> None:
    """The lowest and the highest score with their colours, in the empty corner; nothing where all are one."""
    low, high = _bounds(found.places)
    if not low < high:
        return
    form = units.metric(found.metric)
    drawing.text("name", 0, 12, f"{form.title}{f', {form.unit.strip()}' if form.unit else ''}")
    for k in range(SWATCHES):
        share = k / (SWATCHES - 1)
        x = 14.0 * k
        drawing.add("rect", "swatch", x=x, y=20, width=14, height=10, fill_opacity=shade(low + share * (high - low)))
    drawing.text("tick", 0, 44, _number(found.metric, low))
    drawing.text("tick end", 14.0 * SWATCHES, 44, _number(found.metric, high))


def _shades(found: Landscape) -> Callable[[float], str]:
    """Opacity of a tile by its score; the best is the strongest, one score for all is faint, no number has none."""
    low, high = _bounds(found.places)
    greater = greater_is_better(found.metric)

    def shade(score: float) -> str:
        if math.isnan(_drawable(score)):
            return "0"
        share = (score - low) / (high - low) if low < high else 0.0
        return f"{FAINT + (STRONG - FAINT) * (share if greater or low == high else 1 - share):.2f}"

    return shade


def _hexagon(x: float, y: float, radius: float) -> str:
    corners = [(x + radius * math.sin(k * math.pi / 3), y + radius * math.cos(k * math.pi / 3)) for k in range(6)]
    return "M" + "L".join(f"{px:.1f} {py:.1f}" for px, py in corners) + "Z"


def _bounds(places: Sequence[Place]) -> tuple[float, float]:
    finite = [place.score for place in places if not math.isnan(_drawable(place.score))]
    return (min(finite), max(finite)) if finite else (math.nan, math.nan)


def _drawable(score: float) -> float:
    return score if abs(score) < figures.ENDLESS else math.nan


def _range(metric: str, places: Sequence[Place]) -> str:
    low, high = (units.score(metric, bound) for bound in _bounds(places))
    return low if low == high else f"{low} to {high}"


def _size(metric: str, value: float) -> str:
    return units.difference(metric, value).removeprefix("+")


def _fraction(weight: float) -> str:
    return str(Fraction(weight).limit_denominator(100))


def _number(metric: str, value: float) -> str:
    """The number without its unit, short enough for a tile.

    >>> _number("accuracy", 0.875), _number("rmse", 12345.678)
    ('87.5', '1.23e+04')
    """
    form = units.metric(metric)
    text = units.fixed(value * form.scale, form.digits)
    return text if len(text) <= 6 else f"{value * form.scale:.3g}".replace("-", units.MINUS)
