"""Progress: what a run says while it runs. The null object is the default; the command line brings bars."""

from __future__ import annotations


class Progress:
    """Says nothing. A subclass overrides what it wants to show."""

    def phase(self, text: str) -> None:
        """A new phase begins, in a few words: ``tokenising 120 rows``."""

    def start(self, total: int, done: int) -> None:
        """Training begins at step ``done`` of ``total``."""

    def step(self, step: int, loss: float, seconds_left: float) -> None:
        """Optimizer step ``step`` is done; ``loss`` is its mean loss."""

    def evaluated(self, step: int, metric: str, value: float, loss: float, best: bool) -> None:
        """Dev was measured at ``step``."""

    def finish(self) -> None:
        """Training is over, whatever its outcome."""
