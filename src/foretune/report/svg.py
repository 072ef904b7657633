"""A small drawing kit: scales, ticks and escaped SVG elements.

Drawn by hand rather than by matplotlib, for three reasons that were measured or seen: its import alone takes 0.7 s of
the two seconds a report may take, its figures are about ten times as large, and only SVG that shares the page's style
sheet follows the reader's light or dark scheme and print. Every figure is 400 units wide, so that its letters keep a
readable size on a phone.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from markupsafe import Markup, escape

from foretune.report.units import MINUS

WIDTH = 400.0


@dataclass(frozen=True)
class Scale:
    """A straight line from ``[low, high]`` in data units to ``[start, end]`` in drawing units."""

    low: float
    high: float
    start: float
    end: float

    def __call__(self, value: float) -> float:
        share = (value - self.low) / (self.high - self.low)
        return self.start + share * (self.end - self.start)


def ticks(low: float, high: float, about: int = 5) -> list[float]:
    """Round numbers (1, 2 or 5 times a power of ten) inside ``[low, high]``.

    >>> ticks(0, 1), ticks(0.12, 0.31, 3)
    ([0.0, 0.2, 0.4, 0.6, 0.8, 1.0], [0.2, 0.3])
    """
    rough = (high - low) / about
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * m for m in (1, 2, 5, 10) if power * m >= rough * 0.999)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    digits = max(0, -math.floor(math.log10(step)))
    return [round(i * step, digits) for i in range(first, last + 1)]


def padded(values: Sequence[float], share: float = 0.06) -> tuple[float, float]:
    """The finite range of the values, a little widened; never of length zero.

    >>> padded([0.0, 1.0], 0.1), padded([3.0])
    ((-0.1, 1.1), (2.5, 3.5))
    """
    finite = [v for v in values if math.isfinite(v)]
    if not finite:
        return 0.0, 1.0
    low, high = min(finite), max(finite)
    margin = (high - low) * share
    if margin <= 1e-9 * max(abs(low), abs(high)):
        margin = 0.5 * max(abs(low) / 3, 1.0)
    return low - margin, high + margin


def label(value: float) -> str:
    """A tick's text.

    >>> label(0.2), label(1000.0), label(-0.5)
    ('0.2', '1,000', '−0.5')
    """
    text = f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.6g}"
    return text.replace("-", MINUS)


@dataclass
class Drawing:
    """An SVG under construction: everything added is escaped, coordinates keep one decimal."""

    name: str
    height: float
    title: str
    description: str
    parts: list[str] = field(default_factory=list)

    def add(self, tag: str, css: str, content: str = "", **attributes: float | str) -> None:
        """One element; an underscore in an attribute's name stands for a hyphen."""
        pairs = "".join(f' {key.replace("_", "-")}="{_value(v)}"' for key, v in attributes.items())
        body = f">{escape(content)}</{tag}>" if content else "/>"
        self.parts.append(f'<{tag} class="{css}"{pairs}{body}')

    def line(self, css: str, x1: float, y1: float, x2: float, y2: float) -> None:
        """A straight line."""
        self.add("path", css, d=f"M{_value(x1)} {_value(y1)}L{_value(x2)} {_value(y2)}")

    def text(self, css: str, x: float, y: float, content: str) -> None:
        """One line of text; ``css`` holds ``mid`` or ``end`` for other anchors than the start."""
        self.add("text", css, content, x=x, y=y)

    def markup(self) -> Markup:
        """The finished figure, with a title and a description for those who do not see it."""
        head = (
            f'<svg class="figure" role="img" viewBox="0 0 {WIDTH:.0f} {self.height:.0f}" '
            f'aria-labelledby="{self.name}-title {self.name}-desc">'
            f'<title id="{self.name}-title">{escape(self.title)}</title>'
            f'<desc id="{self.name}-desc">{escape(self.description)}</desc>'
        )
        return Markup(head + "".join(self.parts) + "</svg>")


def axes(
    drawing: Drawing,
    x: Scale,
    y: Scale,
    xlabel: str,
    ylabel: str,
    xtext: Callable[[float], str] = label,
    ytext: Callable[[float], str] = label,
) -> None:
    """Grid lines, tick labels below and to the left, and the two names; ``ylabel`` stands above the axis, upright."""
    for value in ticks(y.low, y.high, 4):
        drawing.line("grid", x.start, y(value), x.end, y(value))
        drawing.text("tick end", x.start - 6, y(value) + 4, ytext(value))
    for value in ticks(x.low, x.high, 5):
        drawing.line("tickmark", x(value), y.start, x(value), y.start + 4)
        drawing.text("tick mid", x(value), y.start + 17, xtext(value))
    drawing.line("axis", x.start, y.start, x.end, y.start)
    if xlabel:
        drawing.text("name end", x.end, y.start + 34, xlabel)
    if ylabel:
        drawing.text("name", 0, y.end - 12, ylabel)


def polyline(points: Sequence[tuple[float, float]]) -> str:
    """Path data through the points; a point that is not finite breaks the line.

    >>> polyline([(0, 0), (1, 2), (2, float("nan")), (3, 1)])
    'M0 0L1 2M3 1'
    """
    data, pen = [], "M"
    for px, py in points:
        if math.isfinite(px) and math.isfinite(py):
            data.append(f"{pen}{_value(px)} {_value(py)}")
            pen = "L"
        else:
            pen = "M"
    return "".join(data)


def cloud(points: Sequence[tuple[float, float]]) -> str:
    """Path data of dots (drawn by round line caps); dots that fall on one another to half a unit are drawn once.

    >>> cloud([(1, 1), (1.1, 1.1), (5, 5)])
    'M1 1h0M5 5h0'
    """
    seen = dict.fromkeys((round(px * 2) / 2, round(py * 2) / 2) for px, py in points)
    return "".join(f"M{_value(px)} {_value(py)}h0" for px, py in seen)


def _value(value: float | str) -> str:
    if isinstance(value, str):
        return str(escape(value))
    text = f"{value:.1f}".removesuffix(".0")
    return "0" if text == "-0" else text
