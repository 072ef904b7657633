"""A sketch of a task's texts: enough to find its copies in a memory of runs, far too little to read them.

The k smallest hashes of the normalised rows (bottom-k sketch, Cohen and Kaplan 2007) estimate how much two sets share
without either. Rows count as equal as they do everywhere else (``tasks/keys.py``): case, spacing, punctuation, order
and label do not matter. All splits enter, for a copy may be split in another way; no label does.
"""

from __future__ import annotations

from collections.abc import Iterable

import pyarrow as pa

from foretune.tasks.keys import row_keys

SIZE = 128
DIGITS = 12
"""Of each hash, in hexadecimal: 48 bits, so that a million rows of two tasks meet by chance about never."""


def sketch(tables: Iterable[pa.Table]) -> tuple[str, ...]:
    """The ``SIZE`` smallest hashes of the distinct rows of ``tables``, in order; all of them where there are fewer.

    >>> table = pa.table({"text": ["One.", "one", "two"], "pair": [None] * 3, "choices": [None] * 3})
    >>> len(sketch([table]))
    2
    """
    keys = {key for table in tables for key in row_keys(table)}
    return tuple(key.hex()[:DIGITS] for key in sorted(keys)[:SIZE])
