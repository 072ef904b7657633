"""Tuner: where the trainable numbers live. One seam that every method goes through."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from foretune.errors import UsageError
from foretune.records import Displacement, Flatness, PaperReference, Part, Schedule, Space
from foretune.records.plain import finite

if TYPE_CHECKING:
    import numpy as np
    import torch
    from torch import nn
    from torch.optim import Optimizer
    from transformers import PreTrainedConfig, PreTrainedModel


class Ensemble(ABC):
    """Several models that one method holds, each of which answers for every example of a split.

    Attributes:
        count: how many.
    """

    count: int

    @abstractmethod
    def at(self, members: Sequence[int], examples: np.ndarray) -> AbstractContextManager[None]:
        """Inside the block a pass computes ``len(members)`` times ``len(examples)`` sequences, member after member.

        Args:
            members: which of ``range(count)``.
            examples: the place in the split of the example that each sequence belongs to.
        """


class FixedPoints(Ensemble):
    """An ensemble whose members are named points of a method's own space, the same for every example.

    Attributes:
        weights: of each point, one number per corner of the space.
    """

    weights: tuple[tuple[float, ...], ...]


@dataclass(frozen=True)
class Tuner(ABC):
    """A fine-tuning method. The fields of a subclass are its options; the class is abstract or final.

    Attributes:
        name: what records, the command line and the registry call it.
        space: the hyperparameters it offers, learning rate (``lr``) included.
        lr: its default peak learning rate; a rate is part of a method, for no rate serves two of them. 0: it trains
            nothing.
        mergeable: whether ``merge`` has an answer; otherwise it raises ``ModelError``.
        reversible: whether ``disabled`` has an answer; otherwise it raises ``ModelError``.
        collapsible: whether it holds several models, of which ``collapse`` picks one; otherwise it raises
            ``UsageError``.
        paper_reference: what the method's paper publishes, where runs may one day be held against it.
    """

    __pydantic_config__ = {"extra": "forbid"}  # noqa: RUF012 - read by Pydantic, not a field

    name: ClassVar[str]
    space: ClassVar[Space]
    lr: ClassVar[float]
    mergeable: ClassVar[bool] = True
    reversible: ClassVar[bool] = True
    collapsible: ClassVar[bool] = False
    paper_reference: ClassVar[PaperReference | None] = None

    @property
    def part(self) -> Part:
        """The name and options, as JSON has them, that ``make`` turns back into this tuner."""
        return Part(self.name, finite(asdict(self)))

    @property
    def trains(self) -> bool:
        """Whether there is anything to train."""
        return self.lr > 0

    @abstractmethod
    def attach(self, network: PreTrainedModel, fresh: Sequence[str] = ()) -> nn.Module:
        """Return the model to train: afterwards ``requires_grad`` is True for this method's numbers and no others.

        Args:
            network: a loaded transformers model; it may be changed in place.
            fresh: qualified names of the modules that the checkpoint did not hold (the head): trained and saved too.

        Raises:
            ModelError: this method does not serve this architecture; the message names both and the way out.
        """

    def peft_model(self, network: PreTrainedModel, fresh: Sequence[str], adapter_name: str) -> nn.Module:
        """What ``attach`` does, for a user who will call it as PEFT's models are called: ``foretune.get_peft_model``.

        Args:
            adapter_name: PEFT's name for what is learned.

        Raises:
            UsageError: a name other than ``default``, where the method has no PEFT format.
            ModelError: see ``attach``.
        """
        if adapter_name != "default":
            raise UsageError(
                f"`{self.name}` changes the model itself and takes no adapter name, but got `{adapter_name}`."
            )
        return self.attach(network, fresh)

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

    def learned(self, model: nn.Module) -> dict[str, torch.Tensor]:
        """Everything that training changes, by name: what a checkpoint must hold; live tensors, not copies."""
        return {name: p for name, p in model.named_parameters() if p.requires_grad}

    def put(self, model: nn.Module, tensors: Mapping[str, torch.Tensor]) -> None:
        """The inverse of ``learned``, bit for bit, whatever ``model`` has learned since."""
        import torch

        with torch.no_grad():
            for name, parameter in self.learned(model).items():
                parameter.copy_(tensors[name])

    def size(self, model: nn.Module) -> int:
        """How many numbers the method trains, the head included."""
        return sum(tensor.numel() for tensor in self.learned(model).values())

    def training_bytes(self, model: nn.Module, schedule: Schedule) -> int:
        """Memory that training takes beside weights and activations: 12 bytes per trainable weight, its gradient and
        the two moments of AdamW in fp32."""
        return 12 * sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)

    def gradients_made(self, model: nn.Module) -> float:
        """Of how many weights a step computed the gradient, as a mean over the steps so far: those that train."""
        return self.size(model)

    def optimizer_for(
        self, model: nn.Module, groups: Sequence[dict[str, Any]], schedule: Schedule | None = None
    ) -> Optimizer:
        """The optimizer over ``groups`` (``params``, ``weight_decay`` and what the caller adds): AdamW.

        Args:
            schedule: of the run, if there is one.
        """
        import torch

        return torch.optim.AdamW(list(groups), fused=True)

    def decay(self, name: str, rate: float) -> float:
        """The weight decay of the parameter ``name``, where the schedule says ``rate``."""
        return rate

    def remarks(self, schedule: Schedule) -> tuple[str, ...]:
        """What of ``schedule`` does not act as a reader would expect of it, one sentence each: said with the plan and
        kept in the record."""
        return ()

    def clips(self, model: nn.Module, name: str) -> bool:
        """Whether the gradient of the parameter ``name`` counts in the norm that the schedule clips; False where the
        method's optimizer limits its steps itself."""
        return True

    def before_pass(self, model: nn.Module, seed: int, sizes: np.ndarray) -> None:
        """Called before every training pass, for methods that draw random numbers of their own.

        Args:
            seed: a pure function of the run, the step and the process.
            sizes: ``(examples,)``: how many sequences of the batch belong to each example, in order.
        """
        return None

    def penalty(self, model: nn.Module) -> torch.Tensor | None:
        """What is added to the mean loss of a step, a scalar; None for nothing.

        The recorded training loss is without it, so that methods and weights of the term compare.
        """
        return None

    def ensemble(self, model: nn.Module, size: int, samples: int) -> Ensemble | None:
        """``samples`` of the models that a method holds at once, for a split of ``size`` examples.

        None where it holds only one. Equal arguments give equal members, however examples come in batches.
        """
        return None

    def dev_members(self, model: nn.Module) -> int:
        """How many members judge each dev example, on which the checkpoint is chosen; 1: the exported model does."""
        return 1

    def answering_members(self, model: nn.Module) -> int:
        """How many members answer in the end; 1: the exported model does."""
        return 1

    @property
    def averaging(self) -> str:
        """What of several members' answers is averaged: ``probabilities`` or ``logits``."""
        return "probabilities"

    @property
    def dev_pooling(self) -> str:
        """How several members' judgements become one score of dev: ``pooled``, the metric over all pairs of member and
        example, or the ``mean`` of the members' metrics."""
        return "pooled"

    def collapse(self, model: nn.Module, point: str) -> nn.Module:
        """The one of several models that ``point`` names; the work is done in place.

        Raises:
            UsageError: there is no such point, or the method holds one model.
        """
        raise UsageError(f"`{self.name}` holds one model, but `{point}` was asked for. Leave the point out.")

    def require_stock(self, config: PreTrainedConfig) -> None:
        """Raise ``ModelError`` where stock PEFT cannot compute the same from what ``save`` wrote.

        Args:
            config: of the base model.
        """
        return None

    def landscape(self, model: nn.Module) -> FixedPoints | None:
        """The points of the method's own space whose score on dev a reader should see; None for no such space.

        Every point costs a pass over dev at the end of a run.
        """
        return None

    def displacement(self, model: nn.Module) -> Displacement | None:
        """Where and how far the base's own weights were moved, for a reader; None where a method has nothing to say.

        Asked once, of the weights that were kept.
        """
        return None

    def flatness(self, model: nn.Module, score: Callable[[], Mapping[str, float]], **options: Any) -> Flatness | None:
        """How the scores of ``model`` fall around what it has learned; None where a method cannot be moved about.

        Args:
            score: metric -> score of ``model`` as it is when this is called.
            options: of the method's own, such as the sizes of noise.
        """
        return None

    def monitor(self, model: nn.Module) -> Mapping[str, float]:
        """Name -> number about the trained weights, recorded before the first step and at every evaluation."""
        return {}

    def between(self, model: nn.Module) -> Mapping[int, Mapping[str, float]]:
        """Step -> what ``monitor`` would have said after it, of the steps since this was last asked.

        For numbers of every step, which are kept where they arise: reading each at once could make each step wait.
        """
        return {}

    def after_step(self, model: nn.Module, step: int) -> None:
        """Called once after optimizer step ``step`` (counted from 1) and before gradients are cleared."""
        return None
