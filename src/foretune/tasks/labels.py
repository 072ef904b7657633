"""Labels as text: which are numbers, in which order classes stand, what a choice's label points at."""

from __future__ import annotations

import math
import re
import string
from collections import Counter
from collections.abc import Iterable, Sequence

from foretune.errors import DataError

_NUMBER = re.compile(r"[+-]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]+)?")

LONGEST = 48
"""Characters of a label beyond which a sentence cuts it."""

CODINGS = ("text", "letter", "index from 0", "index from 1")
"""How the label of a multiple choice names the right one."""


def number(text: str) -> float | None:
    """The finite number that ``text`` writes in plain digits, otherwise None.

    >>> number("-1.50"), number("1e3"), number("nan"), number("1_000"), number("1e999")
    (-1.5, 1000.0, None, None, None)
    """
    if not _NUMBER.fullmatch(text):
        return None
    value = float(text)
    return value if math.isfinite(value) else None


def short(label: str) -> str:
    """A label as a sentence quotes it: in backticks, and cut where it is as long as a text.

    >>> short("good"), short("x" * 50)
    ('`good`', '`xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx…`')
    """
    return f"`{label if len(label) <= LONGEST else label[: LONGEST - 1] + '…'}`"


def quoted(labels: Sequence[str]) -> str:
    """The first eight labels, and how many more there are.

    >>> quoted(["a", "b"]), quoted(list("abcdefghij"))[-14:]
    ('`a`, `b`', '`h` and 2 more')
    """
    more = f" and {len(labels) - 8:,} more" if len(labels) > 8 else ""
    return ", ".join(map(short, labels[:8])) + more


def with_point(label: str) -> str:
    """``label`` with its decimal comma as a point, where that makes a number of it.

    >>> with_point("0,5"), with_point("1,000,000"), with_point("yes, no")
    ('0.5', '1,000,000', 'yes, no')
    """
    pointed = label.replace(",", ".")
    return label if number(pointed) is None else pointed


def order(labels: Iterable[str]) -> tuple[str, ...]:
    """Distinct class names in the order of the logits: by value where all are numbers, otherwise by text.

    >>> order(["10", "9", "9"]), order(["b", "10", "a"]), order(["1.0", "1"])
    (('9', '10'), ('10', 'a', 'b'), ('1', '1.0'))
    """
    distinct = set(labels)
    values = {label: number(label) for label in distinct}
    if None in values.values():
        return tuple(sorted(distinct))
    return tuple(sorted(distinct, key=lambda label: (values[label], label)))


def means_numbers(counts: Counter[str]) -> bool:
    """Whether labels are quantities rather than class names.

    All must be numbers. Then one of them with a fraction says yes (1.0 has none). Whole numbers are class numbers up to
    20 distinct ones, and beyond that when they count up from 0 or 1 with few holes and two rows each on average.

    >>> means_numbers(Counter(["1.5", "2", "2"])), means_numbers(Counter(["1", "2", "5"]))
    (True, False)
    """
    values = [number(label) for label in counts]
    if not counts or any(v is None for v in values):
        return False
    whole = [v for v in values if v is not None and v.is_integer()]
    if len(whole) < len(values):
        return True
    if len(whole) <= 20:
        return False
    counted = min(whole) in (0, 1) and len(whole) >= 0.8 * (max(whole) - min(whole) + 1)
    return not (counted and counts.total() >= 2 * len(whole))


def choice_coding(labels: Sequence[str], choices: Sequence[Sequence[str]]) -> str:
    """Which of ``CODINGS`` fits every row.

    Args:
        labels: one per row, stripped.
        choices: the candidates of the same rows.

    Raises:
        DataError: none fits, or the labels would mean different things under two of them.

    >>> choice_coding(["A", "C"], [["x", "y", "z"]] * 2)
    'letter'
    """
    rows = list(zip(labels, choices, strict=True))
    readings = {c: [choice_index(label, options, c) for label, options in rows] for c in CODINGS}
    fitting = {c: read for c, read in readings.items() if None not in read}
    if not fitting:
        raise DataError(
            "labels of a multiple choice must be the right choice's letter, its text, or its index from 0 or from 1, "
            f"but none of these fits all of {quoted(list(dict.fromkeys(labels)))}. Write one form throughout."
        )
    first, *others = fitting
    if any(fitting[other] != fitting[first] for other in others):
        raise DataError(
            f"labels of the multiple choice could be read as {' or as '.join(fitting)}, which name different choices. "
            "Write them as letters (A, B, ...)."
        )
    return first


def choice_index(label: str, choices: Sequence[str], coding: str) -> int | None:
    """The index from 0 of the choice that ``label`` names, None when it names none."""
    if coding == "text":
        index = choices.index(label) if label in choices else -1
    elif coding == "letter":
        index = string.ascii_uppercase.find(label.upper().strip("().")) if len(label.strip("().")) == 1 else -1
    else:
        value = number(label)
        index = -1 if value is None or not value.is_integer() else int(value) - (coding == CODINGS[3])
    return index if 0 <= index < len(choices) else None
