"""Subsets of the model's own weights: the share ``density``, chosen anew in every step, or once."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, cast

from foretune.errors import ModelError, UsageError, require
from foretune.records import Choice, Displacement, PaperReference, Part, Real, Schedule, Space
from foretune.tuners.base import Tuner
from foretune.tuners.heads import head_modules
from foretune.tuners.subset.cadence import BOUND, PRESETS, Cadence
from foretune.tuners.subset.relative import REL_TAU, relative

if TYPE_CHECKING:
    import torch
    from torch import nn
    from torch.optim import Optimizer
    from transformers import PreTrainedConfig, PreTrainedModel

    from foretune.tuners.subset.movement import Movement
    from foretune.tuners.subset.silo import Distance


@dataclass(frozen=True)
class SubsetTuner(Tuner):
    """Common to a moving and a static subset: silos and budgets, update rules, the sparse delta, exact merging.

    Attributes:
        density: share of the tuned weights that may be away from the base, in (0, 1].
        silo: which weights share a budget: those of a ``tensor``, a ``layer``, a ``module_type`` (modules of one name:
            all that BERT calls ``dense``), all (``global``), or a ``tensor`` but for fused experts, of which then each
            has its own (``expert``).
        optimizer: ``adafactor`` (no momentum, O(rows + columns) state), ``adamw`` (dense moments) or ``sgd``.
        k_min: weights that every silo keeps at least; ``freeze``: one whose share is less than a weight is not tuned.
        targets: ``all-linear``, ``attention`` or ``qv``, as for LoRA.
        more: ``embeddings``, ``norms``, ``biases``: tuned in part as well.
        weight_decay: of the tuned weights; it moves large ones, so in a moving subset it also decides which stay.
        backend: weights move where they lie (``inplace``), or the subset lies over them (``adapter``); ``auto``: over
            those that are quantised.
    """

    density: float = 0.001
    silo: Literal["tensor", "layer", "module_type", "global", "expert"] = "tensor"
    optimizer: Literal["adafactor", "adamw", "sgd"] = "adafactor"
    k_min: int | Literal["freeze"] = 1
    targets: Literal["all-linear", "attention", "qv"] = "all-linear"
    more: tuple[Literal["embeddings", "norms", "biases"], ...] = ()
    weight_decay: float = 0.0
    backend: Literal["auto", "inplace", "adapter"] = "auto"

    lr: ClassVar[float] = 3e-4

    @abstractmethod
    def movement(self) -> Movement:
        """Which weights may be away from the base."""

    def __post_init__(self) -> None:
        require(
            {
                "0 < density <= 1": 0 < self.density <= 1,
                "k_min >= 1": self.k_min == "freeze" or self.k_min >= 1,
                "weight_decay >= 0": self.weight_decay >= 0,
            },
            vars(self),
        )

    def attach(self, network: PreTrainedModel, fresh: Sequence[str] = ()) -> nn.Module:
        from foretune.tuners import validated
        from foretune.tuners.subset import model as subsets
        from foretune.tuners.subset import overlay
        from foretune.tuners.subset.processes import require_unpartitioned
        from foretune.tuners.subset.rules import RULES

        validated(type(self), self.part)
        heads = head_modules(network, fresh)
        require_unpartitioned(network)
        names = subsets.targets(network, heads, self.targets, self.more)
        return subsets.attach(
            network,
            heads,
            names,
            density=self.density,
            silo=self.silo,
            distance=self.score(),
            least=0 if self.k_min == "freeze" else self.k_min,
            rule=RULES[self.optimizer](weight_decay=self.weight_decay, bound=self.reach()),
            movement=self.movement(),
            **self.beyond(),
            overlaid=overlay.overlaid(network, heads, names, self.backend),
        )

    def peft_model(self, network: PreTrainedModel, fresh: Sequence[str], adapter_name: str) -> nn.Module:
        """A ``SubsetModel`` around the network; ``attach`` puts nothing around it."""
        from foretune.tuners.subset import peft_model

        return peft_model.attach(network, self, fresh, adapter_name)

    def save(self, model: nn.Module, folder: Path) -> None:
        from foretune.tuners.subset import model as subsets

        subsets.save(model, folder, {"tuner": self.name, **asdict(self)})

    def restore(self, network: PreTrainedModel, folder: Path) -> nn.Module:
        from foretune.tuners import validated
        from foretune.tuners.subset import delta, overlay
        from foretune.tuners.subset import model as subsets

        config = delta.read_config(folder, self.name)
        options = {key: value for key, value in config["settings"].items() if key != "tuner"}
        tuner = cast("SubsetTuner", validated(type(self), Part(self.name, options)))
        flags = {parameter: parameter.requires_grad for parameter in network.parameters()}
        model = tuner.attach(network, config["heads"])
        try:
            subsets.load(model, folder, config)
        except BaseException:
            overlay.taken_off(network)
            del vars(network)[subsets.ATTRIBUTE]
            for parameter, flag in flags.items():
                parameter.requires_grad_(flag)
            raise
        return model

    def merge(self, model: nn.Module) -> PreTrainedModel:
        from foretune.tuners.subset import model as subsets
        from foretune.tuners.subset import overlay

        subsets.subset_of(model)
        network = overlay.merged(cast("PreTrainedModel", model))
        del vars(network)[subsets.ATTRIBUTE]
        return network

    @contextmanager
    def disabled(self, model: nn.Module) -> Iterator[PreTrainedModel]:
        from foretune.tuners.subset import model as subsets

        with subsets.at_base(model):
            yield cast("PreTrainedModel", model)

    def optimizer_for(
        self, model: nn.Module, groups: Sequence[dict[str, Any]], schedule: Schedule | None = None
    ) -> Optimizer:
        from foretune.tuners.subset.model import dst_optimizer, freeable, require_clipped

        known: dict[str, Any] = {}
        if schedule is not None:
            require_clipped(model, schedule)
            known = {"steps": schedule.steps, "free": freeable(model, schedule)}
        kind, settings = dst_optimizer(model, **known)
        return kind(groups, **settings)

    def remarks(self, schedule: Schedule) -> tuple[str, ...]:
        if schedule.weight_decay in (0.0, Schedule.weight_decay):  # none, or nobody asked for it
            return ()
        return (
            f"Weight decay {schedule.weight_decay:g} (`--weight-decay`) is of the head alone: the subset has its own, "
            f"{self.weight_decay:g} (`--option weight_decay=...`).",
        )

    def clips(self, model: nn.Module, name: str) -> bool:
        from foretune.tuners.subset.model import subset_of

        subset = subset_of(model)
        return not (subset.rule.bounds_itself and name in {part.name for part in subset.parts})

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

    def training_bytes(self, model: nn.Module, schedule: Schedule) -> int:
        from foretune.tuners.subset import outlay
        from foretune.tuners.subset.model import freeable

        return outlay.training_bytes(model, freeable(model, schedule))

    def gradients_made(self, model: nn.Module) -> float:
        from foretune.tuners.subset import outlay

        return outlay.gradients_made(model)

    def require_stock(self, config: PreTrainedConfig) -> None:
        way = "`--to merged`" if self.more else "`--to supertuning`, which it can, or `--to merged`"
        raise ModelError(f"Stock PEFT cannot load what `{self.name}` saves. Use {way}.")

    def score(self) -> Distance:
        """By what a moving subset is chosen."""
        from foretune.tuners.subset.silo import absolute

        return absolute

    def reach(self) -> float | None:
        """By how many times the rate a weight may move in one step; None for no bound."""
        return None

    def beyond(self) -> dict[str, Any]:
        """What becomes of weights that leave the subset: keywords of ``subset.model.attach``."""
        return {}

    def displacement(self, model: nn.Module) -> Displacement | None:
        """Where the subset lies and how far its weights are from the base; None before one is chosen."""
        from foretune.tuners.subset.displacement import measure

        return measure(model)

    def after_step(self, model: nn.Module, step: int) -> None:
        from foretune.tuners.subset.model import subset_of

        subset = subset_of(model)
        subset.churn.keep(step, subset.silos)

    def between(self, model: nn.Module) -> Mapping[int, Mapping[str, float]]:
        from foretune.tuners.subset.model import subset_of

        return {step: {"churn": share} for step, share in subset_of(model).churn.told().items()}

    def monitor(self, model: nn.Module) -> Mapping[str, float]:
        """Of the last step the share of the subset that was exchanged, and the least displacement in it, as a mean over
        silos; where not all weights compete in every step, in what share of the steps so far they did (``dense``), and
        of how many silos it is certain that no other weight can enter (``certified``)."""
        from foretune.tuners.subset.model import subset_of

        subset = subset_of(model)
        silos = [silo for silo in subset.silos if silo.chosen]
        if not silos:
            return {}
        return {
            "churn": sum(float(silo.change.entered) for silo in silos) / sum(silo.k for silo in silos),
            "least_displacement": sum(silo.least() for silo in silos) / len(silos),
            **subset.movement.monitor(silos),
        }


@dataclass(frozen=True)
class DynamicSubset(SubsetTuner):
    """An ordinary optimizer step on all weights, after which in every silo all but the farthest from the pretrained
    model go back to it (Stahlberg et al. 2024, arXiv 2411.08610). The paper's settings are not published: each default
    is foretune's own.

    What is learned is a sparse delta; merging it is exact and costs nothing at inference. ``lr`` 3e-4: where PEFT's
    suite has its nearest relative, SHiRA; sparse runs bear about ten times the rate of full fine-tuning.

    Attributes:
        distance: ``abs``: |W - W0|; ``rel``: that over |W0| + rel_tau; or a name given to ``register_distance``.
        rel_tau: what keeps weights near zero from entering at every touch.
        preset: ``exact``: all weights compete in every step. ``fast``: in each of the first 10 % of the steps, then in
            every 20th, no more after half of them, nor where none can enter. The four fields below say it one by one.
        select_steps: share of the run, from its beginning, in which all weights compete in every step.
        refresh_every: afterwards they do in every so many steps; 0: never again.
        select_until: share of the run after which they do no more.
        freeze: ``certificate``: nor where no weight outside can reach the subset in one step.
        gather: in the other steps gradients are computed for the subset alone, which saves a third of the arithmetic.
            False computes all of them, as a control.
        bound: no weight moves by more than ``bound * lr`` in a step. Without it gradients that are seen rarely diverge,
            so where they are gathered it is 3 if not given.
        reset: weights that leave the subset go back to the base. False is a control, not the method: they stay where
            they are, and more than the budget ends up away from the base.
        dropped_state: of weights that leave, AdamW's moments are kept (``keep``), set to zero (``reset``), or kept for
            no weight outside the subset at all (``mask``).
    """

    distance: str = "abs"
    rel_tau: float = REL_TAU
    preset: Literal["exact", "fast"] = "exact"
    select_steps: float | None = None
    refresh_every: int | None = None
    select_until: float | None = None
    freeze: Literal["never", "certificate"] | None = None
    gather: bool = True
    bound: float | None = None
    reset: bool = True
    dropped_state: Literal["keep", "reset", "mask"] = "keep"

    name: ClassVar[str] = "dynamic-subset"
    space: ClassVar[Space] = Space(
        {
            "lr": Real(3e-5, 3e-3, log=True),
            "density": Real(1e-4, 1e-1, log=True),
            "distance": Choice(("abs", "rel")),
        }
    )
    paper_reference: ClassVar[PaperReference] = PaperReference("Stahlberg et al. 2024", "arXiv 2411.08610")

    def __post_init__(self) -> None:
        super().__post_init__()
        require(
            {
                "0 < select_steps <= 1": self.select_steps is None or 0 < self.select_steps <= 1,
                "refresh_every >= 0": self.refresh_every is None or self.refresh_every >= 0,
                "0 <= select_until <= 1": self.select_until is None or 0 <= self.select_until <= 1,
                "bound > 0": self.bound is None or self.bound > 0,
                "rel_tau > 0": self.rel_tau > 0,
            },
            vars(self),
        )
        if self.distance != "rel" and self.rel_tau != REL_TAU:
            raise UsageError(
                f"Only `distance=rel` reads rel_tau, but got rel_tau={self.rel_tau:g} with distance={self.distance}. "
                "Leave it out, or use `distance=rel`."
            )
        cadence = self.cadence
        if self._gathers and self.optimizer == "adamw":
            raise UsageError(
                "AdamW needs all gradients in every step, but they are not computed in every step here. Use "
                "`optimizer=adafactor` or `sgd`, or `gather=false`."
            )
        if cadence.certify and (self.distance != "abs" or self.weight_decay or not self.reset):
            raise UsageError(
                "That no weight can enter is certain for `distance=abs`, `weight_decay=0` and `reset=true`, but got "
                f"distance={self.distance}, weight_decay={self.weight_decay:g}, reset={self.reset}. Use `freeze=never`."
            )
        if self.dropped_state != "keep" and self.optimizer != "adamw":
            raise UsageError(
                f"Only AdamW has moments for every weight, but got dropped_state={self.dropped_state} with "
                f"optimizer={self.optimizer}. Leave it out."
            )

    @property
    def _gathers(self) -> bool:
        return self.gather and not self.cadence.exact

    @property
    def cadence(self) -> Cadence:
        """In which steps all weights compete."""
        given: dict[str, Any] = {
            "share": self.select_steps,
            "every": self.refresh_every,
            "until": self.select_until,
            "certify": None if self.freeze is None else self.freeze == "certificate",
        }
        return replace(PRESETS[self.preset], **{key: value for key, value in given.items() if value is not None})

    def movement(self) -> Movement:
        from foretune.tuners.subset.movement import Moving

        return Moving(self.cadence, self.gather)

    def score(self) -> Distance:
        from foretune.tuners.subset.silo import distance_named

        return partial(relative, tau=self.rel_tau) if self.distance == "rel" else distance_named(self.distance)

    def reach(self) -> float | None:
        return BOUND if self.bound is None and (self._gathers or self.cadence.certify) else self.bound

    def beyond(self) -> dict[str, Any]:
        return {"left": not self.reset, "dropped": self.dropped_state}


DynamicSubsetConfig = DynamicSubset
"""The same under the name that users of PEFT expect: ``get_peft_model(base, DynamicSubsetConfig(density=0.001))``."""


@dataclass(frozen=True)
class StaticSubset(SubsetTuner):
    """The control for a moving subset: the same budget, silos and rules, with a mask that is chosen once.

    ``random`` is a mask by chance; ``tensors`` takes whole tensors by chance as long as they fit into the budget (the
    placement control APET, arXiv 2306.02320; for silos of several tensors); ``gradient`` and ``fisher`` take the
    largest summed gradients or their squares over the first ``warmup`` steps (during which these weights stay);
    ``largest`` and ``smallest`` the pretrained weights of that size. ``lr`` as for the moving subset, so that a
    difference is the moving.

    Attributes:
        mask: by what the subset is chosen.
        warmup: steps whose gradients decide; for the other masks 1.
        seed: of what is chosen by chance.
    """

    mask: Literal["random", "tensors", "gradient", "fisher", "largest", "smallest"] = "random"
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
        require({"warmup >= 1": self.warmup >= 1}, vars(self))
        if self.mask == "tensors" and self.silo in ("tensor", "expert"):
            raise UsageError(
                f"Whole tensors are chosen among several, but with `silo={self.silo}` each has a budget of its own. "
                "Use `silo=global`."
            )
        if self.warmup > 1 and self.mask not in ("gradient", "fisher"):
            raise UsageError(
                f"A mask by {self.mask} looks at no gradients, but got warmup={self.warmup}. Leave it out."
            )

    def movement(self) -> Movement:
        from foretune.tuners.subset.movement import Static
        from foretune.tuners.subset.placed import Placed

        return Placed(self.seed) if self.mask == "tensors" else Static(self.mask, self.seed, self.warmup)
