"""What ``foretune runs check`` says of groups of runs: pure functions from groups to lines."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from foretune.cli.run_views import SHORT, task_name
from foretune.comparison.stored import NOT_SEEN, Group
from foretune.report import units


def summary(group: Group) -> dict[str, Any]:
    """One entry of ``--json``."""
    first = group.records[0]
    return {
        "task": task_name(first),
        "model": first.config.model.name,
        "tuner": first.config.tuner.name,
        "objective": first.config.objective.name,
        "lr": first.config.schedule.lr,
        "shots": first.config.task.shots,
        "runs": [record.digest for record in group.records],
        "answered": group.answered,
        "flags": list(group.flags),
    }


def lines(groups: Sequence[Group]) -> list[str]:
    """The groups with flags, by task, and what was not looked at."""
    said: list[str] = []
    flagged = [group for group in groups if group.flags]
    for group in sorted(flagged, key=lambda group: task_name(group.records[0])):
        said += [f"{_name(group)}:", *(f"  {flag}" for flag in group.flags)]
    runs, answered = sum(len(group.records) for group in groups), sum(group.answered for group in groups)
    of = f"{units.plural(len(groups), 'group')} that differ by their seeds alone"
    said.append(f"{units.plural(runs, 'run')} in {of}; {len(flagged)} with flags.")
    if answered < runs:
        said.append(
            f"Of {units.plural(runs - answered, 'run')} no answers to test rows were found, so whether these repeat, "
            "are constant or at chance was not looked at: give their run folders."
        )
    return [*said, f"Not looked at, for it takes the data: {', '.join(NOT_SEEN)}."]


def _name(group: Group) -> str:
    first = group.records[0]
    config, shots = first.config, first.config.task.shots
    rows = "all rows" if shots is None else f"{shots} shots"
    return (
        f"{task_name(first)}, {config.tuner.name} with {config.objective.name} ({config.model.name}, {rows}, learning "
        f"rate {config.schedule.lr:g}; {units.plural(len(group.records), 'run')}, the first {first.digest[:SHORT]})"
    )
