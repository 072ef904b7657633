"""Part: a tensor of which some weights may be away from the base; beside the model it keeps nothing but those."""

from __future__ import annotations

from typing import ClassVar

import torch

from foretune.errors import UsageError


class Part:
    """One tensor of a silo and what of it is away from the base.

    Attributes:
        index: ``(k,)`` int64, ascending: the places that are away.
        shadow: ``(k,)`` fp32: their values, of which the model holds the rounding.
        old: ``(k,)`` in the model's type: the base's values there, bit for bit.
        moves: how often ``shadow`` was replaced; it is never written to.
        sharded: other rows of the tensor lie in other processes.
    """

    sharded: ClassVar[bool] = False

    def __init__(self, name: str, parameter: torch.Tensor) -> None:
        if not parameter.is_contiguous():
            raise UsageError(f"A tensor must be contiguous in memory to be tuned in part, but `{name}` is not.")
        self.name, self.parameter, self.moves = name, parameter, 0
        self.index = torch.empty(0, dtype=torch.int64)
        self.shadow = torch.empty(0, dtype=torch.float32)
        self.old = torch.empty(0, dtype=parameter.dtype)

    @property
    def shadow(self) -> torch.Tensor:
        """See above."""
        return self._shadow

    @shadow.setter
    def shadow(self, values: torch.Tensor) -> None:
        self._shadow, self.moves = values, self.moves + 1

    @property
    def weight(self) -> torch.Tensor:
        """The parameter, flat; it shares memory with the model, and what is kept beside it follows to its device.

        Raises:
            UsageError: the model was converted to another type, from which no rounding leads back to its base.
        """
        if self.parameter.dtype != self.old.dtype:
            raise UsageError(
                f"A model must keep the type it had at `attach`, but `{self.name}` was {self.old.dtype} and is now "
                f"{self.parameter.dtype}. Convert it before `attach` or after `merge`."
            )
        device = self.parameter.device
        if self.index.device != device:
            self.index, self.shadow, self.old = (kept.to(device) for kept in (self.index, self.shadow, self.old))
        return self._flat()

    def _flat(self) -> torch.Tensor:
        return self.parameter.detach().view(-1)

    def __len__(self) -> int:
        return self.parameter.numel()

    @property
    def total(self) -> int:
        """Weights of the whole tensor, of which ``len`` lie in this process."""
        return len(self)

    @property
    def grad(self) -> torch.Tensor:
        """The gradient of what lies here."""
        assert self.parameter.grad is not None
        return self.parameter.grad

    def mean(self, values: torch.Tensor, dim: int, keepdim: bool = False) -> torch.Tensor:
        """Over the dimension ``dim`` < 0 of ``values``, which begin with the tensor's first: in the whole tensor."""
        return values.mean(dim, keepdim=keepdim)

    def summed(self, value: torch.Tensor) -> torch.Tensor:
        """``value``, added up over all that holds a piece of the tensor."""
        return value

    def whole(self) -> torch.Tensor:
        """The weights of the whole tensor, flat."""
        return self.weight

    def gathered(self) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """``index``, ``shadow`` and ``old`` of the whole tensor."""
        return self.index, self.shadow, self.old

    def exact(self) -> torch.Tensor:
        """The tensor in fp32, flat, with the values of the subset unrounded: of an fp32 tensor its own memory."""
        weight = self.weight
        return weight if weight.dtype == torch.float32 else weight.float().scatter_(0, self.index, self.shadow)

    def base(self) -> torch.Tensor:
        """The base in fp32, flat; a copy."""
        return self.weight.to(torch.float32, copy=True).scatter_(0, self.index, self.old.float())

    def reset(self) -> None:
        """Put the base back."""
        self.weight.scatter_(0, self.index, self.old)

    def put(self, index: torch.Tensor, values: torch.Tensor) -> None:
        """Put the base back, then ``values`` (fp32) at ``index``, ascending."""
        self.reset()
        device = self.parameter.device
        self.index, self.shadow = index.to(device), values.to(device)
        self.old = self.weight.index_select(0, self.index)
        self.apply()

    def apply(self) -> None:
        """Write the subset's values, rounded to the model's type."""
        weight = self.weight
        weight.scatter_(0, self.index, self.shadow.to(weight.dtype))
