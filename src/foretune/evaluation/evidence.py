"""LogME: how well frozen features would explain the labels, without training anything.

The log evidence per row of a Bayesian linear model ``y = F w + noise``, its two precisions at their fixed point (You
et al. 2021, arXiv 2102.11005), averaged over one indicator per class. The routine in general use has ``D/2 log
alpha`` where ``k/2 log alpha`` belongs, ``k = min(n, D)``, which is wrong whenever there are fewer rows than
features: with few labels, that is always. Here it is right: the value is that of the exact Gaussian marginal.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike

from foretune.errors import UsageError

ROUNDS = 100
CLOSE = 1e-3
GUARD, TINY = 1e-5, 1e-12


def logme(features: ArrayLike, targets: ArrayLike, kind: str = "classification") -> float:
    """The mean log evidence per row, in nats; more is better.

    Args:
        features: ``(n, D)``.
        targets: ``(n,)`` class indices, or numbers.
        kind: ``classification`` or ``regression``.

    Raises:
        UsageError: not as many targets as rows, no rows, or numbers that are none.

    >>> rng = np.random.default_rng(0)
    >>> features, noise = rng.normal(size=(16, 64)), rng.normal(size=16)
    >>> logme(features, features[:, 0] > 0) < 1
    True
    """
    table, values = np.asarray(features, np.float64), np.asarray(targets)
    if table.ndim != 2 or not len(table) or values.shape != (len(table),) or not np.isfinite(table).all():
        raise UsageError(
            f"LogME needs finite features (n, D) and n targets, n > 0, but got {table.shape} and {values.shape}."
        )
    if kind == "regression":
        columns = [values.astype(np.float64)]
    else:
        columns = [(values == label).astype(np.float64) for label in np.unique(values)]
    u, s, _ = np.linalg.svd(table, full_matrices=False)
    return float(np.mean([log_evidence(u.T @ y, s**2, float(y @ y), len(table))[0] / len(table) for y in columns]))


def log_evidence(z: np.ndarray, sigma: np.ndarray, squared: float, n: int) -> tuple[float, float, float]:
    """Log evidence, and the precisions of the weights and of the noise at which it was taken.

    Args:
        z: ``(k,)`` the target in the left singular basis of the features.
        sigma: ``(k,)`` their squared singular values.
        squared: the target's squared length.
        n: rows.
    """
    alpha = beta = 1.0
    left_over = max(squared - float(z @ z), 0.0)

    def fit(t: float) -> tuple[float, float, float]:
        gamma = float((sigma / (sigma + t)).sum())
        weights = float((sigma * z**2 / (sigma + t) ** 2).sum())
        residual = float((z**2 / (1 + sigma / t) ** 2).sum()) + left_over
        return gamma, weights, residual

    for _ in range(ROUNDS):
        t = alpha / beta
        gamma, weights, residual = fit(t)
        alpha, beta = max(gamma / (weights + GUARD), TINY), max((n - gamma) / (residual + GUARD), TINY)
        if abs(alpha / beta - t) <= CLOSE * t:
            break
    _, weights, residual = fit(alpha / beta)
    value = (
        len(z) / 2 * math.log(alpha)
        + n / 2 * math.log(beta)
        - float(np.log(alpha + beta * sigma).sum()) / 2
        - beta / 2 * residual
        - alpha / 2 * weights
        - n / 2 * math.log(2 * math.pi)
    )
    return value, alpha, beta
