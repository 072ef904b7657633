"""Memory: stores of run records, and the run folder's own record. No torch."""

from foretune.store.base import Store
from foretune.store.folder import RUN_FILE, read_run, write_run
from foretune.store.gather import gather, import_runs
from foretune.store.journal import Damage, JournalStore, default_folder
from foretune.store.memory import MemoryStore

__all__ = [
    "RUN_FILE",
    "Damage",
    "JournalStore",
    "MemoryStore",
    "Store",
    "default_folder",
    "gather",
    "import_runs",
    "read_run",
    "write_run",
]
