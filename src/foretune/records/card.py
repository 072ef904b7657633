"""TaskCard: what is known of a task without its data, so that runs can be compared without keeping the user's text."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

CARD_VERSION = 1


@dataclass(frozen=True)
class TaskCard:
    """Sizes, lengths (in characters and words), classes. Computed from training rows only, but for the counts.

    Attributes:
        name: how the task is called in reports.
        kind: one of ``records.config.KINDS``.
        rows: split -> number of rows.
        classes: number of classes (0 when there are none).
        majority: share of the most frequent class among the training rows (0 when there are none).
        label_entropy: entropy of the training labels in nats.
        features: further named numbers (``words_mean``, ``words_p95``, ``type_token_ratio``, ``gzip_ratio``, ...).
        version: the extractor's version; cards of different versions are not compared.
    """

    name: str
    kind: str
    rows: Mapping[str, int] = field(default_factory=dict)
    classes: int = 0
    majority: float = 0.0
    label_entropy: float = 0.0
    features: Mapping[str, float] = field(default_factory=dict)
    version: int = CARD_VERSION
