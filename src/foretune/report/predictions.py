"""predictions.parquet as columns: one split at a time, texts as strings, numbers as arrays.

The file's columns are ``split``, ``row``, ``text``, ``label``, ``prediction`` (strings but for ``row``),
``probability`` (of the prediction, after the temperature; null where the task has none) and ``probabilities`` (one list
per row in the order of ``record.labels``, or null); ``pair`` and ``choices`` where the task has them.
``floors.parquet`` has the same and a column ``floor``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from foretune.errors import StoreError

if TYPE_CHECKING:
    import pyarrow as pa

COLUMNS = ("split", "row", "text", "label", "prediction", "probability")


@dataclass(frozen=True)
class Rows:
    """The predictions of one split; every column has length n.

    Attributes:
        row: the row's number in its source.
        label, prediction: class names, numbers as written, or texts.
        probability: of the prediction, shape (n,); NaN where there is none.
        probabilities: of every class, shape (n, classes), or None.
    """

    row: tuple[int, ...]
    text: tuple[str, ...]
    label: tuple[str, ...]
    prediction: tuple[str, ...]
    probability: NDArray[np.float64]
    probabilities: NDArray[np.float64] | None = None

    def __len__(self) -> int:
        return len(self.row)

    @property
    def correct(self) -> NDArray[np.bool_]:
        """Where prediction and label are the same string, shape (n,)."""
        return np.array([p == y for p, y in zip(self.prediction, self.label, strict=True)], dtype=bool)

    def numbers(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Labels and predictions of a regression, each (n,); rows where either is no finite number are left out."""
        pairs = [(_number(y), _number(p)) for y, p in zip(self.label, self.prediction, strict=True)]
        table = np.array(pairs, dtype=float).reshape(-1, 2)
        table = table[np.isfinite(table).all(axis=1)]
        return table[:, 0], table[:, 1]


def rows(table: pa.Table | None, split: str) -> Rows | None:
    """The rows of one split, in the file's order; None when there are none.

    Raises:
        StoreError: the table lacks a column.
    """
    if table is None:
        return None
    missing = [name for name in COLUMNS if name not in table.column_names]
    if missing:
        raise StoreError(
            f"predictions need the columns {', '.join(COLUMNS)}, but {', '.join(missing)} is missing. "
            "Evaluate the run again to write them anew."
        )
    import pyarrow.compute as pc

    part = table.filter(pc.equal(table["split"], split))
    if part.num_rows == 0:
        return None

    def texts(name: str) -> tuple[str, ...]:
        return tuple(value or "" for value in part[name].to_pylist())

    return Rows(
        row=tuple(part["row"].to_pylist()),
        text=_whole(part),
        label=texts("label"),
        prediction=texts("prediction"),
        probability=np.array([np.nan if p is None else p for p in part["probability"].to_pylist()], dtype=float),
        probabilities=_matrix(part),
    )


def _whole(part: pa.Table) -> tuple[str, ...]:
    """The text with what else the model saw: the second text of a pair, the numbered candidates of a choice."""
    found = [value or "" for value in part["text"].to_pylist()]
    if "pair" in part.column_names:
        found = [
            f"{text}\n{pair}" if pair else text for text, pair in zip(found, part["pair"].to_pylist(), strict=True)
        ]
    if "choices" in part.column_names:
        listed = [
            "".join(f"\n({i}) {c}" for i, c in enumerate(choices or ())) for choices in part["choices"].to_pylist()
        ]
        found = [text + choices for text, choices in zip(found, listed, strict=True)]
    return tuple(found)


def _matrix(part: pa.Table) -> NDArray[np.float64] | None:
    """The lists of one split as (n, classes), or None when a row lacks its list or the lists differ in length."""
    if "probabilities" not in part.column_names:
        return None
    column = part["probabilities"].combine_chunks()
    if column.null_count or str(column.type) == "null":
        return None
    flat = column.flatten().to_numpy(zero_copy_only=False)
    width, rest = divmod(len(flat), part.num_rows)
    lengths = column.value_lengths().to_numpy(zero_copy_only=False)
    return flat.reshape(part.num_rows, width) if rest == 0 and width and (lengths == width).all() else None


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return float("nan")
