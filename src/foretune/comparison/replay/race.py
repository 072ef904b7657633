"""Race: one recommender on one held-out task, served from its recorded runs until the budget is spent.

A recommender is told what a worker would tell it: cells up to the one it asked for, and a failure only when the run
breaks. What is judged is its incumbent, the candidate with the best dev score seen so far, by what the recorded full
run of that configuration scores on test. A trial that would overdraw the budget ends the race.

Its own thinking is measured too, what it shared with another recommender as if it had been alone; in a race for seconds
it is paid for like training.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from foretune.comparison.replay.pools import Held
from foretune.errors import UsageError
from foretune.recommenders.base import Observation, Recommender, Trial, blank
from foretune.recommenders.shelf import clock
from foretune.store.metadataset import CELLS, ROLES, MetaDataset

UNITS = ("runs", "seconds")
Start = Callable[[MetaDataset, MetaDataset, int | None, int], Recommender]
"""(blank pool, past, place of the default, seed) -> a recommender."""


@dataclass(frozen=True)
class Lap:
    """What became of one recommender on one task with one seed.

    Attributes:
        incumbents: at each budget, the place of the incumbent; -1 where there was none yet.
        best: at each budget, the smallest regret among all that was brought to a score, chosen on test: what could
            have been had with hindsight.
        trials: that were paid within the largest budget.
        cells: that they cost.
        seconds: of training that they took; NaN where not known.
        thinking: seconds that the recommender took to begin, to ask and to hear.
        evidence: its own sentences at the end.
        abstained: whether it left it to the default, or to the first candidate.
    """

    incumbents: tuple[int, ...]
    best: tuple[float, ...]
    trials: int
    cells: int
    seconds: float
    thinking: float
    evidence: tuple[str, ...]
    abstained: bool = False


def race(held: Held, start: Start, budgets: tuple[float, ...], seed: int, unit: str = "runs") -> Lap:
    """Let a recommender run on ``held``.

    Args:
        start: makes it; the pool it is given knows nothing of what was recorded.
        budgets: in full-run equivalents, rising.
        unit: in ``runs`` an equivalent is ``CELLS`` cells, in ``seconds`` the pool's median time of a full run.

    Raises:
        UsageError: the recommender asks for what is not in the pool, or is over.
    """
    limits = np.array(budgets) * (CELLS if unit == "runs" else held.costs.full_run)
    began = clock()
    recommender = start(blank(held.pool), held.past, held.default, seed)
    thinking, cells, seconds = clock() - began, 0, 0.0
    incumbents, best = np.full(len(budgets), -1), np.ones(len(budgets))
    shown, trials, lowest = np.zeros(len(held.pool), np.int64), 0, 1.0
    while True:
        began = clock()
        trial = recommender.ask()
        thinking += clock() - began
        if trial is None:
            break
        place, seen = trial.place, int(shown[trial.place]) if 0 <= trial.place < len(shown) else 0
        _allowed(recommender, trial, seen, held)
        cells_then = cells + held.costs.cells(place, seen, trial.until)
        seconds_then = seconds + held.costs.time(place, seen, trial.until)
        spent = cells_then if unit == "runs" else seconds_then + thinking
        if spent > limits[-1] + 1e-9:
            break
        began = clock()
        recommender.tell(observed(held, trial))
        thinking += clock() - began
        cells, seconds, trials, shown[place] = cells_then, seconds_then, trials + 1, trial.until
        found = recommender.incumbent()
        if found is not None:
            lowest = min(lowest, float(held.regrets[place])) if np.isfinite(held.preference[place]) else lowest
            reached = limits >= spent - 1e-9
            incumbents[reached], best[reached] = found, lowest
    return Lap(
        tuple(incumbents.tolist()),
        tuple(best.tolist()),
        trials,
        cells,
        seconds,
        thinking,
        recommender.evidence,
        recommender.abstains,
    )


def observed(held: Held, trial: Trial) -> Observation:
    """What a worker would have told of ``trial``."""
    pool, place, until = held.pool, trial.place, trial.until
    seen = np.arange(CELLS) < until
    over = until >= held.costs.end[place]
    broke = bool(held.failed[place]) and over
    status = str(pool.status[place]) if broke or (until >= CELLS and not held.failed[place]) else "stopped"
    return Observation(
        trial,
        status,
        {role: np.where(seen, pool.curves[role][place], np.nan) for role in ROLES},
        np.where(seen, pool.seconds[place], np.nan),
    )


def _allowed(recommender: Recommender, trial: Trial, seen: int, held: Held) -> None:
    n = len(held.pool)
    if not 0 <= trial.place < n:
        raise UsageError(f"`{recommender.name}` asked for candidate {trial.place} of a pool of {n}. Mend it.")
    if not seen < trial.until <= CELLS or (held.failed[trial.place] and seen >= held.costs.end[trial.place]):
        raise UsageError(
            f"`{recommender.name}` asked for candidate {trial.place} until cell {trial.until}, but {seen} of "
            f"{CELLS} cells were done{' and it failed' if held.failed[trial.place] else ''}. Mend it."
        )
