"""Stage: what training on unlabelled texts before the task took and did, beside the record of the run that follows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from foretune.records.cost import Cost
from foretune.records.plain import built


@dataclass(frozen=True)
class Stage:
    """What happened before a run; its cost is no part of the run's own.

    Attributes:
        digest: identity of the stage's config, ``RunConfig.pretraining``.
        texts, held_out: texts that were trained on, and those on which the loss was measured.
        left_out: texts that were not used because they repeat an evaluation row of the task for which the stage ran.
        steps: optimizer steps done.
        loss_before, loss_after: nats per predicted token of the held-out texts.
        fresh: modules that the checkpoint did not hold and that started at random.
        cost: of the stage, whenever it ran.
        reused: the weights were there from an earlier run of the same stage; nothing was computed.
        warnings: what a reader must know, one sentence each.
    """

    digest: str
    texts: int
    held_out: int
    left_out: int
    steps: int
    loss_before: float
    loss_after: float
    fresh: tuple[str, ...] = ()
    cost: Cost = field(default_factory=Cost)
    reused: bool = False
    warnings: tuple[str, ...] = ()

    def sentences(self) -> tuple[str, ...]:
        """What a reader should know of it.

        >>> Stage("d1", 900, 100, 3, 200, 3.5, 3.25, cost=Cost(train_seconds=12.0)).sentences()[0]
        'Before the task the model was trained on 900 unlabelled texts for 200 steps, in 12.0 s.'
        """
        again = ", of an earlier run of the same stage" if self.reused else ""
        said = [
            f"Before the task the model was trained on {self.texts:,} unlabelled texts for {self.steps:,} steps, "
            f"in {self.cost.seconds:.1f} s{again}.",
            f"On {self.held_out:,} held-out texts its loss was {self.loss_before:.3f} nats per predicted token before "
            f"and {self.loss_after:.3f} after.",
        ]
        if self.fresh:
            said.append(
                f"The checkpoint holds no language-model head: `{', '.join(self.fresh)}` started at random in the "
                "stage, and the loss before it is that of a random head."
            )
        return tuple(said)

    @classmethod
    def from_json(cls, plain: Mapping[str, Any]) -> Stage:
        """The inverse of ``dataclasses.asdict``; None for a number is NaN."""
        made: Stage = built(cls, plain)
        return made
