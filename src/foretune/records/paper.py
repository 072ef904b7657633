"""PaperReference: what the paper behind a method publishes about itself, as far as anyone here could read it.

An empty field is a finding: it says why no reproduction is claimed. ``tests/records/test_paper_reference.py``
holds the pages to it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any


@dataclass(frozen=True)
class PaperReference:
    """A paper, and its facts; None: not published in the material at hand, so nothing was compared with it.

    Attributes:
        title, source: the paper and where it is found.
        models: backbones of its tables.
        settings: of the method itself in its tables, prompts included.
        baselines: methods of its tables, with their settings.
        results: task -> score.
        spread: task -> standard deviation of that score over the paper's own runs.
        ablations: what it varied, and what came of it.
        overhead: time and memory beside its baselines.
        limits: what it says the method does not do.

    >>> PaperReference("A paper", "arXiv 0000.00000", overhead="half as fast").unpublished
    ('models', 'settings', 'baselines', 'results', 'spread', 'ablations', 'limits')
    """

    title: str
    source: str
    models: tuple[str, ...] | None = None
    settings: Mapping[str, Any] | None = None
    baselines: Mapping[str, Any] | None = None
    results: Mapping[str, float] | None = None
    spread: Mapping[str, float] | None = None
    ablations: str | None = None
    overhead: str | None = None
    limits: str | None = None

    @property
    def unpublished(self) -> tuple[str, ...]:
        """The facts that are not at hand, in order."""
        return tuple(f.name for f in fields(self)[2:] if vars(self)[f.name] is None)

    @property
    def comparable(self) -> bool:
        """Whether a run could be held against it: what was run, what came of it, and how much that varies."""
        return not {"models", "settings", "results", "spread"} & set(self.unpublished)
