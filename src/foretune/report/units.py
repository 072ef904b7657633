"""Numbers as a reader wants them: few digits, the unit beside them, the interval and the count with them.

A share is printed in percent with one decimal, for with a few hundred examples the second one is noise; a correlation
or a loss keeps three. Numbers and units are held together by no-break spaces, minus signs are true minus signs.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

NBSP = "\u00a0"
MINUS = "\u2212"
NONE = "–"
"""What stands in a table where there is no number."""


@dataclass(frozen=True)
class Metric:
    """How a metric is called and written: times ``scale``, with ``digits`` decimals and a ``unit`` behind."""

    title: str
    scale: int = 1
    digits: int = 3
    unit: str = ""


def _share(title: str) -> Metric:
    return Metric(title, 100, 1, f"{NBSP}%")


METRICS = {
    "accuracy": _share("accuracy"),
    "macro_f1": _share("macro-F1"),
    "mcc": Metric("Matthews correlation"),
    "pearson": Metric("Pearson correlation"),
    "spearman": Metric("Spearman correlation"),
    "rmse": Metric("root mean squared error"),
    "mae": Metric("mean absolute error"),
    "r2": Metric("R²"),
    "exact_match": _share("exact match"),
    "token_f1": _share("token F1"),
    "rouge_l": _share("ROUGE-L"),
    "gsm8k": _share("GSM8K accuracy"),
    "chrf": Metric("chrF", 100, 1),
    "bleu": Metric("BLEU", 100, 1),
    "nll": Metric("negative log-likelihood"),
    "ece": _share("calibration error (ECE)"),
    "brier": Metric("Brier score"),
    "loss": Metric("loss"),
}

FLOORS = {
    "majority": "majority class",
    "mean": "training mean",
    "tfidf": "TF-IDF + linear model",
    "embedding": "frozen embedding + linear model",
}


def metric(name: str) -> Metric:
    """The metric's title and form; an unknown one keeps its own name.

    >>> metric("macro_f1").title, metric("my_score").title
    ('macro-F1', 'my score')
    """
    return METRICS.get(name, Metric(name.replace("_", " ")))


def floor_title(name: str) -> str:
    """The floor's name in words."""
    return FLOORS.get(name, name.replace("_", " "))


def split_title(split: str) -> str:
    """The split's name in words.

    >>> split_title("ood:reviews"), split_title("test")
    ('out of domain: reviews', 'test')
    """
    return f"out of domain: {split[4:]}" if split.startswith("ood:") else split


def fixed(value: float | None, digits: int) -> str:
    """A number with that many decimals, or a dash where there is none.

    >>> fixed(-0.25, 1), fixed(None, 1), fixed(-0.0001, 2)
    ('−0.2', '–', '0.00')
    """
    if value is None or not math.isfinite(value):
        return NONE
    text = f"{value:.{digits}f}"
    if float(text) == 0:
        text = text.removeprefix("-")
    return text.replace("-", MINUS)


def score(name: str, value: float | None) -> str:
    """A value of the metric ``name``, with its unit.

    >>> score("accuracy", 0.875).replace(NBSP, " "), score("mcc", 0.5), score("accuracy", None)
    ('87.5 %', '0.500', '–')
    """
    form = metric(name)
    text = fixed(None if value is None else value * form.scale, form.digits)
    return text if text == NONE else text + form.unit


def interval(name: str, bounds: Sequence[float] | None) -> str:
    """``[low, high]`` in the metric's own form, or nothing.

    >>> interval("accuracy", (0.821, 0.914)).replace(NBSP, " ")
    '[82.1, 91.4]'
    """
    if bounds is None or not all(math.isfinite(b) for b in bounds):
        return ""
    form = metric(name)
    low, high = (fixed(b * form.scale, form.digits) for b in bounds)
    return f"[{low},{NBSP}{high}]"


def scored(name: str, value: float | None, bounds: Sequence[float] | None, n: int | None = None) -> str:
    """A score with all that belongs to it.

    >>> scored("accuracy", 0.875, (0.821, 0.914), 320).replace(NBSP, " ")
    '87.5 % [82.1, 91.4], n = 320, 1 seed'
    """
    text = " ".join(part for part in (score(name, value), interval(name, bounds)) if part)
    return text if n is None else f"{text}, n{NBSP}={NBSP}{count(n)}, 1{NBSP}seed"


def difference(name: str, value: float) -> str:
    """A signed difference, in points where the metric is a share.

    >>> difference("accuracy", 0.031).replace(NBSP, " "), difference("mcc", -0.2)
    ('+3.1 points', '−0.200')
    """
    form = metric(name)
    text = fixed(value * form.scale, form.digits)
    if text == NONE:
        return text
    sign = "" if text.startswith(MINUS) or float(text) == 0 else "+"
    return f"{sign}{text}" + (f"{NBSP}points" if form.scale == 100 else "")


def count(value: float) -> str:
    """A whole number in groups of three.

    >>> count(1234567)
    '1,234,567'
    """
    return f"{value:,.0f}"


def large(value: float) -> str:
    """Three digits and a word.

    >>> large(22713216).replace(NBSP, " "), large(950), large(0)
    ('22.7 million', '950', '0')
    """
    for size, word in ((1e12, "trillion"), (1e9, "billion"), (1e6, "million")):
        if value >= size:
            return f"{_three(value / size)}{NBSP}{word}"
    return count(value)


def size(value: float) -> str:
    """Bytes in decimal units, as disks and registries count them.

    >>> size(1_200_000).replace(NBSP, " "), size(512).replace(NBSP, " ")
    ('1.20 MB', '512 B')
    """
    for unit, word in ((1e12, "TB"), (1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if value >= unit:
            return f"{_three(value / unit)}{NBSP}{word}"
    return f"{value:.0f}{NBSP}B"


def seconds(value: float) -> str:
    """A duration.

    >>> [seconds(v).replace(NBSP, " ") for v in (0.0021, 0.034, 4.25, 75, 7325)]
    ['2.1 ms', '34 ms', '4.2 s', '1 min 15 s', '2 h 2 min']
    """
    if 0 < value < 0.00995:
        return f"{value * 1000:.1f}{NBSP}ms"
    if value < 0.9995:
        return f"{value * 1000:.0f}{NBSP}ms"
    if value < 59.95:
        return f"{value:.1f}{NBSP}s"
    whole = round(value)
    if whole < 3600:
        return f"{whole // 60}{NBSP}min {whole % 60}{NBSP}s"
    minutes = round(value / 60)
    return f"{minutes // 60}{NBSP}h {minutes % 60}{NBSP}min"


def flops(value: float) -> str:
    """Floating-point operations with a decimal prefix.

    >>> flops(4.51e13).replace(NBSP, " "), flops(0).replace(NBSP, " ")
    ('45.1 TFLOP', '0 FLOP')
    """
    for unit, word in ((1e18, "EFLOP"), (1e15, "PFLOP"), (1e12, "TFLOP"), (1e9, "GFLOP"), (1e6, "MFLOP")):
        if value >= unit:
            return f"{_three(value / unit)}{NBSP}{word}"
    return f"{value:.0f}{NBSP}FLOP"


def short(text: str, limit: int = 240) -> str:
    """The beginning of a text, with what was left out counted.

    >>> short("abcdefgh", 5)
    'abcde… (3 more characters)'
    """
    text = text.strip()
    if len(text) <= limit:
        return text
    return f"{text[:limit].rstrip()}… ({len(text) - limit:,} more characters)"


def quoted(text: str, limit: int = 60) -> str:
    """A user's words inside a sentence: short, in quotation marks, isolated so that their direction stays their own.

    >>> quoted("late")
    '“\\u2068late\\u2069”'
    """
    return f"“\u2068{short(text, limit)}\u2069”"


def plural(n: int, noun: str) -> str:
    """``1 example``, ``2 examples``.

    >>> plural(1, "example").replace(NBSP, " "), plural(1200, "class").replace(NBSP, " ")
    ('1 example', '1,200 classes')
    """
    ending = "" if n == 1 else "es" if noun.endswith("s") else "s"
    return f"{count(n)}{NBSP}{noun}{ending}"


def _three(value: float) -> str:
    return f"{value:.2f}" if value < 9.995 else f"{value:.1f}" if value < 99.95 else f"{value:.0f}"
