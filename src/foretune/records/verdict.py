"""Verdict: what a comparison found. Figures and names alone; the words are the report's.

Everything that a reader sees is in it, so that a page can be drawn years later without a run, a store or torch. Like
``Claim`` (``evaluation/claim.py``), a contrast does not store what may be said of it: that follows from its figures, so
that nothing written by hand into the file can make a sentence say "better" over an interval that covers zero.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal

from foretune.records.estimate import Estimate
from foretune.records.plain import built, finite

FORMAT = 1
"""The version of the verdict's JSON."""

ALL = "all"
"""The task of what speaks of all tasks together."""

SCORE = "score"
"""What a contrast compares unless it names something else, such as ``ood:hans``."""

Kind = Literal["better", "worse", "equivalent", "undecided", "refused"]


Measured = Estimate
"""What every figure of a verdict is."""


@dataclass(frozen=True)
class CellRun:
    """One run of a cell.

    Attributes:
        status: one of ``STATUSES``; a run without a score has none, never 0.
        score: of the cell's metric on the test rows.
        run: digest of its configuration, by which it can be run again.
        error: type and message, where the status is not ``ok``.
    """

    data_seed: int
    init_seed: int
    status: str
    score: float | None = None
    run: str = ""
    error: str | None = None


@dataclass(frozen=True)
class Spent:
    """What one run of a cell costs: means over its runs that ended well; None where it was not measured.

    Attributes:
        seconds: phase (``train``, ``eval``, ``setup``, ``tuning``, ...) -> seconds; ``train`` is the loop alone,
            ``pretraining`` a stage on unlabelled texts before it, ``teacher`` what a teacher's answers took.
        tokens: read while learning, padding excluded: in training, in a stage before it and by a teacher.
        step_seconds: of one optimizer step, the first 5 left out.
        trials: of tuning, of each run; None where nothing is trained.
        prompt_tokens: that every prediction pays for its context; 0 without demonstrations.
        item_seconds: of one prediction, in batches.
        labels: consumed: training, dev and demonstrations, a teacher's included.
    """

    trainable_parameters: float | None = None
    total_parameters: float | None = None
    adapter_bytes: float | None = None
    peak_bytes: float | None = None
    seconds: Mapping[str, float] = field(default_factory=dict)
    tokens: float | None = None
    prompt_tokens: float | None = None
    item_seconds: float | None = None
    labels: float | None = None
    step_seconds: float | None = None
    trials: float | None = None

    @property
    def learning_seconds(self) -> float | None:
        """Until it can answer: training, a stage before it and a teacher; None where it was not measured.

        >>> Spent(seconds={"train": 3.0, "pretraining": 4.0, "eval": 1.0}).learning_seconds
        7.0
        """
        if "train" not in self.seconds:
            return None
        return sum(self.seconds.get(name, 0.0) for name in ("train", "pretraining", "teacher"))

    @property
    def all_seconds(self) -> float | None:
        """All phases together.

        >>> Spent(seconds={"train": 3.0, "eval": 1.0}).all_seconds, Spent().all_seconds
        (4.0, None)
        """
        return sum(self.seconds.values()) if self.seconds else None


@dataclass(frozen=True)
class OutsidePart:
    """A score on one part of an out-of-domain set: ``kind`` is ``label``, or what the set's groups are, such as
    ``heuristic`` in HANS."""

    kind: str
    name: str
    score: Measured


@dataclass(frozen=True)
class Outside:
    """One out-of-domain set.

    Attributes:
        score: in the cell's metric.
        gap: what is lost outside, turned so that more is worse.
        chance: what blind guessing gives; None where that has no meaning.
        parts: by label, and by group where the set has groups.
        constant: the one label that every run gives to every row; None where answers differ.
    """

    name: str
    score: Measured
    gap: Measured | None = None
    chance: float | None = None
    parts: tuple[OutsidePart, ...] = ()
    constant: str | None = None


@dataclass(frozen=True)
class CellResult:
    """One method on one task with one number of labels.

    Attributes:
        shots: as the protocol counts them; 0 is every row there is.
        labels: that were paid for, training and dev together.
        runs: every run that was asked for and has a record, whatever its status.
        score: mean over runs with the crossed interval: new seeds and new test rows; None where no run ended well.
        over_seeds: the same mean with Student's t over seeds: new seeds on these test rows.
        floors: name (``majority``, ``tfidf``, ``zero-shot``, ...) -> its score on the same test rows.
        forgetting: rise of the base model's loss on held text, in nats per token; None where it was not measured.
        constant: the one label that every run gives to every test row; None where answers differ.
        flags: ``name: figures``, raised without being asked.
    """

    method: str
    task: str
    shots: int
    labels: int
    metric: str
    greater_is_better: bool
    runs: tuple[CellRun, ...]
    score: Measured | None = None
    over_seeds: Measured | None = None
    floors: Mapping[str, Measured] = field(default_factory=dict)
    spent: Spent = field(default_factory=Spent)
    outside: tuple[Outside, ...] = ()
    forgetting: Measured | None = None
    constant: str | None = None
    flags: tuple[str, ...] = ()

    @property
    def failed(self) -> tuple[CellRun, ...]:
        """The runs without a score."""
        return tuple(run for run in self.runs if run.status != "ok")


@dataclass(frozen=True)
class OtherTests:
    """A contrast by other tests, none of them adjusted; no claim rests on them.

    Attributes:
        over_seeds: Student's t over the differences seed by seed, with its p: new seeds on these test rows.
        sign_flip_p: of the sign-flip test of the same differences, which trusts no bell curve.
        mcnemar_p: within each run, of the two models' answers row by row: new rows for these two models alone; none
            where an answer is not simply right or wrong.
    """

    over_seeds: Measured
    sign_flip_p: float
    mcnemar_p: tuple[float, ...] = ()


@dataclass(frozen=True)
class Contrast:
    """Two methods side by side.

    Attributes:
        task: a task, or ``ALL``.
        shots: None for all of them together.
        difference: first minus second, turned so that more is better, with the *adjusted* interval.
        p: of no difference, before the correction; ``adjusted_p`` after it.
        contrasts: how many the family has.
        detectable: the least true difference that would be found with probability 0.8.
        metric: the two scores' metric.
        measure: ``SCORE`` or, for example, ``ood:hans``.
        alpha: the chance of any false claim in the family.
        unadjusted: the same difference with the interval before the correction.
        margin: the largest difference that does not matter, declared beforehand; None where none was.
        equivalence_p: adjusted, of a difference of at least the margin (TOST).
        ratios: cost (``seconds`` of learning, ``peak_bytes``, ``trainable_parameters``) -> first over second.
        flags: of both sides, ``method: name: figures``.
        refused: why nothing is claimed whatever the figures are; None where nothing forbids a claim.
        others: what other tests say; None where there are no two seeds.
    """

    first: str
    second: str
    task: str
    shots: int | None
    difference: Measured
    p: float
    adjusted_p: float
    contrasts: int
    detectable: float
    metric: str = "accuracy"
    measure: str = SCORE
    alpha: float = 0.05
    unadjusted: Measured | None = None
    margin: float | None = None
    equivalence_p: float | None = None
    ratios: Mapping[str, float] = field(default_factory=dict)
    flags: tuple[str, ...] = ()
    refused: str | None = None
    others: OtherTests | None = None

    @property
    def kind(self) -> Kind:
        """What may be claimed; ``better`` and ``worse`` need an adjusted interval wholly on one side of 0.

        >>> found = Contrast("lora", "full", "cola", 16, Measured(0.03, -0.01, 0.07), 0.04, 0.09, 3, 0.05)
        >>> found.kind
        'undecided'
        """
        if self.refused is not None or self.single_seed:
            return "refused"
        if self.adjusted_p <= self.alpha and self.difference.low > 0:
            return "better"
        if self.adjusted_p <= self.alpha and self.difference.high < 0:
            return "worse"
        return "equivalent" if self.within_margin else "undecided"

    def turned(self) -> Contrast:
        """The same with the second method first.

        >>> found = Contrast("lora", "full", "cola", 16, Measured(0.03, -0.01, 0.07), 0.04, 0.09, 3, 0.05).turned()
        >>> found.first, found.difference.value, found.difference.low
        ('full', -0.03, -0.07)
        """
        return replace(
            self,
            first=self.second,
            second=self.first,
            difference=_negated(self.difference),
            unadjusted=None if self.unadjusted is None else _negated(self.unadjusted),
            ratios={name: 1 / ratio for name, ratio in self.ratios.items() if ratio},
            others=None if self.others is None else replace(self.others, over_seeds=_negated(self.others.over_seeds)),
        )

    @property
    def within_margin(self) -> bool:
        """Whether a difference of the margin is ruled out on both sides."""
        return self.margin is not None and self.equivalence_p is not None and self.equivalence_p <= self.alpha

    @property
    def single_seed(self) -> bool:
        """One seed says nothing of what another one would give."""
        return self.difference.n_seeds is not None and self.difference.n_seeds < 2


def _negated(found: Measured) -> Measured:
    return replace(found, value=-found.value, low=-found.high, high=-found.low)


@dataclass(frozen=True)
class Summary:
    """One method across tasks, with one number of shots.

    Attributes:
        mean, iqm: of the metric over all runs and tasks; iqm cuts a quarter at either end.
        improvement: other method -> the probability that a run of this one is above a run of that one.
        rank: mean over tasks; 1 is the best.
    """

    method: str
    shots: int
    tasks: tuple[str, ...]
    mean: Measured | None = None
    iqm: Measured | None = None
    improvement: Mapping[str, Measured] = field(default_factory=dict)
    rank: float | None = None


@dataclass(frozen=True)
class Ranking:
    """Mean ranks over tasks tested as a whole: Friedman's p and Nemenyi's critical difference."""

    shots: int
    p: float
    critical_difference: float
    n_tasks: int


@dataclass(frozen=True)
class FrontPoint:
    """One method in the picture of score against cost, with the probability that no other beats it in both."""

    method: str
    score: Measured
    cost: float
    probability: float


@dataclass(frozen=True)
class Front:
    """Score against a cost on one task, or on ``ALL``.

    Attributes:
        cost: ``peak_bytes``, ``trainable_parameters``, ``item_seconds`` or ``seconds``, which is
            ``Spent.learning_seconds``.
    """

    task: str
    shots: int
    metric: str
    cost: str
    points: tuple[FrontPoint, ...]
    greater_is_better: bool = True


@dataclass(frozen=True)
class Tuning:
    """The expected score after 1, 2, ... trials of tuning, with its standard deviation between tunings."""

    method: str
    task: str
    shots: int
    metric: str
    expected: tuple[float, ...]
    deviation: tuple[float, ...]


@dataclass(frozen=True)
class MissingCell:
    """What the protocol asks for and the store does not have; ``reason`` where something is known."""

    method: str
    task: str
    shots: int
    seeds: tuple[tuple[int, int], ...] = ()
    reason: str | None = None


@dataclass(frozen=True)
class Verdict:
    """What may be said of one comparison.

    Attributes:
        digest: of the protocol.
        protocol: its YAML text, as it was frozen.
        model: the pretrained model of all runs.
        created: when it was made, ISO 8601.
        methods, tasks, shots: in the protocol's order.
        cells: every cell with at least one record.
        contrasts: all that were looked at.
        flags: of the comparison as a whole, ``name: figures``.
        missing: (data seed, init seed) pairs that were asked for and were never run.
        shots_are: ``per_class`` or ``total``.
        notes: what a reader should know, one sentence each.
    """

    digest: str
    protocol: str
    model: str
    created: str
    methods: tuple[str, ...]
    tasks: tuple[str, ...]
    shots: tuple[int, ...]
    cells: tuple[CellResult, ...]
    contrasts: tuple[Contrast, ...] = ()
    across: tuple[Summary, ...] = ()
    rankings: tuple[Ranking, ...] = ()
    fronts: tuple[Front, ...] = ()
    tuning: tuple[Tuning, ...] = ()
    flags: tuple[str, ...] = ()
    missing: tuple[MissingCell, ...] = ()
    shots_are: str = "total"
    notes: tuple[str, ...] = ()
    format: int = FORMAT

    def cell(self, method: str, task: str, shots: int) -> CellResult | None:
        """The cell of that name; None where nothing was run."""
        return next((c for c in self.cells if (c.method, c.task, c.shots) == (method, task, shots)), None)

    def to_json(self) -> dict[str, Any]:
        """Plain dicts and lists, ready for ``json.dumps``; NaN and infinity become None."""
        plain: dict[str, Any] = finite(asdict(self))
        return plain

    @classmethod
    def from_json(cls, plain: Mapping[str, Any]) -> Verdict:
        """The inverse of ``to_json``.

        Raises:
            TypeError, ValueError: a field that is missing, unknown or of another form; another version of the format.
        """
        if isinstance(plain, Mapping) and plain.get("format", FORMAT) != FORMAT:
            raise ValueError(f"its format is {plain['format']!r:.20}, this foretune reads {FORMAT}")
        found: Verdict = built(cls, plain)
        return found
