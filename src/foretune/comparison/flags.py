"""Flags of a cell: what a reader must be told without asking, a name, a colon and the figures behind it.

Each is a fault that published comparisons have and that no table shows: ten seeds that are one run, a classifier that
is below the majority, an out-of-domain score that is chance, a checkpoint that its own test rows chose. A flag changes
no score; those in ``FORBIDDING`` take away the right to claim a difference.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from foretune.comparison.answers import Answers, majority
from foretune.evaluation import Estimate, crossed, wilson
from foretune.records import RunRecord

FORBIDDING = (
    "replicated_runs",
    "same_sample",
    "selected_on_test",
    "eval_text_in_train",
    "label_budget_exceeded",
    "nan_loss",
)
"""Flags over which nothing is claimed."""


@dataclass(frozen=True)
class RunFacts:
    """What the flags need to know of one run.

    Attributes:
        name: how a flag calls it, for example ``data 0, init 1``.
        answers: split (``test``, ``ood:NAME``) -> answers; empty where the run has no score.
        sample, start: hashes of the rows that were drawn and of the trainable weights before the first step.
        data_seed, init_seed: what was asked for.
        labels: that were used: train, dev and shown rows.
        finite: whether every loss was a number.
        trials: rates that were tried for it.
        leaked: test texts among the rows that it learned from.
        chosen_on_test: rows that chose the checkpoint or the rate, and were test rows too.
    """

    name: str
    answers: Mapping[str, Answers] = field(default_factory=dict)
    sample: str | None = None
    start: str | None = None
    data_seed: int = 0
    init_seed: int = 0
    labels: int | None = None
    finite: bool = True
    trials: int = 1
    leaked: int = 0
    chosen_on_test: int = 0

    @classmethod
    def of(cls, record: RunRecord, answers: Mapping[str, Answers], seed: tuple[int, int], **more: int) -> RunFacts:
        """What a record says of the run with this data and init seed; ``more`` is what it cannot say: trials, leaked,
        chosen_on_test."""
        rows = record.card.rows if record.card else {}
        losses = record.curve.of("train", "loss")[1]
        return cls(
            f"data {seed[0]}, init {seed[1]}",
            answers,
            record.sample,
            record.initial_hash,
            *seed,
            rows.get("train", 0) + rows.get("dev", 0),
            record.status != "diverged" and all(map(math.isfinite, losses)),
            **more,
        )


def raised(
    runs: Sequence[RunFacts],
    *,
    budget: int | None = None,
    draws_start: bool = True,
    trials: int | None = None,
    trained: bool = True,
) -> tuple[str, ...]:
    """Every flag of one cell.

    Args:
        runs: of one method on one task with one number of shots.
        budget: labels that were declared; None is all.
        draws_start: whether the method starts from random weights, so that equal starts are a fault.
        trials: of the other methods, where it is known.
        trained: whether anything is; where examples are only shown, runs of one draw may show the same ones in the
            same order, and count once in its mean.
    """
    found = (
        _replicated(runs, trained),
        _one_draw(runs),
        _same(runs, "sample", budget is not None),
        _same(runs, "start", True) if draws_start else None,
        _constant(runs),
        _against_majority(runs),
        *(_at_chance(runs, split) for split in _outside(runs)),
        _counted(runs, "selected_on_test", [run.chosen_on_test for run in runs], "rows that chose are test rows"),
        _counted(runs, "eval_text_in_train", [run.leaked for run in runs], "test texts stand in train"),
        _over_budget(runs, budget),
        _unequal(runs, trials),
        _not_finite(runs),
    )
    return tuple(flag for flag in found if flag)


def forbids(flags: Sequence[str]) -> str | None:
    """The first flag over which nothing is claimed; a sample that is the same because it is everything is none."""
    for flag in flags:
        if flag.partition(":")[0] in FORBIDDING and "all there are" not in flag:
            return flag
    return None


def _replicated(runs: Sequence[RunFacts], trained: bool) -> str | None:
    told = [(run.data_seed, run.answers["test"].sha256) for run in runs if "test" in run.answers]
    shared = Counter(bits for _, bits in (told if trained else dict.fromkeys(told)))
    if not shared or max(shared.values()) < 2:
        return None
    return (
        f"replicated_runs: {sum(shared.values())} runs hold {len(shared)} different sets of answers; equal bits are "
        "one run counted several times"
    )


def _one_draw(runs: Sequence[RunFacts]) -> str | None:
    if len(runs) < 2 or len({run.data_seed for run in runs}) > 1:
        return None
    return f"one_draw: {len(runs)} runs learn from the same rows; the interval is of new initial weights alone"


def _same(runs: Sequence[RunFacts], what: str, drawn: bool) -> str | None:
    """Runs of different seeds with one sample, or one start. Starts are nested in draws, see ``Plan.seeds``."""
    known = [run for run in runs if getattr(run, what) is not None]
    asked = len({(run.data_seed, run.init_seed if what == "start" else 0) for run in known})
    got = len({getattr(run, what) for run in known})
    if got >= asked:
        return None
    if what == "start":
        return f"same_init: {asked} pairs of data and init seed, but {got} different initial weights"
    reason = "" if drawn else " (all there are): the interval is of new initial weights, not of new rows"
    return f"same_sample: {asked} data seeds, but {got} different samples{reason}"


def _constant(runs: Sequence[RunFacts]) -> str | None:
    judged = [run.answers["test"] for run in runs if "test" in run.answers]
    constant = [answers.constant for answers in judged if answers.constant is not None]
    if not constant:
        return None
    usual, count = Counter(constant).most_common(1)[0]
    return (
        f"constant_prediction: {len(constant)} of {len(judged)} runs give one answer to every row (`{usual}`: {count})"
    )


def _against_majority(runs: Sequence[RunFacts]) -> str | None:
    """Paired on the same rows, crossed with seeds, 95 %."""
    judged = [run.answers["test"] for run in runs if "test" in run.answers]
    if not judged or len(set(judged[0].label)) > len(judged[0].label) / 2:
        return None
    usual = majority(judged[0].label)
    own = _by_draw(runs, "test")
    figures = f"accuracy {own.mean():.3f}, the most frequent label alone gives {usual.mean():.3f}"
    if own.mean() <= usual.mean():
        return f"at_or_below_majority: {figures}"
    difference = _paired(own, np.tile(usual, (len(own), 1)))
    if difference is None or difference.low > 0:
        return None
    return f"majority_not_excluded: {figures}; the interval of the difference begins at {difference.low:.3f}"


def _by_draw(runs: Sequence[RunFacts], split: str) -> np.ndarray:
    """(draws, items): whether each row was answered rightly, the mean over the runs of each draw."""
    found: dict[int, list[np.ndarray]] = {}
    for run in runs:
        if split in run.answers:
            found.setdefault(run.data_seed, []).append(run.answers[split].correct)
    return np.stack([np.mean(each, axis=0) for each in found.values()])


def _paired(own: np.ndarray, other: np.ndarray) -> Estimate | None:
    return crossed(own, other) if len(own) > 1 and own.shape[1] > 1 else None


def _at_chance(runs: Sequence[RunFacts], split: str) -> str | None:
    judged = [run.answers[split] for run in runs if split in run.answers]
    classes = len(set(judged[0].label))
    if classes < 2 or classes > len(judged[0].label) / 2:
        return None
    own = _by_draw(runs, split)
    low = crossed(own).low if len(own) > 1 and own.shape[1] > 1 else math.nan
    if not np.isfinite(low):  # one draw, or every run gives the same answers: the rows alone say how sure that is
        low = wilson(round(own.mean() * own.shape[1]), own.shape[1])[0]
    if low > 1 / classes:
        return None
    return (
        f"ood_at_chance: {split.removeprefix('ood:')}: accuracy {own.mean():.3f} with an interval from {low:.3f}, "
        f"blind guessing gives {1 / classes:.3f}"
    )


def _outside(runs: Sequence[RunFacts]) -> list[str]:
    return list(dict.fromkeys(split for run in runs for split in run.answers if split.startswith("ood:")))


def _counted(runs: Sequence[RunFacts], name: str, counts: Sequence[int], what: str) -> str | None:
    return (
        f"{name}: {max(counts)} {what} (in {sum(c > 0 for c in counts)} of {len(runs)} runs)" if any(counts) else None
    )


def _over_budget(runs: Sequence[RunFacts], budget: int | None) -> str | None:
    most = max((run.labels or 0 for run in runs), default=0)
    if budget is None or most <= budget:
        return None
    return f"label_budget_exceeded: {most} labels were used, {budget} were declared"


def _unequal(runs: Sequence[RunFacts], trials: int | None) -> str | None:
    own = {run.trials for run in runs}
    if trials is None or own <= {trials}:
        return None
    return f"unequal_tuning: {' or '.join(map(str, sorted(own)))} trials, other methods have {trials}"


def _not_finite(runs: Sequence[RunFacts]) -> str | None:
    broken = [run.name for run in runs if not run.finite]
    return f"nan_loss: {len(broken)} of {len(runs)} runs ({broken[0]} first)" if broken else None
