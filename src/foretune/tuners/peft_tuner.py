"""PeftTuner: what all methods that PEFT implements have in common; each only says which configuration it wants."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from foretune.errors import ModelError
from foretune.tuners import _peft
from foretune.tuners.base import Tuner
from foretune.tuners.heads import head_modules, keep_float32

if TYPE_CHECKING:
    from peft import PeftConfig, PeftModel
    from torch import nn
    from transformers import PreTrainedModel


@dataclass(frozen=True)
class PeftTuner(Tuner):
    """A thin face on one of PEFT's configurations. What it saves is an ordinary PEFT folder.

    Attributes:
        peft_type: PEFT's own name of the method, by which a folder is recognised.
    """

    peft_type: ClassVar[str]

    @abstractmethod
    def peft_config(self, network: PreTrainedModel, fresh: Sequence[str] = ()) -> PeftConfig:
        """The configuration for this network, with its target modules written out.

        Raises:
            ModelError: the method has nothing to act on in this architecture.
        """

    def check(self, network: PreTrainedModel) -> None:
        """Raise ``ModelError`` where PEFT would fail, or train in silence something that does not work."""
        return None

    def attach(self, network: PreTrainedModel, fresh: Sequence[str] = ()) -> PeftModel:
        return self.peft_model(network, fresh, "default")

    def peft_model(self, network: PreTrainedModel, fresh: Sequence[str], adapter_name: str) -> PeftModel:
        _peft.require_tested()
        self.check(network)
        config = self.peft_config(network, fresh)
        return self._wrap(network, config, head_modules(network, fresh), adapter_name)

    def save(self, model: nn.Module, folder: Path) -> None:
        _peft.save(_peft.as_peft(model), folder)

    def restore(self, network: PreTrainedModel, folder: Path) -> PeftModel:
        _peft.require_tested()
        self.check(network)
        config = _peft.read_config(folder, self.peft_type)
        model = self._wrap(network, config, head_modules(network, config.modules_to_save or ()), "default")
        _peft.load(model, folder)
        return model

    def merge(self, model: nn.Module) -> PreTrainedModel:
        if not self.mergeable:
            raise ModelError(
                f"`{self.name}` has no merged form: its numbers are not changes of weights. "
                "Keep the adapter folder, which stock PEFT loads, or train with `lora` to merge."
            )
        return _peft.merge(_peft.as_peft(model))

    def disabled(self, model: nn.Module) -> AbstractContextManager[PreTrainedModel]:
        return _peft.disabled(_peft.as_peft(model))

    def _wrap(self, network: PreTrainedModel, config: PeftConfig, heads: Sequence[str], adapter: str) -> PeftModel:
        model = _peft.wrap(network, config, heads, adapter)
        keep_float32(_peft.trained_heads(model))
        return model
