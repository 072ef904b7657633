"""A sketch of a task's texts: enough to find its copies in a memory of runs, far too little to read them.

The k smallest hashes of the normalised rows (bottom-k sketch, Cohen and Kaplan 2007) estimate how much two sets share
without either. Rows count as equal as they do everywhere else (``tasks/keys.py``): case, spacing, punctuation, order
and label do not matter. All splits enter, for a copy may be split in another way; no label does.

Two rows at least must stand below the larger set's last hash before anything is found (``store/grouping.py``), so what
is found of an excerpt depends on k. With k = 4,096, 50 rows of a source of 60,000 are found in 86 % of draws and 100
rows in 99 %; with 128 these were 0.5 % and 2 %. It costs 34 kB in each record of a source as large as that.
"""

from __future__ import annotations

from collections.abc import Iterable

import pyarrow as pa

from foretune.records.sketch import DIGITS, SIZE, packed
from foretune.tasks.keys import row_keys


def sketch(tables: Iterable[pa.Table]) -> tuple[str, ...]:
    """The ``SIZE`` smallest hashes of the distinct rows of ``tables``, packed; all of them where there are fewer.

    >>> table = pa.table({"text": ["One.", "one", "two"], "pair": [None] * 3, "choices": [None] * 3})
    >>> len(sketch([table]))
    2
    """
    keys = {key for table in tables for key in row_keys(table)}
    return packed(sorted({key.hex()[:DIGITS] for key in keys})[:SIZE])
