"""Cadence: in which steps of a run all weights compete for the subset."""

from __future__ import annotations

import math
from dataclasses import dataclass

BOUND = 3.0
"""By how many times the rate a weight may move in a step where gradients are not seen in every one: a step of Adafactor
has a root mean square of at most 1, so this cuts off what lies far out."""


@dataclass(frozen=True)
class Cadence:
    """When all weights compete.

    Attributes:
        share: of the run, from its beginning, in which they do in every step.
        every: afterwards they do in every so many steps; 0: never again.
        until: share of the run after which they do no more.
        certify: nor where no weight outside the subset can reach it.

    >>> fast = PRESETS["fast"]
    >>> [step for step in range(1, 201) if fast.competes(step, 200)][18:]
    [19, 20, 40, 60, 80, 100]
    """

    share: float = 1.0
    every: int = 1
    until: float = 1.0
    certify: bool = False

    @property
    def exact(self) -> bool:
        """They do in every step, whatever the gradients."""
        return (self.share >= 1 or (self.every == 1 and self.until >= 1)) and not self.certify

    def competes(self, step: int, steps: int) -> bool:
        """Whether they do in ``step`` of ``steps``, counted from 1."""
        first = math.ceil(self.share * steps)
        if step <= first:
            return True
        return self.every > 0 and step <= self.until * steps and (step - first) % self.every == 0


PRESETS = {"exact": Cadence(), "fast": Cadence(0.1, 20, 0.5, certify=True)}
