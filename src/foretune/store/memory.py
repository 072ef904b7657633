"""MemoryStore: a list. The reference that every other store must agree with, and the double in tests."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import final

from foretune.records import RunRecord
from foretune.store.base import Store


@final
class MemoryStore(Store):
    """Forgets when the process ends.

    >>> len(MemoryStore())
    0
    """

    def __init__(self, records: Iterable[RunRecord] = ()) -> None:
        self._records = list(records)

    def append(self, record: RunRecord) -> None:
        self._records.append(record)

    def __iter__(self) -> Iterator[RunRecord]:
        return iter(tuple(self._records))

    def __len__(self) -> int:
        return len(self._records)

    def find(self, digest: str) -> RunRecord | None:
        return next((record for record in reversed(self._records) if record.digest == digest), None)
