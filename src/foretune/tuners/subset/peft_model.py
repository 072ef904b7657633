"""SubsetModel: a ``peft.PeftModel`` around a network of whose own weights a subset is tuned.

PEFT puts layers beside a network's own; here there are none, the weights themselves are changed and the base's bits
kept. So what PEFT does through its layers (save, load, switch, disable, merge) is answered by ``Adapters``. Importing
this module makes PEFT know the type, see ``_peft.register``.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from peft import PeftModel
from torch.nn.modules.module import _IncompatibleKeys

from foretune.errors import ModelError, UsageError
from foretune.tuners import _peft
from foretune.tuners.dynamic_subset import SubsetTuner
from foretune.tuners.heads import head_modules
from foretune.tuners.subset import cards, lora, stock
from foretune.tuners.subset import model as subsets
from foretune.tuners.subset.adapters import Adapters
from foretune.tuners.subset.config import TYPE, SubsetConfig
from foretune.tuners.subset.overlay import overlays, to_dense

if TYPE_CHECKING:
    from torch import nn
    from transformers import PreTrainedModel

FORMS = ("supertuning", "shira", "full", "lora")


class SubsetModel(PeftModel):
    """A network with a subset of its weights tuned, or several, one of them active. From ``foretune.get_peft_model``.

    Train it with ``dst_optimizer(model)``: another optimizer would move every weight. Switching, disabling and merging
    are exact swaps of the weights that are away from the base. Also as attributes, from ``Adapters``:
    ``merge_adapter``, ``unmerge_adapter``, ``merge_and_unload``, ``unload`` and ``add_weighted_adapter``.
    """

    base_model: Adapters
    _adapters_disabled: bool

    def __init__(
        self,
        model: PreTrainedModel,
        peft_config: SubsetConfig,
        adapter_name: str = "default",
        autocast_adapter_dtype: bool = True,
        low_cpu_mem_usage: bool = False,
    ) -> None:
        """``autocast_adapter_dtype`` and ``low_cpu_mem_usage`` are PEFT's and mean nothing here: a subset has no layers
        of its own, and its values are fp32."""
        _peft.require_bare(model)
        with _peft.without_own_warnings():
            super().__init__(model, peft_config, adapter_name)

    def add_adapter(self, adapter_name: str, peft_config: SubsetConfig | SubsetTuner, **unused: Any) -> None:
        """Add a subset that has learned nothing; ``set_adapter`` makes it the active one.

        Args:
            peft_config: a tuner's comes with the head of the active adapter.

        Raises:
            UsageError: the name is taken, or this is no configuration of a subset.
        """
        if isinstance(peft_config, SubsetTuner):
            peft_config = SubsetConfig.of(peft_config, self.peft_config[self.active_adapter].heads)
        if not isinstance(peft_config, SubsetConfig):
            raise UsageError(
                f"A network with a subset takes another subset, but got {type(peft_config).__name__}. Give a "
                "`DynamicSubsetConfig`, or load the checkpoint again."
            )
        self.base_model.add(adapter_name, peft_config)

    def set_adapter(self, adapter_name: str | Sequence[str], inference_mode: bool = False) -> None:
        """Put another adapter into the weights, in place of the one that is there: an exact swap.

        An optimizer goes on for the adapter that it was made for alone, and says so.

        Raises:
            UsageError: no such adapter, or several.
        """
        self.base_model.set_adapter(adapter_name, inference_mode)
        self.active_adapter = self.base_model.active_adapter

    def delete_adapter(self, adapter_name: str) -> None:
        """Forget an adapter; where it was active, the first of the others becomes so.

        Raises:
            UsageError: no such adapter, or the only one.
        """
        self.base_model.delete_adapter(adapter_name)
        self.active_adapter = self.base_model.active_adapter

    @contextmanager
    def disable_adapter(self) -> Iterator[None]:
        """Inside the block every weight is the base's, bit for bit, the head's included."""
        if self._adapters_disabled:
            yield
            return
        self.base_model.disable_adapter_layers()
        self._adapters_disabled = True
        try:
            yield
        finally:
            self.base_model.enable_adapter_layers()
            self._adapters_disabled = False

    def get_nb_trainable_parameters(self) -> tuple[int, int]:
        """Weights that the active adapter may move, its head included, and all: gradients flow to more of them."""
        with self.base_model.holding(self.active_adapter) as network:
            subset = subsets.subset_of(network)
        trained = subset.size + sum(value.numel() for value in subset.head_base.values())
        return trained, sum(parameter.numel() for parameter in self.parameters())

    def supports_lora_conversion(self, adapter_name: str = "default") -> bool:
        """Not by PEFT, which looks for its layers: ``export_to("lora", path)`` does it, and says what is lost."""
        return False

    def save_pretrained(
        self,
        save_directory: str | Path,
        safe_serialization: bool = True,
        selected_adapters: Sequence[str] | None = None,
        save_embedding_layers: str | bool = "auto",
        is_main_process: bool = True,
        **unused: Any,
    ) -> None:
        """Write the sparse deltas: ``default`` into the folder, others into folders of their names inside it, as PEFT
        does. The README.md there names the way to a format that needs no foretune.

        Args:
            selected_adapters: all, if not given.
            save_embedding_layers: PEFT's; embeddings are saved where they are tuned.
            is_main_process: other processes do nothing. Where tensors are sharded all must take part: leave it out.

        Raises:
            UsageError: no such adapter, or a pickle was asked for.
        """
        if not safe_serialization:
            raise UsageError("A subset is saved as safetensors alone. Leave `safe_serialization` out.")
        chosen = list(self.peft_config) if selected_adapters is None else list(selected_adapters)
        if unknown := [name for name in chosen if name not in self.peft_config]:
            raise UsageError(f"There is no adapter `{unknown[0]}`. Known: {', '.join(self.peft_config)}.")
        for name in chosen if is_main_process else ():
            folder = Path(save_directory) if name == "default" else Path(save_directory) / name
            with self.base_model.holding(name) as network:
                if subsets.save(network, folder, self.peft_config[name].settings):
                    cards.leave(folder, cards.native(type(network).__name__, subsets.subset_of(network).size))

    @classmethod
    def from_pretrained(
        cls,
        model: PreTrainedModel,
        model_id: str | Path,
        adapter_name: str = "default",
        is_trainable: bool = False,
        config: SubsetConfig | None = None,
        **kwargs: Any,
    ) -> SubsetModel:
        """The subset in the folder ``model_id`` on a fresh ``model``.

        Args:
            is_trainable: whether training goes on.
            kwargs: ``subfolder``; others of PEFT's own are accepted and not needed.

        Raises:
            ModelError: nothing readable is there, it is of another type, it was trained on another base, or it is not
                whole. ``model`` then has its own weights.
        """
        config = config or SubsetConfig.read(_folder(model_id, kwargs))
        config.inference_mode = not is_trainable
        made = cls(model, config, adapter_name)
        made.load_adapter(model_id, adapter_name, is_trainable, **kwargs)
        return made

    def load_adapter(
        self, model_id: str | Path, adapter_name: str, is_trainable: bool = False, **kwargs: Any
    ) -> _IncompatibleKeys:
        """Bring back what ``save_pretrained`` wrote, as a new adapter or into one of the same options (Trainer's way to
        resume and to the best model). Which one is active does not change.

        Raises:
            ModelError: see ``from_pretrained``, or an adapter of other options has the name. Nothing has changed then.
        """
        folder = _folder(model_id, kwargs)
        config = SubsetConfig.read(folder)
        wanted = {"tensors": config.tensors, "base_hash": config.base_hash}
        if adapter_name not in self.peft_config:
            config.inference_mode = not is_trainable
            self.add_adapter(adapter_name, config)
        own = self.peft_config[adapter_name]
        if own.tuner != config.tuner or own.heads != config.heads:
            raise ModelError(
                f"`{folder}` holds a subset of {config.tuner} with the head {config.heads}, but the adapter "
                f"`{adapter_name}` is {own.tuner} with {own.heads}. Load it under a name of its own."
            )
        try:
            with self.base_model.holding(adapter_name) as network:
                subsets.load(network, folder, wanted)
        except BaseException:
            if self.base_model.is_blank(adapter_name):
                self._forget(adapter_name)
            raise
        self.base_model.filled(adapter_name)
        if not is_trainable:
            self.eval()
        return _IncompatibleKeys([], [])

    def _forget(self, name: str) -> None:
        if len(self.peft_config) > 1:
            self.delete_adapter(name)
        else:
            self.base_model.unload()

    def export_to(
        self,
        form: str,
        path: str | Path,
        adapter_name: str | None = None,
        rank: int = 16,
        tolerance: float = 0.05,
        probe: Mapping[str, torch.Tensor] | None = None,
    ) -> stock.Fit | lora.LoraFit | None:
        """Write an adapter in a format that is loaded without foretune, with a README.md that says how.

        Args:
            form: ``supertuning`` and ``shira`` are PEFT's own sparse adapters; ``full`` is a whole transformers model
                and loses nothing; ``lora`` is the nearest of a low rank.
            path: a folder that is empty or not there.
            adapter_name: default: the active one.
            rank, tolerance: of ``lora``: its rank, and how much of the delta may be lost (relative Frobenius norm).
            probe: a batch; what changes of the outputs on it is measured for ``lora`` and written down.

        Returns:
            how well the format holds the subset; None for ``full``.

        Raises:
            UsageError: no such format or adapter, the folder holds something, or tensors are sharded.
            ModelError: the format cannot hold what was tuned, or ``lora`` loses more than ``tolerance``; nothing is
                written.
        """
        if form not in FORMS:
            raise UsageError(f"`form` must be one of {', '.join(FORMS)}, but got {form!r}.")
        folder = Path(path)
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise UsageError(f"`{folder}` holds something already. Give a folder that is empty or not there.")
        name = self.active_adapter if adapter_name is None else adapter_name
        if name not in self.peft_config:
            raise UsageError(f"There is no adapter `{name}`. Known: {', '.join(self.peft_config)}.")
        with self.base_model.holding(name) as network:
            subsets.whole_subset_of(network)
            kind = type(network).__name__
            if form == "full":
                with _stand_in(network) as twin:
                    to_dense(twin).save_pretrained(folder)
                cards.leave(folder, cards.stock(form, kind, "Every weight is the tuned one, bit for bit."))
                return None
            if overlays(network):
                raise ModelError(
                    f"`{form}` adds to weights, but this subset lies over ones that are quantised or left as they are "
                    "stored. Use `full`, which writes them out as they are read."
                )
            before = None if probe is None else _outputs(network, probe)
            fit: stock.Fit | lora.LoraFit
            with _stand_in(network) as twin:
                if form != "lora":
                    fit = stock.save(twin, folder, form)
                    said = stock.sentence(fit)
                else:
                    wrapped, fit = lora.convert(twin, rank, tolerance)
                    if before is not None and probe is not None:
                        fit = replace(fit, outputs=float((_outputs(wrapped, probe) - before).abs().max()))
                    _peft.save(wrapped, folder)
                    said = cards.loss(fit)
            cards.leave(folder, cards.stock(form, kind, said))
            return fit


@contextmanager
def _stand_in(network: PreTrainedModel) -> Iterator[PreTrainedModel]:
    """A copy to be taken apart and converted: its parameters are the network's own, which afterwards are as before.

    A true copy would need the memory of a second model.
    """
    parameters = list(network.parameters())
    flags = [parameter.requires_grad for parameter in parameters]
    try:
        with torch.random.fork_rng(devices=[]):
            yield copy.deepcopy(network, {id(parameter): parameter for parameter in parameters})
    finally:
        with torch.no_grad():
            for part in subsets.subset_of(network).parts:
                part.apply()
        for parameter, flag in zip(parameters, flags, strict=True):
            parameter.requires_grad_(flag)


def _outputs(model: nn.Module, probe: Mapping[str, torch.Tensor]) -> torch.Tensor:
    """The logits (of a model without a head: the last hidden states), fp32, in evaluation mode."""
    training = model.training
    model.eval()
    with torch.inference_mode():
        found = model(**probe)
    model.train(training)
    return (found["logits"] if "logits" in found else found["last_hidden_state"]).float()


def _folder(model_id: str | Path, options: Mapping[str, Any]) -> Path:
    return Path(model_id) / (options.get("subfolder") or "")


def attach(network: PreTrainedModel, tuner: SubsetTuner, fresh: Sequence[str], adapter_name: str) -> SubsetModel:
    """``SubsetModel`` on ``network`` with the modules ``fresh`` trained whole beside the subset."""
    return SubsetModel(network, SubsetConfig.of(tuner, head_modules(network, fresh)), adapter_name)


_peft.register(TYPE, SubsetConfig, Adapters, SubsetModel)
