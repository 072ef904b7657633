"""GuardedOptimizer: the optimizer of a subset that can be switched, under a Trainer that can resume."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch

from foretune.errors import UsageError
from foretune.tuners.subset.optimizer import SubsetOptimizer

COUNTS = ("step", "missed", "competed", "mask_steps")
"""What of a part's state is counted on the host: read from a device, each would make every step wait for it."""


class GuardedOptimizer(SubsetOptimizer):
    """A ``SubsetOptimizer`` that refuses to step while the weights do not hold its subset, and whose saved state comes
    back bit for bit."""

    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """As ``SubsetOptimizer.step``.

        Raises:
            UsageError: another adapter is active, or the subset was merged or taken out; nothing has moved.
        """
        if not self.in_place():
            raise UsageError(
                "An optimizer steps for the subset that it was made for, but the weights hold another one, or none. "
                "Call `set_adapter` first, or make an optimizer with `dst_optimizer(model)` after it."
            )
        super().step(closure)

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Put back what ``state_dict()`` gave. torch's own would round fp32 moments to the type of a bf16 parameter,
        and replace the groups that the rates are read from.

        Raises:
            UsageError: it is of other parameter groups.
        """
        saved = state_dict["param_groups"]
        counts = [[len(group["params"]) for group in groups] for groups in (saved, self.param_groups)]
        if counts[0] != counts[1]:
            raise UsageError(
                f"A saved optimizer must have as many tensors per group as this one, but it has {counts[0]}, this one "
                f"{counts[1]}. Make the model with the options that it was saved with."
            )
        parts = {part.parameter for silo in self.silos for part in silo.parts}
        self.state.clear()
        for group, other in zip(self.param_groups, saved, strict=True):
            group.update({key: value for key, value in other.items() if key != "params"})
            for parameter, number in zip(group["params"], other["params"], strict=True):
                if number in state_dict["state"]:
                    self.state[parameter] = {
                        key: _placed(key, value, parameter, parameter in parts)
                        for key, value in state_dict["state"][number].items()
                    }


def _placed(key: str, value: Any, parameter: torch.Tensor, part: bool) -> Any:
    """A copy of ``value`` where it belongs: beside ``parameter``, but for what the program reads of a part."""
    if not isinstance(value, torch.Tensor):
        return value
    return value.to("cpu" if part and key in COUNTS else parameter.device, copy=True)
