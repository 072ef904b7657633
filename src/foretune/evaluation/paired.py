"""Is the first better than the second? Tests and intervals of two methods on the same seeds or the same items.

Which sees what: ``paired_t``, ``sign_flip`` and ``wilcoxon`` look at the differences of scores seed by seed, and speak
of new seeds on this test set; ``mcnemar`` and ``newcombe`` look at the answers of two models item by item, and speak of
new test rows for these two models alone. Both at once is ``crossed``. ``welch`` forgets the pairing: it is here to
stand beside papers that did so.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from foretune.errors import UsageError
from foretune.evaluation.estimate import DECIMALS, LEVEL, Estimate, over_seeds, scores_of, seed_pairs, student
from foretune.evaluation.intervals import wilson

WELCH = "Welch's t over unpaired seeds"

EXACT = 16
"""Up to so many seeds all 2^n signs are tried."""

DRAWS = 99_999
"""Signs drawn beyond that: the standard error of a p of 0.05 is then 0.0007."""


@dataclass(frozen=True)
class Significance:
    """A test that gives no interval.

    Attributes:
        test: its name.
        p: two-sided.
        statistic: of ``sign-flip`` the mean difference, of ``Wilcoxon`` the sum of the positive ranks, of ``McNemar``
            the items that the first alone has right.
        n: what was tested: differences, differences other than 0, items that one of the two alone has right.
        draws: None for an exact p, else how many random signs it was estimated from.
    """

    test: str
    p: float
    statistic: float
    n: int
    draws: int | None = None

    @property
    def exact(self) -> bool:
        """Whether p is a count of all possibilities."""
        return self.draws is None


def paired_t(first: ArrayLike, second: ArrayLike, level: float = LEVEL) -> Estimate:
    """The paired t interval of first minus second over seeds, with its p.

    Args:
        first, second: (seeds,) scores on the same seeds.

    >>> found = paired_t([0.81, 0.79, 0.84, 0.80], [0.78, 0.77, 0.79, 0.79])
    >>> round(found.low, 4), round(found.high, 4), round(found.p, 3)
    (0.0003, 0.0547, 0.049)
    """
    return over_seeds(seed_pairs(first, second), level)


def sign_flip(first: ArrayLike, second: ArrayLike, *, seed: int = 0) -> Significance:
    """The permutation test of paired differences: how often is the mean as far from 0 when their signs are tossed?

    Exact up to 16 seeds, beyond with ``DRAWS`` seeded draws (the observed one counted with them, so p is never 0).
    With n seeds p cannot be below 2^(1-n): 0.06 with 5, 0.002 with 10.

    >>> found = sign_flip([0.81, 0.79, 0.84, 0.80], [0.78, 0.77, 0.79, 0.79])
    >>> found.p, found.exact
    (0.125, True)
    """
    from scipy.stats import permutation_test

    differences = seed_pairs(first, second)
    n, exact = len(differences), len(differences) <= EXACT
    if n < 2:  # one difference: either sign is as far from 0
        return Significance("sign-flip", 1.0, float(differences[0]), n)
    whole = np.round(differences * 10.0**DECIMALS)  # sums of whole numbers are exact, so equal ones compare as equal
    found = permutation_test(
        (whole,),
        np.sum,
        permutation_type="samples",
        vectorized=True,
        n_resamples=2**n if exact else DRAWS,
        batch=10_000,
        rng=np.random.default_rng(seed),
    )
    return Significance("sign-flip", float(found.pvalue), float(differences.mean()), n, None if exact else DRAWS)


def wilcoxon(first: ArrayLike, second: ArrayLike) -> Significance:
    """Wilcoxon's signed-rank test, exact over all signs, with mid-ranks for ties; differences of 0 are left out.

    scipy's exact distribution knows no ties, and its permutations rank again for each of 2^n signs. Twice a mid-rank is
    a whole number, so the distribution of the sum of the positive ones is a convolution: exact for any n.

    >>> wilcoxon([0.81, 0.79, 0.84, 0.80], [0.78, 0.77, 0.79, 0.79]).p
    0.125
    """
    from scipy.stats import rankdata

    differences = seed_pairs(first, second)
    differences = differences[differences != 0]
    doubled = np.round(2 * rankdata(np.abs(differences))).astype(np.int64)
    chances = np.ones(1)
    for rank in doubled:
        chances = (np.pad(chances, (0, rank)) + np.pad(chances, (rank, 0))) / 2
    positive, total = int(doubled[differences > 0].sum()), int(doubled.sum())
    p = float(2 * chances[: min(positive, total - positive) + 1].sum())
    return Significance("Wilcoxon", min(1.0, p), positive / 2, len(differences))


def mcnemar(first: ArrayLike, second: ArrayLike) -> Significance:
    """McNemar's exact test of two models on the same items, within one seed.

    Items that both have right or both have wrong tell nothing; of the others, half should fall on either side.

    Args:
        first, second: (items,) whether each answered rightly.

    >>> found = mcnemar([True] * 12 + [False] * 8, [True] * 4 + [False] * 8 + [True] + [False] * 7)
    >>> found.statistic, found.n, round(found.p, 3)
    (8.0, 9, 0.039)
    """
    one, two = np.asarray(first, dtype=bool), np.asarray(second, dtype=bool)
    if one.shape != two.shape or one.ndim != 1:
        raise UsageError(
            f"McNemar's test needs both models on the same items, but got {one.shape} and {two.shape}. "
            "Keep the items that both answered."
        )
    wins, losses = int(np.sum(one & ~two)), int(np.sum(two & ~one))
    if not wins + losses:
        return Significance("McNemar", 1.0, 0.0, 0)
    from scipy.stats import binomtest

    return Significance("McNemar", float(binomtest(wins, wins + losses).pvalue), float(wins), wins + losses)


def welch(first: ArrayLike, second: ArrayLike, level: float = LEVEL) -> Estimate:
    """Welch's interval of the difference of two means of unpaired seeds, with its p.

    Only to stand beside papers that used it: where seeds are paired, it is the wrong one.

    Raises:
        UsageError: fewer than 2 seeds on a side.
    """
    one, two = scores_of(first), scores_of(second)
    if min(len(one), len(two)) < 2:
        raise UsageError(f"Welch's test needs at least 2 seeds a side, but got {len(one)} and {len(two)}. Run more.")
    errors = np.array([one.var(ddof=1) / len(one), two.var(ddof=1) / len(two)])
    free = np.array([len(one) - 1, len(two) - 1])
    value, error = float(one.mean() - two.mean()), math.sqrt(errors.sum())
    df = float(errors.sum() ** 2 / np.sum(errors**2 / free)) if error else float(free.sum())
    scale = float(max(abs(one).max(), abs(two).max()))
    return student(value, error, df, WELCH, scale=scale, level=level, n_seeds=min(len(one), len(two)))


def newcombe(first: NDArray[np.bool_], second: NDArray[np.bool_]) -> tuple[float, float]:
    """95 % bounds of the difference of two shares of the same n examples; both arrays (n,), True where right.

    Two Wilson intervals joined by the correlation of the paired answers (Newcombe 1998, Statistics in Medicine 17:2635,
    method 10). It holds at a few dozen examples, where a bootstrap is too narrow.

    >>> low, high = newcombe(np.array([True] * 32 + [False] * 18), np.array([True] * 20 + [False] * 28 + [True] * 2))
    >>> round(low, 2), round(high, 2)
    (0.06, 0.33)
    """
    n = len(first)
    both, neither = int(np.sum(first & second)), int(np.sum(~first & ~second))
    only_first, only_second = int(np.sum(first & ~second)), int(np.sum(~first & second))
    covariance: float = both * neither - only_first * only_second
    if covariance > 0:  # Newcombe's continuity correction
        covariance = max(covariance - n / 2, 0.0)
    one, two = both + only_first, both + only_second
    spread = one * (n - one) * two * (n - two)
    phi = covariance / math.sqrt(spread) if spread else 0.0
    (low_one, high_one), (low_two, high_two) = wilson(one, n), wilson(two, n)
    p, q = one / n, two / n
    down = _joined(p - low_one, high_two - q, phi)
    up = _joined(high_one - p, q - low_two, phi)
    return p - q - down, p - q + up


def _joined(a: float, b: float, phi: float) -> float:
    return math.sqrt(max(a * a - 2 * phi * a * b + b * b, 0.0))
