"""Subsets of the model's own weights: the share ``density``, chosen anew in every step, or once."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, cast

from foretune.errors import ModelError, UsageError
from foretune.records import Choice, Real, Space
from foretune.tuners.base import Tuner
from foretune.tuners.heads import head_modules

if TYPE_CHECKING:
    import torch
    from torch import nn
    from torch.optim import Optimizer
    from transformers import PreTrainedConfig, PreTrainedModel

    from foretune.tuners.subset.movement import Movement


@dataclass(frozen=True)
class SubsetTuner(Tuner):
    """Common to a moving and a static subset: silos and budgets, update rules, the sparse delta, exact merging.

    Attributes:
        density: share of the tuned weights that may be away from the base, in (0, 1].
        silo: which weights share a budget: those of a ``tensor``, a ``layer``, a ``module_type``, or all (``global``).
        optimizer: ``adafactor`` (no momentum, O(rows + columns) state), ``adamw`` (dense moments) or ``sgd``.
        k_min: weights that every silo keeps at least.
        targets: ``all-linear``, ``attention`` or ``qv``, as for LoRA.
        more: ``embeddings``, ``norms``, ``biases``: tuned in part as well.
        weight_decay: of the tuned weights; it moves large ones, so in a moving subset it also decides which stay.
    """

    density: float = 0.001
    silo: Literal["tensor", "layer", "module_type", "global"] = "tensor"
    optimizer: Literal["adafactor", "adamw", "sgd"] = "adafactor"
    k_min: int = 1
    targets: Literal["all-linear", "attention", "qv"] = "all-linear"
    more: tuple[Literal["embeddings", "norms", "biases"], ...] = ()
    weight_decay: float = 0.0

    lr: ClassVar[float] = 3e-4

    @abstractmethod
    def movement(self) -> Movement:
        """Which weights may be away from the base."""

    def __post_init__(self) -> None:
        rules = {
            "0 < density <= 1": 0 < self.density <= 1,
            "k_min >= 1": self.k_min >= 1,
            "weight_decay >= 0": self.weight_decay >= 0,
        }
        for rule, kept in rules.items():
            if not kept:
                name = next(word for word in rule.split() if word.isidentifier())
                raise UsageError(f"`{rule}` must hold, but got {name}={vars(self)[name]!r}.")

    def attach(self, network: PreTrainedModel, fresh: Sequence[str] = ()) -> nn.Module:
        from foretune.tuners.subset import model as subsets
        from foretune.tuners.subset.rules import RULES

        heads = head_modules(network, fresh)
        return subsets.attach(
            network,
            heads,
            subsets.targets(network, heads, self.targets, self.more),
            density=self.density,
            silo=self.silo,
            distance=self.distance_name(),
            least=self.k_min,
            rule=RULES[self.optimizer](weight_decay=self.weight_decay),
            movement=self.movement(),
        )

    def save(self, model: nn.Module, folder: Path) -> None:
        from foretune.tuners.subset import model as subsets

        subsets.save(model, folder, {"tuner": self.name, **asdict(self)})

    def restore(self, network: PreTrainedModel, folder: Path) -> nn.Module:
        from foretune.tuners.subset import model as subsets

        config = subsets.read_config(folder, self.name)
        settings: dict[str, Any] = {
            key: tuple(v) if isinstance(v, list) else v for key, v in config["settings"].items()
        }
        del settings["tuner"]
        model = type(self)(**settings).attach(network, config["heads"])
        subsets.load(model, folder, config)
        return model

    def merge(self, model: nn.Module) -> PreTrainedModel:
        from foretune.tuners.subset import model as subsets

        subsets.subset_of(model)
        del vars(model)[subsets.ATTRIBUTE]
        return cast("PreTrainedModel", model)

    @contextmanager
    def disabled(self, model: nn.Module) -> Iterator[PreTrainedModel]:
        from foretune.tuners.subset import model as subsets

        with subsets.at_base(model):
            yield cast("PreTrainedModel", model)

    def optimizer_for(self, model: nn.Module, groups: Sequence[dict[str, Any]]) -> Optimizer:
        from foretune.tuners.subset.model import dst_optimizer

        kind, settings = dst_optimizer(model)
        return kind(groups, **settings)

    def learned(self, model: nn.Module) -> dict[str, torch.Tensor]:
        from foretune.tuners.subset import model as subsets

        return subsets.learned(model)

    def put(self, model: nn.Module, tensors: Mapping[str, torch.Tensor]) -> None:
        from foretune.tuners.subset import model as subsets

        subsets.put(model, tensors)

    def size(self, model: nn.Module) -> int:
        from foretune.tuners.subset.model import subset_of

        subset = subset_of(model)
        return subset.size + sum(value.numel() for value in subset.head_base.values())

    def require_stock(self, config: PreTrainedConfig) -> None:
        way = "`--to merged`" if self.more else "`--to supertuning`, which it can, or `--to merged`"
        raise ModelError(f"Stock PEFT cannot load what `{self.name}` saves. Use {way}.")

    def distance_name(self) -> str:
        """By what a moving subset is chosen."""
        return "abs"

    def monitor(self, model: nn.Module) -> Mapping[str, float]:
        """Share of the subset that the last step exchanged; the least displacement in it, as a mean over silos."""
        from foretune.tuners.subset.model import subset_of

        silos = [silo for silo in subset_of(model).silos if silo.chosen]
        if not silos:
            return {}
        return {
            "churn": sum(silo.change.entered for silo in silos) / sum(silo.k for silo in silos),
            "least_displacement": sum(silo.change.least for silo in silos) / len(silos),
        }


@dataclass(frozen=True)
class DynamicSubset(SubsetTuner):
    """An ordinary optimizer step on all weights, after which in every silo all but the farthest from the pretrained
    model go back to it (Stahlberg et al. 2024, arXiv 2411.08610). The paper's settings are not published: each default
    is foretune's own.

    What is learned is a sparse delta; merging it is exact and costs nothing at inference. ``lr`` 3e-4: where PEFT's
    suite has its nearest relative, SHiRA; sparse runs bear about ten times the rate of full fine-tuning.

    Attributes:
        distance: ``abs``: |W - W0|; ``rel``: that over |W0|.
    """

    distance: Literal["abs", "rel"] = "abs"

    name: ClassVar[str] = "dynamic-subset"
    space: ClassVar[Space] = Space(
        {
            "lr": Real(3e-5, 3e-3, log=True),
            "density": Real(1e-4, 1e-1, log=True),
            "distance": Choice(("abs", "rel")),
        }
    )

    def movement(self) -> Movement:
        from foretune.tuners.subset.movement import Moving

        return Moving()

    def distance_name(self) -> str:
        return self.distance


DynamicSubsetConfig = DynamicSubset
"""The same under the name that users of PEFT expect: ``get_peft_model(base, DynamicSubsetConfig(density=0.001))``."""


@dataclass(frozen=True)
class StaticSubset(SubsetTuner):
    """The control for a moving subset: the same budget, silos and rules, with a mask that is chosen once.

    ``random`` is a mask by chance, ``gradient`` and ``fisher`` take the largest summed gradients or their squares over
    the first ``warmup`` steps (during which these weights stay), ``largest`` and ``smallest`` the pretrained weights of
    that size. ``lr`` as for the moving subset, so that a difference is the moving.

    Attributes:
        mask: by what the subset is chosen.
        warmup: steps whose gradients decide; for the other masks 1.
        seed: of the random mask.
    """

    mask: Literal["random", "gradient", "fisher", "largest", "smallest"] = "random"
    warmup: int = 1
    seed: int = 0

    name: ClassVar[str] = "static-subset"
    space: ClassVar[Space] = Space(
        {
            "lr": Real(3e-5, 3e-3, log=True),
            "density": Real(1e-4, 1e-1, log=True),
            "mask": Choice(("random", "gradient", "fisher", "largest", "smallest")),
        }
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.warmup < 1:
            raise UsageError(f"`warmup >= 1` must hold, but got warmup={self.warmup}.")
        if self.warmup > 1 and self.mask not in ("gradient", "fisher"):
            raise UsageError(
                f"A mask by {self.mask} looks at no gradients, but got warmup={self.warmup}. Leave it out."
            )

    def movement(self) -> Movement:
        from foretune.tuners.subset.movement import Static

        return Static(self.mask, self.seed, self.warmup)
