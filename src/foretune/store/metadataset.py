"""MetaDataset: collections of runs as arrays by run and tenth of a run, which surrogates fit and replays read.

**Fidelity** is the share of the full run, in ``CELLS`` equal cells. A cell holds the last measurement within it, NaN
where there was none; nothing is carried forward, so a step with the score 0 differs from one that was not run. What
was measured before the first step is ``start``.

**Roles.** Collections call their curves by many names; a surrogate sees at most three: the ``score`` (the task's
metric on dev), ``dev_loss`` and ``train_loss``. All are in raw units; ``sign`` says which way the score is better.
Test scores are apart, in ``test``: replays and reports read them, surrogates and recommenders never.

**Failures** (``failed``, ``diverged``, ``oom``) have no score; what was measured until they broke stays in the
curves.

**Whole runs** alone have a score: the best of a tenth of a run is not what the run would have scored. Whole is what
came to its own end, that of its steps or of its patience; where nobody says how many steps were run, what was measured
in its last cell. Of any other run the curve and the pace are known.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from foretune.errors import DataError, UsageError
from foretune.records import SUCCESSES, Line, MetaRun, MetaTask, RunCollection, Value
from foretune.store.grouping import grouped, siblings

CELLS = 10
ROLES = ("score", "dev_loss", "train_loss")
FOLDS = ("task", "family", "task-and-family")


@dataclass(frozen=True)
class MetaDataset:
    """``n`` runs on the tasks they were made on.

    Attributes:
        tasks: those with a run here, siblings with one group key.
        task: ``(n,)`` index into ``tasks``.
        run_ids, configs, config_ids: of each run; equal configurations have equal ids on every task.
        status: ``(n,)`` one of ``records.OUTCOMES``.
        curves: role -> ``(n, CELLS)``.
        start: role -> ``(n,)`` value before the first step.
        seconds: ``(n, CELLS)`` training seconds until the measurement of the score in the cell.
        whole: ``(n,)`` whether the run came to its own end, or failed on the way to it.
        reached: ``(n,)`` share of the planned steps that were run; NaN where it is not known.
        score: ``(n,)`` best dev score over all measurements, by the task's direction; NaN where the run failed or is
            not whole.
        test: ``(n,)`` test score at the step of that dev score, else the last test score; NaN where there is no score.
        cost: name -> ``(n,)`` measured numbers, NaN where nobody measured.
        default: ``(n,)`` whether the run is one of the published default of its task; False where nobody said so.
    """

    tasks: tuple[MetaTask, ...]
    task: np.ndarray
    run_ids: tuple[str, ...]
    configs: tuple[Mapping[str, Value], ...]
    config_ids: np.ndarray
    status: np.ndarray
    curves: Mapping[str, np.ndarray]
    start: Mapping[str, np.ndarray]
    seconds: np.ndarray
    whole: np.ndarray
    reached: np.ndarray
    score: np.ndarray
    test: np.ndarray
    cost: Mapping[str, np.ndarray]
    default: np.ndarray

    def __len__(self) -> int:
        return len(self.run_ids)

    @property
    def succeeded(self) -> np.ndarray:
        """``(n,)`` whether the run has a score that counts: it neither failed nor is its score no number."""
        return np.isin(self.status, SUCCESSES) & np.isfinite(self.score)

    @property
    def failed(self) -> np.ndarray:
        """``(n,)`` whether the run failed."""
        return ~np.isin(self.status, SUCCESSES)

    @property
    def sign(self) -> np.ndarray:
        """``(n,)`` 1 where more is better, -1 where less is."""
        return np.array([task.sign for task in self.tasks], np.int64)[self.task] if len(self) else np.zeros(0, np.int64)

    @property
    def groups(self) -> np.ndarray:
        """``(n,)`` the group key of each run's task."""
        return (
            np.array([task.group_key for task in self.tasks], object)[self.task] if len(self) else np.zeros(0, object)
        )

    @property
    def families(self) -> np.ndarray:
        """``(n,)`` the model family of each run's task; empty where not known."""
        return np.array([task.family for task in self.tasks], object)[self.task] if len(self) else np.zeros(0, object)

    def take(self, chosen: np.ndarray) -> MetaDataset:
        """The runs ``chosen`` (a mask or indices), with their tasks alone: nothing of the others is left in it."""
        places = np.flatnonzero(chosen) if np.asarray(chosen).dtype == bool else np.asarray(chosen, np.int64)
        kept, task = np.unique(self.task[places], return_inverse=True)
        return replace(
            self,
            tasks=tuple(self.tasks[number] for number in kept),
            task=task.astype(np.int64),
            run_ids=tuple(self.run_ids[place] for place in places),
            configs=tuple(self.configs[place] for place in places),
            config_ids=self.config_ids[places],
            status=self.status[places],
            curves={role: values[places] for role, values in self.curves.items()},
            start={role: values[places] for role, values in self.start.items()},
            seconds=self.seconds[places],
            whole=self.whole[places],
            reached=self.reached[places],
            score=self.score[places],
            test=self.test[places],
            cost={name: values[places] for name, values in self.cost.items()},
            default=self.default[places],
        )

    def without(self, task: MetaTask) -> tuple[MetaDataset, tuple[str, ...]]:
        """The runs on other data than ``task``, and the names of the tasks that were left out.

        Those are its copies, and the copies of these: they have one group key.
        """
        keys = {known.group_key for known in self.tasks if siblings(known, task)}
        copies = [known.group_key in keys for known in self.tasks]
        left_out = tuple(known.name for known, copy in zip(self.tasks, copies, strict=True) if copy)
        return self.take(~np.array(copies, bool)[self.task]) if left_out else self, left_out


@dataclass(frozen=True)
class Fold:
    """One split of a dataset: ``(n,)`` masks; a run on neither side is a sibling that may be on none."""

    name: str
    train: np.ndarray
    test: np.ndarray


def metadataset(collections: Iterable[RunCollection]) -> MetaDataset:
    """The runs of ``collections`` together; siblings are found across them.

    Raises:
        DataError: there is no run at all.
    """
    collections = list(collections)
    runs = [run for collection in collections for run in collection.runs]
    if not runs:
        raise DataError("There is no run to learn from. Import some, or keep those of `foretune tune`.")
    used = {run.task_id for run in runs}
    known = {task.task_id: task for collection in collections for task in collection.tasks if task.task_id in used}
    tasks = grouped(tuple(known.values()))
    number = {task.task_id: place for place, task in enumerate(tasks)}
    task = np.array([number[run.task_id] for run in runs], np.int64)
    lines = [_roles(run, tasks[place]) for run, place in zip(runs, task, strict=True)]
    curves = {
        role: np.stack([_cells(found[role], run) for found, run in zip(lines, runs, strict=True)]) for role in ROLES
    }
    ends = [_end(run, tasks[place]) for run, place in zip(runs, task, strict=True)]
    costs = dict.fromkeys(name for run in runs for name in run.cost)
    return MetaDataset(
        tasks=tasks,
        task=task,
        run_ids=tuple(run.run_id for run in runs),
        configs=tuple(run.config for run in runs),
        config_ids=np.array([run.config_id for run in runs], object),
        status=np.array([run.status for run in runs], object),
        curves=curves,
        start={role: np.array([_start(found[role]) for found in lines]) for role in ROLES},
        seconds=np.stack(
            [_cells(f["score"] or f["train_loss"], r, times=True) for f, r in zip(lines, runs, strict=True)]
        ),
        whole=np.array([_whole(run) for run in runs]),
        reached=np.array([_reached(run) for run in runs]),
        score=np.array([score for score, _ in ends]),
        test=np.array([test for _, test in ends]),
        cost={name: np.array([run.cost.get(name, np.nan) for run in runs]) for name in costs},
        default=np.zeros(len(runs), bool),
    )


def folds(dataset: MetaDataset, by: str = "task") -> Iterator[Fold]:
    """Leave one out.

    Args:
        by: ``task`` leaves out one task, its siblings being on neither side; ``family`` all tasks of one model
            family; ``task-and-family`` tests on one group with one family, and learns from neither.

    Raises:
        UsageError: ``by`` is none of these.
        DataError: nothing would be left to learn from, or no family is known.
    """
    if by not in FOLDS:
        raise UsageError(f"one can leave out by {', '.join(FOLDS)}, but not by `{by}`.")
    groups, families = dataset.groups, dataset.families
    if by != "task" and not any(families):
        raise DataError("No task names its model's family, so none can be left out. Name the column with `--family`.")
    if by == "task":
        parts = [
            (task.task_id, dataset.task == place, groups != task.group_key) for place, task in enumerate(dataset.tasks)
        ]
    elif by == "family":
        parts = [(name, families == name, families != name) for name in dict.fromkeys(families) if name]
    else:
        pairs = dict.fromkeys((g, f) for g, f in zip(groups, families, strict=True) if f)
        parts = [
            (f"{group}, {family}", (groups == group) & (families == family), (groups != group) & (families != family))
            for group, family in pairs
        ]
    made = [Fold(name, train, test) for name, test, train in parts if train.any()]
    if not made:
        raise DataError(
            f"Leaving out by {by} leaves nothing to learn from: {len(dataset.tasks)} tasks in "
            f"{len(set(groups))} groups, {len({f for f in families if f})} families."
        )
    yield from made


def _roles(run: MetaRun, task: MetaTask) -> dict[str, Line | None]:
    return {
        "score": run.line("dev", task.metric),
        "dev_loss": run.line("dev", "loss"),
        "train_loss": run.line("train", "loss"),
    }


def _cells(line: Line | None, run: MetaRun, times: bool = False) -> np.ndarray:
    """``(CELLS,)`` the last value (or time) within each cell."""
    found = np.full(CELLS, np.nan)
    values = () if line is None else line.seconds if times else line.values
    for step, value in zip(line.steps if line else (), values, strict=False):
        if step > 0:
            found[min(-(-step * CELLS // run.max_steps), CELLS) - 1] = value
    return found


def _start(line: Line | None) -> float:
    return line.values[0] if line and line.steps[:1] == (0,) else np.nan


def _whole(run: MetaRun) -> bool:
    """Whether what is known of the run is how it ended. One that stopped for want of a gain ended by its own rule, and
    what it scored is its score; one that a budget cut, or that a search dropped, would have gone on."""
    if run.status not in SUCCESSES:
        return True
    if run.steps_done is not None:
        return run.status == "ok" or run.steps_done >= run.max_steps
    return _measured_to_the_end(run)


def _reached(run: MetaRun) -> float:
    if run.steps_done is not None:
        return min(run.steps_done / run.max_steps, 1.0)
    return 1.0 if _measured_to_the_end(run) else np.nan


def _measured_to_the_end(run: MetaRun) -> bool:
    """Whether any line has a measurement in the last cell."""
    last = max((step for line in run.lines for step in line.steps[-1:]), default=0)
    return last * CELLS > (CELLS - 1) * run.max_steps


def _end(run: MetaRun, task: MetaTask) -> tuple[float, float]:
    """Best dev score and the test score that goes with it; NaN of a run that failed or is not whole."""
    if run.status not in SUCCESSES or not _whole(run):
        return np.nan, np.nan
    dev, test = run.line("dev", task.metric), run.line("test", task.metric)
    best = None
    if dev is not None and np.isfinite(dev.values).any():
        values = task.sign * np.array(dev.values, float)
        best = int(np.argmax(np.where(np.isfinite(values), values, -np.inf)))
    score = np.nan if best is None or dev is None else dev.values[best]
    if test is None or not test.values:
        return score, np.nan
    steps: Sequence[int] = test.steps
    at = steps.index(dev.steps[best]) if best is not None and dev and dev.steps[best] in steps else -1
    return score, test.values[at]
