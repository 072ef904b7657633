"""Landscape: the dev score over the space that a method trained. Flatness: how scores fall around what answers."""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from dataclasses import dataclass


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


@dataclass(frozen=True)
class Flatness:
    """The scores of one model and of models around it.

    Attributes:
        rest: metric -> score of the model that answers.
        inside: the same for points of its space that were drawn at random; empty where it has one point.
        moved: size -> the same for draws of Gaussian noise with that standard deviation on its weights.
        reach: the size of noise that moves as far as the points in ``inside`` lie away; None without them.
        rms: root mean square of the weights at rest: what a size is to be compared with.

    >>> found = Flatness({"loss": 0.5}, ({"loss": 0.75}, {"loss": 1.25}), {0.1: ({"loss": 0.625},)}, 0.2, 1.0)
    >>> found.change("loss"), found.change("loss", 0.1)
    (0.5, 0.125)
    """

    rest: Mapping[str, float]
    inside: tuple[Mapping[str, float], ...]
    moved: Mapping[float, tuple[Mapping[str, float], ...]]
    reach: float | None
    rms: float

    def change(self, metric: str, size: float | None = None) -> float:
        """The mean score under noise of ``size`` (None: at the points inside) minus that at rest.

        Raises:
            KeyError: nothing was measured there.
        """
        around = self.inside if size is None else self.moved[size]
        if not around:
            raise KeyError(f"No point was drawn inside, for the model has one; `moved` has {sorted(self.moved)}.")
        return statistics.fmean(scores[metric] for scores in around) - self.rest[metric]
