"""METRICS: every score by name, with its kind of task, its direction and its scale."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from foretune.records import UNLABELLED

_UNBOUNDED = float("inf")


@dataclass(frozen=True)
class Metric:
    """What other rooms must know of a score.

    Attributes:
        kinds: the kinds of task it is given for.
        greater_is_better: its direction.
        description: half a line for a reader.
        low, high: its scale.
    """

    kinds: tuple[str, ...]
    greater_is_better: bool
    description: str
    low: float = 0.0
    high: float = 1.0


_CLASSES, _LABELS = ("classification",), ("classification", "choice")
_NUMBERS, _TEXTS, _TOKENS = ("regression",), ("generation",), (UNLABELLED,)

METRICS: Mapping[str, Metric] = {
    "accuracy": Metric(_LABELS, True, "share of right predictions"),
    "macro_f1": Metric(_CLASSES, True, "mean F1 of the classes, each counted alike"),
    "mcc": Metric(_CLASSES, True, "Matthews' correlation; 0 for a constant classifier", low=-1.0),
    "nll": Metric(_LABELS, False, "negative log-likelihood of the true label, in nats", high=_UNBOUNDED),
    "ece": Metric(
        _LABELS, False, "expected calibration error, top label, 15 equal bins; no interval, for it is biased"
    ),
    "brier": Metric(_CLASSES, False, "squared error of the probabilities, summed over classes", high=2.0),
    "pearson": Metric(_NUMBERS, True, "linear correlation", low=-1.0),
    "spearman": Metric(_NUMBERS, True, "rank correlation", low=-1.0),
    "rmse": Metric(_NUMBERS, False, "root of the mean squared error", high=_UNBOUNDED),
    "mae": Metric(_NUMBERS, False, "mean absolute error", high=_UNBOUNDED),
    "exact_match": Metric(_TEXTS, True, "share of responses equal to a reference, as SQuAD compares"),
    "token_f1": Metric(_TEXTS, True, "overlap of words with the best reference, as SQuAD counts"),
    "rouge_l": Metric(_TEXTS, True, "longest common subsequence of words, F1"),
    "chrf": Metric(_TEXTS, True, "chrF2 of sacrebleu, divided by 100"),
    "bleu": Metric(_TEXTS, True, "BLEU-4 of sacrebleu, divided by 100"),
    "gsm8k": Metric(_TEXTS, True, "share of right final numbers"),
    "loss": Metric(_TOKENS, False, "negative log-likelihood per predicted token, in nats", high=_UNBOUNDED),
    "perplexity": Metric(_TOKENS, False, "exponential of the loss", low=1.0, high=_UNBOUNDED),
}
"""Every score by name, with its direction."""
