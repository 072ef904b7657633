"""The number that an answer to a GSM8K question ends on, whatever it is dressed in.

GSM8K's own references end in ``#### 1,450,000``; models write ``$1450000.00``, ``**1,450,000**`` or ``\\frac{3}{4}``.
A scorer that leaves the commas in loses 14 of the 1,319 test answers. Numbers are exact fractions, so that 0.1 + 0.2
plays no part.
"""

from __future__ import annotations

import re
from fractions import Fraction

_LONGEST = 400
"""Characters beyond which a numeral is a runaway generation and not an answer."""

_DRESS = str.maketrans({"−": "-", "–": "-", "﹣": "-", "－": "-", "⁄": "/", "∕": "/", **dict.fromkeys("$€£¥₹")})
_LATEX_FRACTION = re.compile(r"\\[dt]?frac\s*\{\s*(\d+)\s*\}\s*\{\s*(\d+)\s*\}")
_THOUSANDS = re.compile(r"(?<=\d)(?:,|\{,\})(?=\d{3}(?!\d))")
_NUMERAL = (
    r"(?P<sign>(?<![\w)\]%.])-)?"  # a minus, but neither a subtraction nor a range
    r"(?:(?P<whole>\d+)\ (?=\d+/\d))?"  # the 2 of 2 1/2
    r"(?P<number>\d+(?:\.\d+)?|\.\d+)"
    r"(?:\s?/\s?(?P<divisor>\d+))?"
)
_NUMBER = re.compile(_NUMERAL)
_MARKED = re.compile(r"####[\s:=*\\(]*" + _NUMERAL)


def gsm8k_answer(text: str) -> Fraction | None:
    """The number directly after the first ``####``; without one, the last number of the text; None if there is none.

    Currency signs, thousands commas, a percent sign and a trailing dot are dropped ("50%" is 50); fractions, mixed
    numbers, decimals, the Unicode minus and LaTeX fractions are read. A hyphen between two numbers is a subtraction
    or a range, not a sign. The first mark counts because a model that does not stop goes on to answer questions of
    its own.

    >>> gsm8k_answer("She pays 2 * 500 = $1,000.\\n#### 1,000"), gsm8k_answer("so −3/4 of it."), gsm8k_answer("none")
    (Fraction(1000, 1), Fraction(-3, 4), None)
    """
    plain = _LATEX_FRACTION.sub(r"\1/\2", _THOUSANDS.sub("", text.translate(_DRESS)))
    found = _MARKED.search(plain) or next(reversed([*_NUMBER.finditer(plain)]), None)
    return None if found is None else _value(found)


def _value(found: re.Match[str]) -> Fraction | None:
    if len(found[0]) > _LONGEST or (found["divisor"] is not None and int(found["divisor"]) == 0):
        return None
    value = Fraction(found["number"]) / Fraction(found["divisor"] or 1) + Fraction(found["whole"] or 0)
    return -value if found["sign"] else value
