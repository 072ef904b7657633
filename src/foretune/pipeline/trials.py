"""Trials: a budget is played out, a tenth of a run at a time, and the best by dev is judged once.

Every candidate that was touched has a folder under ``trials``: its record, and the state from which it goes on. What
is in these folders is all there is to know, so a killed play is rebuilt by telling the recommender what they hold. No
trial is judged on test, also not at its end. The one that is kept is then judged, once, in the run's own folder.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from foretune.errors import DivergedError, ForetuneError, Interrupted, ResourceError
from foretune.pipeline.advice import Adviser
from foretune.recommenders import Observation, Transfer, Trial
from foretune.records import Plan, Recommendation, RunConfig, RunRecord
from foretune.store.folder import RUN_FILE, read_run
from foretune.store.metadata import from_records
from foretune.store.metadataset import CELLS, ROLES, metadataset
from foretune.tasks import Task
from foretune.training.loop import Paused
from foretune.training.progress import Progress
from foretune.training.run import train

FOLDER = "trials"

Say = Callable[[str], None]


@dataclass(frozen=True)
class Kept:
    """What a play ends with.

    Attributes:
        config: of the candidate with the best dev score.
        until: the steps that it was trained for.
        plan: with that candidate first, and what was played.
    """

    config: RunConfig
    until: int
    plan: Plan


@dataclass
class Play:
    """One budget, one task.

    Attributes:
        folder: of the run; trials lie in it.
        config: any run of the task; a candidate's differs in tuner and schedule.
        left: seconds that are left for trials, when called.
        overhead: seconds that starting or continuing a candidate costs beside its steps.
    """

    folder: Path
    config: RunConfig
    task: Task
    adviser: Adviser
    left: Callable[[], float]
    overhead: float
    say: Say = lambda line: None
    progress: Progress | None = None

    def run(self, plan: Plan) -> Kept | None:
        """Play until the budget does not hold the next tenth; None where no trial has a score.

        Raises:
            Interrupted: the trials so far are kept.
        """
        pool, recommender = self.adviser.planner.recommender(self.adviser.situation, self.overhead)
        configs = [self._config(each) for each in pool.offered]
        self._recall(recommender, configs)
        slowest = 0.0
        while (trial := recommender.ask()) is not None and self.left() > slowest:
            config = configs[trial.place]
            began = time.monotonic()
            record = self._bring(config, trial)
            slowest = max(slowest, time.monotonic() - began)
            recommender.tell(observation(trial, record))
            score = recommender.view.score[trial.place]
            self.say(
                f"Trial of {config.tuner.name}, learning rate {config.schedule.lr:g}: {trial.until} of {CELLS} tenths, "
                + (f"best dev {record.metric} {score:.3f}." if np.isfinite(score) else f"{record.status}.")
            )
        best = recommender.incumbent()
        if best is None:
            return None
        record = read_run(self._place(configs[best]))
        played, tenths = int((recommender.seen > 0).sum()), int(recommender.seen.sum())
        said = (
            f"Played {tenths} tenths of runs of {played} candidates; kept is the best by dev, {record.steps_done} of "
            f"{record.config.schedule.steps} steps of it. Test was judged once, at the end."
        )
        first = next((r for r in plan.ranked if r.bare == pool.offered[best].bare), pool.offered[best])
        rest = tuple(each for each in plan.ranked if each is not first)
        made = replace(plan, ranked=(first, *rest), evidence=(*plan.evidence, said), tied=1)
        return Kept(configs[best], record.steps_done, made)

    def _config(self, pipeline: Recommendation) -> RunConfig:
        return replace(self.config, tuner=pipeline.tuner, objective=pipeline.objective, schedule=pipeline.schedule)

    def _place(self, config: RunConfig) -> Path:
        return self.folder / FOLDER / config.digest

    def _bring(self, config: RunConfig, trial: Trial) -> RunRecord:
        """The record of the candidate once it is at the cell, or failed on the way."""
        place = self._place(config)
        until = steps_at(config, trial.until)
        try:
            train(config, task=self.task, folder=place, progress=self.progress, floors=False, until=until, pause=True)
        except (Paused, DivergedError, ResourceError):
            pass
        except Interrupted:
            raise
        except ForetuneError as error:
            self.say(f"A trial failed: {error}")
        return read_run(place)

    def _recall(self, recommender: Transfer, configs: list[RunConfig]) -> None:
        """Tell ``recommender`` what the folders of an earlier start hold."""
        place = {config.digest: number for number, config in enumerate(configs)}
        for record in records(self.folder):
            number = place.get(record.digest)
            cells = reached(record)
            if number is not None and cells:
                recommender.tell(observation(Trial(number, cells), record))


def steps_at(config: RunConfig, cell: int) -> int:
    """Optimizer steps after ``cell`` tenths of the run."""
    return max(1, round(config.schedule.steps * cell / CELLS))


def reached(record: RunRecord) -> int:
    """Whole cells that a trial has done; a failed one has done the cell it failed in."""
    done = sum(steps_at(record.config, cell) <= record.steps_done for cell in range(1, CELLS + 1))
    return done if record.status in ("ok", "stopped", "running") else min(done + 1, CELLS)


def observation(trial: Trial, record: RunRecord) -> Observation:
    """What a recommender hears of a trial: dev and training curves, and nothing of test."""
    status = "stopped" if record.status == "running" else record.status
    runs = metadataset([from_records([replace(record, evaluations={}, status=status)])])
    return Observation(trial, status, {role: runs.curves[role][0] for role in ROLES}, runs.seconds[0])


def records(folder: Path) -> Iterator[RunRecord]:
    """The records of the trials in a run's folder."""
    for path in sorted((folder / FOLDER).glob(f"*/{RUN_FILE}")):
        yield read_run(path.parent)


def spent(folder: Path) -> float:
    """Seconds that the trials in a run's folder have taken."""
    return sum(record.cost.seconds for record in records(folder))


def hand_over(folder: Path, kept: Kept) -> None:
    """Put the state of the candidate that is kept where the run's own folder goes on from."""
    source = folder / FOLDER / kept.config.digest / "checkpoint"
    target = folder / "checkpoint"
    if not target.exists() and source.exists():
        shutil.copytree(source, target)


def until_of(folder: Path, config: RunConfig) -> int | None:
    """How far a run is to be trained that a play kept; None for one that no play kept."""
    return next((record.steps_done for record in records(folder) if record.digest == config.digest), None)
