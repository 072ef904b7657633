"""PrefixModel: a ``peft.PeftModel`` whose prefix is a simplex of prefixes.

PEFT hands a prefix over through the cache, which fails for half of the encoders and under activation checkpointing.
Here the base network itself carries the prefix in its attention, so the ``PeftModel`` around it only has to hold, save
and load. What it saves is PEFT's own format with the midpoint in it, and the vertices beside that.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from peft import PeftModel
from torch import nn

from foretune.errors import ModelError, UsageError
from foretune.tuners import _peft
from foretune.tuners.heads import keep_float32
from foretune.tuners.limits import table_positions
from foretune.tuners.prefix.attention import Shift, Slot, Unserved, connect, open_sites, position_modules
from foretune.tuners.prefix.config import PrefixSubspaceConfig
from foretune.tuners.prefix.mixture import Law, Mixture
from foretune.tuners.prefix.passes import Passes, batch_rows, probe_inputs, require_reach
from foretune.tuners.prefix.simplex import Prefix, SimplexLinear, diversity
from foretune.tuners.prefix.start import head_start, prefix_start, projection

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class PrefixModel(PeftModel):
    """A network with a prefix, or a simplex of prefixes, in every attention. From ``foretune.get_peft_model``.

    In training every pass draws new weights; in evaluation a pass is computed at the midpoint unless a block says
    otherwise. Generation keeps one point for the whole text, and beams share their prompt's.

    Attributes:
        mixture: the state of the simplex.
    """

    _sampling: tuple[int, torch.Generator] | None = None

    def __init__(
        self, model: PreTrainedModel, peft_config: PrefixSubspaceConfig, adapter_name: str = "default"
    ) -> None:
        probe = probe_inputs(model)
        sites = open_sites(model, probe)
        heads, width = sites[0].heads, sites[0].width
        peft_config.num_layers, peft_config.num_attention_heads = len(sites), heads
        peft_config.token_dim, peft_config.num_transformer_submodules = heads * width, 1
        peft_config.inference_mode = False
        shifted = position_modules(model) if peft_config.position_mode == "shift" else []
        table = table_positions(model)
        start = prefix_start(model, peft_config, sites)
        model.requires_grad_(False)
        with _peft.without_own_warnings():
            super().__init__(model, peft_config, adapter_name)

        length = peft_config.num_virtual_tokens
        prefix = Prefix(start, (len(sites), heads, width), projection(peft_config)).to(model.device)
        self.prompt_encoder = nn.ModuleDict({adapter_name: prefix})
        trained = _peft.trained_heads(self)
        keep_float32(trained)
        linears = [m for head in trained for m in head.modules() if type(m) is nn.Linear]
        mixed_heads = linears if peft_config.head_subspace and peft_config.n_vertices > 1 else []
        law = Law(
            n=peft_config.n_vertices,
            layers=len(sites),
            heads=len(mixed_heads),
            observation=peft_config.per == "observation",
            layerwise=peft_config.layerwise,
            kv_shared=peft_config.kv_shared,
        )
        self.mixture = Mixture(prefix, law, peft_config.prefix_dropout, peft_config.seed)
        for slot, linear in enumerate(mixed_heads):
            simplex = SimplexLinear(head_start(model, linear, peft_config.n_vertices), self.mixture, slot)
            _peft.replace_module(self, linear, simplex)
        for layer, site in enumerate(sites):
            connect(site, Slot(self.mixture, layer, length))
        for module in shifted:
            module.register_forward_pre_hook(Shift(self.mixture, length), with_kwargs=True)
        passes = Passes(self.mixture, peft_config, table)
        model.register_forward_pre_hook(passes.before, with_kwargs=True)
        model.register_forward_hook(passes.after, always_call=True)
        require_reach(self, probe)

    @property
    def config_of_prefix(self) -> PrefixSubspaceConfig:
        """The active adapter's configuration."""
        config = self.active_peft_config
        assert isinstance(config, PrefixSubspaceConfig)
        return config

    @property
    def vertices(self) -> torch.Tensor:
        """The vertices, ``(n, P, L * 2 * d)``: each is laid out as one plain prefix of PEFT."""
        return self.mixture.prefix.points

    @property
    def penalty(self) -> torch.Tensor | None:
        """What the diversity term adds to a loss; None without one."""
        beta = self.config_of_prefix.beta
        return beta * diversity(self.vertices) if beta and self.mixture.law.n > 1 else None

    def at(self, alpha: Any) -> AbstractContextManager[None]:
        """Inside the block every pass is computed at ``alpha``.

        Args:
            alpha: weights, rows of which sum to 1: ``(rows, slots, n)``, or without the first or the first two sizes
                for the same everywhere. ``model.mixture.law.slots`` counts the layers and the linear layers of the
                head. Or the name of a point: ``"midpoint"``, ``"vertex:2"``.

        Raises:
            UsageError: another shape, or weights that are negative or do not sum to 1.
        """
        return self.mixture.at(self.mixture.law.point(alpha))

    @contextmanager
    def sampled(self, samples: int, seed: int = 0) -> Iterator[None]:
        """Inside the block every text is computed by ``samples`` members of the simplex.

        Outputs have ``samples`` times the rows, member after member: ``logits.view(samples, rows, -1)``.
        """
        if samples < 1:
            raise UsageError(f"`samples >= 1` must hold, but got {samples}.")
        before = self._sampling
        self._sampling = samples, torch.Generator().manual_seed(seed)
        try:
            yield
        finally:
            self._sampling = before

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """The base network's forward pass, at the point that applies; the diversity term is part of its loss."""
        with self._members(args, kwargs) as (args, kwargs):
            output = super().forward(*args, **kwargs)
        if self.training and kwargs.get("labels") is not None and (penalty := self.penalty) is not None:
            if isinstance(output, tuple):
                return output[0] + penalty, *output[1:]
            output.loss = output.loss + penalty
        return output

    def generate(self, *args: Any, **kwargs: Any) -> Any:
        """The base network's ``generate``, at one point for the whole text."""
        with self._members(args, kwargs) as (args, kwargs):
            if self.mixture.fixed:
                return super().generate(*args, **kwargs)
            with self.mixture.at(None):
                return super().generate(*args, **kwargs)

    @contextmanager
    def _members(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Iterator[tuple[Any, Any]]:
        """The arguments repeated for every member, at fresh weights, inside ``sampled``; as they are otherwise."""
        if self._sampling is None:
            yield args, kwargs
            return
        samples, generator = self._sampling
        rows = batch_rows(args, kwargs)

        def repeated(value: Any) -> Any:
            if isinstance(value, torch.Tensor) and value.dim() and len(value) == rows:
                return value.repeat(samples, *(1,) * (value.dim() - 1))
            return value

        with self.mixture.at(self.mixture.law.draw(samples * rows, generator)):
            yield tuple(map(repeated, args)), {key: repeated(value) for key, value in kwargs.items()}

    @contextmanager
    def disable_adapter(self) -> Iterator[None]:
        """Inside the block the model computes what the base computed, its own head included."""
        before = self.mixture.enabled
        self.mixture.enabled, self._adapters_disabled = False, True
        try:
            with _peft.heads_disabled(self):
                yield
        finally:
            self.mixture.enabled = before
            self._adapters_disabled = not before

    def collapse(self, where: Any = "midpoint") -> PrefixModel:
        """Become one point of the simplex: afterwards this is plain prefix tuning with an ordinary head.

        Args:
            where: ``"midpoint"``, ``"vertex:2"``, or weights ``(n,)`` or ``(slots, n)``.
        """
        law, prefix, config = self.mixture.law, self.mixture.prefix, self.config_of_prefix
        alpha = self.mixture.law.point(where)
        if alpha is not None and len(alpha) > 1:
            raise UsageError(f"A model collapses to one point, but got weights for {len(alpha)} rows.")
        with torch.no_grad():
            point = self.mixture.prepare(alpha)
            flat = torch.stack(point.layers).permute(2, 4, 0, 1, 3, 5).reshape(1, config.num_virtual_tokens, -1)
        prefix.settle(flat)
        for module in [m for m in self.modules() if isinstance(m, SimplexLinear)]:
            weights = None if alpha is None else alpha[0, law.prefix_slots + module.slot]
            _peft.replace_module(self, module, module.at(weights))
        config.n_vertices, config.init, config.init_text = 1, "normal", ()
        config.prefix_projection = False
        self.mixture.law = Law(n=1, layers=law.layers)
        return self

    def save_pretrained(self, save_directory: str | Path, **kwargs: Any) -> None:
        """Write a folder that stock PEFT loads as the midpoint and ``PrefixModel.from_pretrained`` as the simplex.

        Keyword arguments of PEFT's own (``state_dict``, ``safe_serialization``, ...) are accepted and not needed.
        """
        _peft.save(self, Path(save_directory), self._vertices_to_save())

    @classmethod
    def from_pretrained(
        cls, model: PreTrainedModel, model_id: str | Path, adapter_name: str = "default", **kwargs: Any
    ) -> PrefixModel:
        """The simplex (or plain prefix) in the folder ``model_id``, on a fresh ``model``; it samples and trains on.

        Keyword arguments of PEFT's own (``is_trainable``, ...) are accepted and not needed.

        Raises:
            ModelError: the folder is of another type, or its shapes are not those of ``model``.
        """
        return restore(model, Path(model_id), "prefix-subspace", adapter_name)

    def add_adapter(self, adapter_name: str, *args: Any, **kwargs: Any) -> None:
        """PEFT calls it for the adapter that the model is made with.

        Raises:
            UsageError: for any other: a network carries one prefix.
        """
        if self.peft_config:
            raise UsageError(self._one_only(adapter_name))
        super().add_adapter(adapter_name, *args, **kwargs)

    def load_adapter(self, model_id: Any, adapter_name: str, **kwargs: Any) -> Any:
        """Bring back what ``save_pretrained`` wrote, vertices and head, into this model (Trainer's best-model path).

        Raises:
            UsageError: another adapter name: a network carries one prefix.
            ModelError: the folder is of another type, shape or position mode.
        """
        if adapter_name != self.active_adapter:
            raise UsageError(self._one_only(adapter_name))
        saved, own = PrefixSubspaceConfig.read(Path(model_id)).position_mode, self.config_of_prefix.position_mode
        if saved != own:
            raise ModelError(f'`{model_id}` was trained with position_mode="{saved}", but this model has "{own}".')
        return _peft.load(self, Path(model_id), self._vertices_to_save())

    def _one_only(self, name: str) -> str:
        return (
            f"A network carries one prefix, here named `{self.active_adapter}`, but got `{name}`. "
            "Load the checkpoint again for another."
        )

    def get_prompt_embedding_to_save(self, adapter_name: str) -> torch.Tensor:
        """PEFT's name for it: the midpoint, ``(P, L * 2 * d)``."""
        return self.mixture.prefix.midpoint.detach().cpu()

    def _vertices_to_save(self) -> dict[str, torch.Tensor]:
        return {"simplex_vertices": self.vertices.detach()} if self.mixture.law.n > 1 else {}

    def _setup_prompt_encoder(self, adapter_name: str) -> None:
        """PEFT's hook for making its encoder: ours is made once the network has been looked at."""
        self.prompt_encoder = nn.ModuleDict()


def attach(
    network: PreTrainedModel, config: PrefixSubspaceConfig, heads: Sequence[str], adapter_name: str, tuner: str
) -> PrefixModel:
    """``PrefixModel`` on ``network`` with ``heads`` trained beside it.

    Raises:
        ModelError: the architecture is not served. The message names it and ``tuner``.
    """
    _peft.require_tested()
    _peft.require_bare(network)
    kind = type(network).__name__
    config.task_type = _peft.task_type(network)
    if config.task_type is None:
        raise ModelError(
            f"`{tuner}` serves classification and text generation, but got {kind}. Use `lora` for this class."
        )
    pooler = [n for n, _ in network.named_modules() if n.endswith(".pooler")] if config.train_pooler else []
    config.base_model_name_or_path = None
    config.modules_to_save = [*heads, *(name for name in pooler if name not in heads)] or None
    try:
        return PrefixModel(network, config, adapter_name)
    except Unserved as error:
        raise ModelError(f"`{tuner}` does not serve {kind}: {error}") from error


def restore(network: PreTrainedModel, folder: Path, tuner: str, adapter_name: str = "default") -> PrefixModel:
    """The prefix or simplex in ``folder`` on a fresh ``network``; it samples and trains on.

    Raises:
        ModelError: the folder is of another type, or its shapes are not those of ``network``.
    """
    saved = PrefixSubspaceConfig.read(folder)
    config = copy.copy(saved)
    config.init, config.init_text, config.init_std, config.prefix_projection = "normal", (), None, False
    model = attach(network, config, config.modules_to_save or (), adapter_name, tuner)
    model.load_adapter(folder, adapter_name)
    config.init, config.init_text = saved.init, saved.init_text
    config.init_std, config.start_std = saved.init_std, saved.start_std
    return model.eval()
