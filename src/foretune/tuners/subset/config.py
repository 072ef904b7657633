"""SubsetConfig: what PEFT keeps of a subset; the same JSON that every saved subset has."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from peft import PeftConfig

from foretune.errors import ModelError
from foretune.records import Part
from foretune.tuners.dynamic_subset import SubsetTuner
from foretune.tuners.subset import delta

TYPE = "DST"


@dataclass
class SubsetConfig(PeftConfig):
    """A subset's options, its head and what it was trained on.

    Attributes:
        settings: the tuner's name, as ``tuner``, and its options.
        heads: modules that are trained whole.
        tensors: name -> shape of every tensor that is tuned in part; known once it is attached.
        quantization: how the base was quantised; empty where it was not.
        base_hash: of the base it was trained on; None for one that was not loaded.
        format: of the file.
    """

    settings: dict[str, Any] = field(default_factory=dict)
    heads: list[str] = field(default_factory=list)
    tensors: dict[str, list[int]] = field(default_factory=dict)
    quantization: dict[str, Any] = field(default_factory=dict)
    base_hash: str | None = None
    format: int = delta.FORMAT

    def __post_init__(self) -> None:
        self.task_type = None  # PEFT allows its own alone
        super().__post_init__()
        self.peft_type = self.task_type = TYPE

    @classmethod
    def of(cls, tuner: SubsetTuner, heads: tuple[str, ...] | list[str]) -> SubsetConfig:
        """The configuration of ``tuner`` with ``heads`` trained beside it."""
        return cls(settings={"tuner": tuner.name, **asdict(tuner)}, heads=list(heads))

    @classmethod
    def read(cls, folder: Path) -> SubsetConfig:
        """The configuration in ``folder``.

        Raises:
            ModelError: nothing readable is there, or it is of another type or of a newer format.
        """
        plain = delta.read_config(folder)
        return cls(**{key: plain[key] for key in delta.KINDS})

    @property
    def tuner(self) -> SubsetTuner:
        """The tuner that ``settings`` name.

        Raises:
            UsageError: no such tuner or option. ModelError: a tuner of another kind.
        """
        from foretune.tuners import make

        options = dict(self.settings)
        found = make(Part(options.pop("tuner", ""), options))
        if not isinstance(found, SubsetTuner):
            raise ModelError(
                f"A sparse delta is of a subset, but its settings name `{found.name}`. Restore the folder."
            )
        return found
