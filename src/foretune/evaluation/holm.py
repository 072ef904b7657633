"""Holm's correction for a family of contrasts: the more questions are asked, the stronger an answer must be.

Uncorrected, twenty comparisons of equal methods give a "significant" one in two cases of three. Holm (1979) bounds the
chance of any false claim by alpha whatever the dependence between the contrasts, and is never weaker than Bonferroni.
scipy has corrections of the false discovery rate alone, which promises less.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from foretune.errors import UsageError


@dataclass(frozen=True)
class Adjusted:
    """A p value after the correction.

    Attributes:
        p: adjusted; at most alpha just where Holm's procedure claims something.
        share: by what alpha was divided where the procedure decided on this contrast: the number of contrasts that then
            still stood. An interval at level 1 - alpha / share leaves out 0 just where ``p`` is at most alpha.
    """

    p: float
    share: int


def holm(values: Sequence[float], alpha: float = 0.05) -> tuple[Adjusted, ...]:
    """Adjust the p values of one family, in the order they came.

    Sorted upwards, p_(i) is multiplied by m, m - 1, ..., 1 and kept from falling. A NaN (no spread was seen) counts as
    a member of the family with p = 1.

    Raises:
        UsageError: a value outside [0, 1].

    >>> [round(found.p, 3) for found in holm([0.01, 0.04, 0.03])]
    [0.03, 0.06, 0.06]
    """
    given = np.asarray(values, dtype=np.float64)
    wrong = np.flatnonzero((given < 0) | (given > 1))
    if len(wrong):
        raise UsageError(f"A p value must lie in [0, 1], but number {wrong[0] + 1} is {given[wrong[0]]}.")
    p = np.where(np.isnan(given), 1.0, given)
    m = len(p)
    order = np.argsort(p, kind="stable")
    sorted_up = np.minimum(1.0, np.maximum.accumulate(p[order] * np.arange(m, 0, -1)))
    claimed = int(np.sum(sorted_up <= alpha))
    found = [Adjusted(1.0, m)] * m
    for rank, place in enumerate(order):
        found[place] = Adjusted(float(sorted_up[rank]), m - min(rank, claimed))
    return tuple(found)
