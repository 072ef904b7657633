"""Forgetting: what a run did to the language model that was there before, as its loss on texts held apart."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Forgetting:
    """The loss of the base model and of the tuned one on the same texts; measuring it is no part of the run's cost.

    Attributes:
        texts, tokens: how many were read, and how many tokens of them were predicted.
        before, after: nats per predicted token, without what was learned and with it.
        seconds: that the two measurements took.

    >>> round(Forgetting(200, 3_900, before=3.25, after=3.5).rise, 6)
    0.25
    """

    texts: int
    tokens: int
    before: float
    after: float
    seconds: float = 0.0

    @property
    def rise(self) -> float:
        """What was lost, in nats per token; below zero where the loss fell."""
        return self.after - self.before

    def sentence(self) -> str:
        """What a reader should know of it.

        >>> Forgetting(200, 3_900, 3.25, 3.5).sentence()
        'On 200 held texts the language model loses 3.250 nats per token without what was learned and 3.500 with it.'
        """
        return (
            f"On {self.texts:,} held texts the language model loses {self.before:.3f} nats per token without what was "
            f"learned and {self.after:.3f} with it."
        )
