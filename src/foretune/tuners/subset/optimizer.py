"""SubsetOptimizer: one step on all weights, the projection, and plain AdamW for what is trained whole (the head)."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer
from torch.utils.hooks import RemovableHandle

from foretune.errors import UsageError
from foretune.tuners.subset.gather import Tap, tapped
from foretune.tuners.subset.movement import Movement, Second
from foretune.tuners.subset.part import Part
from foretune.tuners.subset.processes import (
    EVERY,
    require_agreement,
    require_freeing,
    require_gathering_alone,
    require_in_place,
    require_uncompiled,
    require_unscaled,
)
from foretune.tuners.subset.rules import Proposal, Rule
from foretune.tuners.subset.silo import Silo

_LISTENERS: weakref.WeakKeyDictionary[Part, weakref.ref[SubsetOptimizer]] = weakref.WeakKeyDictionary()
"""Which optimizer was made last for a part: passes have hooks of that one alone. Beside the parts, which are copied and
sent with the model."""


class SubsetOptimizer(Optimizer):
    """An ``Optimizer`` over parameter groups, some parameters of which are parts of silos.

    Weight decay of the parts is the rule's, of the rest the group's. The state of a part is the rule's; its index and
    values live in the silo, whose gradients are freed as soon as it is done. Selection looks at the gradients as they
    are when ``step`` is called: averaged over processes, clipped. With ``free`` it looks at each as soon as the
    backward pass has made it, and frees it: never more than the largest tensor's lives.

    Attributes:
        silos, rule, movement: what shares a budget, how weights move, which of them may.
        in_place: whether the weights hold this subset; where not, passes are another's and are left alone.
        taps: by name of the part, where gradients of the subset alone can be had.
    """

    def __init__(
        self,
        params: Iterable[dict[str, Any]],
        silos: Sequence[Silo],
        rule: Rule,
        movement: Movement,
        lr: float = 3e-4,
        *,
        network: nn.Module | None = None,
        steps: int | None = None,
        free: bool = False,
        dropped: str = "keep",
        in_place: Callable[[], bool] = lambda: True,
    ) -> None:
        """Args:
            network: holds the parts; needed where not all gradients are looked at in every step.
            steps: of the whole run, where the movement depends on it.
            free: look at gradients in the backward pass, and free them there.
            dropped: what becomes of a rule's moments of weights that leave the subset: ``keep``, ``reset`` (zero) or
                ``mask`` (no weight outside the subset has any).
            in_place: see above. Hooks of an earlier optimizer for the same parts go, and it steps no more.

        Raises:
            UsageError: a part is in no group, silos of several tensors are to be looked at one by one, or several
                processes would not choose the same subset.
        """
        if network is not None:
            require_in_place(network, [part for silo in silos for part in silo.parts])
        super().__init__(list(params), {"lr": lr, "weight_decay": 0.0})
        self.silos, self.rule, self.movement, self.steps, self.dropped = tuple(silos), rule, movement, steps, dropped
        self.in_place, self._replaced = in_place, False
        self._hooks: list[RemovableHandle] = []
        self._spare: torch.Tensor | None = None
        self._judged: dict[str, Second] = {}
        self._steps = 0
        self._group = {parameter: group for group in self.param_groups for parameter in group["params"]}
        parts = {part.parameter for silo in silos for part in silo.parts}
        if missing := [part.name for silo in silos for part in silo.parts if part.parameter not in self._group]:
            raise UsageError(f"Every tensor of a silo must be in a parameter group, but `{missing[0]}` is in none.")
        self._whole, self._source = self._others(parts)
        self.taps: dict[str, Tap] = {}
        if not movement.steady:
            if network is None or steps is None:
                raise UsageError(
                    "Where not all weights compete in every step, the number of steps must be known. Give it: "
                    "`dst_optimizer(model, steps=1000)`."
                )
            if movement.gathers:
                require_gathering_alone()
                self._listen(network)
        if free:
            require_freeing([part for silo in silos for part in silo.parts])
            self._free()
        self._replace()
        if free or self.taps:
            self._step_supports_amp_scaling = True  # a GradScaler then leaves its mark, see `require_unscaled`

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """Move every weight, keep the farthest, put the others back. A silo without gradients stays as it is, as in
        torch's optimizers: a batch need not reach every expert.

        Raises:
            DivergedError: a displacement is not finite; weights of other silos may have moved.
            UsageError: the step is compiled, gradients are scaled or missing in part of a silo, a later optimizer looks
                at the passes of this one's subset, or processes hold different subsets.
        """
        self._require_own_passes()
        require_uncompiled()
        require_unscaled(self)
        if closure is not None:
            raise UsageError("A subset takes no closure: gradients are freed during the step. Call `backward` before.")
        reached = {silo.name: self._reached(silo) for silo in self.silos}
        for silo in self.silos:
            if not reached[silo.name]:
                silo.change = replace(silo.change, entered=0)
                continue
            if silo.name not in self._judged:
                self._judge(silo)
            self._forget(silo, self._judged.pop(silo.name)())
            if not self.movement.steady:
                self._count(silo)
        self._ask()
        if self._whole is not None:
            for group, source in zip(self._whole.param_groups, self._source, strict=True):
                group["lr"], group["weight_decay"] = source["lr"], source["weight_decay"]
            self._whole.step()
        if self._steps % EVERY == 0:
            require_agreement([part for silo in self.silos for part in silo.parts], self._steps + 1)
        self._steps += 1

    def aim(self) -> None:
        """Decide, before a forward pass, of which silos all gradients are needed in it. What it says depends on weights
        and states alone, so it may be asked any number of times in one step. Of a pass with another subset in place:
        of none."""
        here = self.in_place()
        for silo in self.silos:
            follows = here and self._follows(silo)
            for part in silo.parts:
                if part.name in self.taps:
                    self.taps[part.name].wanted = follows

    def _ask(self) -> None:
        """Ask the devices, once for all silos on them, what within a step would have made the program wait for each:
        whether it was finite, and how near to the base the subsets lie, if that is needed.

        Raises:
            DivergedError: see ``step``.
        """
        asked = [silo for silo in self.silos if silo.finite is not None]
        if spoiled := [silo for silo, fine in zip(asked, _numbers([s.finite for s in asked]), strict=True) if not fine]:
            raise spoiled[0].diverged()
        if self.movement.certifies:
            for silo, least in zip(asked, _numbers([silo.nearest() for silo in asked]), strict=True):
                silo.remember(least)
                silo.largest()

    def _reached(self, silo: Silo) -> bool:
        """Whether there are gradients of ``silo``.

        Raises:
            UsageError: of some of its tensors alone, which would take the places of the others.
        """
        if silo.name in self._judged:
            return True
        without = [part for part in silo.parts if part.parameter.grad is None and self._tapped(part) is None]
        if without and len(without) < len(silo.parts):
            raise UsageError(
                f"Tensors that share a budget all need a gradient, or none of them, but of {len(silo.parts)} in "
                f"`{silo.name}` {len(without)} have none in this step, such as `{without[0].name}`. Use `silo=tensor`, "
                "where what a batch does not reach stays as it is."
            )
        return not without

    def _follows(self, silo: Silo) -> bool:
        first = silo.parts[0].parameter
        step = int(self.state[first].get("step", 0)) + 1
        reach = None if self.rule.bound is None else self.rule.bound * self._group[first]["lr"]
        return self.movement.follows(silo, step, self.steps or step, reach)

    def _judge(self, silo: Silo) -> None:
        states = [self.state[part.parameter] for part in silo.parts]
        follows = self._follows(silo)
        if not self.movement.steady:
            states[0]["competed"] = states[0].get("competed", torch.zeros(())) + (not follows)
        if follows:
            gathers = self.movement.gathers
            hats = [self._followed(part) if gathers else self._proposal(part).own() for part in silo.parts]
            self._judged[silo.name] = lambda: silo.follow(hats)
        else:
            self._require_whole_gradients(silo)
            for part, state in zip(silo.parts, states, strict=True):
                self.movement.watch(part, state)
            self._judged[silo.name] = self.movement.judge(silo, states, [self._proposal(part) for part in silo.parts])
        for part in silo.parts:
            part.parameter.grad = None
            if part.name in self.taps:
                self.taps[part.name].grad = None

    def _require_whole_gradients(self, silo: Silo) -> None:
        for part in silo.parts:
            if part.parameter.grad is None:
                raise UsageError(
                    f"In this step all weights of `{silo.name}` compete, but the forward pass was told to make the "
                    "gradients of its subset alone. Set the learning rate before the forward pass, not after it."
                )

    def _count(self, silo: Silo) -> None:
        """Say of the step just made in what share of all steps so far all weights competed."""
        state = self.state[silo.parts[0].parameter]
        silo.change = replace(silo.change, dense=float(state["competed"]) / float(state["step"]))

    def _followed(self, part: Part) -> torch.Tensor:
        """Where the subset of ``part`` goes by its own gradients."""
        parameter = part.parameter
        if (grad := self._tapped(part)) is None:
            grad = part.grad.view(-1).index_select(0, part.index)
        return self.rule.follow(part, grad, self.state[parameter], self._group[parameter]["lr"])

    def _tapped(self, part: Part) -> torch.Tensor | None:
        tap = self.taps.get(part.name)
        return None if tap is None else tap.grad

    def _proposal(self, part: Part) -> Proposal:
        grad, lr = part.grad, self._group[part.parameter]["lr"]
        return self.rule.propose(part, grad, self.state[part.parameter], lr, self._spared(grad))

    def _spared(self, grad: torch.Tensor) -> torch.Tensor:
        """Memory of the gradient's size, the same for all: no more than the largest of them takes."""
        if self._spare is None or self._spare.device != grad.device:
            largest = max(len(part) for silo in self.silos for part in silo.parts)
            self._spare = torch.empty(largest, dtype=torch.float32, device=grad.device)
        return self._spare[: grad.numel()]

    def _forget(self, silo: Silo, gone: Sequence[torch.Tensor]) -> None:
        """Do with the moments of weights that are not in the subset what ``dropped`` says."""
        if self.dropped == "keep":
            return
        for part, places in zip(silo.parts, gone, strict=False):
            for name in self.rule.per_weight:
                moment = self.state[part.parameter][name].view(-1)
                kept = moment.index_select(0, part.index)
                cleared = moment.index_fill_(0, places, 0.0) if self.dropped == "reset" else moment.zero_()
                cleared.scatter_(0, part.index, kept)

    def _others(self, parts: set[torch.Tensor]) -> tuple[Optimizer | None, list[dict[str, Any]]]:
        """AdamW over what is in no silo, and the groups that its rates are taken from."""
        source = [group for group in self.param_groups if any(p not in parts for p in group["params"])]
        groups = [{**group, "params": [p for p in group["params"] if p not in parts]} for group in source]
        whole = torch.optim.AdamW(groups, fused=True) if groups else None
        if whole is not None:
            whole.state = self.state
        return whole, source

    def _listen(self, network: nn.Module) -> None:
        """Aim before every forward pass of ``network``; all hooks go when this optimizer does."""
        self.taps, self._hooks = tapped(network, [part for silo in self.silos for part in silo.parts])
        me = weakref.ref(self)

        def aim(*_: Any) -> None:
            optimizer = me()
            if optimizer is not None and (torch.is_grad_enabled() or not optimizer.in_place()):
                optimizer.aim()

        self._hooks.append(network.register_forward_pre_hook(aim))

    def _free(self) -> None:
        """Judge every tensor as soon as the backward pass has made its gradient."""
        me = weakref.ref(self)
        for silo in self.silos:
            if len(silo.parts) > 1:
                raise UsageError(
                    f"Gradients can be freed one by one where every silo is one tensor, but `{silo.name}` holds "
                    f"{len(silo.parts)}. Use `silo=tensor`."
                )

            def judge(parameter: torch.Tensor, silo: Silo = silo) -> None:
                if (optimizer := me()) is None or not optimizer.in_place():
                    return
                if silo.name in optimizer._judged:
                    raise UsageError(
                        "Gradients that are freed in the backward pass cannot be accumulated, but there was a second "
                        "pass before `step`. Use `free=False`, or one pass per step."
                    )
                with torch.no_grad():
                    optimizer._judge(silo)

            self._hooks.append(silo.parts[0].parameter.register_post_accumulate_grad_hook(judge))

    def _replace(self) -> None:
        """Be the one optimizer whose hooks look at passes of these parts; hooks go when it does.

        Two would each take the gradients that the other waits for, and a Trainer's earlier one may still be alive.
        """
        for handle in self._hooks:
            weakref.finalize(self, handle.remove)
        for part in (part for silo in self.silos for part in silo.parts):
            earlier = _LISTENERS[part]() if part in _LISTENERS else None
            if earlier is not None and (earlier._hooks or self._hooks):
                earlier._leave()
            _LISTENERS[part] = weakref.ref(self)

    def _leave(self) -> None:
        for handle in self._hooks:
            handle.remove()
        self._replaced = True

    def _require_own_passes(self) -> None:
        if self._replaced:
            raise UsageError(
                "One optimizer at a time looks at the passes of a subset, but another was made for this one after it. "
                "Step that one, or make this one again."
            )


def _numbers(values: Sequence[torch.Tensor | None]) -> list[float]:
    """Tensors without sizes as numbers, of each device in one transfer."""
    found: dict[int, float] = {}
    by_device: dict[torch.device, dict[int, torch.Tensor]] = {}
    for i, value in enumerate(values):
        assert value is not None
        by_device.setdefault(value.device, {})[i] = value
    for own in by_device.values():
        found |= dict(zip(own, torch.stack(list(own.values())).tolist(), strict=True))
    return [found[i] for i in range(len(values))]
