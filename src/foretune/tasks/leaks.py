"""Text that two splits share, and the rule that an out-of-domain set is not training data under another name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pyarrow as pa

from foretune.errors import DataError
from foretune.tasks.checks import name_rows
from foretune.tasks.keys import row_keys

OOD_LEAK_LIMIT = 0.1
"""The share of an out-of-domain set that may stand in train before it is no out-of-domain set."""


@dataclass(frozen=True)
class Leak:
    """Rows of two splits with common text, as row numbers; ``share`` is that of ``right``."""

    left: str
    right: str
    left_rows: tuple[int, ...]
    right_rows: tuple[int, ...]
    share: float

    def sentence(self) -> str:
        """One sentence with the rows of both splits."""
        return (
            f"{self.left} and {self.right} share text: {self.left} {name_rows(self.left_rows)}; {self.right} "
            f"{name_rows(self.right_rows)} ({self.share:.1%} of {self.right})."
        )


def group_rows(table: pa.Table) -> dict[bytes, list[int]]:
    """Key -> positions of the rows that have it."""
    groups: dict[bytes, list[int]] = {}
    for i, key in enumerate(row_keys(table)):
        groups.setdefault(key, []).append(i)
    return groups


def find_leak(
    left: str,
    right: str,
    left_groups: Mapping[bytes, Sequence[int]],
    right_groups: Mapping[bytes, Sequence[int]],
    left_table: pa.Table,
    right_table: pa.Table,
) -> Leak | None:
    """The rows that two splits share, given ``group_rows`` of both; None where there are none."""
    common = [key for key in left_groups if key in right_groups]
    if not common:
        return None
    rows = []
    for groups, table in ((left_groups, left_table), (right_groups, right_table)):
        positions = sorted(i for key in common for i in groups[key])
        rows.append(tuple(table["row"].take(pa.array(positions)).to_pylist()))
    return Leak(left, right, rows[0], rows[1], len(rows[1]) / right_table.num_rows)


def check_ood(train: pa.Table, ood: Mapping[str, pa.Table]) -> None:
    """Refuse an out-of-domain set that is largely training data.

    Raises:
        DataError: more than ``OOD_LEAK_LIMIT`` of its rows stand in train, as 85 % of MR stands in SST.
    """
    groups = group_rows(train) if ood else {}
    for name, table in ood.items():
        leak = find_leak("train", name, groups, group_rows(table), train, table)
        if leak and leak.share > OOD_LEAK_LIMIT:
            raise DataError(
                f"`{name}` is no out-of-domain set: {leak.share:.0%} of its rows stand in train, more than "
                f"{OOD_LEAK_LIMIT:.0%} ({name_rows(leak.right_rows)}). Give data from another source."
            )
