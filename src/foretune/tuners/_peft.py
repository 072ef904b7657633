"""The only file that touches PEFT's internals: its versions, its wrappers, its state dicts.

Saving goes round ``PeftModel.save_pretrained``: that asks the Hub for the base model's configuration (peft#1452) and
writes a model card with local paths. The folder written here has the same two files with the same keys.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from enum import Enum
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from foretune.errors import ModelError, UsageError

if TYPE_CHECKING:
    import torch
    from peft import PeftConfig, PeftModel
    from torch import nn
    from transformers import PreTrainedModel

TESTED = ">=0.21,<0.22"
CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"

TASK_TYPES = {
    "ForSequenceClassification": "SEQ_CLS",
    "ForTokenClassification": "TOKEN_CLS",
    "ForCausalLM": "CAUSAL_LM",
    "LMHeadModel": "CAUSAL_LM",
    "ForConditionalGeneration": "SEQ_2_SEQ_LM",
}


def require_tested(installed: str | None = None) -> None:
    """Raise ``UsageError`` unless the installed peft is one that foretune was tested with.

    >>> require_tested("0.21.2")
    """
    from packaging.specifiers import SpecifierSet

    found = installed or version("peft")
    if found not in SpecifierSet(TESTED):
        raise UsageError(
            f"foretune was tested with peft {TESTED}, but peft {found} is installed. Run: pip install 'peft{TESTED}'."
        )


def register(name: str, config: type[PeftConfig], tuner: type[nn.Module], face: type[PeftModel]) -> None:
    """Make ``PeftModel.from_pretrained`` and ``peft.get_peft_model`` know the method ``name``: ``config`` reads its
    file, and ``face`` is what they return, around a ``tuner``. Doing it again changes nothing.

    Only PEFT's own tables are filled. PEFT finds the class to return by a task type, so a configuration of this method
    carries ``name`` as that.

    Raises:
        UsageError: a peft that foretune was not tested with, or another library has taken the name.
    """
    import peft
    from peft.utils import register_peft_method

    require_tested()
    known = peft.PEFT_TYPE_TO_CONFIG_MAPPING.get(name)
    if known is config:
        return
    if known is not None:
        raise UsageError(
            f"PEFT's type `{name}` is that of `{known.__module__}` already. Import that library in another process."
        )
    if name not in peft.PeftType.__members__:
        _extend(peft.PeftType, name)
    register_peft_method(name=name.lower(), config_cls=config, model_cls=tuner)
    peft.MODEL_TYPE_TO_PEFT_MODEL_MAPPING[name] = face


def _extend(kind: type[Enum], name: str) -> None:
    """Add the member ``name`` to an enumeration of strings, as ``aenum.extend_enum`` would."""
    member = str.__new__(kind, name)  # type: ignore[type-var]
    member._name_, member._value_ = name, name
    type.__setattr__(kind, name, member)
    kind._member_names_.append(name)
    kind._member_map_[name] = kind._value2member_map_[name] = member


def task_type(network: PreTrainedModel) -> str | None:
    """PEFT's name for what ``network`` does; None for a class that PEFT has no face for."""
    name = type(network).__name__
    return next((task for ending, task in TASK_TYPES.items() if name.endswith(ending)), None)


def wrap(network: PreTrainedModel, config: PeftConfig, heads: Sequence[str], adapter_name: str) -> PeftModel:
    """``get_peft_model`` with the head named once and everything else frozen."""
    require_bare(network)
    network.requires_grad_(False)
    config.base_model_name_or_path = None
    config.modules_to_save = list(heads) or None
    model = plain_wrap(network, config, adapter_name)
    config.modules_to_save = list(heads) or None
    return model


def require_bare(network: PreTrainedModel) -> None:
    """Raise ``UsageError`` where ``network`` carries an adapter already."""
    import peft
    from peft.tuners.tuners_utils import BaseTunerLayer

    from foretune.tuners.prefix.attention import SLOT

    own = (BaseTunerLayer, peft.utils.AuxiliaryTrainingWrapper)
    if any(isinstance(module, own) or SLOT in vars(module) for module in network.modules()):
        raise UsageError("A network takes one tuner, but this one has an adapter already. Load the checkpoint again.")


def plain_wrap(network: PreTrainedModel, config: PeftConfig, adapter_name: str) -> PeftModel:
    """PEFT's own ``get_peft_model``, without two warnings about PEFT itself.

    It reads the old name of ``is_activation_checkpointing``, and LN-tuning asks every norm for a width that norms lack.
    """
    import peft

    with without_own_warnings():
        return peft.get_peft_model(network, config, adapter_name=adapter_name)


@contextmanager
def without_own_warnings() -> Iterator[None]:
    """Inside the block PEFT does not warn of what it does itself."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="`is_gradient_checkpointing` is deprecated", category=FutureWarning)
        warnings.filterwarnings("ignore", message="Unsupported layer type", category=UserWarning)
        yield


def trained_heads(model: PeftModel) -> list[nn.Module]:
    """The trainable copies of the head that PEFT made."""
    from peft.utils import ModulesToSaveWrapper

    wrappers = [m for m in model.modules() if isinstance(m, ModulesToSaveWrapper)]
    return [copy for wrapper in wrappers for copy in wrapper.modules_to_save.values()]


def as_peft(model: nn.Module) -> PeftModel:
    """``model`` as the ``PeftModel`` that ``attach`` returned, out of any wrapper of a launcher."""
    import peft

    if not isinstance(model, peft.PeftModel):
        raise UsageError(f"Expected the model that `attach` returned, but got {type(model).__name__}. Unwrap it first.")
    return model


def save(model: PeftModel, folder: Path, more: Mapping[str, torch.Tensor] | None = None) -> None:
    """Write ``adapter_config.json`` and ``adapter_model.safetensors``, with ``more`` tensors; equal weights give equal
    bytes."""
    from peft import get_peft_model_state_dict
    from safetensors.torch import save_file

    name = model.active_adapter
    tensors = get_peft_model_state_dict(model, adapter_name=name, save_embedding_layers=False) | dict(more or {})
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {key: value.detach().cpu().clone().contiguous() for key, value in sorted(tensors.items())}
    save_file(tensors, folder / WEIGHTS, metadata={"format": "pt"})
    config = model.peft_config[name]
    plain = {key: sorted(value) if isinstance(value, set) else value for key, value in config.to_dict().items()}
    plain["inference_mode"] = True
    if config.task_type is None:
        kind = type(model.get_base_model())
        plain["auto_mapping"] = {"base_model_class": kind.__name__, "parent_library": kind.__module__}
    (folder / CONFIG).write_text(json.dumps(plain, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def read_plain(folder: Path, expected: str) -> dict[str, Any]:
    """What ``adapter_config.json`` in ``folder`` says, which must be of PEFT type ``expected``."""
    path = folder / CONFIG
    try:
        plain: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        found = str(plain["peft_type"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ModelError(f"`{path}` is not a readable PEFT configuration. Name the folder of an adapter.") from error
    if found != expected:
        raise ModelError(
            f"`{path}` must be of type {expected}, but it is {found}. Restore it with the tuner that wrote it."
        )
    return plain


def read_config(folder: Path, expected: str) -> PeftConfig:
    """The configuration in ``folder`` as PEFT reads it; it must be of PEFT type ``expected``."""
    import peft

    read_plain(folder, expected)
    config = peft.PeftConfig.from_pretrained(str(folder))
    config.inference_mode = False
    return config


def load(model: PeftModel, folder: Path, more: Mapping[str, torch.Tensor] | None = None) -> None:
    """Put the weights in ``folder`` into ``model``, which was wrapped with the same configuration.

    Args:
        more: what ``save`` was given beside the adapter, for its shapes.
    """
    from peft import get_peft_model_state_dict, set_peft_model_state_dict
    from safetensors.torch import load_file

    path = folder / WEIGHTS
    if not path.is_file():
        raise ModelError(f"`{path}` is missing: only safetensors are read. Save the adapter again.")
    tensors = load_file(path)
    wanted = get_peft_model_state_dict(model, adapter_name=model.active_adapter, save_embedding_layers=False)
    wanted |= dict(more or {})
    shapes = {key: tuple(value.shape) for key, value in wanted.items()}
    found = {key: tuple(value.shape) for key, value in tensors.items()}
    if shapes != found:
        key = next(k for k in sorted({*shapes, *found}) if shapes.get(k) != found.get(k))
        raise ModelError(
            f"`{path}` does not fit this network: `{key}` is {found.get(key, 'absent')} there, "
            f"{shapes.get(key, 'absent')} here. Load the checkpoint the adapter was trained on, with as many labels."
        )
    set_peft_model_state_dict(model, tensors, adapter_name=model.active_adapter)


def is_disabled(model: PeftModel) -> bool:
    """Whether ``model`` is inside ``disabled``."""
    return bool(model._adapters_disabled)


@contextmanager
def disabled(model: PeftModel) -> Iterator[PreTrainedModel]:
    """PEFT's ``disable_adapter``, and in its place our own for prompt tuning.

    There PEFT's raises ``UnboundLocalError`` on a classifier and leaves the trained head in place.
    """
    network = model.get_base_model()
    if not model.active_peft_config.is_prompt_learning:
        with model.disable_adapter():
            yield network
        return
    methods = ("forward", "generate") if network.can_generate() else ("forward",)
    own = {name: vars(model)[name] for name in methods if name in vars(model)}
    try:
        model._adapters_disabled = True
        for name in methods:
            setattr(model, name, getattr(network, name))
        with heads_disabled(model):
            yield network
    finally:
        for name in methods:
            vars(model).pop(name)
        vars(model).update(own)
        model._adapters_disabled = False


@contextmanager
def heads_disabled(model: PeftModel) -> Iterator[None]:
    """Inside the block the network's own head answers, not the trained copy of it."""
    from peft.utils import AuxiliaryTrainingWrapper

    wrappers = [m for m in model.modules() if isinstance(m, AuxiliaryTrainingWrapper)]
    try:
        for wrapper in wrappers:
            wrapper.enable_adapters(False)
        yield
    finally:
        for wrapper in wrappers:
            wrapper.enable_adapters(True)


def replace_module(model: PeftModel, old: nn.Module, new: nn.Module) -> None:
    """Put ``new`` where ``old`` is."""
    for name, module in model.named_modules():
        if module is old:
            model.set_submodule(name, new)
            return


class WritingInputs:
    """Stands in for ``prepare_inputs_for_generation`` of a decoder with prompt tuning.

    PEFT's own drops the position ids, so that a text padded on the left is moved away from its prompt
    and what is written depends on the padding. Here positions count the tokens that the mask shows.
    """

    def __init__(self, model: PeftModel, limit: int | None, too_long: Callable[[int], str]) -> None:
        self.model, self.limit, self.too_long = model, limit, too_long

    def __call__(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Position ids are not supported")
            inputs: dict[str, Any] = type(self.model).prepare_inputs_for_generation(self.model, *args, **kwargs)
        embeds, mask, cache = (inputs.get(key) for key in ("inputs_embeds", "attention_mask", "past_key_values"))
        new = (inputs["input_ids"] if embeds is None else embeds).shape[1]
        total = new + (0 if cache is None else cache.get_seq_length())
        if self.limit is not None and total > self.limit:
            raise UsageError(self.too_long(total))
        if mask is not None:
            inputs["position_ids"] = (mask.long().cumsum(-1) - 1).clamp(min=0)[:, -new:]
        return inputs


def merge(model: PeftModel) -> PreTrainedModel:
    """The base network with the adapter folded in and no wrapper of PEFT left.

    The head is unwrapped here: PEFT leaves LN-tuning's in place and fails on IA3's when it has several layers.
    """
    from peft.utils import ModulesToSaveWrapper

    base = model.get_base_model()
    for path, module in list(base.named_modules()):
        if isinstance(module, ModulesToSaveWrapper):
            base.set_submodule(path, module.modules_to_save[model.active_adapter])
    network: PreTrainedModel = model.merge_and_unload(safe_merge=True)
    return network
