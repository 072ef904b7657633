"""Stated probability against the share that is right, as saved and as it was before the temperature."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from foretune.evaluation.intervals import wilson
from foretune.evaluation.metrics import ece, reliability
from foretune.report.predictions import Rows


@dataclass(frozen=True)
class Bin:
    """One bin that holds examples: borders, mean confidence, share of right answers with Wilson bounds, count."""

    start: float
    end: float
    confidence: float
    accuracy: float
    low: float
    high: float
    n: int


@dataclass(frozen=True)
class Calibration:
    """Bins and expected calibration error; those before the temperature are empty and None where none was fitted."""

    after: tuple[Bin, ...]
    before: tuple[Bin, ...]
    error_after: float
    error_before: float | None


def measure(rows: Rows, labels: Sequence[str], temperature: float | None) -> Calibration | None:
    """Judge the saved probabilities; None without them. Rows whose label is none of ``labels`` are left out.

    A temperature of 1 changes nothing and means that dev gave no ground for another.
    """
    table = rows.probabilities
    if table is None or table.shape[1] != len(labels):
        return None
    index = {label: i for i, label in enumerate(labels)}
    known = np.array([label in index for label in rows.label])
    if not known.any():
        return None
    truth = np.array([index[label] for label in rows.label if label in index])
    after = table[known]
    if temperature is None or temperature == 1.0:
        return Calibration(_bins(after, truth), (), ece(truth, after), None)
    before = uncalibrated(after, temperature)
    return Calibration(_bins(after, truth), _bins(before, truth), ece(truth, after), ece(truth, before))


def uncalibrated(probabilities: NDArray[np.float64], temperature: float) -> NDArray[np.float64]:
    """Undo a temperature: softmax(z / T) to the power of T is softmax(z) up to its sum. Shape (n, classes) both ways.

    >>> uncalibrated(np.array([[0.8, 0.2]]), 2.0).round(3).tolist()
    [[0.941, 0.059]]
    """
    largest = probabilities.max(axis=1, keepdims=True)
    raised = (probabilities / largest) ** temperature
    undone: NDArray[np.float64] = raised / raised.sum(axis=1, keepdims=True)
    return undone


def _bins(probabilities: NDArray[np.float64], truth: NDArray[np.int64]) -> tuple[Bin, ...]:
    found = reliability(probabilities, truth)
    bins = []
    for i, n in enumerate(found.counts.tolist()):
        if n:
            confidence, accuracy = float(found.confidence[i]), float(found.accuracy[i])
            low, high = wilson(round(accuracy * n), n)
            bins.append(Bin(float(found.edges[i]), float(found.edges[i + 1]), confidence, accuracy, low, high, n))
    return tuple(bins)
