"""Prefix tuning and prefix subspaces: trained keys and values in front of every attention, one set or a simplex.

Both are one implementation (``tuners.prefix``): a plain prefix is a simplex with one vertex.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from foretune.errors import ModelError, UsageError, require
from foretune.records import Choice, Flatness, PaperReference, Real, Space
from foretune.tuners.base import Ensemble, FixedPoints, Tuner
from foretune.tuners.heads import head_modules
from foretune.tuners.prefix.rules import check

if TYPE_CHECKING:
    import numpy as np
    import torch
    from torch import nn
    from transformers import PreTrainedConfig, PreTrainedModel

    from foretune.tuners.prefix.model import PrefixModel


@dataclass(frozen=True)
class PrefixTuner(Tuner):
    """Common to both: wrap, save, restore. What is saved is PEFT's own prefix format."""

    length: int

    mergeable: ClassVar[bool] = False

    @abstractmethod
    def settings(self) -> dict[str, Any]:
        """Fields of ``PrefixSubspaceConfig`` beside the length."""

    def __post_init__(self) -> None:
        require({"length >= 1": self.length >= 1}, vars(self))

    def attach(self, network: PreTrainedModel, fresh: Sequence[str] = ()) -> PrefixModel:
        return self.peft_model(network, fresh, "default")

    def peft_model(self, network: PreTrainedModel, fresh: Sequence[str], adapter_name: str) -> PrefixModel:
        from foretune.tuners.prefix.config import PrefixSubspaceConfig
        from foretune.tuners.prefix.model import attach

        config = PrefixSubspaceConfig(num_virtual_tokens=self.length, **self.settings())
        return attach(network, config, head_modules(network, fresh), adapter_name, self.name)

    def save(self, model: nn.Module, folder: Path) -> None:
        as_prefix(model).save_pretrained(folder)

    def restore(self, network: PreTrainedModel, folder: Path) -> PrefixModel:
        from foretune.tuners.prefix.model import restore

        return restore(network, folder, self.name)

    def merge(self, model: nn.Module) -> PreTrainedModel:
        raise ModelError(
            f"`{self.name}` has no merged form: its numbers are not changes of weights. "
            "Keep the adapter folder, which stock PEFT loads, or train with `lora` to merge."
        )

    @contextmanager
    def disabled(self, model: nn.Module) -> Iterator[PreTrainedModel]:
        prefixed = as_prefix(model)
        with prefixed.disable_adapter():
            yield prefixed.get_base_model()

    def virtual_tokens(self, model: nn.Module) -> int:
        config = as_prefix(model).config_of_prefix
        return int(config.num_virtual_tokens) if config.position_mode == "shift" else 0

    def require_stock(self, config: PreTrainedConfig) -> None:
        from foretune.tuners.prefix.stock import require_stock

        require_stock(self.name, self.settings().get("position_mode", "shift"), config)

    def flatness(self, model: nn.Module, score: Callable[[], Mapping[str, float]], **options: Any) -> Flatness | None:
        """See ``tuners.prefix.flatness``, whose options these are."""
        from foretune.tuners.prefix.flatness import flatness

        return flatness(as_prefix(model), score, **options)

    def after_step(self, model: nn.Module, step: int) -> None:
        if step == 1:
            from foretune.tuners.prefix.passes import require_gradients

            require_gradients(as_prefix(model))

    def decay(self, name: str, rate: float) -> float:
        """Vertices are not decayed: that would pull them to the zero prefix, which is not "no prefix"."""
        return 0.0 if is_vertices(name) else rate


@dataclass(frozen=True)
class PrefixTuning(PrefixTuner):
    """``length`` trained keys and values in front of every attention (Li and Liang 2021, arXiv 2101.00190;
    without reparametrisation, as Liu et al. 2022, arXiv 2110.07602). ``lr`` 5e-3: PEFT's suite, and the latter paper.

    Attributes:
        length: how many, in every layer.
        init: ``normal``: standard normal, PEFT's default. ``small``: standard deviation 0.02, near the zero start that
            PEFT's suite favours; exact zeros would give all virtual tokens the same gradient for ever.
        position_mode: ``shift``: the text starts at position ``length``, as in stock PEFT, which therefore computes the
            same. ``no_shift``: it starts at 0 and no position is lost.
    """

    length: int = 10
    init: Literal["normal", "small"] = "normal"
    position_mode: Literal["shift", "no_shift"] = "shift"

    name: ClassVar[str] = "prefix-tuning"
    space: ClassVar[Space] = Space(
        {
            "lr": Real(1e-3, 3e-2, log=True),
            "length": Choice((5, 10, 20)),
            "init": Choice(("normal", "small")),
        }
    )
    lr: ClassVar[float] = 5e-3

    def settings(self) -> dict[str, Any]:
        std = 1.0 if self.init == "normal" else 0.02
        return {"n_vertices": 1, "init_std": std, "position_mode": self.position_mode}


@dataclass(frozen=True)
class PrefixSubspace(PrefixTuner):
    """A simplex of prefixes, any point of which should be a good model (Falissard et al. 2023, arXiv 2310.15793).

    Training draws a point for every text and every layer; what is exported is the midpoint, an ordinary prefix. The
    dev set is judged by several members, so that a checkpoint is chosen by the region and not by one lucky point. The
    paper's settings are not published: each default is foretune's own. The options are those of
    ``PrefixSubspaceConfig`` and:

    Attributes:
        length: virtual tokens, in every layer.
        dev_samples: members that judge every dev text; None is 10 for a head, and the midpoint alone where text is
            written, for that costs a generation each.
        dev_pool: how they choose the checkpoint: by the metric over all pairs of member and text (``pooled``), or by
            the ``mean`` of the members' metrics. Only for accuracy are the two the same; the curve has both.
        dev_seed: of their weights, which are the same at every evaluation.
        predict: ``midpoint`` or ``ensemble``: who answers in the end.
        predict_samples: members of the ensemble.
        predict_average: of their ``probabilities`` or of their ``logits``.
    """

    length: int = 10
    n_vertices: int = 3
    init: Literal["normal", "text"] = "normal"
    init_text: tuple[str, ...] = ()
    init_std: float | None = None
    init_scale: Literal["none", "hold_rms"] = "none"
    prefix_projection: bool = False
    prefix_dropout: float = 0.0
    alpha: Literal["uniform"] = "uniform"
    per: Literal["observation", "batch"] = "observation"
    layerwise: bool = True
    kv_shared: bool = True
    beta: float = 0.0
    head_subspace: bool = True
    train_pooler: bool = False
    position_mode: Literal["shift", "no_shift"] = "shift"
    weight_decay_vertices: float = 0.0
    dev_samples: int | None = None
    dev_pool: Literal["pooled", "mean"] = "pooled"
    dev_seed: int = 0
    predict: Literal["midpoint", "ensemble"] = "midpoint"
    predict_samples: int = 10
    predict_average: Literal["probabilities", "logits"] = "probabilities"

    name: ClassVar[str] = "prefix-subspace"
    space: ClassVar[Space] = Space(
        {
            "lr": Real(1e-3, 1e-2, log=True),
            "length": Choice((5, 10, 20)),
            "n_vertices": Choice((3, 6)),
            "beta": Choice((0.0, 1.0)),
        }
    )
    lr: ClassVar[float] = 5e-3
    collapsible: ClassVar[bool] = True
    paper_reference: ClassVar[PaperReference] = PaperReference("Falissard et al. 2023", "arXiv 2310.15793")

    def __post_init__(self) -> None:
        super().__post_init__()
        check(self.settings())
        require(
            {
                "dev_samples >= 1": self.dev_samples is None or self.dev_samples >= 1,
                "predict_samples >= 1": self.predict_samples >= 1,
                "weight_decay_vertices >= 0": self.weight_decay_vertices >= 0,
            },
            vars(self),
        )
        if self.predict == "ensemble" and self.n_vertices == 1:
            raise UsageError(
                'predict="ensemble" takes members of a simplex, but got n_vertices=1, which is one prefix. '
                'Use predict="midpoint", or `n_vertices >= 2`.'
            )

    def settings(self) -> dict[str, Any]:
        of_the_loop = ("length", "weight_decay_vertices", "dev_", "predict")
        return {name: value for name, value in asdict(self).items() if not name.startswith(of_the_loop)}

    def decay(self, name: str, rate: float) -> float:
        """Of the vertices ``weight_decay_vertices``, of the head the schedule's, but for its biases as ever."""
        if is_vertices(name):
            return self.weight_decay_vertices
        return 0.0 if name.endswith(".simplex_bias") else rate

    def before_pass(self, model: nn.Module, seed: int, sizes: np.ndarray) -> None:
        mixture = as_prefix(model).mixture
        mixture.seed(seed)
        mixture.sizes = tuple(int(size) for size in sizes)

    def penalty(self, model: nn.Module) -> torch.Tensor | None:
        return as_prefix(model).penalty

    def ensemble(self, model: nn.Module, size: int, samples: int) -> Ensemble | None:
        mixture = as_prefix(model).mixture
        if mixture.law.n == 1:
            return None
        from foretune.tuners.prefix.members import SimplexEnsemble

        return SimplexEnsemble(mixture, size, samples, self.dev_seed)

    def dev_members(self, model: nn.Module) -> int:
        if self.dev_samples is not None:
            return self.dev_samples
        return 1 if as_prefix(model).get_base_model().can_generate() else 10

    def collapse(self, model: nn.Module, point: str) -> PrefixModel:
        """See ``Tuner.collapse``: ``midpoint``, or ``vertex:0`` and so on."""
        return as_prefix(model).collapse(point)

    @property
    def averaging(self) -> str:
        return self.predict_average

    @property
    def dev_pooling(self) -> str:
        return self.dev_pool

    def answering_members(self, model: nn.Module) -> int:
        return self.predict_samples if self.predict == "ensemble" else 1

    def landscape(self, model: nn.Module) -> FixedPoints | None:
        """Vertices, midpoint and what lies between; None where text is written, for each costs a generation of dev."""
        prefixed = as_prefix(model)
        if prefixed.mixture.law.n == 1 or prefixed.get_base_model().can_generate():
            return None
        from foretune.tuners.prefix.members import SimplexPoints

        return SimplexPoints(prefixed)

    def monitor(self, model: nn.Module) -> Mapping[str, float]:
        """Mean cosine and distance over pairs of vertices, and those of the closest pair; a diversity term if any."""
        import torch

        from foretune.tuners.prefix.simplex import pairwise_cosines, pairwise_distances

        prefixed = as_prefix(model)
        if prefixed.mixture.law.n == 1:
            return {}
        with torch.no_grad():
            vertices = prefixed.vertices
            cosines, distances, penalty = pairwise_cosines(vertices), pairwise_distances(vertices), prefixed.penalty
        return {
            "vertex_cosine": float(cosines.mean()),
            "vertex_cosine_max": float(cosines.max()),
            "vertex_distance": float(distances.mean()),
            "vertex_distance_min": float(distances.min()),
            **({} if penalty is None else {"diversity_term": float(penalty)}),
        }


def is_vertices(name: str) -> bool:
    """Whether a parameter of this name is the prefix (its vertices or their projection), not the head."""
    return name.startswith("prompt_encoder.")


def as_prefix(model: nn.Module) -> PrefixModel:
    """``model`` as the ``PrefixModel`` that ``attach`` returned, out of any wrapper of a launcher."""
    from foretune.tuners.prefix.model import PrefixModel

    if not isinstance(model, PrefixModel):
        raise UsageError(f"Expected the model that `attach` returned, but got {type(model).__name__}. Unwrap it first.")
    return model
