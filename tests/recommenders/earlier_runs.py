"""Made-up earlier runs of real pipelines, and a foresight that knows the formula they were made by."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

from foretune.recommenders import Situation, make_pool, published
from foretune.recommenders.forecasts import Forecasts
from foretune.recommenders.left_out import Against
from foretune.recommenders.pool import plain_of
from foretune.recommenders.sample import sample
from foretune.records import Line, MetaRun, MetaTask, ModelCard, Part, RunCollection, TaskCard
from foretune.store.metadataset import CELLS, metadataset
from foretune.tuners import TUNERS


def task(number=0, rows=96, family="bert", direction="max", parameters=22_000_000, **features):
    about = {"words_mean": 10.0 + number, "classes": 2.0 + number % 3, "landmark_probe": 0.5 + 0.02 * number}
    return MetaTask(
        f"t{number}",
        f"task {number}",
        f"g{number}",
        "accuracy" if direction == "max" else "loss",
        direction,
        kind="classification",
        model=ModelCard("tiny", family, "encoder", parameters, 0),
        rows={"train": rows, "dev": 640},
        features={**about, **features},
        features_version=1,
        source="foretune",
    )


def situation(of, **changes):
    return Situation(
        card=TaskCard(of.name, "classification", dict(of.rows), classes=2),
        family="encoder",
        parameters=22_000_000,
        methods=changes.pop("methods", TUNERS),
        objective=changes.pop("objective", Part("head")),
        task=of,
        pooling="mean",
        **changes,
    )


def quality(config):
    """What a run gains, of its settings: the tuner matters, and so does a rate near 1e-3."""
    gain = {"lora": 0.06, "full": 0.02, "bitfit": 0.1}.get(str(config["tuner"]), 0.04)
    return gain - 0.05 * (math.log10(float(config["lr"])) + 3) ** 2


def run(of, config, number=0, status="ok", seed=0, curve=None):
    steps = tuple(round(config["steps"] * (cell + 1) / CELLS) for cell in range(CELLS))
    top = of.sign * (0.6 + quality(config))
    values = curve or tuple(top - of.sign * 0.2 * (CELLS - 1 - cell) / CELLS for cell in range(CELLS))
    seconds = tuple(0.01 * step * config["batch_size"] for step in steps)
    lines = (Line("dev", of.metric, steps, values, seconds),)
    cost = {"train_seconds": seconds[-1], "peak_bytes": 1e8}
    return MetaRun(f"{of.task_id}/{number}/{seed}", of.task_id, config, status, config["steps"], lines, seed, cost)


def past(tasks=4, per_task=12, direction="max", shared=True):
    """Every task has the published default and ``per_task`` sampled pipelines, the same ones where ``shared``."""
    made = []
    about = tuple(task(number, direction=direction) for number in range(tasks))
    for number, of in enumerate(about):
        here = situation(of)
        pipelines = [published(here)[0], *sample(here, per_task, seed=0 if shared else number)]
        made += [run(of, plain_of(pipeline, here), place) for place, pipeline in enumerate(pipelines)]
    return RunCollection("made up", about, tuple(made))


def dataset(collection=None, **changes):
    return metadataset([collection or past(**changes)])


def pool_of(of, past_runs=None, size=40, **changes):
    return make_pool(situation(of, **changes), past_runs, size)


class Seconds:
    """A cost model: a hundredth of a second for a step, of whatever batch."""

    scale = 1.0

    def scaled(self, pool, place, seconds_per_step, steps, peak_bytes=None):
        made = Seconds()
        made.scale = seconds_per_step / 0.01
        return made

    def seconds(self, pool, seen, until):
        steps = np.array([float(config["steps"]) for config in pool.configs])
        return self.scale * 0.01 * steps * (until - seen) / CELLS

    def bytes(self, pool):
        return np.array([1e6 * float(config["batch_size"]) for config in pool.configs])


SECONDS, AHEAD = Seconds(), Against(20, 15, 0)


@dataclass(frozen=True)
class Oracle:
    """Knows ``quality``; stands in for what takes a while to learn."""

    fails: tuple[str, ...] = ()
    spearman: float = 0.9
    flat: bool = False
    numbers: bool = True
    middle: float = 0.6
    cost: Seconds | None = SECONDS
    ground: str = "Known by heart."
    doubt: str = "It could not rank."
    against: Against = AHEAD

    @property
    def trusted(self):
        return self.spearman >= 0.3

    def learn(self):
        pass

    def against_default(self, tuner=""):
        return self.against

    def of(self, pool, seen):
        gain = np.array([0.0 if self.flat else quality(config) for config in pool.configs])
        sign = pool.tasks[0].sign
        mean = sign * (self.middle + gain) if self.numbers else np.full(len(gain), np.nan)
        fails = np.array([0.9 if config["tuner"] in self.fails else 0.05 for config in pool.configs])
        return Forecasts(gain, mean, mean - 0.1, mean + 0.1, True, fails, np.full(len(gain), 1.0))


def oracle(**changes):
    """What a planner or a recommender takes for ``fit``."""
    return lambda past, seed=0, curves=False: replace(Oracle(), **changes)
