"""Claim: what may be said of a difference, and no more. The words are the report's.

The kind is not stored but follows from the adjusted interval, so that no claim can say "better" whose interval covers
zero. A family of contrasts is corrected as a whole (``holm``), separately for "differs" and for "is as good"; each kind
of false claim then happens in at most a share alpha of all comparisons, however many contrasts they hold.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from foretune.errors import UsageError
from foretune.evaluation.equivalence import detectable_difference, tost
from foretune.evaluation.estimate import Estimate, at_level
from foretune.evaluation.holm import holm

Kind = Literal["better", "worse", "equivalent", "undecided"]


@dataclass(frozen=True)
class Claim:
    """What may be said of one contrast of a family.

    Attributes:
        difference: first minus second, more is better, with the *adjusted* interval: at the level at which Holm's
            procedure decided on it. Those of one family hold one by one, not all together.
        p: adjusted, of no difference; NaN counts as 1.
        contrasts: how many the family has.
        detectable: the least true difference that would be called with probability 0.8 at this level.
        alpha: the chance of any false claim of a kind in the whole family.
        margin: declared beforehand; None where "equivalent" was not asked for.
        equivalence_p: adjusted, of a difference of at least the margin.
    """

    difference: Estimate
    p: float
    contrasts: int
    detectable: float
    alpha: float = 0.05
    margin: float | None = None
    equivalence_p: float | None = None

    @property
    def kind(self) -> Kind:
        """``better`` and ``worse`` need an adjusted interval wholly on one side of 0; ``undecided`` is a result, too.

        A difference can be real and within the margin: then it is ``better`` or ``worse``, and ``within_margin``.
        """
        if self.p <= self.alpha and self.difference.low > 0:
            return "better"
        if self.p <= self.alpha and self.difference.high < 0:
            return "worse"
        return "equivalent" if self.within_margin else "undecided"

    @property
    def within_margin(self) -> bool:
        """Whether a difference of the margin is ruled out on both sides."""
        return self.equivalence_p is not None and self.equivalence_p <= self.alpha


def claims(
    differences: Mapping[str, Estimate], *, margin: float | None = None, alpha: float = 0.05, declared: int = 0
) -> dict[str, Claim]:
    """What may be claimed from a family of contrasts.

    Args:
        differences: by name, each turned so that more is better, with a p by Student's t (``crossed``, ``paired_t``).
            All contrasts that were looked at, not the most striking ones.
        margin: the largest difference that does not matter, declared before the runs.
        declared: how many the family has, where some are not among ``differences`` (yet): each counts as p = 1, for
            who corrects for the finished ones alone is surer the earlier he looks.

    Raises:
        UsageError: a single seed, or an interval made by resampling.

    >>> from foretune.evaluation import over_seeds
    >>> found = claims({"lora - full": over_seeds([0.05, 0.06, 0.04, 0.05, 0.07]),
    ...                 "lora - prefix": over_seeds([0.05, -0.02, 0.01, 0.00, -0.01])})
    >>> [claim.kind for claim in found.values()]
    ['better', 'undecided']
    """
    for name, difference in differences.items():
        if difference.n_seeds is not None and difference.n_seeds < 2:
            raise UsageError(
                f"A claim needs at least 2 seeds, but `{name}` has {difference.n_seeds}: nothing says what another "
                "seed would give. Run more seeds, or report the score without a claim."
            )
    given = [at_level(difference, 1 - alpha) for difference in differences.values()]
    size = max(declared, len(given))
    absent = [math.nan] * (size - len(given))
    adjusted = holm([math.nan if each.p is None else each.p for each in given] + absent, alpha)
    equivalence: list[float | None] = [None] * size
    if margin is not None:
        equivalence = [each.p for each in holm([tost(each, margin, alpha).p for each in given] + absent, alpha)]
    made = {}
    for name, each, decided, as_good in zip(differences, given, adjusted, equivalence, strict=False):
        wide = at_level(each, 1 - alpha / decided.share)
        detectable = detectable_difference(wide)
        made[name] = Claim(wide, decided.p, size, detectable, alpha, margin, as_good)
    return made
