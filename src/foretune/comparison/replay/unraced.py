"""What a replay holds recommenders against without a race: the published default, and random search in expectation."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from foretune.comparison.replay.entries import DEFAULT
from foretune.comparison.replay.pools import Held
from foretune.evaluation.regret import expected_at_random
from foretune.store.metadataset import CELLS

RANDOM = "random (exact)"


def unraced(
    held: Sequence[Held], budgets: Sequence[float], unit: str
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Entry -> normalised, and raw, regret ``(tasks, 1, budgets)``.

    The default is there where every task has one; it is paid for as every trial is, by one full run or by its own
    seconds. Random search is there in a race for runs alone: the closed form counts whole runs, whatever they took.
    What a budget does not pay for counts as 1, and raw as the worst candidate.

    Args:
        unit: one of ``UNITS``.
    """
    known = all(h.default is not None for h in held)
    names = [*([DEFAULT] if known else []), *([RANDOM] if unit == "runs" else [])]
    of = {DEFAULT: _default, RANDOM: _random}
    regrets = {n: [[of[n](h, h.regrets, 1.0, b, unit) for b in budgets] for h in held] for n in names}
    raw = {n: [[of[n](h, h.raw, float(h.raw.max()), b, unit) for b in budgets] for h in held] for n in names}
    return (
        {name: np.array(rows)[:, None, :] for name, rows in regrets.items()},
        {name: np.array(rows)[:, None, :] for name, rows in raw.items()},
    )


def _default(h: Held, values: np.ndarray, worst: float, budget: float, unit: str) -> float:
    assert h.default is not None
    paid = budget >= 1 if unit == "runs" else budget * h.costs.full_run >= h.costs.time(h.default, 0, CELLS) - 1e-9
    return float(values[h.default]) if paid else worst


def _random(h: Held, values: np.ndarray, worst: float, budget: float, unit: str) -> float:
    return expected_at_random(values, h.preference, int(budget)) if budget >= 1 else worst
