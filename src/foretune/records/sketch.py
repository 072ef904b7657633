"""The form in which records keep the sketch of a task's texts: see ``tasks/sketch.py`` for what it is good for.

Every record of a run has one, so it is to be small: the first ``LOOSE`` hashes stand as words, which is all that
records had before there were more, and the others as one word of eight letters each instead of fifteen.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable, Sequence
from functools import lru_cache

DIGITS = 12
"""Of each hash, in hexadecimal: 48 bits, so that a million rows of two tasks meet by chance about never."""

LOOSE = 128
"""Hashes that stand as words of their own: the whole of a sketch that was made before 4,096 were kept."""

SIZE = 4096
"""Most hashes of a sketch; a source of fewer rows has all of them in it."""


def packed(hashes: Iterable[str]) -> tuple[str, ...]:
    """Words of ``DIGITS`` hexadecimal digits in rising order, as a record keeps them; the inverse of ``unpacked``.

    >>> len(packed(f"{n:012x}" for n in range(100))), len(packed(f"{n:012x}" for n in range(1000)))
    (100, 129)
    """
    words = tuple(hashes)
    rest = bytes.fromhex("".join(words[LOOSE:]))
    return words[:LOOSE] + ((base64.b64encode(rest).decode(),) if rest else ())


def unpacked(sketch: Sequence[str]) -> tuple[str, ...]:
    """All hashes of a sketch, in rising order.

    >>> hashes = tuple(f"{n:012x}" for n in range(1000))
    >>> unpacked(packed(hashes)) == hashes
    True
    """
    return _unpacked(tuple(sketch))


@lru_cache(maxsize=256)
def _unpacked(sketch: tuple[str, ...]) -> tuple[str, ...]:
    if len(sketch) != LOOSE + 1:
        return sketch
    digits = base64.b64decode(sketch[LOOSE]).hex()
    return sketch[:LOOSE] + tuple(digits[at : at + DIGITS] for at in range(0, len(digits), DIGITS))


def complete_to(hashes: Sequence[str]) -> str | None:
    """The hash up to which none of the source's is missing; None where none is missing at all."""
    return hashes[-1] if len(hashes) in (LOOSE, SIZE) else None
