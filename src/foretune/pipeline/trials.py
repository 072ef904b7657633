"""Trials: several candidates are run, and the best of them by dev is judged once.

Which and how far is for the recommender to ask: whole runs one after another, or a tenth of a run at a time. A budget
ends it when it does not hold what would come next; where there is none, ``TRIED`` runs do.

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
from foretune.recommenders import Observation, Pool, Transfer, Trial
from foretune.records import Cost, Plan, Recommendation, RunConfig, RunRecord
from foretune.store.folder import RUN_FILE, read_run
from foretune.store.metadata import from_records
from foretune.store.metadataset import CELLS, ROLES, metadataset
from foretune.tasks import Task
from foretune.training.loop import Paused
from foretune.training.progress import Progress
from foretune.training.run import train

FOLDER = "trials"

TRIED = 5
"""Whole runs where no budget says how many: on TaskSet the best of a greedy portfolio of so many was within a hundredth
of the best of all."""

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
    """Several candidates on one task.

    Attributes:
        folder: of the run; trials lie in it.
        config: any run of the task; a candidate's differs in tuner and schedule.
        pool, recommender: who chooses, and among what.
        seconds: ``(n,)`` of training that each candidate is expected to take; NaN where nothing is known.
        left: seconds that are left for trials, when called; None where there is no budget.
        most: runs that may come to their end.
        overhead: seconds that starting or continuing a candidate costs beside its steps.
    """

    folder: Path
    config: RunConfig
    task: Task
    pool: Pool
    recommender: Transfer
    seconds: np.ndarray
    left: Callable[[], float] | None = None
    most: int | None = None
    overhead: float = 0.0
    say: Say = lambda line: None
    progress: Progress | None = None

    def run(self, plan: Plan) -> Kept | None:
        """Play until the budget does not hold the next trial, or enough was run; None where no trial has a score.

        Raises:
            Interrupted: the trials so far are kept.
        """
        pool, recommender = self.pool, self.recommender
        configs = [self._config(each) for each in pool.offered]
        self._recall(configs)
        slowest = 0.0
        while (trial := self._next(slowest)) is not None:
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

    def _next(self, slowest: float) -> Trial | None:
        """What is asked for, unless enough was run or the budget does not hold it: what it is expected to take, or
        where that is not known as much as the slowest trial so far took."""
        done = int((self.recommender.over & (self.recommender.seen > 0)).sum())
        trial = self.recommender.ask() if self.most is None or done < self.most else None
        if trial is None or self.left is None:
            return trial
        share = (trial.until - self.recommender.seen[trial.place]) / CELLS
        expected = float(self.seconds[trial.place] * share) + self.overhead
        return trial if self.left() > (expected if np.isfinite(expected) else slowest) else None

    def _config(self, pipeline: Recommendation) -> RunConfig:
        return replace(self.config, tuner=pipeline.tuner, objective=pipeline.objective, schedule=pipeline.schedule)

    def _place(self, config: RunConfig) -> Path:
        return self.folder / FOLDER / config.digest

    def _bring(self, config: RunConfig, trial: Trial) -> RunRecord:
        """The record of the candidate once it is at the cell, or failed on the way."""
        place = self._place(config)
        try:
            train(
                config,
                task=self.task,
                folder=place,
                progress=self.progress,
                deadline_seconds=self._deadline(place),
                floors=False,
                until=steps_at(config, trial.until),
                pause=True,
            )
        except (Paused, DivergedError, ResourceError):
            pass
        except Interrupted:
            raise
        except ForetuneError as error:
            self.say(f"A trial failed: {error}")
        return read_run(place)

    def _deadline(self, place: Path) -> float | None:
        """Seconds of training after which the trial in ``place`` pauses, those that it took before included."""
        if self.left is None:
            return None
        before = read_run(place).cost if (place / RUN_FILE).exists() else Cost()
        return max(self.left() - self.overhead, 0.0) + before.train_seconds + before.eval_seconds

    def _recall(self, configs: list[RunConfig]) -> None:
        """Tell the recommender what the folders of an earlier start hold."""
        place = {config.digest: number for number, config in enumerate(configs)}
        for record in records(self.folder):
            number = place.get(record.digest)
            cells = reached(record)
            if number is not None and cells:
                self.recommender.tell(observation(Trial(number, cells), record))


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
