"""What a teacher said of each text: its most probable tokens and one bucket for all others, and how far a student is.

Askell et al. 2021 (arXiv 2112.00861, appendix on context distillation) keep the 50 most probable tokens and the rest as
a 51st category: a distribution again, and not logits that two models need not share.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from foretune.errors import UsageError

if TYPE_CHECKING:
    import pyarrow as pa
    import torch

    from foretune.objectives.pattern import PatternObjective

NONE = -1e4
"""The logarithm of no probability: finite, so that it may be multiplied by 0."""

SLACK = 1e-4
"""How far from 1 a sum of fp32 probabilities may be."""


@dataclass(frozen=True, eq=False)
class Taught:
    """Targets of a split, one row per example.

    Attributes:
        ids: int64 ``(n, k)``: the tokens that are told apart.
        shares: float32 ``(n, k + 1)``: their probabilities, and that of all other tokens; rows sum to 1.
        given: bool ``(n,)``: False where an example has a label and no teacher's answer.

    >>> Taught(np.array([[4, 2]]), np.array([[2.0, -1.0, 0.5]], np.float32), np.array([True]))
    Traceback (most recent call last):
        ...
    foretune.errors.UsageError: A teacher's targets must be probabilities: at least 0, each row with a sum of 1, but \
row 0 is [2.0, -1.0, 0.5]. Pass logits through a softmax first.
    """

    ids: np.ndarray
    shares: np.ndarray
    given: np.ndarray

    def __post_init__(self) -> None:
        wrong = (np.abs(self.shares.sum(1) - 1) > SLACK) | (self.shares < 0).any(1)
        wrong = np.flatnonzero((wrong | ~np.isfinite(self.shares).all(1)) & self.given)
        if len(wrong):
            raise UsageError(
                "A teacher's targets must be probabilities: at least 0, each row with a sum of 1, but "
                f"row {wrong[0]} is {self.shares[wrong[0]].round(4).tolist()}. Pass logits through a softmax first."
            )

    def and_labelled(self, count: int) -> Taught:
        """These, and behind them as many examples without a teacher's answer."""
        return Taught(
            np.concatenate([self.ids, np.zeros((count, self.ids.shape[1]), self.ids.dtype)]),
            np.concatenate([self.shares, np.zeros((count, self.shares.shape[1]), self.shares.dtype)]),
            np.concatenate([self.given, np.zeros(count, bool)]),
        )


@dataclass(frozen=True, eq=False)
class Lesson:
    """What a teacher is asked before training.

    Attributes:
        student: how the model reads a row without a context.
        teachers: how it reads one with demonstrations before it, each with its own.
        table: unlabelled texts, with ``tasks.schema.SPLIT_COLUMNS``; no row of any split.
        left_out: texts that are not among them because they repeat a row of a split.
        tau, top: see ``Distillation``.
    """

    student: PatternObjective
    teachers: tuple[PatternObjective, ...]
    table: pa.Table
    left_out: int
    tau: float
    top: int


def mixed(logits: Sequence[torch.Tensor], tau: float = 1.0) -> torch.Tensor:
    """The mean over teachers of the distributions ``softmax(logits / tau)``, ``(b, vocabulary)`` in fp32."""
    import torch

    return torch.stack([(each.float() / tau).softmax(-1) for each in logits]).mean(0)


def kept(probabilities: torch.Tensor, top: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The ``top`` most probable tokens ``(b, k)``, and their probabilities with the rest behind them ``(b, k + 1)``."""
    import torch

    shares, ids = probabilities.topk(min(top, probabilities.shape[-1]), dim=-1)
    rest = (1 - shares.sum(-1, keepdim=True)).clamp_min(0)
    rest = rest if top < probabilities.shape[-1] else torch.zeros_like(rest)
    return ids, torch.cat([shares, rest], -1)


def divergence(logits: torch.Tensor, ids: torch.Tensor, shares: torch.Tensor, tau: float = 1.0) -> torch.Tensor:
    """``tau^2 KL(q || p)`` of each row ``(b,)`` over the k + 1 categories, in nats.

    Args:
        logits: of the student, ``(b, vocabulary)``; p is their softmax at ``tau``, its other tokens summed.
        ids, shares: q, see ``Taught``.

    The factor keeps the gradient's size where tau changes (Hinton et al. 2015, arXiv 1503.02531, section 2).
    """
    import torch

    log_p = (logits.float() / tau).log_softmax(-1)
    rest = log_p.scatter(-1, ids, NONE).logsumexp(-1)
    log_p = torch.cat([log_p.gather(-1, ids), rest[:, None]], -1)
    return tau**2 * (torch.xlogy(shares, shares) - shares * log_p).sum(-1)
