"""Accounting: what a method costs beside what it scores, and what it destroys of the model that was there before."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from foretune.comparison.evidence import Evidence, grouped, measured
from foretune.evaluation import over_seeds
from foretune.records import RunRecord
from foretune.records.verdict import Measured, Spent


def spent(evidence: Evidence, shared: Sequence[RunRecord] = ()) -> Spent:
    """Means over the runs that ended well; the phases of tuning are those of all trials but the chosen one.

    A stage before the task, a teacher's answers and runs on tuning tasks are made once for many runs, but whoever runs
    the method once has to pay for them: they count whole in every run.

    Args:
        shared: the runs on tuning tasks that chose the rate of all runs.
    """
    records = [run.record for run in evidence.runs if run.ok and run.record is not None]
    if not records:
        return Spent()
    costs = [record.cost for record in records]
    prompts = [cost.prompt_tokens for cost in costs if cost.prompt_tokens is not None]
    answered = [cost.item_seconds for cost in costs if cost.item_seconds is not None]
    return Spent(
        trainable_parameters=_mean([cost.trainable_parameters for cost in costs]),
        total_parameters=_mean([cost.total_parameters for cost in costs]),
        adapter_bytes=_mean([cost.adapter_bytes for cost in costs]),
        peak_bytes=_mean([cost.peak_bytes for cost in costs]),
        seconds=_seconds(evidence, records, sum(record.cost.seconds for record in shared)),
        tokens=_mean([_tokens(record) for record in records]),
        step_seconds=_mean(steps) if (steps := [s for r in records if (s := step_seconds(r)) is not None]) else None,
        trials=_trials(evidence, shared) if records[0].config.schedule.steps else None,
        prompt_tokens=_mean(prompts) if prompts else None,
        item_seconds=_mean(answered) if answered else None,
        labels=float(evidence.labels) if evidence.seeded else 0.0,
    )


def learning_seconds(record: RunRecord) -> float:
    """Seconds until a run could answer: its steps, the stage before them and its teacher."""
    stage = record.stage.cost.seconds if record.stage else 0.0
    return record.cost.train_seconds + stage + (record.teaching.seconds if record.teaching else 0.0)


WARM = 5
"""Steps at the beginning of a run that are slower than the rest, for memory and kernels are not yet there."""


def step_seconds(record: RunRecord) -> float | None:
    """Seconds of one optimizer step, the first ``WARM`` left out; None where there were no more."""
    points = [p for p in record.curve.points if (p.split, p.metric) == ("train", "loss") and p.step >= WARM]
    if len(points) < 2:
        return None
    return (points[-1].seconds - points[0].seconds) / (points[-1].step - points[0].step)


def cut_short(evidence: Evidence) -> tuple[int, int]:
    """How many trials the clock ended before their steps were done, and how many there are."""
    trials = [trial for run in evidence.runs for trial in run.trials]
    cut = sum(
        t.config.seconds is not None and t.status == "ok" and t.steps_done < t.config.schedule.steps for t in trials
    )
    return cut, len(trials)


def forgetting(evidence: Evidence) -> Measured | None:
    """The rise of the language model's loss over the runs, in nats per token; None where it was not measured."""
    found = {run.seed: run.record.forgetting.rise for run in evidence.runs if run.record and run.record.forgetting}
    if not found:
        return None
    rises = grouped(found)
    return measured(over_seeds(rises)) if len(rises) > 1 else Measured(float(rises[0]), n_seeds=1)


def _trials(evidence: Evidence, shared: Sequence[RunRecord]) -> float:
    if shared:
        return float(len({record.config.schedule.lr for record in shared}))
    return _mean([len(run.trials) for run in evidence.runs if run.ok])


def _seconds(evidence: Evidence, records: Sequence[RunRecord], shared: float) -> dict[str, float]:
    phases = {
        "train": [record.cost.train_seconds for record in records],
        "eval": [record.cost.eval_seconds + _references(record) for record in records],
        "setup": [record.cost.setup_seconds for record in records],
        "pretraining": [record.stage.cost.seconds for record in records if record.stage],
        "teacher": [record.teaching.seconds for record in records if record.teaching],
        "tuning": [
            shared + sum(trial.cost.seconds for trial in run.trials if run.record and trial.digest != run.record.digest)
            for run in evidence.runs
            if run.ok
        ],
    }
    always = ("train", "eval", "setup")
    return {name: _mean(each) for name, each in phases.items() if each and (name in always or any(each))}


def _tokens(record: RunRecord) -> float:
    """Read while learning: in training, in a stage before, and by a teacher."""
    stage = record.stage.cost.tokens if record.stage else 0
    return record.cost.tokens + stage + (record.teaching.tokens if record.teaching else 0)


def _references(record: RunRecord) -> float:
    """Seconds in which a teacher, and the model before it learned, answered the rows that are judged."""
    return record.teaching.judged_seconds if record.teaching else 0.0


def _mean(values: Sequence[float]) -> float:
    return float(np.mean(values))
