"""The contract of surrogates, as tests to inherit, and a made-up store of which it is known what there is to learn.

In the store, a run's score is its task's anchor plus a gain that depends on every setting, the same on every task; its
curve rises to it at a pace that depends on the learning rate. So it is known what a surrogate should have learned.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import pytest

from foretune.errors import DataError
from foretune.records import Line, MetaRun, MetaTask, RunCollection, Value
from foretune.store.metadataset import CELLS, ROLES, MetaDataset, metadataset
from foretune.surrogates import Constant, Forecast, Surrogate

LEVELS: dict[str, dict[Value, float]] = {
    "variant": {"plain": 0.0, "wide": 0.08, "deep": 0.16},
    "targets": {"some": 0.0, "all": 0.1},
    "rescale": {False: 0.0, True: 0.1},
}
"""Setting -> level -> what it adds to the gain; a learning rate of 1e-3 adds another .1, and less on either side."""

RATES = (1e-5, 1e-4, 1e-3, 1e-2, 1e-1)
FAILS = 1e-1
"""The learning rate at which every run of the made-up store diverges."""


def gain(config: dict[str, Any]) -> float:
    """What a configuration gains over the anchor.

    >>> gain({"lr": 1e-3, "variant": "deep", "targets": "all", "rescale": True})
    0.46
    """
    chosen = sum(levels[config[name]] for name, levels in LEVELS.items())
    return round(chosen + 0.1 - 0.04 * abs(float(np.log10(config["lr"])) + 3), 9)


def configurations(number: int, seed: int = 0) -> list[dict[str, Value]]:
    """``number`` random configurations."""
    rng = np.random.default_rng(seed)
    return [
        {
            "lr": float(rng.choice(RATES)),
            **{name: list(levels)[rng.integers(len(levels))] for name, levels in LEVELS.items()},
        }
        for _ in range(number)
    ]


def made_store(
    tasks: int = 6,
    configs: int = 30,
    *,
    direction: str = "max",
    failed: Sequence[int] = (),
    anchored: bool = True,
    first: int = 0,
    seed: int = 0,
) -> MetaDataset:
    """Runs of the same configurations on several tasks.

    Args:
        direction: ``min`` makes losses of them: 1 minus the score, with the anchor 1 minus the anchor.
        failed: tasks on which every run failed.
        anchored: whether the tasks tell their anchors.
        first: the number of the first task; other numbers are other tasks.
        seed: of the configurations.
    """
    sign, flip = (1, 0.0) if direction == "max" else (-1, 1.0)
    known, runs = [], []
    for number in range(first, first + tasks):
        name, anchor = f"task {number}", 0.2 + 0.03 * (number % 7)
        shown = {"landmark_probe" if sign > 0 else "zero_shot_loss": flip + sign * anchor} if anchored else {}
        metric = "accuracy" if sign > 0 else "loss"
        features = {"words_mean": 10.0 + number, **shown}
        known.append(MetaTask(name, name, name, metric, direction, features=features, features_version=1))
        for place, config in enumerate(configurations(configs, seed)):
            broken = number in failed or config["lr"] == FAILS
            top = anchor + gain(config) + 0.005 * np.sin(7 * place + number)
            pace = 1 + abs(np.log10(config["lr"]) + 3)
            steps = tuple(range(CELLS + 1)) if not broken else (0, 1)
            values = tuple(flip + sign * (anchor + (top - anchor) * (s / CELLS) ** (0.3 * pace)) for s in steps)
            seconds = tuple(2.0 * step for step in steps)
            lines = (Line("dev", metric, steps, values, seconds), Line("test", metric, steps, values))
            cost = {} if broken else {"train_seconds": seconds[-1], "peak_bytes": 1e9}
            status = "diverged" if broken else "ok"
            runs.append(MetaRun(f"{name}/{place}", name, config, status, CELLS, lines, cost=cost))
    return metadataset([RunCollection("made up", tuple(known), tuple(runs))])


def hidden(pool: MetaDataset, seen: np.ndarray) -> MetaDataset:
    """The pool with nothing behind ``seen`` ``(n,)`` cells, in any array."""
    behind = np.arange(CELLS) >= np.asarray(seen)[:, None]
    return replace(
        pool,
        status=np.full(len(pool), "stopped", object),
        curves={role: np.where(behind, np.nan, pool.curves[role]) for role in ROLES},
        seconds=np.where(behind, np.nan, pool.seconds),
        score=np.full(len(pool), np.nan),
        test=np.full(len(pool), np.nan),
        cost={name: np.full(len(pool), np.nan) for name in pool.cost},
    )


def same(one: Forecast, other: Forecast) -> bool:
    """Whether two forecasts agree to the bit."""
    parts = ("order", "mean", "low", "high")
    return all(np.array_equal(getattr(one, part), getattr(other, part), equal_nan=True) for part in parts)


def at(pool: MetaDataset, cells: int) -> np.ndarray:
    """``(n,)`` the same number of cells for every run of the pool."""
    return np.full(len(pool), cells)


class SurrogateContract(ABC):
    """Inherit as ``class TestMine(SurrogateContract)`` and write ``make``; pytest does the rest.

    Attributes:
        reads_settings: whether settings are read at all; a dummy's may not be.
        reads_curves: the same of curves.
    """

    reads_settings = True
    reads_curves = True

    @abstractmethod
    def make(self) -> Surrogate:
        """The surrogate under test, not fitted; small is quick."""

    @pytest.fixture
    def fitted(self) -> Surrogate:
        return _fitted(type(self))

    @pytest.fixture
    def pool(self) -> MetaDataset:
        """Successes on a task that is not in the store."""
        new = made_store(1, first=6)
        return new.take(new.succeeded)

    def test_what_it_says_has_its_form(self, fitted: Surrogate, pool: MetaDataset) -> None:
        for cells in (0, 3, CELLS):
            told = fitted.predict(hidden(pool, at(pool, cells)), at(pool, cells))
            assert {getattr(told, part).shape for part in ("order", "mean", "low", "high")} == {(len(pool),)}
            assert np.isfinite(told.order).all()
            known = np.isfinite(told.mean)
            assert np.array_equal(known, np.isfinite(told.low) & np.isfinite(told.high))
            assert (told.low[known] <= told.mean[known]).all()
            assert (told.mean[known] <= told.high[known]).all()

    def test_it_beats_the_constant(self, fitted: Surrogate, pool: MetaDataset) -> None:
        cells = 0 if self.reads_settings else 8
        seen = at(pool, cells)
        told = fitted.predict(hidden(pool, seen), seen)
        dummy = Constant().fit(made_store()).predict(hidden(pool, seen), seen)
        assert np.abs(told.mean - pool.score).mean() < 0.7 * np.abs(dummy.mean - pool.score).mean()
        assert rank_correlation(told.order, pool.score) > 0.6

    def test_check_8_changing_any_one_level_changes_the_prediction(self, fitted: Surrogate, pool: MetaDataset) -> None:
        if not self.reads_settings:
            pytest.skip("reads no settings")
        config = {"lr": 1e-3, **{name: next(iter(levels)) for name, levels in LEVELS.items()}}
        for name, levels in LEVELS.items():
            told = [
                fitted.predict(hidden(of(pool, {**config, name: level}), np.zeros(1)), np.zeros(1, np.int64)).order[0]
                for level in levels
            ]
            assert len(set(told)) == len(levels), name

    def test_check_8_a_score_of_0_differs_from_a_step_not_run(self, fitted: Surrogate, pool: MetaDataset) -> None:
        if not self.reads_curves:
            pytest.skip("reads no curves")
        nothing, zero = (hidden(pool, at(pool, 0)) for _ in range(2))
        zero.curves["score"][:, 0] = 0.0
        assert not same(fitted.predict(nothing, at(pool, 0)), fitted.predict(zero, at(pool, 1)))

    def test_nothing_behind_what_was_seen_is_read(self, fitted: Surrogate, pool: MetaDataset) -> None:
        for cells in (0, 4):
            seen = at(pool, cells)
            other = replace(pool, curves={role: curve.copy() for role, curve in pool.curves.items()})
            for curve in other.curves.values():
                curve[:, cells:] = 9.0
            assert same(fitted.predict(hidden(pool, seen), seen), fitted.predict(other, seen))

    def test_no_test_score_is_learned_from(self, pool: MetaDataset) -> None:
        past = made_store(2, 12)
        other = replace(past, test=past.test[::-1].copy())
        told, again = (self.make().fit(each).predict(hidden(pool, at(pool, 2)), at(pool, 2)) for each in (past, other))
        assert same(told, again)

    def test_check_10_a_minimised_metric_is_preferred_downwards(self) -> None:
        past, new = made_store(2, direction="min"), made_store(1, direction="min", first=6)
        new = new.take(new.succeeded)
        seen = at(new, 5)
        told = self.make().fit(past).predict(hidden(new, seen), seen)
        assert rank_correlation(told.order, -new.score) > 0.6
        assert np.abs(told.mean - new.score).mean() < 0.2
        assert (told.low <= told.high).all()

    @pytest.mark.parametrize(("tasks", "configs", "failed"), [(3, 12, (1,)), (1, 12, ()), (1, 3, ())])
    def test_check_10_a_failed_task_one_task_and_a_few_runs(
        self, pool: MetaDataset, tasks: int, configs: int, failed: tuple[int, ...]
    ) -> None:
        told = (
            self.make().fit(made_store(tasks, configs, failed=failed)).predict(hidden(pool, at(pool, 0)), at(pool, 0))
        )
        assert np.isfinite(told.order).all()
        assert not told.calibrated

    def test_check_10_a_store_in_which_all_failed_is_refused_in_words(self) -> None:
        with pytest.raises(DataError, match="succeeded"):
            self.make().fit(made_store(2, failed=[0, 1]))

    def test_check_10_nan_curves_an_unseen_category_and_a_pool_of_one(
        self, fitted: Surrogate, pool: MetaDataset
    ) -> None:
        strange = of(pool, {"lr": 1.0, "variant": "unheard of", "new": "setting"})
        for cells in (0, 3, CELLS):
            told = fitted.predict(hidden(strange, np.zeros(1)), np.array([cells]))
            assert np.isfinite(told.order).all()

    def test_check_10_a_task_without_anchor_gets_an_order_and_no_number(self, fitted: Surrogate) -> None:
        new = made_store(1, first=6, anchored=False)
        new = replace(new, start={role: np.full(len(new), np.nan) for role in ROLES})
        told = fitted.predict(hidden(new, at(new, 0)), at(new, 0))
        assert np.isfinite(told.order).all()
        assert np.isnan([told.mean, told.low, told.high]).all()

    def test_the_same_seed_gives_the_same_bits(self, pool: MetaDataset) -> None:
        past, seen = made_store(2, 12), at(pool, 2)
        assert same(*(self.make().fit(past, 3).predict(hidden(pool, seen), seen) for _ in range(2)))


@cache
def _fitted(contract: type[SurrogateContract]) -> Surrogate:
    return contract().make().fit(made_store())


def of(pool: MetaDataset, config: dict[str, Any]) -> MetaDataset:
    """A pool of one candidate with this configuration."""
    run = MetaRun("x", pool.tasks[0].task_id, config, "stopped", CELLS)
    return metadataset([RunCollection("one", pool.tasks, (run,))])


def rank_correlation(one: np.ndarray, other: np.ndarray) -> float:
    """Spearman's, 0 for a constant."""
    from scipy.stats import spearmanr

    return 0.0 if np.ptp(one) == 0 or np.ptp(other) == 0 else float(spearmanr(one, other).statistic)
