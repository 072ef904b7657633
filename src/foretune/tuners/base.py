"""Tuner: where the trainable numbers live. One seam that every method goes through."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from foretune.records import Part, Space

if TYPE_CHECKING:
    from torch import nn
    from transformers import PreTrainedModel


@dataclass(frozen=True)
class Tuner(ABC):
    """A fine-tuning method. The fields of a subclass are its options; the class is abstract or final.

    Attributes:
        name: what records, the command line and the registry call it.
        space: the hyperparameters it offers, learning rate (``lr``) included.
        lr: its default peak learning rate; a rate is part of a method, for no rate serves two of them.
        mergeable: whether ``merge`` has an answer; otherwise it raises ``ModelError``.
        reversible: whether ``disabled`` has an answer; otherwise it raises ``ModelError``.
    """

    __pydantic_config__ = {"extra": "forbid"}  # noqa: RUF012 - read by Pydantic, not a field

    name: ClassVar[str]
    space: ClassVar[Space]
    lr: ClassVar[float]
    mergeable: ClassVar[bool] = True
    reversible: ClassVar[bool] = True

    @property
    def part(self) -> Part:
        """The name and options that ``make`` turns back into this tuner."""
        return Part(self.name, asdict(self))

    @abstractmethod
    def attach(self, network: PreTrainedModel, fresh: Sequence[str] = ()) -> nn.Module:
        """Return the model to train: afterwards ``requires_grad`` is True for this method's numbers and no others.

        Args:
            network: a loaded transformers model; it may be changed in place.
            fresh: qualified names of the modules that the checkpoint did not hold (the head): trained and saved too.

        Raises:
            ModelError: this method does not serve this architecture; the message names both and the way out.
        """

    @abstractmethod
    def save(self, model: nn.Module, folder: Path) -> None:
        """Write what was learned, head included, into ``folder`` as safetensors and JSON; no pickle, no network."""

    @abstractmethod
    def restore(self, network: PreTrainedModel, folder: Path) -> nn.Module:
        """Put what ``save`` wrote onto a fresh ``network``: the outputs equal those before saving, bit for bit.

        The options are those in ``folder``. The same numbers are trainable as after ``attach``, so training can go on.

        Raises:
            ModelError: the folder was written by another tuner, or its shapes are not those of ``network``.
        """

    @abstractmethod
    def merge(self, model: nn.Module) -> PreTrainedModel:
        """Return an ordinary transformers model that computes the same, or raise ``ModelError`` if there is none.

        The work is done in place: ``model`` itself is not to be used afterwards.
        """

    @abstractmethod
    def disabled(self, model: nn.Module) -> AbstractContextManager[PreTrainedModel]:
        """Inside the block ``model``, and the network that the block receives, compute what the base computed.

        The base is bit for bit the network that ``attach`` was given, its fresh head as it was first drawn.

        Raises:
            ModelError: the base is gone (``reversible`` is False).
        """

    def virtual_tokens(self, model: nn.Module) -> int:
        """How many of the model's positions the method takes for itself, in front of every sequence.

        Per-token logits may have as many rows in front (prompt tuning) or none (prefix tuning): the last
        ``input_ids.shape[1]`` rows belong to the text.
        """
        return 0

    def after_step(self, model: nn.Module, step: int) -> None:
        """Called once after optimizer step ``step`` (counted from 1) and before gradients are cleared."""
        return None
