"""RunConfig: everything that decides the outcome of a run; its digest is the run's identity.

Frozen, standard library only. Fields that merely say *where* bytes lie (paths) do not count towards the digest when a
fingerprint says *what* the bytes are: the same rows in another folder are the same run.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from foretune.records.plain import built

KINDS = ("classification", "regression", "choice", "generation")
"""The four forms of a task: a label, a number, one of several candidate texts, a written response."""

UNLABELLED = "text"
"""Rows without labels. No task for a user, so it is none of ``KINDS``: what a model is trained on before a task."""


def canonical(value: Any) -> str:
    """JSON with sorted keys and no spaces: equal values give equal text.

    >>> canonical({"b": 1, "a": (1, 2)})
    '{"a":[1,2],"b":1}'
    """
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def digest(value: Any, length: int = 16) -> str:
    """The first ``length`` hexadecimal digits of the SHA-256 of ``canonical(value)``."""
    return hashlib.sha256(canonical(value).encode("utf-8", "surrogatepass")).hexdigest()[:length]


@dataclass(frozen=True)
class Part:
    """A plug-in by name, with its options: records hold names, so a run of a deleted tuner still loads."""

    __pydantic_config__ = {"extra": "forbid"}  # noqa: RUF012 - read by Pydantic, not a field

    name: str
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class ModelRef:
    """Which checkpoint, and how it is read.

    Attributes:
        name: a local folder, a Hub id, or ``"demo"`` for the small encoder of the ``demo`` extra.
        fingerprint: hash of the weights; when present it stands for ``name`` in the identity.
        pooling: ``cls``, ``mean``, ``last``, ``eos`` (encoder-decoders) or ``none`` (the language-model head
            answers); ``auto`` is resolved from the checkpoint before the run, so a record never holds it.
        max_length: tokens per example, special tokens and response included; longer text is cut and reported.
    """

    __pydantic_config__ = {"extra": "forbid"}  # noqa: RUF012

    name: str
    revision: str | None = None
    fingerprint: str | None = None
    pooling: str = "auto"
    max_length: int = 256
    trust_remote_code: bool = False


@dataclass(frozen=True)
class TaskRef:
    """Which rows, read how, drawn how.

    Attributes:
        source: a file, a folder, a Hub id or a catalog name; ``"memory"`` for a task built in Python.
        kind: one of ``KINDS``.
        columns: role -> column name(s) as detected or overridden, e.g. ``{"text": "sentence", "label": "y"}``.
        dev, test, ood: further files, where the user gave them; ``ood`` is name -> path.
        shots: labelled examples per class (classification) or in total (otherwise), dev included; None = all rows.
        dev_fraction: the share of the drawn labels that pays for model selection.
        test_fraction: the share of the rows held out for testing when the source has no test split.
        fingerprint: hash of all rows of all splits; when present it stands for the paths in the identity.
    """

    __pydantic_config__ = {"extra": "forbid"}  # noqa: RUF012

    source: str
    kind: str
    columns: Mapping[str, Any] = field(default_factory=dict)
    dev: str | None = None
    test: str | None = None
    ood: Mapping[str, str] = field(default_factory=dict)
    shots: int | None = None
    dev_fraction: float = 0.25
    test_fraction: float = 0.2
    metric: str | None = None
    fingerprint: str | None = None


@dataclass(frozen=True)
class Schedule:
    """How long, how fast, how often measured. The schedule always spans the full length of ``steps``.

    Attributes:
        steps: optimizer steps of the full run.
        batch_size: examples per optimizer step, over all processes.
        micro_batch: examples per forward pass; smaller than ``batch_size`` means gradient accumulation. None = all.
        lr, head_lr: peak learning rates of the tuner and of a freshly initialised head (None = ``lr``).
        warmup: share of the steps with a linearly rising rate.
        decay: ``linear``, ``cosine`` or ``constant`` after the warm-up.
        clip: largest gradient norm, None for no clipping.
        evaluations: how often dev is measured, at equal fractions of the run.
        patience: evaluations without improvement before the run ends; None = never.
        precision: ``fp32`` or ``bf16`` (autocast).
    """

    __pydantic_config__ = {"extra": "forbid"}  # noqa: RUF012

    steps: int
    batch_size: int = 16
    micro_batch: int | None = None
    lr: float = 2e-4
    head_lr: float | None = None
    weight_decay: float = 0.01
    warmup: float = 0.1
    decay: str = "linear"
    clip: float | None = 1.0
    evaluations: int = 10
    patience: int | None = None
    precision: str = "fp32"


@dataclass(frozen=True)
class Seeds:
    """One named seed per kind of random draw, so that any one can be varied alone.

    Attributes:
        data: which rows are drawn and how they are split.
        init: fresh weights: adapter and head.
        order: the order of the batches.
        dropout: dropout masks.
    """

    __pydantic_config__ = {"extra": "forbid"}  # noqa: RUF012

    data: int = 0
    init: int = 0
    order: int = 0
    dropout: int = 0

    @classmethod
    def all(cls, seed: int) -> Seeds:
        """The same number for every draw: what ``--seed`` sets."""
        return cls(**{f.name: seed for f in fields(cls)})


@dataclass(frozen=True)
class HeldTexts:
    """Texts that are no part of a task, on which it is measured what a run made the language model forget.

    Attributes:
        source: a ``.txt`` file, what a task may be read from, or a name of the catalog (its training texts).
        rows: how many texts, those of the task left out; fewer where there are not so many.
        fingerprint: hash of the texts that are read; when present it stands for ``source`` in the identity.
    """

    __pydantic_config__ = {"extra": "forbid"}  # noqa: RUF012

    source: str
    rows: int = 200
    fingerprint: str | None = None


@dataclass(frozen=True)
class RunConfig:
    """model + task + tuner + objective + schedule + seeds, and what the model was trained on before.

    Attributes:
        pretraining: the run over unlabelled texts whose weights this one starts from; its task is of the kind
            ``UNLABELLED``. It says what the weights are, so it stands for ``model.name`` and ``model.fingerprint`` in
            the identity, and the digest is the same before and after the stage has run.
        held: texts on which the base model's loss is measured without and with what was learned.
        seconds: of training and of measuring dev on the way, after which a run is judged as it stands; None: as long as
            its steps take.

    >>> config = RunConfig(ModelRef("demo"), TaskRef("train.csv", "classification"), Part("lora", {"rank": 8}),
    ...                    Part("head"), Schedule(steps=100), Seeds())
    >>> config == RunConfig.from_json(config.to_json())
    True
    >>> len(config.digest)
    16
    """

    __pydantic_config__ = {"extra": "forbid"}  # noqa: RUF012

    model: ModelRef
    task: TaskRef
    tuner: Part
    objective: Part
    schedule: Schedule
    seeds: Seeds = field(default_factory=Seeds)
    pretraining: RunConfig | None = None
    held: HeldTexts | None = None
    seconds: float | None = None

    @property
    def digest(self) -> str:
        """The run's identity: 16 hexadecimal digits over everything that decides the outcome."""
        identity = self.to_json()
        if self.model.fingerprint or self.pretraining:
            del identity["model"]["name"], identity["model"]["revision"]
        if self.pretraining:
            del identity["model"]["fingerprint"]
            identity["pretraining"] = self.pretraining.digest
        if self.task.fingerprint:
            for where in ("source", "dev", "test", "ood"):
                del identity["task"][where]
        if self.held and self.held.fingerprint:
            del identity["held"]["source"]
        return digest(identity)

    def to_json(self) -> dict[str, Any]:
        """Plain dicts and lists, ready for ``json.dumps``."""
        plain: dict[str, Any] = json.loads(canonical(asdict(self)))
        return _without_absent(plain)

    @classmethod
    def from_json(cls, plain: Mapping[str, Any]) -> RunConfig:
        """The inverse of ``to_json``. Unknown fields raise ``ValueError``: upgrades belong to ``store/upgrade.py``."""
        made: RunConfig = built(cls, plain)
        return made


def _without_absent(plain: dict[str, Any]) -> dict[str, Any]:
    """Without what a run does not have: configs from before it could be asked for keep their digests."""
    optional = ("pretraining", "held", "seconds")
    found = {name: value for name, value in plain.items() if name not in optional or value is not None}
    if "pretraining" in found:
        found["pretraining"] = _without_absent(found["pretraining"])
    return found
