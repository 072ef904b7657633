"""Landscape: the dev score over the space that a method trained, at the weights that were kept."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Place:
    """One point of the space.

    Attributes:
        weights: one per corner; they sum to 1.
        score: in the landscape's metric; NaN where the outputs were not finite.
        nll: the mean negative log-likelihood; None where the task has no probabilities, or they were not
            finite.
    """

    weights: tuple[float, ...]
    score: float
    nll: float | None = None


@dataclass(frozen=True)
class Landscape:
    """The scores of one split at fixed points. The split chose the checkpoint: what is seen here claims nothing.

    Attributes:
        metric: the task's own.
        split: always ``dev``; the test split is not looked at.
        places: at least one, none twice; of a simplex every corner and the midpoint are among them.
        members: how many members, drawn at random, judged each example when the checkpoint was chosen.
        member_sd: standard deviation of their scores; None where only the exported model judged.

    >>> found = Landscape("accuracy", "dev", (Place((0.5, 0.5), 0.75), Place((0.0, 1.0), 0.5), Place((1.0, 0.0), 0.25)))
    >>> [place.score for place in found.corners], found.midpoint
    ([0.25, 0.5], Place(weights=(0.5, 0.5), score=0.75, nll=None))
    """

    metric: str
    split: str
    places: tuple[Place, ...]
    members: int = 1
    member_sd: float | None = None

    @property
    def n(self) -> int:
        """Corners of the space."""
        return len(self.places[0].weights)

    @property
    def corners(self) -> tuple[Place, ...]:
        """The places at one corner, in the order of the corners."""
        found = [place for place in self.places if max(place.weights) == 1]
        return tuple(sorted(found, key=lambda place: place.weights.index(1)))

    @property
    def midpoint(self) -> Place | None:
        """The place with equal weights; None where it was not measured."""
        return next((place for place in self.places if len(set(place.weights)) == 1), None)

    @classmethod
    def from_json(cls, plain: Mapping[str, Any]) -> Landscape:
        """The inverse of ``dataclasses.asdict`` after NaN became None."""
        nan = float("nan")
        places = tuple(
            Place(tuple(p["weights"]), nan if p["score"] is None else p["score"], p["nll"]) for p in plain["places"]
        )
        return cls(**{**plain, "places": places})
