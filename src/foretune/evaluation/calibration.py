"""From logits to probabilities, and the one number that makes them honest.

Temperature scaling (Guo et al. 2017) divides all logits by one T fitted on dev. It never changes which class is
predicted, so it is safe after model selection on the same dev set. ``T`` is searched on a logarithmic scale within
``BOUNDS``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import ArrayLike

from foretune.errors import UsageError
from foretune.evaluation.metrics import Floats, nll

BOUNDS = (0.05, 20.0)
"""The smallest and the largest temperature: beyond, probabilities are one-hot or uniform for practical purposes."""


def softmax(logits: ArrayLike, temperature: float = 1.0) -> Floats:
    """Probabilities (n, C) of logits (n, C) divided by ``temperature``; a logit of -inf (padding) has probability 0.

    >>> softmax([[0.0, 0.0, -np.inf]]).tolist()
    [[0.5, 0.5, 0.0]]
    """
    if not temperature > 0:
        raise UsageError(f"A temperature must be positive, but got {temperature}.")
    table = np.asarray(logits, dtype=np.float64)
    shifted = np.exp((table - table.max(axis=-1, keepdims=True)) / temperature)
    return shifted / shifted.sum(axis=-1, keepdims=True)


def fit_temperature(logits: ArrayLike, labels: ArrayLike) -> float:
    """The temperature with the least negative log-likelihood on (logits (n, C), labels (n,)); 1.0 if none beats it.

    When every label has the highest logit of its row, the likelihood grows without end as T goes to 0. Such a set
    (few-shot dev sets often are) holds no evidence on how sure to be, and 1.0 is returned: the probabilities stay as
    they were. ``temperature_note`` says so, and whether a bound of ``BOUNDS`` was met.

    >>> logits = [[4.0, 0.0]] * 4
    >>> round(fit_temperature(logits, [0, 0, 0, 1]), 2)  # 3 of 4 right: softmax(4 / T) = 3 / 4
    3.64
    >>> fit_temperature(logits, [0, 0, 0, 0])
    1.0
    """
    from scipy.optimize import minimize_scalar

    if _all_right(logits, labels):
        return 1.0

    def loss(log_temperature: float) -> float:
        return nll(labels, softmax(logits, float(np.exp(log_temperature))))

    low, high = np.log(BOUNDS)
    found = minimize_scalar(loss, bounds=(low, high), method="bounded", options={"xatol": 1e-6})
    best = min((loss(at), at) for at in (0.0, float(found.x), low, high))[1]
    return float(np.clip(np.exp(best), *BOUNDS))


def temperature_note(logits: ArrayLike, labels: ArrayLike) -> str | None:
    """What a reader must know of a temperature fitted on this set, in a sentence; None when nothing is special.

    >>> temperature_note([[4.0, 0.0]], [0])
    'On dev (1 example) no class scores above the true one, which says nothing of how sure to be: not calibrated.'
    """
    if _all_right(logits, labels):
        n = len(np.asarray(labels))
        return (
            f"On dev ({n} example{'s' * (n > 1)}) no class scores above the true one, which says nothing of how sure "
            "to be: not calibrated."
        )
    temperature = fit_temperature(logits, labels)
    for bound, word in zip(BOUNDS, ("lower", "upper"), strict=True):
        if np.isclose(temperature, bound, rtol=1e-3):
            return (
                f"The fitted temperature stands at its {word} bound of {bound:g}: the dev examples do not determine "
                "it, and the probabilities should not be trusted."
            )
    return None


def collapse(
    probabilities: ArrayLike, label_names: Sequence[str], target_names: Sequence[str], label_map: Mapping[str, str]
) -> Floats:
    """Sum class probabilities (n, C) onto another label set, e.g. three-way NLI onto the two labels of HANS.

    Args:
        label_names: what the C columns mean.
        target_names: what the columns of the result mean.
        label_map: label -> target label; a label that is missing maps to the target of its own name.

    Raises:
        UsageError: a label without a target; the message lists both sides.

    >>> nli, hans = ("entailment", "neutral", "contradiction"), ("entailment", "non-entailment")
    >>> to_hans = {"neutral": "non-entailment", "contradiction": "non-entailment"}
    >>> collapse([[0.5, 0.25, 0.25]], nli, hans, to_hans).tolist()
    [[0.5, 0.5]]
    """
    table = np.asarray(probabilities, dtype=np.float64)
    mapped = [label_map.get(name, name) for name in label_names]
    lost = [name for name, target in zip(label_names, mapped, strict=True) if target not in target_names]
    if lost or table.ndim != 2 or table.shape[1] != len(label_names):
        raise UsageError(
            f"Each of the {table.shape[-1]} columns needs a label, and each label a counterpart among "
            f"{', '.join(target_names)}; got the labels {', '.join(label_names)}, and no counterpart for "
            f"{', '.join(lost) or 'none of them missing'}. Name it in the label map."
        )
    onto = np.array([[target == name for name in target_names] for target in mapped], dtype=np.float64)
    return table @ onto


def _all_right(logits: ArrayLike, labels: ArrayLike) -> bool:
    table, truth = np.asarray(logits, dtype=np.float64), np.asarray(labels, dtype=np.int64)
    if table.ndim != 2 or truth.shape != table.shape[:1] or not len(truth):
        raise UsageError(
            f"Logits must be (examples, classes) and labels (examples,), at least one, but got the shapes "
            f"{table.shape} and {truth.shape}."
        )
    return bool(np.all(table[np.arange(len(truth)), truth] >= table.max(axis=1)))
