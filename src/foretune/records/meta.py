"""RunCollection: runs of any origin reduced to what a surrogate learns from, so that all of them have one form.

``RunRecord`` demands a ``RunConfig``, which says how foretune would run it again. A run of somebody else's recurrent
network has no such thing, and a made-up one would let it pass for ours. So what is learned from is a leaner type, into
which our own records are converted (``store/metadata.py``) as well as foreign files (``store/importers``).

Values keep their raw units and their sign; ``direction`` says which way is better. A failed run has a status and no
score. What was not measured is absent, never 0.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from foretune.records.card import ModelCard
from foretune.records.config import digest

DIRECTIONS = ("max", "min")
OUTCOMES = ("ok", "stopped", "failed", "diverged", "oom")
"""What can have become of a run that is over. ``ok``: it came to its own end, that of its steps or of its patience.
``stopped``: a clock, a person or a search ended it; its curve counts as far as it goes, as the end of no run."""

SUCCESSES = ("ok", "stopped")

Value = str | int | float | bool


@dataclass(frozen=True)
class Line:
    """One learning curve: the same measure of the same split over the steps, in the order of measuring.

    Attributes:
        split: ``train``, ``dev``, ``test`` or ``ood:NAME``.
        values: one per step; NaN where a number was asked for and none came (a diverged run).
        seconds: training seconds spent at each step; empty where nobody measured.
    """

    split: str
    metric: str
    steps: tuple[int, ...]
    values: tuple[float, ...]
    seconds: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        if len(self.values) != len(self.steps) or len(self.seconds) not in (0, len(self.steps)):
            raise ValueError(
                f"a line has one value (and one time, or no times) per step, but {self.split} {self.metric} has "
                f"{len(self.steps)} steps, {len(self.values)} values and {len(self.seconds)} times."
            )


@dataclass(frozen=True)
class MetaTask:
    """What was to be learned, by which model: runs of one task compete with each other.

    Attributes:
        task_id: unique; runs name it.
        group_key: equal for tasks that no split may separate: copies, label budgets, versions of one source.
        metric, direction: of the score, and which of ``DIRECTIONS`` is better.
        model: None where the model is part of each run's configuration.
        rows: split -> number of rows.
        features: meta-features by name; absent where not known.
        features_version: of the extractor; features of different versions are not compared.
        data_hash: of the rows, where they were seen.
        sketch: see ``TaskCard.sketch``.
        source: where the runs come from.
    """

    task_id: str
    name: str
    group_key: str
    metric: str
    direction: str = "max"
    kind: str = ""
    model: ModelCard | None = None
    rows: Mapping[str, int] = field(default_factory=dict)
    features: Mapping[str, float] = field(default_factory=dict)
    features_version: int = 0
    data_hash: str | None = None
    sketch: tuple[str, ...] = ()
    licence: str = ""
    source: str = ""

    def __post_init__(self) -> None:
        if self.direction not in DIRECTIONS:
            raise ValueError(f"a direction is one of {', '.join(DIRECTIONS)}, but got `{self.direction}`.")

    @property
    def sign(self) -> int:
        """1 where more is better, -1 where less is.

        >>> MetaTask("a", "a", "a", "loss", "min").sign
        -1
        """
        return 1 if self.direction == "max" else -1

    @property
    def family(self) -> str:
        """The model's family; empty where it is not known."""
        return self.model.family if self.model else ""


@dataclass(frozen=True)
class MetaRun:
    """What came of one configuration on one task.

    Attributes:
        config: name -> plain value; a setting that does not apply is absent.
        status: one of ``OUTCOMES``.
        max_steps: the full length that was planned: fractions of a run are fractions of this.
        steps_done: those of them that were run; None where nobody says.
        seed: of the run, where one is known.
        cost: measured numbers by the names of ``Cost``: ``train_seconds``, ``eval_seconds``, ``peak_bytes``, ...
    """

    run_id: str
    task_id: str
    config: Mapping[str, Value]
    status: str
    max_steps: int
    lines: tuple[Line, ...] = ()
    seed: int | None = None
    cost: Mapping[str, float] = field(default_factory=dict)
    hardware: str = ""
    error: str = ""
    steps_done: int | None = None

    def __post_init__(self) -> None:
        if self.status not in OUTCOMES:
            raise ValueError(f"the status of a run is one of {', '.join(OUTCOMES)}, but got `{self.status}`.")

    @property
    def config_id(self) -> str:
        """Hash of the configuration: equal for 1 and 1.0, so that a table's column type changes no identity.

        >>> MetaRun("a", "t", {"rank": 8}, "ok", 1).config_id == MetaRun("b", "t", {"rank": 8.0}, "ok", 1).config_id
        True
        """
        return config_id(self.config)

    def line(self, split: str, metric: str) -> Line | None:
        """The line of this split and metric, if there is one."""
        return next((line for line in self.lines if (line.split, line.metric) == (split, metric)), None)


def config_id(config: Mapping[str, Value]) -> str:
    """Hash of a configuration, whatever the order and the number type of its values."""
    number = {name: float(value) for name, value in config.items() if type(value) in (int, float)}
    return digest({**config, **number})


@dataclass(frozen=True)
class RunCollection:
    """Tasks and their runs, from one source.

    Attributes:
        name: how users call it.
        notes: what a reader should know of the import, one sentence each.
    """

    name: str
    tasks: tuple[MetaTask, ...]
    runs: tuple[MetaRun, ...]
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        known = {task.task_id for task in self.tasks}
        strays = {run.task_id for run in self.runs} - known
        if strays or len(known) < len(self.tasks):
            raise ValueError(f"the tasks of `{self.name}` are not those of its runs, each once: {sorted(strays)[:3]}.")
