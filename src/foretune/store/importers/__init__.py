"""Files of other projects -> ``RunCollection``: one module per format; nothing is given before all is read."""

from foretune.store.importers.peft_comparison import read_peft_comparison
from foretune.store.importers.qtt import read_qtt, write_qtt
from foretune.store.importers.table import Columns, read_table
from foretune.store.importers.taskset import read_taskset

__all__ = ["Columns", "read_peft_comparison", "read_qtt", "read_table", "read_taskset", "write_qtt"]
