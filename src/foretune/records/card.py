"""TaskCard and ModelCard: what is known of a task without its data, and of a model without its weights.

Runs can so be compared without keeping the user's text.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field

from foretune.records.config import digest

CARD_VERSION = 1


@dataclass(frozen=True)
class TaskCard:
    """Sizes, lengths (in characters and words), classes. Computed from training rows only, but for counts and sketch.

    Attributes:
        name: how the task is called in reports.
        kind: one of ``records.config.KINDS``.
        rows: split -> number of rows.
        classes: number of classes (0 when there are none).
        majority: share of the most frequent class among the training rows (0 when there are none).
        label_entropy: entropy of the training labels in nats.
        features: further named numbers (``words_mean``, ``words_p95``, ``type_token_ratio``, ``gzip_ratio``, ...). What
            is not known is absent and not 0.
        version: the extractor's version; cards of different versions are not compared.
        sketch: the smallest hashes of the source's normalised texts, by which copies of a task are found, in the form
            of ``records/sketch.py``.
    """

    name: str
    kind: str
    rows: Mapping[str, int] = field(default_factory=dict)
    classes: int = 0
    majority: float = 0.0
    label_entropy: float = 0.0
    features: Mapping[str, float] = field(default_factory=dict)
    version: int = CARD_VERSION
    sketch: tuple[str, ...] = ()

    @property
    def digest(self) -> str:
        """Hash of everything but the name: two cards with the same digest describe a task in the same way.

        >>> TaskCard("a", "classification").digest == TaskCard("b", "classification").digest
        True
        """
        plain = asdict(self)
        del plain["name"]
        return digest(plain)


@dataclass(frozen=True)
class ModelCard:
    """What is known of a checkpoint before its weights are read.

    Attributes:
        name: as the user gave it.
        family: the architecture, as transformers names it: ``llama``, ``bert``, ``qwen3``. Siblings (sizes, base and
            instruct) share it.
        reading: ``encoder``, ``decoder`` or ``encoder-decoder``; empty where not known.
        parameters: number of stored weights; None where not known.
        experts: number of experts per layer: 0 for a dense model, None where not known.
        features: further named numbers: ``layers``, ``hidden``, ``vocabulary``, ``positions``.
    """

    name: str
    family: str = ""
    reading: str = ""
    parameters: int | None = None
    experts: int | None = None
    features: Mapping[str, float] = field(default_factory=dict)
