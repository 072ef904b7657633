"""One split, judged once: the only entry that the training loop and the floors use.

Every kind of task has its fixed set of scores; the task's own metric only decides whether GSM8K's number is read.
Outputs with a NaN get no score at all, for an argmax over NaN would pass for a prediction.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from foretune.errors import UsageError
from foretune.evaluation import flags, generation, intervals, metrics
from foretune.evaluation.generation import Written
from foretune.evaluation.intervals import Interval
from foretune.evaluation.metrics import Counts, Floats, Ints
from foretune.evaluation.named import METRICS
from foretune.records import KINDS, UNLABELLED, Evaluation
from foretune.registry import did_you_mean

_LABELS = ("classification", "choice")

LARGEST_EXPONENT = 700.0
"""Nats per token beyond which a perplexity is not told apart any more: e^709 is the largest number of fp64."""


@dataclass(frozen=True)
class _Score:
    """A value, and how its interval is found: by a seed, or not at all."""

    value: float
    interval: Callable[[int], Interval | None] = lambda seed: None


Scores = dict[str, _Score]


def judge(
    kind: str,
    targets: Sequence[Any] | np.ndarray,
    outputs: Sequence[Any] | np.ndarray,
    *,
    metric: str,
    labels: Sequence[str] = (),
    answers: ArrayLike | None = None,
    seed: int = 0,
    with_intervals: bool = True,
    ood: bool = False,
) -> Evaluation:
    """Judge one split.

    Args:
        kind: one of ``foretune.records.KINDS``, or ``UNLABELLED``.
        targets: (n,) class or choice indices, (n,) numbers, n lists of accepted responses, or (n,) predicted tokens.
        outputs: (n, C) probabilities (rows of a choice may be ragged, or padded with zeros), (n,) numbers, n texts, or
            (n,) negative log-likelihoods summed over the tokens of a text.
        metric: the task's own metric, one of ``METRICS``.
        labels: class names in the order of the columns, for the flags.
        answers: (n,) class indices that were answered, where that is not the most probable class of ``outputs``.
        seed: of the bootstrap.
        with_intervals: False skips intervals and flags, for the measurements on the way of a run.
        ood: the split is out of domain, so that accuracy at chance is flagged.

    Raises:
        UsageError: shapes, labels or a metric that do not fit the kind.

    >>> found = judge("classification", [0, 1, 1], [[0.9, 0.1], [0.2, 0.8], [0.6, 0.4]], metric="accuracy")
    >>> round(found.scores["accuracy"], 3), [round(bound, 3) for bound in found.intervals["accuracy"]]
    (0.667, [0.208, 0.939])
    """
    if metric not in METRICS or kind not in METRICS[metric].kinds:
        known = [name for name, entry in METRICS.items() if kind in entry.kinds]
        raise UsageError(
            f"`{metric}` is not a metric of {kind} tasks.{did_you_mean(metric, known)} "
            f"Known: {', '.join(known or KINDS)}."
        )
    if len(targets) != len(outputs) or not len(targets):
        raise UsageError(
            f"Targets and outputs must have one length, at least 1, but got {len(targets)} and {len(outputs)}."
        )
    if kind == "generation":
        scores, raised = _generation(targets, outputs, metric)
    else:
        table, options = _padded(outputs) if kind == "choice" else _array(outputs)
        broken = flags.not_finite(table)
        if broken is not None:
            names = [name for name, entry in METRICS.items() if kind in entry.kinds]
            return Evaluation(len(targets), dict.fromkeys(names, float("nan")), flags=(broken,))
        if kind == UNLABELLED:
            scores, raised = _language(np.asarray(targets, dtype=np.float64), table), []
        elif kind == "regression":
            scores, raised = _regression(np.asarray(targets, dtype=np.float64), table)
        else:
            guess = np.asarray(table.argmax(axis=1) if answers is None else answers, dtype=np.int64)
            scores, raised = _labels(kind, np.asarray(targets, dtype=np.int64), table, guess, labels)
            if ood:
                chance = float(np.mean(1 / options))
                raised.append(flags.ood_at_chance(targets, guess, chance))
    values = {name: score.value for name, score in scores.items()}
    if not with_intervals:
        return Evaluation(len(targets), values)
    return Evaluation(len(targets), values, _intervals(scores, len(targets), seed), tuple(f for f in raised if f))


def _intervals(scores: Scores, n: int, seed: int) -> dict[str, Interval]:
    found = {
        name: intervals.settle(score.interval(seed), score.value, n, METRICS[name].low, METRICS[name].high)
        for name, score in scores.items()
    }
    return {name: interval for name, interval in found.items() if interval is not None}


def _labels(
    kind: str, truth: Ints, table: Floats, guess: Ints, names: Sequence[str]
) -> tuple[Scores, list[str | None]]:
    each = metrics.nll_each(truth, table)
    _sums_to_one(table)
    n = len(truth)
    accuracy = metrics.accuracy(truth, guess)
    scores = {"accuracy": _Score(accuracy, lambda seed: intervals.wilson(round(accuracy * n), n))}
    if kind == "classification":
        scores["macro_f1"] = _counted(truth, guess, metrics.macro_f1_of)
        scores["mcc"] = _counted(truth, guess, metrics.mcc_of)
        scores["brier"] = _mean(metrics.brier_each(truth, table))
    scores |= {"nll": _mean(each), "ece": _Score(metrics.ece(truth, table))}
    raised = [
        flags.constant_prediction(truth.tolist(), guess.tolist(), names if kind == "classification" else ()),
        flags.against_majority(truth, guess),
    ]
    return scores, raised


def _regression(truth: Floats, values: Floats) -> tuple[Scores, list[str | None]]:
    error = metrics.rmse(truth, values)
    n, squared = len(truth), (truth - values) ** 2
    scores = {
        "pearson": _correlated(truth, values, metrics.correlation),
        "spearman": _correlated(truth, values, metrics.rank_correlation),
    }
    scores["rmse"] = _Score(
        error,
        lambda seed: intervals.bootstrap_sums(squared[:, None], lambda sums: np.sqrt(sums[:, 0] / n), seed=seed),
    )
    scores["mae"] = _mean(np.abs(truth - values))
    return scores, [flags.constant_prediction(truth.tolist(), values.tolist())]


def _generation(targets: Any, outputs: Any, metric: str) -> tuple[Scores, list[str | None]]:
    scores = {
        "exact_match": _proportion(generation.exact_match(targets, outputs)),
        "token_f1": _written(generation.token_f1(targets, outputs)),
        "rouge_l": _written(generation.rouge_l(targets, outputs)),
        "chrf": _written(generation.chrf(targets, outputs)),
        "bleu": _written(generation.bleu(targets, outputs)),
    }
    if metric == "gsm8k":
        scores["gsm8k"] = _proportion(generation.gsm8k(targets, outputs))
    return scores, [flags.constant_prediction([tuple(accepted) for accepted in targets], outputs)]


def _language(tokens: Floats, nll: Floats) -> Scores:
    """Nats per token, and their exponential: sums over texts, so that a long text counts for its tokens."""
    sums = np.stack([nll, tokens], axis=1)

    def per_token(totals: Floats) -> Floats:
        return totals[:, 0] / totals[:, 1]

    def perplexity(totals: Floats) -> Floats:
        return np.exp(np.minimum(per_token(totals), LARGEST_EXPONENT))

    return {"loss": _summed(sums, per_token), "perplexity": _summed(sums, perplexity)}


def _summed(sums: Floats, of: Callable[[Floats], Floats]) -> _Score:
    value = float(of(sums.sum(axis=0, keepdims=True))[0])
    return _Score(value, lambda seed: intervals.bootstrap_sums(sums, of, seed=seed))


def _counted(truth: Ints, guess: Ints, of: Callable[[Counts], Floats]) -> _Score:
    value = float(of(metrics.counts(metrics.confusion(truth, guess))))
    return _Score(value, lambda seed: intervals.bootstrap_counts(truth, guess, of, seed=seed))


def _correlated(truth: Floats, values: Floats, of: Callable[[Floats, Floats], Floats]) -> _Score:
    def resampled(drawn: Ints) -> Floats:
        return of(truth[drawn], values[drawn])

    return _Score(float(of(truth, values)), lambda seed: intervals.bootstrap(resampled, len(truth), seed=seed))


def _mean(each: Floats) -> _Score:
    return _Score(float(each.mean()), lambda seed: intervals.bootstrap_mean(each, seed=seed))


def _proportion(found: Written) -> _Score:
    return _Score(found.value, lambda seed: intervals.wilson(int(found.examples.sum()), len(found.examples)))


def _written(found: Written) -> _Score:
    return _Score(found.value, lambda seed: intervals.bootstrap_sums(found.statistics, found.combine, seed=seed))


def _array(outputs: Any) -> tuple[Floats, Floats]:
    """The outputs as an array, and how many options each row offers."""
    table = np.asarray(outputs, dtype=np.float64)
    return table, np.full(len(table), float(table.shape[-1]))


def _padded(rows: Any) -> tuple[Floats, Floats]:
    """Rows of probabilities, ragged or padded with zeros, as (n, most choices) and the (n,) choices of each."""
    sizes = np.array([len(row) for row in rows])
    table = np.zeros((len(rows), int(sizes.max())))
    for filled, row in zip(table, rows, strict=True):
        filled[: len(row)] = row
    offered = [np.flatnonzero(row).max(initial=0) + 1 for row in table]
    return table, np.array(offered, dtype=np.float64)


def _sums_to_one(table: Floats) -> None:
    total = table.sum(axis=1)
    wrong = np.flatnonzero((np.abs(total - 1) > 1e-2) | (table < 0).any(axis=1))
    if len(wrong):
        raise UsageError(
            f"Probabilities must be at least 0 and sum to 1 in each row, but row {wrong[0]} is "
            f"{table[wrong[0]].round(4).tolist()}. Pass logits through `softmax` first."
        )
