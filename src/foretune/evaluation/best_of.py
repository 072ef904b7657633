"""The expected score after k trials of tuning: what a method costs to be as good as its table says.

After Dodge et al., *Show your work* (2019, arXiv 1909.03004): of n trials that were run, draw k with replacement, and
take the one that is best on dev. The expectation is exact. With trials sorted upwards by their dev score, trial i is
the best with probability (i/n)^k - ((i-1)/n)^k.

Drawing with replacement is biased downwards for k near n; drawing without is unbiased and varies more (Dodge et al.
2021, Findings of EMNLP, prefer the former for its smaller error).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from foretune.errors import UsageError
from foretune.evaluation.estimate import scores_of


@dataclass(frozen=True)
class BestOf:
    """The expected score of the trial that is chosen among k, for k = 1, ..., n.

    Attributes:
        expected: (n,) for k = 1, ..., n.
        deviation: (n,) the standard deviation of that score, between one tuning and the next.
    """

    expected: tuple[float, ...]
    deviation: tuple[float, ...]


def best_of(dev: ArrayLike, shown: ArrayLike | None = None) -> BestOf:
    """The curve of one method on one task.

    Args:
        dev: (trials,) what chooses; more is better. Give a trial that failed the score of the floor.
        shown: (trials,) what is reported of the chosen one, for example its test score; by default the dev score
            itself, which is optimistic. Trials that tie on dev are chosen equally often.

    Raises:
        UsageError: a missing score, or unequal numbers of trials.

    >>> [round(value, 3) for value in best_of([0.6, 0.8, 0.7, 0.5]).expected]
    [0.65, 0.713, 0.744, 0.762]
    """
    chosen_by = scores_of(dev, "trial")
    reported = chosen_by if shown is None else scores_of(shown, "trial")
    if len(reported) != len(chosen_by):
        raise UsageError(
            f"Every trial needs both scores, but {len(chosen_by)} have one on dev and {len(reported)} one to show."
        )
    n = len(chosen_by)
    _, group = np.unique(chosen_by, return_inverse=True)
    sizes = np.bincount(group)
    upto = np.concatenate([[0.0], np.cumsum(sizes) / n])
    k = np.arange(1, n + 1)[:, None]
    chance = (upto[1:] ** k - upto[:-1] ** k)[:, group] / sizes[group]  # (k, trials)
    expected = chance @ reported
    variance = np.sum(chance * (reported - expected[:, None]) ** 2, axis=1)
    return BestOf(tuple(expected.tolist()), tuple(np.sqrt(variance).tolist()))
