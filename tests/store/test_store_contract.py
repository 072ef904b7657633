"""Every store passes the shipped contract."""

from pathlib import Path

from foretune.store import JournalStore, MemoryStore, Store
from foretune.testing.store_contract import StoreContract


class TestMemoryStore(StoreContract):
    lasts = False

    def open(self, folder: Path) -> Store:
        return MemoryStore()


class TestJournalStore(StoreContract):
    def open(self, folder: Path) -> Store:
        return JournalStore(folder)
