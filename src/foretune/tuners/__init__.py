"""FLOOR 1: where the trainable numbers live. Names and spaces are here without torch; ``attach`` loads it."""

from __future__ import annotations

import json
from dataclasses import fields
from typing import TYPE_CHECKING

from foretune.errors import UsageError
from foretune.records import Part
from foretune.registry import did_you_mean, find
from foretune.tuners import _peft
from foretune.tuners.adaptive import Adaptive
from foretune.tuners.base import Ensemble, FixedPoints, Tuner
from foretune.tuners.dynamic_subset import DynamicSubset, StaticSubset
from foretune.tuners.frozen import Frozen
from foretune.tuners.heads import head_modules, modules_outside_backbone
from foretune.tuners.patch import BitFit, Full, Head
from foretune.tuners.prefix_subspace import PrefixSubspace, PrefixTuning
from foretune.tuners.prompt_tuning import PromptTuning
from foretune.tuners.stock import IA3, DoRA, LNTuning, LoRA, RsLoRA

if TYPE_CHECKING:
    from peft import PeftConfig
    from torch import nn
    from transformers import PreTrainedModel

TUNERS: dict[str, type[Tuner]] = {
    tuner.name: tuner
    for tuner in (
        *(Full, Adaptive, Head, BitFit, LNTuning),
        *(LoRA, RsLoRA, DoRA, IA3),
        *(PromptTuning, PrefixTuning, PrefixSubspace),
        *(DynamicSubset, StaticSubset),
        Frozen,
    )
}


def make(part: Part) -> Tuner:
    """The tuner that ``part`` names, with its options.

    Raises:
        UsageError: no such tuner, no such option, or a value the option does not take.

    >>> make(Part("lora", {"rank": 4})).rank
    4
    >>> make(Part("lora", {"rnak": 4}))
    Traceback (most recent call last):
    foretune.errors.UsageError: `rnak` is not an option of `lora`. Did you mean `rank`? Known: rank, alpha, dropout, ...
    """
    return validated(find("tuner", part.name, TUNERS), part)


def validated(kind: type[Tuner], part: Part) -> Tuner:
    """The tuner of class ``kind`` with the options of ``part``; one that was made by hand has not been looked at.

    Raises:
        UsageError: no such option, or a value the option does not take.
    """
    from pydantic import TypeAdapter, ValidationError

    known = [field.name for field in fields(kind)]
    for option in part.options:
        if option not in known:
            listed = f"Known: {', '.join(known)}." if known else "It has none."
            raise UsageError(f"`{option}` is not an option of `{part.name}`.{did_you_mean(option, known)} {listed}")
    try:
        return TypeAdapter(kind).validate_json(json.dumps(dict(part.options)), strict=True)
    except ValidationError as error:
        first = error.errors()[0]
        if "error" in first.get("ctx", {}):
            raise UsageError(str(first["ctx"]["error"])) from error
        where = ".".join(str(place) for place in first["loc"])
        raise UsageError(f"`{where}` of `{part.name}`: {first['msg']}, but got {first['input']!r}.") from error
    except TypeError as error:
        raise UsageError(f"The options of `{part.name}` must be plain numbers and text: {error}.") from error


def get_peft_model(base: PreTrainedModel, tuner: Tuner | str | PeftConfig, adapter_name: str = "default") -> nn.Module:
    """The model to train, for ``transformers.Trainer`` or a loop of your own.

    Everything beside the backbone of a classification network is trained and saved too, so that no fresh head is lost.

    Args:
        base: a transformers model; it is changed in place.
        tuner: a tuner, its name, or a configuration of PEFT's own, which is passed on unchanged.
        adapter_name: PEFT's name for the weights; methods without PEFT format know only ``default``.

    Raises:
        UsageError: no such tuner.
        ModelError: the tuner does not serve this architecture.
    """
    if isinstance(tuner, str):
        tuner = make(Part(tuner))
    if isinstance(tuner, Tuner):
        return tuner.peft_model(base, modules_outside_backbone(base), adapter_name)
    import peft

    from foretune.tuners.prefix.config import PrefixSubspaceConfig
    from foretune.tuners.prefix.model import attach

    if isinstance(tuner, PrefixSubspaceConfig):
        return attach(base, tuner, head_modules(base, modules_outside_backbone(base)), adapter_name, "prefix-subspace")
    if isinstance(tuner, peft.PeftConfig):
        return _peft.plain_wrap(base, tuner, adapter_name)
    raise UsageError(f"Expected a tuner, its name or a PEFT configuration, but got {type(tuner).__name__}.")


__all__ = [
    "IA3",
    "TUNERS",
    "Adaptive",
    "BitFit",
    "DoRA",
    "DynamicSubset",
    "Ensemble",
    "FixedPoints",
    "Frozen",
    "Full",
    "Head",
    "LNTuning",
    "LoRA",
    "PrefixSubspace",
    "PrefixTuning",
    "PromptTuning",
    "RsLoRA",
    "StaticSubset",
    "Tuner",
    "get_peft_model",
    "make",
]
