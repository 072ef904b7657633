"""Which metric selects the checkpoint of which kind of task. The arithmetic is in ``evaluation``."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc

from foretune.errors import UsageError
from foretune.registry import did_you_mean
from foretune.tasks.names import plain

METRICS = {
    "classification": ("accuracy", "macro_f1", "mcc"),
    "regression": ("spearman", "pearson"),
    "choice": ("accuracy",),
    "generation": ("rouge_l", "exact_match", "token_f1", "chrf", "bleu", "gsm8k"),
}
"""Kind -> the metrics it has, the default first."""

_SHORT = 40


def choose_metric(
    kind: str, said: str | None = None, response: str = "", answers: pa.ChunkedArray | None = None
) -> str:
    """The metric that the user said, or the default of the kind.

    For generation the responses decide: ``gsm8k`` where every one ends in ``#### number``, ``chrf`` in a column
    ``translation...``, ``exact_match`` where none has more than 40 characters, otherwise ``rouge_l``.

    Raises:
        UsageError: the kind has no such metric.

    >>> choose_metric("regression"), choose_metric("classification", "mcc")
    ('spearman', 'mcc')
    """
    if said is not None:
        if said not in METRICS[kind]:
            raise UsageError(
                f"the metric of a {kind} task must be one of {', '.join(METRICS[kind])}, but got `{said}`."
                f"{did_you_mean(said, METRICS[kind])}"
            )
        return said
    if kind != "generation" or answers is None or answers.null_count == len(answers):
        return METRICS[kind][0]
    if pc.all(pc.match_substring_regex(answers, r"####\s*[-+$]?[0-9.,]+\s*$")).as_py():
        return "gsm8k"
    if plain(response).startswith("translation"):
        return "chrf"
    return "exact_match" if pc.max(pc.utf8_length(answers)).as_py() <= _SHORT else "rouge_l"
