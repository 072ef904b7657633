"""Nothing is trained: the null tuner. With demonstrations in the context it is in-context learning, without zero-shot.

It goes through the same loop with no step, so that what it answers is judged, recorded and priced as any method's is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from foretune.errors import ModelError
from foretune.records import Schedule, Space
from foretune.tuners.patch import PatchTuner

if TYPE_CHECKING:
    from torch import nn
    from torch.optim import Optimizer
    from transformers import PreTrainedModel


@dataclass(frozen=True)
class Frozen(PatchTuner):
    """The checkpoint as it is; it saves an empty patch. There is no rate: ``lr`` is 0, and a schedule has no steps.

    >>> Frozen().trains
    False
    """

    name: ClassVar[str] = "frozen"
    space: ClassVar[Space] = Space({})
    lr: ClassVar[float] = 0.0

    def chosen(self, network: PreTrainedModel, heads: Sequence[str]) -> set[str]:
        if heads:
            raise ModelError(
                f"`{self.name}` trains nothing, but {type(network).__name__} has a head that would stay random "
                f"({', '.join(heads)}). Use an objective that the language-model head answers, such as "
                "`--objective pattern`, or the tuner `head`."
            )
        return set()

    def optimizer_for(
        self, model: nn.Module, groups: Sequence[dict[str, Any]], schedule: Schedule | None = None
    ) -> Optimizer:
        """An optimizer of nothing, for torch makes none without a parameter."""
        import torch

        return torch.optim.SGD([torch.zeros(0)], lr=0.0)
