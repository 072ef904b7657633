"""Measures seconds by phase, memory and tokens; ``flops`` is an estimate and says which."""

from __future__ import annotations

import contextlib
import time
from collections import defaultdict
from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


class Stopwatch:
    """Seconds per phase. Phases may nest: the inner one stops the outer, so no second is counted twice.

    >>> watch = Stopwatch()
    >>> with watch("train"):
    ...     pass
    >>> watch.seconds["train"] >= 0
    True
    """

    def __init__(self, seconds: dict[str, float] | None = None) -> None:
        self.seconds: dict[str, float] = defaultdict(float, seconds or {})
        self._running: list[str] = []
        self._since = time.perf_counter()

    @contextlib.contextmanager
    def __call__(self, phase: str) -> Iterator[None]:
        self._mark()
        self._running.append(phase)
        try:
            yield
        finally:
            self._mark()
            self._running.pop()

    def _mark(self) -> None:
        now = time.perf_counter()
        if self._running:
            self.seconds[self._running[-1]] += now - self._since
        self._since = now


class PeakMemory:
    """Highest memory above the baseline at construction: device memory on CUDA, resident memory elsewhere.

    Resident memory is sampled at ``sample()`` (after each evaluation and at the end) and topped by the operating
    system's own high-water mark when that rose after the baseline, so a peak between samples is not missed.
    """

    def __init__(self, device: torch.device) -> None:
        self.cuda = device.type == "cuda"
        self.peak = 0
        if self.cuda:
            import torch

            torch.cuda.reset_peak_memory_stats(device)
            self.baseline = torch.cuda.memory_allocated(device)
        else:
            self.baseline = resident()
            self._mark = high_water()

    def sample(self) -> int:
        """Update and return the peak in bytes."""
        if self.cuda:
            import torch

            now = torch.cuda.max_memory_allocated()
        else:
            mark = high_water()
            now = max(resident(), mark if mark > self._mark else 0)
        self.peak = max(self.peak, now - self.baseline)
        return self.peak


def resident() -> int:
    """Resident memory of this process in bytes."""
    import psutil

    return int(psutil.Process().memory_info().rss)


def free_memory() -> int:
    """Memory that this machine can still give, in bytes."""
    import psutil

    return int(psutil.virtual_memory().available)


def high_water() -> int:
    """The operating system's high-water mark of resident memory in bytes; 0 where there is none (Windows)."""
    try:
        import resource
    except ImportError:
        return 0
    import sys

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return int(peak if sys.platform == "darwin" else peak * 1024)


def training_flops(parameters: int, gradients: float, tokens: int) -> float:
    """Floating-point operations of training on ``tokens`` tokens.

    2 N for the forward pass, 2 N for the gradient of the activations, 2 for each of the ``gradients``: weights whose
    own gradient a step computes (Kaplan et al. 2020, section 2.1: 6 N when everything trains). Embedding look-ups and
    attention scores are left out.

    >>> training_flops(100, 100, 10)
    6000.0
    """
    return float((4 * parameters + 2 * gradients) * tokens)


def memory_estimate(
    parameters: int, training: int, *, hidden: int, layers: int, heads: int, rows: int, length: int, outputs: int = 0
) -> int:
    """Bytes that training needs above the idle process, fp32.

    4 bytes per weight, those that ``training`` takes (``Tuner.training_bytes``), and the activations of Korthikanti et
    al. 2022 (arXiv 2205.05198, equation 1: 34 s b h + 5 a s^2 b bytes per layer in 16 bit), doubled for fp32. A
    language model's logits, their log-softmax and its gradient take 12 bytes for each of the ``outputs`` words that
    it knows.

    >>> memory_estimate(1000, 120, hidden=4, layers=1, heads=1, rows=1, length=2)
    4704
    """
    activations = layers * rows * length * (34 * hidden + 5 * heads * length)
    return 4 * parameters + training + 2 * activations + 12 * rows * length * outputs
