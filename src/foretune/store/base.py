"""Store: remembers runs and only appends. A correction is a further record; the latest of a digest wins."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator

from foretune.records import RunRecord


class Store(ABC):
    """A memory of runs. Nothing in it is ever changed or removed, so that what was concluded from it can be checked."""

    @abstractmethod
    def append(self, record: RunRecord) -> None:
        """Add ``record`` at the end. When this returns, the record outlives the process.

        Raises:
            StoreError: it could not be written; what was there before is still readable.
        """

    @abstractmethod
    def __iter__(self) -> Iterator[RunRecord]:
        """All records, oldest first, each in the current format."""

    @abstractmethod
    def __len__(self) -> int:
        """The number of records, every one of a digest that was appended more than once counted."""

    @abstractmethod
    def find(self, digest: str) -> RunRecord | None:
        """The latest record of the run with this ``digest``, or None."""
