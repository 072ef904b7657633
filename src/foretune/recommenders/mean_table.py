"""Mean table: known configurations by their mean regret over past tasks. What a careful colleague's spreadsheet says.

Where a configuration was not run it is taken for an average one of that task, so that one lucky run does not lead.
"""

from __future__ import annotations

from typing import ClassVar, final

import numpy as np

from foretune.recommenders.in_order import KnownFirst


def by_mean(regrets: np.ndarray, weights: np.ndarray) -> list[int]:
    """Columns with any number, the smallest weighted mean first; ties go to the smaller column.

    Args:
        regrets: ``(tasks, n)``, NaN where not known.
        weights: ``(tasks,)``.

    >>> by_mean(np.array([[0.5, 0.0, np.nan], [0.1, np.nan, np.nan], [0.0, 0.4, np.nan]]), np.ones(3))
    [1, 0]
    """
    table = regrets[~np.isnan(regrets).all(axis=1)]
    if not len(table):
        return []
    places = np.flatnonzero(~np.isnan(table).all(axis=0))
    table, kept = table[:, places], weights[~np.isnan(regrets).all(axis=1)]
    average = np.nanmean(table, axis=1, keepdims=True)
    order = np.argsort(kept @ np.where(np.isnan(table), average, table), kind="stable")
    found: list[int] = places[order].tolist()
    return found


@final
class MeanTable(KnownFirst):
    """Known candidates in full, the smallest mean regret first; the unknown ones behind, in random order."""

    name: ClassVar[str] = "mean-table"

    def ranked(self, regrets: np.ndarray, weights: np.ndarray) -> list[int]:
        return by_mean(regrets, weights)

    @property
    def ground(self) -> str:
        return f"{self.known:,} candidates by their mean regret over {self.tasks} earlier tasks."
