"""SubsetOptimizer: one step on all weights, the projection, and plain AdamW for what is trained whole (the head)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch.optim import Optimizer

from foretune.errors import UsageError
from foretune.tuners.subset.movement import Movement
from foretune.tuners.subset.rules import Proposal, Rule
from foretune.tuners.subset.silo import Part, Silo


class SubsetOptimizer(Optimizer):
    """An ``Optimizer`` over parameter groups, some parameters of which are parts of silos.

    Weight decay of the parts is the rule's, of the rest the group's. The state of a part is the rule's; its index and
    values live in the silo, whose gradients are freed as soon as it is done. Selection looks at the gradients as they
    are when ``step`` is called: averaged over processes, clipped.

    Attributes:
        silos, rule, movement: what shares a budget, how weights move, which of them may.
    """

    def __init__(
        self,
        params: Iterable[dict[str, Any]],
        silos: Sequence[Silo],
        rule: Rule,
        movement: Movement,
        lr: float = 3e-4,
    ) -> None:
        super().__init__(list(params), {"lr": lr, "weight_decay": 0.0})
        self.silos, self.rule, self.movement = tuple(silos), rule, movement
        self._spare: torch.Tensor | None = None
        self._group = {parameter: group for group in self.param_groups for parameter in group["params"]}
        parts = {part.parameter for silo in silos for part in silo.parts}
        if missing := [part.name for silo in silos for part in silo.parts if part.parameter not in self._group]:
            raise UsageError(f"Every tensor of a silo must be in a parameter group, but `{missing[0]}` is in none.")
        whole = [
            {**group, "params": rest}
            for group in self.param_groups
            if (rest := [p for p in group["params"] if p not in parts])
        ]
        self._whole = torch.optim.AdamW(whole, fused=True) if whole else None
        if self._whole is not None:
            self._whole.state = self.state
        self._source = [group for group in self.param_groups if any(p not in parts for p in group["params"])]

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """Move every weight, keep the farthest, put the others back.

        Raises:
            DivergedError: a displacement is not finite; weights of silos already done have moved.
        """
        if closure is not None:
            raise UsageError("A subset takes no closure: gradients are freed during the step. Call `backward` before.")
        for part in (part for silo in self.silos for part in silo.parts):
            if part.parameter.grad is None:
                raise UsageError(f"Every tensor of a silo needs a gradient, but `{part.name}` has none in this step.")
        for silo in self.silos:
            self._move(silo)
        if self._whole is not None:
            for group, source in zip(self._whole.param_groups, self._source, strict=True):
                group["lr"], group["weight_decay"] = source["lr"], source["weight_decay"]
            self._whole.step()

    def _move(self, silo: Silo) -> None:
        states = [self.state[part.parameter] for part in silo.parts]
        for part, state in zip(silo.parts, states, strict=True):
            self.movement.watch(part, state)
        self.movement.step(silo, states, [self._proposal(part) for part in silo.parts])
        for part in silo.parts:
            part.parameter.grad = None

    def _proposal(self, part: Part) -> Proposal:
        parameter = part.parameter
        assert parameter.grad is not None
        lr = self._group[parameter]["lr"]
        return self.rule.propose(part, parameter.grad, self.state[parameter], lr, self._spared(parameter))

    def _spared(self, parameter: torch.Tensor) -> torch.Tensor:
        """Memory of the parameter's shape, the same for all: no more than the largest of them takes."""
        if self._spare is None or self._spare.device != parameter.device:
            largest = max(len(part) for silo in self.silos for part in silo.parts)
            self._spare = torch.empty(largest, dtype=torch.float32, device=parameter.device)
        return self._spare[: parameter.numel()].view(parameter.shape)
