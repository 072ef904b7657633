"""Deep kernel: the surrogate of Quick-Tune, that is the engine of the paper whose recommender this package follows.

A network turns settings, task and partial curve into 32 numbers, and a Gaussian process with one length scale compares
them (Arango et al. 2024, arXiv 2306.03828; Strangmann et al. 2024, arXiv 2411.01195; Wilson et al. 2016). Two variants,
after the two published programs: ``qt`` (the research code) and ``qtt`` (``quicktunetool`` 0.0.4). Every prefix of a
past run is one point.

What the programs got wrong is right here: every level of every category is read; a cell that was not run differs from a
score of 0, and the first one that was not run shows how far the run is; held-out *tasks* decide when training ends,
where ``qtt`` held out rows, prefixes of runs that it trained on; features of tasks have one scale in fitting and in
use. ``qtt_faithful`` restores the first of these, for who wants to replicate: ``qtt`` sizes its encoder by the number
of categorical settings, so that the columns of most of their levels are cut off.

Ours, where the programs say nothing: scores are the best so far, as gains over the anchor (a loss: in its multiples),
cut where they are worse than they could be better; ``qt``, which knows the target's observations alone, is given points
of past runs while there are none. The programs learn the next cell; from that, the end is foretold cell after cell,
each from the mean of the one before, and the interval is that of the last, widened by the steps before it where the
prior follows them. Learning the end itself is the default, for that is what is asked.

Ours, against the programs: the process starts from the best score seen (``prior``), ``qt`` takes steps ten times as
large (``rate``), and the features of tasks are read where there are tasks enough (``task_columns``). With the choices
of the programs, and held-out tasks to say when to end, training on TaskSet ends about where it begins, and runs of a
new task are ranked far worse than by their best scores so far (LOG.md). Those choices stay within reach: ``DeepKernel(
"qt", ahead="next", prior="constant", task_columns=True, rate=1e-4)``, and 1e-3 for ``qtt``.

The cost of a run is not modelled here (``cost.py`` is in seconds for every surrogate), nor what to run next. gpytorch
and torch are loaded when a fit begins and not before.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any, ClassVar, Self, final

import numpy as np

from foretune.errors import DataError, UsageError
from foretune.store.metadataset import CELLS, MetaDataset
from foretune.surrogates.base import Forecast, Surrogate
from foretune.surrogates.dkl.inputs import AHEAD, PRIORS, VARIANTS, Inputs, Points
from foretune.surrogates.rows import best_seen, scored

if TYPE_CHECKING:
    from foretune.surrogates.dkl.process import Process

MOST = 20_000
"""Points that are fitted, drawn by seed where there are more."""

CONTEXT = 4_096
"""Points that the process compares with at prediction."""

TENTH = 1.2815515655446004
"""Standard deviations from the median to the .9 quantile of a normal distribution."""


@final
class DeepKernel(Surrogate):
    """See the module.

    Args:
        variant: ``qt`` or ``qtt``.
        ahead: what is learned of a prefix: the ``end`` of its run, or the ``next`` cell as in the programs.
        qtt_faithful: restore the fault in the columns of categories; of ``qtt`` alone.
        prior: what is expected before anything is learned: ``best``, that a run stays where it was seen last, or one
            ``constant`` as in the programs.
        task_columns: read the features of the task, as the programs do; None for where there are tasks enough.
        rate: size of the steps of training. The program ``qt`` takes 1e-4, at which its 1,000 iterations hardly move.
        rounds: how long to train at most: iterations of ``qt``, epochs of ``qtt``; None for 1,000 and 100.

    Raises:
        UsageError: no such variant, aim or prior, a fault that ``qt`` never had, a ``rate`` not above 0, or ``rounds``
            below 1.
    """

    name: ClassVar[str] = "dkl"

    def __init__(
        self,
        variant: str = "qtt",
        *,
        ahead: str = "end",
        prior: str = "best",
        qtt_faithful: bool = False,
        task_columns: bool | None = None,
        rate: float = 1e-3,
        rounds: int | None = None,
    ) -> None:
        if variant not in VARIANTS:
            raise UsageError(f"a variant of `dkl` is one of {', '.join(VARIANTS)}, but got `{variant}`.")
        if ahead not in AHEAD:
            raise UsageError(f"`dkl` looks ahead to one of {', '.join(AHEAD)}, but got `{ahead}`.")
        if prior not in PRIORS:
            raise UsageError(f"the prior of `dkl` is one of {', '.join(PRIORS)}, but got `{prior}`.")
        if qtt_faithful and variant != "qtt":
            raise UsageError("`qtt_faithful` restores a fault of `qtt`; `qt` never had it.")
        if not rate > 0:
            raise UsageError(f"`rate > 0` must hold, but got rate={rate}.")
        if rounds is not None and rounds < 1:
            raise UsageError(f"`rounds >= 1` must hold, but got rounds={rounds}.")
        self.variant, self.ahead, self.prior = variant, ahead, prior
        self.qtt_faithful, self.task_columns, self.rate, self.rounds = qtt_faithful, task_columns, rate, rounds

    def fit(self, past: MetaDataset, seed: int = 0) -> Self:
        """Train on ``past``, a quarter of its groups of tasks (at least one) saying when that is enough; with a single
        group training takes all its rounds.

        Raises:
            DataError: no run succeeded, or none has a score in any cell.
            UsageError: gpytorch is not installed.
        """
        known = scored(past)
        self._inputs = Inputs.fit(past, known, self.variant, self.qtt_faithful, self.task_columns)
        points = self._inputs.points(known, self.ahead)
        if not len(points.target):
            raise DataError(f"None of {len(known)} runs has a score within its run, so no curve can be learned.")
        draw = np.random.default_rng(seed)
        points = points.take(_some(len(points.target), MOST, draw))
        self._process: Process = _process_module().trained(
            self.variant, self._inputs.widths, points, self.prior, self.rate, self.rounds, seed
        )
        self._past = points.take(_some(len(points.target), CONTEXT, draw))
        return self

    def predict(self, pool: MetaDataset, seen: np.ndarray) -> Forecast:
        seen = np.asarray(seen, np.int64)
        self._process.observe(self._context(pool, seen))
        columns, curve = self._inputs.columns(pool), self._inputs.curve(pool, seen)
        best = self._inputs.scaled(pool, pool.sign * best_seen(pool, seen))
        best = np.where(np.isfinite(best), best, -np.inf)
        mean, reach = best.copy(), np.zeros(len(pool))
        if self.ahead == "next":
            self._roll(columns, curve, seen)
        open_ = np.flatnonzero(seen < CELLS)
        if len(open_):
            at = seen[open_] / CELLS if self.ahead == "end" else np.full(len(open_), 1 - 1 / CELLS)
            told, spread = self._process.posterior(columns[open_], curve[open_], at)
            if self.ahead == "next":
                spread = spread * self._process.prior.walk(seen[open_])
            mean[open_], reach[open_] = np.maximum(best[open_], told), TENTH * spread
        mean = np.where(np.isfinite(mean), mean, 0.0)  # a whole run of which no score is known
        ends = (np.maximum(mean - reach, best), mean, mean + reach)
        low, middle, high = (self._inputs.gain(pool, end) for end in ends)
        return self._inputs.anchor.forecast(pool, mean, (low, middle, high), calibrated=False)

    def _roll(self, columns: np.ndarray, curve: np.ndarray, seen: np.ndarray) -> None:
        """Fill ``curve`` from ``seen`` up to the cell before the last with what is foretold, each cell from those
        before; a best score cannot fall."""
        for cell in range(CELLS - 1):
            open_ = np.flatnonzero(seen <= cell)
            if len(open_):
                told = self._process.expected(columns[open_], curve[open_], np.full(len(open_), cell / CELLS))
                before = curve[open_, cell - 1] if cell else np.zeros(len(open_))
                curve[open_, cell] = np.maximum(self._inputs.as_input(told), before)

    def _context(self, pool: MetaDataset, seen: np.ndarray) -> Points:
        """What a candidate is compared with: of ``qt`` what was seen of the pool, if anything was."""
        if self.variant != "qt":
            return self._past
        here = self._inputs.points(pool, self.ahead, seen)
        return here.take(_some(len(here.target), CONTEXT, np.random.default_rng(0))) if len(here.target) else self._past


def _some(n: int, most: int, draw: np.random.Generator) -> np.ndarray:
    return np.sort(draw.choice(n, most, replace=False)) if n > most else np.arange(n)


def _process_module() -> Any:
    """The module that needs gpytorch."""
    try:
        return importlib.import_module("foretune.surrogates.dkl.process")
    except ModuleNotFoundError as error:
        if error.name is not None and error.name.startswith("foretune"):
            raise
        raise UsageError(
            "the surrogate `dkl` needs gpytorch, which is not installed. Install it with `pip install 'foretune[gp]'`."
        ) from error
