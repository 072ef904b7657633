"""What is wrong with the rows, in sentences: copies, leaks, contradictions.

Nothing is repaired here; ``splits.draw`` is where copies leave the training pool.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import combinations

import pyarrow as pa

from foretune.tasks.checks import name_rows
from foretune.tasks.leaks import Leak, find_leak, group_rows
from foretune.tasks.splits import Draw
from foretune.tasks.task import Task


@dataclass(frozen=True)
class Findings:
    """What ``audit`` found; empty when nothing is wrong.

    Attributes:
        duplicates: split -> groups of row numbers with equal text (after ``keys.normalise``).
        contradictions: split -> those of the groups whose labels differ.
        leaks: pairs of splits with common text.
    """

    duplicates: Mapping[str, tuple[tuple[int, ...], ...]] = field(default_factory=dict)
    contradictions: Mapping[str, tuple[tuple[int, ...], ...]] = field(default_factory=dict)
    leaks: tuple[Leak, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.duplicates or self.contradictions or self.leaks)

    def sentences(self) -> list[str]:
        """One line per finding, with row numbers."""
        lines = []
        for split, groups in self.duplicates.items():
            extra = sorted(row for group in groups for row in group[1:])
            lines.append(f"{split}: copies of an earlier row: {name_rows(extra)}.")
        for split, groups in self.contradictions.items():
            pairs = [" = ".join(map(str, group)) for group in groups]
            more = f" and {len(pairs) - 5:,} more" if len(pairs) > 5 else ""
            lines.append(f"{split}: equal text with different labels: rows {', '.join(pairs[:5])}{more}.")
        return [*lines, *(leak.sentence() for leak in self.leaks)]


def audit(rows: Draw | Task | Mapping[str, pa.Table]) -> Findings:
    """Look for copies within each split, contradicting labels, and text that two splits share.

    Args:
        rows: a draw, a task (its out-of-domain sets included), or split name -> table with ``SPLIT_COLUMNS``.
    """
    tables = _tables(rows)
    groups = {name: group_rows(table) for name, table in tables.items()}
    duplicates, contradictions = {}, {}
    for name, table in tables.items():
        numbers, labels = table["row"].to_pylist(), table["label"].to_pylist()
        several = [positions for positions in groups[name].values() if len(positions) > 1]
        differing = [g for g in several if len({labels[i] for i in g}) > 1]
        if several:
            duplicates[name] = tuple(tuple(numbers[i] for i in g) for g in several)
        if differing:
            contradictions[name] = tuple(tuple(numbers[i] for i in g) for g in differing)
    leaks = [
        leak
        for left, right in combinations(tables, 2)
        if (leak := find_leak(left, right, groups[left], groups[right], tables[left], tables[right]))
    ]
    return Findings(duplicates, contradictions, tuple(leaks))


def _tables(rows: Draw | Task | Mapping[str, pa.Table]) -> dict[str, pa.Table]:
    if isinstance(rows, Draw):
        return {"train": rows.train, "dev": rows.dev, "test": rows.test}
    if isinstance(rows, Task):
        return {**rows.splits, **rows.ood}
    return dict(rows)
