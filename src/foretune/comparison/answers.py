"""Answers: what a run said to each test row, and how each row is scored where the metric is a mean over rows."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from foretune.evaluation.generation import exact_match, gsm8k, rouge_l, token_f1
from foretune.evaluation.influence import OF_COUNTS, influence
from foretune.tasks import Schema

Floats = NDArray[np.float64]

WRITTEN: Mapping[str, Callable[..., object]] = {
    "exact_match": exact_match,
    "token_f1": token_f1,
    "rouge_l": rouge_l,
    "gsm8k": gsm8k,
}
"""Metrics of written responses that are means over rows."""


@dataclass(frozen=True)
class Answers:
    """One split of one run, rows in the order of the file.

    Attributes:
        row: numbers in the source.
        label, prediction: class names, or texts; merged classes of an out-of-domain set under its own names.
        sha256: of every answer with its probabilities: equal bits, equal text.
    """

    row: tuple[int, ...]
    label: tuple[str, ...]
    prediction: tuple[str, ...]
    sha256: str

    @property
    def constant(self) -> str | None:
        """The one answer that every row got, although their labels differ; None where answers differ."""
        return self.prediction[0] if len(set(self.prediction)) == 1 and len(set(self.label)) > 1 else None

    @property
    def correct(self) -> Floats:
        """(n,) 1 where the answer is the label."""
        return np.array([p == y for p, y in zip(self.prediction, self.label, strict=True)], dtype=np.float64)


def read_answers(path: Path, schema: Schema | None = None, floor: str | None = None) -> dict[str, Answers]:
    """Split -> answers of a ``predictions.parquet``, or of one floor in a ``floors.parquet``; none without a file.

    Args:
        schema: of the task; without it the classes of an out-of-domain set are not merged into its own.
    """
    if not path.exists():
        return {}
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    table = pq.read_table(path)
    if floor is not None:
        table = table.filter(pc.equal(table["floor"], floor))
    found = {}
    for split in dict.fromkeys(table["split"].to_pylist()):
        part = table.filter(pc.equal(table["split"], split))
        names = schema.ood_label_map.get(split.removeprefix("ood:"), {}) if schema is not None else {}
        given = part["prediction"].to_pylist()
        bits = repr((given, part["probabilities"].to_pylist()))
        found[split] = Answers(
            tuple(part["row"].to_pylist()),
            tuple(part["label"].to_pylist()),
            tuple(names.get(answer, answer) for answer in given),
            hashlib.sha256(bits.encode()).hexdigest(),
        )
    return found


def item_scores(metric: str, answers: Answers, schema: Schema) -> Floats | None:
    """(n,) the score of each row; None where the metric is no mean over rows (F1, correlations)."""
    if metric == "accuracy":
        return answers.correct
    if metric not in WRITTEN:
        return None
    accepted = [[y] if schema.references is None else y.split(schema.references) for y in answers.label]
    written = WRITTEN[metric](accepted, answers.prediction)
    each: Floats = written.examples  # type: ignore[attr-defined]
    return each


def row_values(metric: str, answers: Answers, schema: Schema) -> Floats | None:
    """(n,) what each row has to do with the score, which is their mean: its own score, or its influence where the
    metric is a function of a confusion matrix; None where it is neither (correlations)."""
    if metric in OF_COUNTS:
        return influence(metric, answers.label, answers.prediction)
    return item_scores(metric, answers, schema)


def majority(answers: Sequence[str]) -> Floats:
    """(n,) 1 where the label is the most frequent one: the strictest constant there is."""
    usual = max(sorted(set(answers)), key=list(answers).count)
    return np.array([label == usual for label in answers], dtype=np.float64)
