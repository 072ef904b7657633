"""Which tasks are copies of one another, so that no split puts one on either side.

Told by the key they came with, by the hash of their rows, or by their sketches: two tasks that share more than a tenth
of their texts are one group, as an out-of-domain set of which more than a tenth stands in train is refused. Groups are
closed: where a copy links two tasks, all three belong together.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import replace

from foretune.records import MetaTask
from foretune.records.sketch import complete_to, unpacked

SHARED = 0.1
FEWEST = 2
"""Texts in common below which two tasks are none: one line (``yes``) stands in many data sets."""


def overlap(a: Sequence[str], b: Sequence[str]) -> float:
    """The estimated share of the smaller set that the larger one holds, from their sketches as records keep them.

    Only hashes below the point up to which both sketches are complete are compared, however long each of them is.

    >>> overlap(["01", "02", "03"], ["02", "03", "09"]), overlap([], ["01"])
    (0.6666666666666666, 0.0)
    """
    first, second = unpacked(a), unpacked(b)
    ends = [end for hashes in (first, second) if (end := complete_to(hashes)) is not None]
    if ends:
        first, second = (hashes[: bisect_right(hashes, min(ends))] for hashes in (first, second))
    common = len(set(first).intersection(second))
    return common / min(len(first), len(second)) if common >= FEWEST else 0.0


def siblings(a: MetaTask, b: MetaTask) -> bool:
    """Whether two tasks are of the same data, as far as can be told."""
    same_rows = a.data_hash is not None and a.data_hash == b.data_hash
    return a.group_key == b.group_key or same_rows or overlap(a.sketch, b.sketch) > SHARED


def grouped(tasks: Sequence[MetaTask]) -> tuple[MetaTask, ...]:
    """The same tasks, siblings with the key of the first of them."""
    first = list(range(len(tasks)))

    def root(number: int) -> int:
        while first[number] != number:
            number = first[number]
        return number

    for later, task in enumerate(tasks):
        for earlier in range(later):
            if root(earlier) != root(later) and siblings(tasks[earlier], task):
                roots = sorted((root(earlier), root(later)))
                first[roots[1]] = roots[0]
    return tuple(replace(task, group_key=tasks[root(number)].group_key) for number, task in enumerate(tasks))
