"""plan: the ranked recommendations for a task that nobody has trained on yet, with what each number rests on.

What decides is a ``Recommender``, the same that a replay judges. A plan adds what a reader wants beside the choice:
the published default's own expectation, candidates that cannot be told apart, the nearest earlier tasks. Learning is
apart from planning (``Planner``), since a pipeline plans again once steps were timed here.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from foretune.errors import UsageError
from foretune.recommenders.around import around
from foretune.recommenders.default import Default
from foretune.recommenders.forecasts import Forecasts
from foretune.recommenders.foresight import Foresight, foresee
from foretune.recommenders.ground import nearest
from foretune.recommenders.noise import noise_floor, possible, widened
from foretune.recommenders.pool import DEFAULT, SIZE, Pool, make_pool, plain_of, unstarted
from foretune.recommenders.published import published
from foretune.recommenders.situation import Situation
from foretune.recommenders.transfer import MODES, Transfer
from foretune.records import Plan, Recommendation
from foretune.registry import find
from foretune.store.metadataset import CELLS, MetaDataset
from foretune.surrogates.base import LEVEL

RANKED = 10


def plan(situation: Situation, past: MetaDataset | None = None, mode: str = "one-shot", *, seed: int = 0) -> Plan:
    """What to run in ``situation``, best first, with what that rests on.

    Args:
        past: runs on other tasks; None, or too few of them, leaves it to the published default.
        mode: one of ``transfer.MODES``.

    Raises:
        UsageError: an unknown tuner or mode.
        ResourceError: nothing fits the budget.
    """
    return Planner(past, mode, seed).plan(situation)


@dataclass
class Planner:
    """Plans again and again from the same past, which is learned once.

    Attributes:
        past: copies of the task at hand left out.
        size: of the pool.
        fit: what learns from the past.
        refit: in the mode ``grey-box``, learn again while a budget is played, with what was seen of the task.
    """

    past: MetaDataset | None = None
    mode: str = "one-shot"
    seed: int = 0
    size: int = SIZE
    fit: Callable[..., Foresight] = foresee
    refit: bool = False
    _learned: Foresight | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        if self.mode not in MODES:
            raise UsageError(f"`--mode` must be one of {', '.join(MODES)}, but got `{self.mode}`.")

    def plan(self, situation: Situation) -> Plan:
        """As ``plan``."""
        if self.past is None or situation.task is None or not trains(situation):
            return by_default(situation)
        pool, recommender = self.recommender(situation)
        told = recommender.forecasts()
        if recommender.rule == "default":
            best, sources = published(situation)
            return Plan((replace(best, origin=DEFAULT),), Default.name, (*sources, *recommender.evidence))
        fits = ~self._too_dear(pool, situation)
        ranking = [place for place in recommender.in_turn() if fits[place]] or [0]
        shown = ranking[:RANKED]
        if 0 in ranking and 0 not in shown:
            shown = [*shown[:-1], 0]
        wide = told and widened(told, self.past, situation.task)
        allowed = wide and possible(wide, situation.task.metric)
        made = expected([pool.offered[place] for place in shown], shown, allowed, situation, self._learned, self.past)
        tied, about_ties = self._ties(made, told, shown, situation)
        about_task = tuple(self._about(place, distance) for place, distance in nearest(self.past, situation.task))
        return Plan(
            made,
            Transfer.name,
            (
                *recommender.evidence,
                *self._about_choice(recommender, made, wider=wide is not told),
                *about_default(made, situation),
                *about_ties,
                *about_cost(made),
                *about_failures(made, self.past),
            ),
            (*about_task, *(f"Of the published default: {line}" for line in pool.sources)),
            self.mode,
            tied,
        )

    def recommender(self, situation: Situation, overhead: float = 0.0) -> tuple[Pool, Transfer]:
        """The candidates for ``situation``, and who chooses among them."""
        pool = make_pool(self._timed(situation), self.past, self.size, self.seed)
        recommender = Transfer(
            pool.runs,
            self.past,
            default=0,
            seed=self.seed,
            mode=self.mode,
            refit=self.refit,
            known=pool.known,
            standard=pool.standard,
            overhead=overhead,
            fit=self._fit,
        )
        return pool, recommender

    def to_play(self, situation: Situation, overhead: float = 0.0) -> tuple[Pool, Transfer, np.ndarray]:
        """As ``recommender``, who never asks for what would not fit, and the training seconds ``(n,)`` that each
        candidate is expected to take; NaN where nothing is known."""
        pool, recommender = self.recommender(situation, overhead)
        if recommender.abstains:
            return pool, recommender, np.full(len(pool.runs), np.nan)
        recommender.bar(self._too_dear(pool, situation))
        return pool, recommender, costs(pool.offered, situation, self._learned).seconds

    def _fit(self, past: MetaDataset, seed: int) -> Foresight:
        """What is learned of ``past``; that of the planner's own is kept, a past that grew is learned anew."""
        curves = self.mode == "grey-box"
        if past is not self.past:
            return self.fit(past, seed, curves=curves)
        if self._learned is None:
            self._learned = self.fit(past, seed, curves=curves)
        return self._learned

    def _timed(self, situation: Situation) -> Situation:
        """The situation with the seconds of a step of the *default*, told from the pipeline that was timed."""
        measured = situation.measured
        if measured is None:
            return situation
        seconds = measured.step_seconds
        if self._learned is not None and situation.task is not None:
            default = situation.settle(published(replace(situation, budget_seconds=None))[0])
            foretold = costs([default], situation, self._learned).seconds[0] / default.schedule.steps
            seconds = foretold if np.isfinite(foretold) else seconds
        return replace(situation, seconds_per_step=float(seconds))

    def _too_dear(self, pool: Pool, situation: Situation) -> np.ndarray:
        """``(n,)`` the candidates whose training does not fit the memory or the budget; what is not known rules nothing
        out, nor is the published default ruled out, which was cut to the budget."""
        dear = np.zeros(len(pool.offered), bool)
        memory, budget = situation.memory_bytes, situation.budget_seconds
        if situation.measured is None or self.mode == "grey-box":  # what is played is not run whole
            budget = None
        if memory is None and budget is None:
            return dear
        asked = costs(pool.offered, situation, self._learned)
        if memory is not None:
            dear |= asked.bytes > memory
        if budget is not None:
            dear |= asked.seconds > budget
        dear[0] = False
        return dear

    def _about_choice(self, recommender: Transfer, made: tuple[Recommendation, ...], *, wider: bool) -> tuple[str, ...]:
        best = made[0]
        if recommender.rule == "portfolio":
            behind = "Behind the published default the order" if recommender.default_first else "The order"
            return (f"{behind} is that of a portfolio: together these did best on the earlier tasks.",)
        if self.mode == "portfolio":
            said = ["First come the pipelines that together did best on the earlier tasks, as was asked for."]
        else:
            said = []
        if best.origin == DEFAULT and not recommender.default_first:
            said.append("No candidate is expected to do better than the published default, so it comes first.")
        if best.score is None:
            metric = recommender.view.tasks[0].metric
            said.append(f"No score is foretold: nothing that is known before training is in the unit of {metric}.")
        if best.interval is not None:
            checked = (
                "its width was checked on tasks left out" if _calibrated(recommender) else "its width is unchecked"
            )
            allows = ", and it allows for a dev set smaller than theirs" if wider else ""
            said.append(f"An interval is meant to hold {LEVEL:.0%} of the runs; {checked}{allows}.")
        return tuple(said)

    def _ties(
        self, made: tuple[Recommendation, ...], told: Forecasts | None, shown: list[int], situation: Situation
    ) -> tuple[int, tuple[str, ...]]:
        """How many of the first differ by less than a repetition does, and the sentence about it."""
        assert self.past is not None
        assert situation.task is not None
        floor, source = noise_floor(self.past, situation.task)
        scores = [each.score for each in made]
        if told is None or floor is None or scores[0] is None:
            return 1, ()
        tied = 1
        while tied < len(scores) and (score := scores[tied]) is not None and abs(score - scores[0]) < floor:
            tied += 1
        if tied == 1:
            return 1, ()
        said = f"Ranks 1 to {tied} are tied: their expected scores differ by less than {floor:.3f}, {source}."
        return tied, (f"{said}{_cheapest(made[:tied])}",)

    def _about(self, place: int, distance: float) -> str:
        """A nearest earlier task and its best run, in a sentence."""
        past = self.past
        assert past is not None
        task = past.tasks[place]
        mine = np.flatnonzero((past.task == place) & past.succeeded)
        scores = past.score[mine] * past.sign[mine]
        best = mine[int(np.argmax(scores))]
        config = past.configs[best]
        rows = f"{task.rows['train']:,} training rows, " if "train" in task.rows else ""
        model = f"{task.model.name}, " if task.model else ""
        about = [f"{name} {config[name]:g}" for name in ("lr", "steps") if isinstance(config.get(name), int | float)]
        return (
            f"Like an earlier task: `{task.name}` ({model}{rows}distance {distance:.2f}). Its best of {len(mine)} "
            f"runs: {config.get('tuner', 'unknown')}, {', '.join(about)}, {task.metric} {past.score[best]:.3f} on dev; "
            f"the median run {np.median(past.score[mine]):.3f}."
        )


def _cheapest(tied: Sequence[Recommendation]) -> str:
    """Which of the tied takes least time, in a sentence; empty where it is the first, or not known."""
    seconds = [each.seconds for each in tied]
    known = [value for value in seconds if value is not None]
    if seconds[0] is None or not known or min(known) >= seconds[0]:
        return ""
    rank, share = seconds.index(min(known)) + 1, min(known) / seconds[0]
    return f" The cheapest of them is rank {rank}, at {share:.0%} of the time of rank 1."


def by_default(situation: Situation) -> Plan:
    """The published default alone; no earlier run was asked for."""
    best, evidence = published(situation)
    if best.schedule.steps:
        evidence = (*evidence, "No score is foretold: no earlier run was consulted.")
    return Plan((best,), Default.name, evidence)


def trains(situation: Situation) -> bool:
    """Whether there is anything to choose: a tuner that trains nothing has one pipeline."""
    return situation.tuner is None or find("tuner", situation.tuner, situation.methods).lr > 0


def expected(
    pipelines: Sequence[Recommendation],
    places: Sequence[int],
    told: Forecasts | None,
    situation: Situation,
    learned: Foresight | None,
    past: MetaDataset,
) -> tuple[Recommendation, ...]:
    """``pipelines``, which are at ``places`` of the pool, with what is expected of them."""
    measured, cost = situation.measured, costs(pipelines, situation, learned)
    failures = bool(past.failed.any())  # where none failed, the chance is a prior's and no run's
    assert situation.task is not None
    made = []
    for each, place, seconds, size in zip(pipelines, places, cost.seconds, cost.bytes, strict=True):
        beside = measured.around_seconds if measured else around(past, situation.task, each.tuner.name)
        whole = float(seconds) + beside
        known: dict[str, Any] = {
            "seconds": whole if np.isfinite(whole) else None,
            "bytes": round(size) if np.isfinite(size) else None,
            "measured": measured is not None,
        }
        if told is not None:
            mean, low, high = (float(values[place]) for values in (told.mean, told.low, told.high))
            known["score"] = mean if np.isfinite(mean) else None
            known["interval"] = (low, high) if np.isfinite([low, high]).all() else None
            known["p_fail"] = float(told.p_fail[place]) if failures else None
        made.append(replace(each, **known))
    return tuple(made)


@dataclass(frozen=True)
class Costs:
    """Training seconds of whole runs and peak bytes, ``(n,)`` each; NaN where nothing is known."""

    seconds: np.ndarray
    bytes: np.ndarray


def costs(pipelines: Sequence[Recommendation], situation: Situation, learned: Foresight | None) -> Costs:
    """What ``pipelines`` cost: on this machine where steps were timed, else on the machines of the past."""
    measured, n = situation.measured, len(pipelines)
    if learned is None or learned.cost is None:
        same = np.array([measured is not None and each.bare == measured.of.bare for each in pipelines])
        seconds = measured.step_seconds * measured.of.schedule.steps if measured else np.nan
        size = measured.bytes if measured and measured.bytes else np.nan
        return Costs(np.where(same, seconds, np.nan), np.where(same, size, np.nan))
    model = learned.cost
    if measured is not None and measured.step_seconds > 0:
        timed = _candidates([measured.of], situation)
        model = model.scaled(timed, 0, measured.step_seconds, measured.of.schedule.steps, measured.bytes)
    asked = _candidates(pipelines, situation)
    return Costs(model.seconds(asked, np.zeros(n, np.int64), np.full(n, CELLS)), model.bytes(asked))


def _candidates(pipelines: Sequence[Recommendation], situation: Situation) -> MetaDataset:
    assert situation.task is not None
    configs = [plain_of(each, situation) for each in pipelines]
    return unstarted(situation.task, configs, [each.schedule.steps for each in pipelines])


def about_default(made: tuple[Recommendation, ...], situation: Situation) -> tuple[str, ...]:
    """What the published default itself is expected to do, where it is not the best."""
    default = next((each for each in made if each.origin == DEFAULT), None)
    if default is None or default is made[0] or default.score is None or situation.task is None:
        return ()
    bounds = f" ({default.interval[0]:.3f} to {default.interval[1]:.3f})" if default.interval else ""
    return (
        f"The published default ({default.tuner.name}, learning rate {default.schedule.lr:g}, "
        f"{default.schedule.steps:,} steps) is expected to reach {situation.task.metric} {default.score:.3f}{bounds}.",
    )


def about_cost(made: tuple[Recommendation, ...]) -> tuple[str, ...]:
    """Where the seconds are from."""
    if made[0].seconds is None:
        return ()
    if made[0].measured:
        return ("Seconds are scaled by steps that were timed on this machine.",)
    return ("Seconds and memory are those of the machines that earlier runs were made on.",)


def about_failures(made: tuple[Recommendation, ...], past: MetaDataset) -> tuple[str, ...]:
    """Why no chance of failing is said where scores are."""
    if made[0].score is None or past.failed.any():
        return ()
    return (f"None of the {len(past):,} earlier runs failed, so of failures nothing was learned.",)


def _calibrated(recommender: Transfer) -> bool:
    told = recommender.forecasts()
    return told is not None and told.calibrated
