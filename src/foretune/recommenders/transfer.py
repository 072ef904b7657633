"""Transfer: what was learned on other tasks chooses here; nothing is searched that earlier runs can tell.

Strangmann et al. 2024 (arXiv 2411.01195): surrogates are fitted on past runs and, unless ``refit`` is asked for, never
on this task; what is seen of this task enters as their input. Three ways of using them:

- ``one-shot``: candidates in the order of what each is worth. A run that fails is worth as much as the worst candidate,
  so a candidate is worth ``(order - worst order) * (1 - P(fails))``.
- ``portfolio``: what did well elsewhere and may be recommended here, greedily, each run in full; then as ``one-shot``.
- ``grey-box``: a tenth of a run at a time, of the candidate with the largest expected improvement over the best score
  seen, times its chance not to fail, per second of that tenth (Quick-Tune, Arango et al. 2024; incremental and not
  total seconds).

When the ground is thin it says so and falls back: to the published default below three earlier tasks, to the
portfolio where the task lies outside what was seen or where the surrogate could not rank runs of a task that it had not
seen. What is expected to score below the default is never asked for, and what fails more likely than not never first.
And whatever decides, the default comes before its first choice unless such choices, on earlier tasks that were left
out, held their own against the default (``left_out.py``): a good default is rarely beaten by what is merely foretold.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cached_property, partial
from typing import ClassVar, final

import numpy as np

from foretune.errors import DataError, UsageError
from foretune.recommenders.base import Observation, Recommender, Trial
from foretune.recommenders.forecasts import Forecasts
from foretune.recommenders.foresight import Foresight, foresee
from foretune.recommenders.ground import Span, ground, overstretched, strange
from foretune.recommenders.known import known_regrets
from foretune.recommenders.left_out import Against, first_known, raced
from foretune.recommenders.portfolio import greedy
from foretune.store.metadataset import CELLS, MetaDataset
from foretune.surrogates import Encoder

MODES = ("one-shot", "portfolio", "grey-box")
RULES = ("default", "portfolio", "surrogate")
REFIT_EVERY, REFIT_WEIGHT = 2.0, 20
"""Full runs between two fits that include this task, and how often each of its rows then counts."""

CHANGED = "The published default was cut to the budget or changed here, so it stands where it is expected to score."
LIKELY = 0.5
"""Chance of failing above which a candidate is never tried first."""


@final
class Transfer(Recommender):
    """Args beyond those of ``Recommender``:

    Args:
        mode: one of ``MODES``.
        surrogate: name of what foretells scores, for example ``dkl``, the paper's own; empty is what the mode needs.
        refit: fit again, with what was seen of this task, every ``refit_every`` full runs.
        known: the places of the portfolio, in its order; None finds them by configuration in ``past``.
        standard: whether ``default`` is as published; one that was cut or changed is another pipeline, of which what
            the published one did on earlier tasks says nothing.
        overhead: seconds that starting or continuing any candidate costs beside its steps.
        fit: what learns from the past; None learns what the mode needs.
    """

    name: ClassVar[str] = "transfer"

    def __init__(
        self,
        pool: MetaDataset,
        past: MetaDataset | None = None,
        *,
        default: int | None = None,
        seed: int = 0,
        mode: str = "one-shot",
        surrogate: str = "",
        refit: bool = False,
        refit_every: float = REFIT_EVERY,
        refit_weight: int = REFIT_WEIGHT,
        known: Sequence[int] | None = None,
        standard: bool = True,
        overhead: float = 0.0,
        fit: Callable[[MetaDataset, int], Foresight] | None = None,
    ) -> None:
        super().__init__(pool, past, default=default, seed=seed)
        if mode not in MODES:
            raise UsageError(f"the mode of `transfer` is one of {', '.join(MODES)}, but got `{mode}`.")
        self.mode, self.refit, self.refit_every, self.refit_weight = mode, refit, refit_every, refit_weight
        self.overhead, self._fit = overhead, fit or partial(foresee, curves=mode == "grey-box", surrogate=surrogate)
        self._known, self._standard_default = None if known is None else tuple(known), standard
        self._fitted_at = 0

    @cached_property
    def known(self) -> tuple[int, ...]:
        """The places of configurations that did well elsewhere, in the order of the portfolio."""
        if self._known is not None:
            return self._known
        return tuple(greedy(*known_regrets(self.view, self.past)))

    @cached_property
    def _decided(self) -> tuple[str, str, Foresight | None]:
        """One of ``RULES``, why, and what was learned where it was."""
        weak = ground(self.past, self.view)
        if weak.too_few:
            return "default", f"{weak.too_few} So {self._standard} decides.", None
        if weak.foreign:
            return "default", f"{weak.foreign} So {self._standard} decides, and no score is foretold.", None
        if weak.outside:
            return self._unlearned(weak.outside)
        assert self.past is not None
        try:
            foresight = self._fit(self.past, self.seed)
            if not foresight.trusted:
                return self._unlearned(foresight.doubt)
            foresight.learn()
        except DataError as error:
            return self._unlearned(f"Nothing could be learned from the earlier runs: {error}")
        return "surrogate", foresight.ground, foresight

    def _unlearned(self, why: str) -> tuple[str, str, None]:
        """The rule where no surrogate decides."""
        rule, falls = ("portfolio", "the portfolio") if self.known else ("default", self._standard)
        return rule, f"{why} So {falls} decides, and no score is foretold.", None

    @cached_property
    def _against(self) -> Against | None:
        """First choices of the rule against the default; None where that decides, is none, or is not as published."""
        if self.default is None or self.rule == "default" or not self._standard_default:
            return None
        if self._foresight is not None:
            return self._foresight.against_default(self._tuner)
        assert self.past is not None
        return raced(self.past, first_known(self.past, self._tuner), self._tuner)

    @property
    def default_first(self) -> bool:
        """Whether the default stands before what the rule would choose first."""
        return self._against is not None and not self._against.ahead

    @property
    def _standard(self) -> str:
        return "the first candidate" if self.default is None else "the published default"

    @property
    def _tuner(self) -> str:
        """The only tuner of the pool; empty where there are several, or none is named."""
        tuners = {str(config.get("tuner", "")) for config in self.view.configs}
        return tuners.pop() if len(tuners) == 1 else ""

    @property
    def rule(self) -> str:
        """Which of ``RULES`` decides."""
        return self._decided[0]

    @property
    def abstains(self) -> bool:
        return self.rule == "default"

    @property
    def evidence(self) -> tuple[str, ...]:
        against = "" if self._against is None else self._against.found
        if self.default is not None and self.rule != "default" and not self._standard_default:
            against = CHANGED
        left_out = self._left_out if self.rule == "surrogate" else ""
        return tuple(said for said in (self._decided[1], against, left_out) if said)

    @property
    def _left_out(self) -> str:
        """How many candidates are not ranked for their numbers, in a sentence; empty where there are none."""
        if not self._beyond.any():
            return ""
        spans = ", ".join(f"{span.name} {span.low:g} to {span.high:g}" for span in self._overstretched)
        family = self.view.tasks[0].family
        number = int(self._beyond.sum())
        verb, lie = ("is", "it lies") if number == 1 else ("are", "they lie")
        return (
            f"Of {len(self.view):,} candidates {number:,} {verb} not ranked: {lie} beyond what the earlier "
            f"runs {f'of `{family}` models ' if family else ''}hold ({spans})."
        )

    @cached_property
    def _foresight(self) -> Foresight | None:
        return self._decided[2]

    def forecasts(self) -> Forecasts | None:
        """What is expected of every candidate, given what was seen; None unless a surrogate decides."""
        foresight = self._foresight
        return None if foresight is None else foresight.of(self.view, self.seen)

    def ranking(self) -> list[int]:
        """Candidates that may be recommended, best first, as things stand; the default is always among them."""
        default = self.default or 0
        if self.rule == "default":
            return [default]
        if self.rule == "portfolio":
            order = [*dict.fromkeys((*self.known, default))]
        else:
            told = self.forecasts()
            assert told is not None
            order = ranked(told, self.view.tasks[0].sign, self.default, self._strange)
        return list(dict.fromkeys((default, *order))) if self.default_first else order

    def in_turn(self) -> list[int]:
        """The ranking; in the mode ``portfolio`` with what did well elsewhere first, if it may be recommended, and
        before that the default where it is to be first."""
        ranking = self.ranking()
        known = [place for place in self.known if place in ranking] if self.mode == "portfolio" else []
        return list(dict.fromkeys((*ranking[: int(self.default_first)], *known, *ranking)))

    @cached_property
    def _strange(self) -> np.ndarray:
        """``(n,)`` candidates with a word that no earlier run had, or a number beyond those of all: nothing is known
        of them."""
        assert self.past is not None
        found: np.ndarray = strange(Encoder.fit(self.past), self.view) | self._beyond
        return found

    @cached_property
    def _beyond(self) -> np.ndarray:
        """``(n,)`` candidates with a number beyond those of all earlier runs; the default is none, whatever it has."""
        found = np.logical_or.reduce([np.zeros(len(self.view), bool), *(each.beyond for each in self._overstretched)])
        if self.default is not None:
            found[self.default] = False
        return found

    @cached_property
    def _overstretched(self) -> tuple[Span, ...]:
        return () if self.past is None else overstretched(self.past, self.view)

    def bar(self, places: np.ndarray) -> None:
        """Never ask for ``places``, a mask ``(n,)``: candidates that this machine cannot run."""
        self.over |= places

    def ask(self) -> Trial | None:
        if self.rule == "surrogate" and self.mode == "grey-box":
            return self._next_cell()
        return next((Trial(place) for place in self.in_turn() if not self.over[place]), None)

    def tell(self, observation: Observation) -> None:
        super().tell(observation)
        done = int(self.seen.sum())
        if self.refit and self._foresight is not None and done - self._fitted_at >= self.refit_every * CELLS:
            assert self.past is not None
            self._fitted_at = done
            here = self.view.take(np.repeat(np.flatnonzero(self.seen > 0), self.refit_weight))
            here = replace(here, score=np.where(here.whole, here.score, np.nan))  # a part of a run has no final score
            self.__dict__["_foresight"] = self._fit(joined(self.past, here), self.seed)

    def _next_cell(self) -> Trial | None:
        open_ = ~self.over
        if not open_.any():
            return None
        told = self.forecasts()
        assert told is not None
        sign = self.view.tasks[0].sign
        best = self.incumbent()
        if best is None:
            first = next((place for place in self.ranking() if open_[place]), int(np.flatnonzero(open_)[0]))
            return Trial(first, int(self.seen[first]) + 1)
        gain = improvement(told.mean * sign, told.spread, float(self.view.score[best] * sign))
        timed = open_ & np.isfinite(told.next_seconds)
        seconds = np.where(timed, told.next_seconds, 1.0)  # untimed: all alike; of what is over nothing is left to run
        value = gain * (1 - told.p_fail) / (seconds + self.overhead)
        value = np.where(open_ & ~self._strange & np.isfinite(value), value, -np.inf)
        place = int(np.argmax(value))
        if value[place] <= 0:
            return None
        return Trial(place, int(self.seen[place]) + 1)


def ranked(told: Forecasts, sign: int, default: int | None, strange: np.ndarray) -> list[int]:
    """Places by what they are worth, best first, without those that are expected to score below the default, those
    that fail more likely than not, and those of which nothing is known (``strange``); the default is among them
    whatever it is expected to do."""
    worth = (told.order - told.order.min()) * (1 - told.p_fail)
    allowed = (told.p_fail <= LIKELY) & ~strange
    if default is not None:
        mean = told.mean * sign
        level = mean if np.isfinite(mean[default]) else told.order
        allowed &= ~(level < level[default])
        if np.isfinite(mean[default]):
            allowed &= np.isfinite(mean)
        allowed[default] = True
    order = np.lexsort((np.arange(len(worth)), -worth))
    chosen = [int(place) for place in order if allowed[place]]
    return chosen or [0]


def improvement(mean: np.ndarray, spread: np.ndarray, best: float) -> np.ndarray:
    """Expected improvement over ``best`` of normal distributions, ``(n,)``; more is better.

    >>> improvement(np.array([0.0, 1.0]), np.array([1.0, 0.0]), 0.5).round(3).tolist()
    [0.198, 0.5]
    """
    from scipy.special import ndtr

    above = mean - best
    with np.errstate(divide="ignore", invalid="ignore"):
        z = np.where(spread > 0, above / spread, 0.0)
    density = np.exp(-(z**2) / 2) / np.sqrt(2 * np.pi)
    return np.where(spread > 0, above * ndtr(z) + spread * density, np.maximum(above, 0.0))


def joined(a: MetaDataset, b: MetaDataset) -> MetaDataset:
    """The runs of both; ``b`` is on tasks that ``a`` does not have."""
    costs = dict.fromkeys((*a.cost, *b.cost))
    missing = {id(each): np.full(len(each), np.nan) for each in (a, b)}
    return replace(
        a,
        tasks=(*a.tasks, *b.tasks),
        task=np.concatenate([a.task, b.task + len(a.tasks)]),
        run_ids=(*a.run_ids, *b.run_ids),
        configs=(*a.configs, *b.configs),
        config_ids=np.concatenate([a.config_ids, b.config_ids]),
        status=np.concatenate([a.status, b.status]),
        curves={role: np.concatenate([a.curves[role], b.curves[role]]) for role in a.curves},
        start={role: np.concatenate([a.start[role], b.start[role]]) for role in a.start},
        seconds=np.concatenate([a.seconds, b.seconds]),
        whole=np.concatenate([a.whole, b.whole]),
        reached=np.concatenate([a.reached, b.reached]),
        score=np.concatenate([a.score, b.score]),
        test=np.concatenate([a.test, b.test]),
        cost={name: np.concatenate([each.cost.get(name, missing[id(each)]) for each in (a, b)]) for name in costs},
        default=np.concatenate([a.default, b.default]),
    )
