"""RecommenderContract: the checks every recommender passes; a plug-in inherits them and says how to make its own.

The collection is made up: six tasks with the same twenty configurations, of which a rate near 1e-3 is best everywhere
and a large one diverges. It is small enough for any recommender and says which way is up.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import replace

import numpy as np

from foretune.comparison.replay.controls import CONTROLS
from foretune.comparison.replay.pools import Held, held_out
from foretune.comparison.replay.race import observed
from foretune.recommenders.base import Recommender, Trial, blank
from foretune.records import Line, MetaRun, MetaTask, ModelCard, RunCollection, Value
from foretune.store.metadataset import CELLS, MetaDataset, metadataset

TASKS, CONFIGS = 6, 20


def toy_collection(
    tasks: int = TASKS, configs: int = CONFIGS, *, direction: str = "max", repeats: int = 1, timed: bool = True
) -> RunCollection:
    """Made-up runs: accuracy (or error) over ten cells on dev and test.

    The optimum is at a rate of 1e-3 and shifts a little from task to task; the two largest rates diverge after three
    cells. Models are of two families in turn.

    >>> made = toy_collection()
    >>> len(made.tasks), len(made.runs), {run.status for run in made.runs} == {"ok", "diverged"}
    (6, 120, True)
    """
    generator = np.random.default_rng(0)
    grid = np.logspace(-5, -1, configs)
    kinds = ("lora", "full")
    made, runs = [], []
    for t in range(tasks):
        name = f"task-{t}"
        card = ModelCard(f"model-{t % 2}", ("bert", "llama")[t % 2], parameters=10**7 * (1 + t % 2))
        features = {"words_mean": 10.0 + t, "type_token_ratio": 0.1 * (t + 1)}
        made.append(
            MetaTask(
                name, name, name, "accuracy", direction, "classification", card, {"train": 100 * (t + 1)}, features, 1
            )
        )
        for c, lr in enumerate(grid):
            for seed in range(repeats):
                config: dict[str, Value] = {"lr": float(lr), "rank": 2.0 ** (c % 4), "tuner": kinds[c % 2]}
                far = abs(math.log10(lr) + 3 - 0.1 * t)
                end = 0.9 - 0.15 * far - 0.02 * (c % 2) + 0.005 * generator.normal()
                values = [0.5 + (end - 0.5) * (1 - 0.7 ** (cell + 1)) for cell in range(CELLS)]
                broke = c >= configs - 2 and configs > 4
                kept = values[:3] if broke else values
                shown = [value if direction == "max" else 1 - value for value in kept]
                steps = tuple(range(1, len(kept) + 1))
                seconds = tuple(float(step * (1 + c % 2)) for step in steps) if timed else ()
                lines = [
                    Line("dev", "accuracy", steps, tuple(shown), seconds),
                    Line("test", "accuracy", steps, tuple(value + 0.001 for value in shown)),
                ]
                status = "diverged" if broke else "ok"
                runs.append(MetaRun(f"{name}/{c}/{seed}", name, config, status, CELLS, tuple(lines), seed))
    return RunCollection("made up", tuple(made), tuple(runs))


def toy_held(dataset: MetaDataset | None = None, at: int = 0) -> Held:
    """A held-out task of the made-up collection."""
    default: dict[str, Value] = {"lr": 1e-4, "tuner": "lora"}
    return held_out(dataset or metadataset([toy_collection()]), "leave-one-task-out", default=default)[0][at]


class RecommenderContract(ABC):
    """Inherit as ``class TestMine(RecommenderContract)`` and write ``make``; pytest does the rest.

    A recommender whose library draws without a seed says ``repeats = False``.
    """

    repeats = True

    @abstractmethod
    def make(self, pool: MetaDataset, past: MetaDataset | None, default: int | None, seed: int) -> Recommender:
        """The recommender under test."""

    def test_it_stays_inside_the_pool_never_asks_for_what_is_over_and_ends(self) -> None:
        held = toy_held()
        self.course(held, self.make(blank(held.pool), held.past, held.default, 0))

    def test_it_has_a_name_and_says_what_it_rests_on(self) -> None:
        held = toy_held()
        made = self.make(blank(held.pool), held.past, held.default, 0)
        assert made.name
        for _ in range(3):
            assert made.evidence
            assert all(sentence.strip() and "\n" not in sentence for sentence in made.evidence)
            if (trial := made.ask()) is not None:
                made.tell(observed(held, trial))

    def test_it_survives_runs_that_failed_and_curves_of_nan(self) -> None:
        held = toy_held()
        odd = np.arange(len(held.pool)) % 2 == 1
        failed = np.where(odd, "failed", held.pool.status).astype(object)
        curves = {role: np.where(odd[:, None], np.nan, values) for role, values in held.pool.curves.items()}
        for pool in (replace(held.pool, status=failed, curves=curves), replace(held.pool, curves=curves)):
            worse = replace(held, pool=pool, failed=pool.failed)
            made = self.make(blank(pool), held.past, held.default, 0)
            self.course(worse, made)
            found = made.incumbent()
            assert found is None or not odd[found]

    def test_a_pool_of_which_everything_fails_has_no_incumbent(self) -> None:
        held = toy_held()
        n = len(held.pool)
        pool = replace(held.pool, status=np.full(n, "oom", object), curves=dict.fromkeys(held.pool.curves, _nan(n)))
        made = self.make(blank(pool), held.past, held.default, 0)
        costs = replace(held.costs, end=np.ones(n, np.int64))
        self.course(replace(held, pool=pool, failed=pool.failed, costs=costs), made)
        assert made.incumbent() is None

    def test_a_pool_of_one_is_run_or_left(self) -> None:
        held = toy_held()
        one = replace(held, pool=held.pool.take(np.array([3])), failed=held.failed[[3]])
        one = replace(one, costs=replace(held.costs, end=held.costs.end[[3]], seconds=held.costs.seconds[[3]]))
        made = self.make(blank(one.pool), held.past, None, 0)
        trials = self.course(one, made)
        assert {trial.place for trial in trials} <= {0}

    def test_it_needs_no_past_and_no_default(self) -> None:
        held = toy_held()
        self.course(held, self.make(blank(held.pool), None, None, 0))

    def test_a_minimised_metric_is_minimised(self) -> None:
        held = toy_held(metadataset([toy_collection(direction="min")]))
        made = self.make(blank(held.pool), held.past, held.default, 0)
        trials = self.course(held, made)
        if trials:
            found = made.incumbent()
            assert found is not None
            told = [trial.place for trial in trials if np.isfinite(made.view.score[trial.place])]
            assert made.view.score[found] == min(made.view.score[told])

    def test_after_the_same_tells_it_goes_on_in_the_same_way(self) -> None:
        if not self.repeats:
            return
        held = toy_held()
        first = self.make(blank(held.pool), held.past, held.default, 7)
        told, rest = [], []
        for number in range(12):
            trial = first.ask()
            if trial is None:
                break
            if number < 6:
                told.append(observed(held, trial))
            else:
                rest.append(trial)
            first.tell(observed(held, trial))
        again = self.make(blank(held.pool), held.past, held.default, 7)
        for observation in told:
            again.tell(observation)
        resumed = []
        for _ in rest:
            trial = again.ask()
            assert trial is not None
            resumed.append(trial)
            again.tell(observed(held, trial))
        assert resumed == rest

    def test_what_reads_no_past_asks_for_the_same_under_another_one(self) -> None:
        held = toy_held()
        if not self.repeats or self.make(blank(held.pool), held.past, held.default, 7).reads_past:
            return
        courses = []
        for control in CONTROLS.values():
            pool, past = control(held.pool, held.past, np.random.default_rng(0))
            courses.append(self.course(held, self.make(blank(pool), past, held.default, 7)))
        assert all(each == self.course(held, self.make(blank(held.pool), None, held.default, 7)) for each in courses)

    def course(self, held: Held, made: Recommender) -> list[Trial]:
        """Serve ``made`` until it says that nothing is left, checking every trial."""
        n, seen, over = len(held.pool), np.zeros(len(held.pool), np.int64), np.zeros(len(held.pool), bool)
        trials: list[Trial] = []
        while (trial := made.ask()) is not None:
            assert 0 <= trial.place < n
            assert seen[trial.place] < trial.until <= CELLS
            assert not over[trial.place]
            observation = observed(held, trial)
            made.tell(observation)
            seen[trial.place] = trial.until
            over[trial.place] = trial.until == CELLS or observation.status not in ("ok", "stopped")
            trials.append(trial)
            assert len(trials) <= n * CELLS, "it does not end"
        return trials


def _nan(n: int) -> np.ndarray:
    return np.full((n, CELLS), np.nan)
