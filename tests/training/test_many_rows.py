"""100,000 rows do not fill the memory."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from foretune.models import Checkpoint, open_checkpoint
from foretune.objectives.head import Head
from foretune.objectives.response import Response
from foretune.records import ModelRef
from foretune.tasks.schema import SPLIT_COLUMNS
from foretune.training.batches import Order


@pytest.fixture
def checkpoint(saved: Callable[[str], Path]) -> Checkpoint:
    return open_checkpoint(ModelRef(str(saved("bert"))), "classification")


def table(n: int, text: str) -> pa.Table:
    columns = {"row": np.arange(1, n + 1), "text": pa.repeat(text, n), "label": pa.repeat("good", n)}
    blank = {name: pa.nulls(n, SPLIT_COLUMNS.field(name).type) for name in ("pair", "choices")}
    return pa.table({**columns, **blank}).select(SPLIT_COLUMNS.names).cast(SPLIT_COLUMNS)


def test_a_hundred_thousand_rows_cost_their_tokens_and_no_more(checkpoint: Checkpoint) -> None:
    n = 100_000
    encoded = Head().encode(table(n, "the film was"), np.zeros(n, np.int64), checkpoint)
    assert len(encoded) == n
    assert encoded.lengths.tolist() == [5] * n
    held = [encoded.tokens.values, encoded.tokens.offsets, encoded.groups, encoded.targets]
    assert encoded.types is not None
    held += [encoded.types.values, encoded.types.offsets]
    assert sum(array.nbytes for array in held if array is not None) < 100 * n
    batch = Head().batch(encoded, Order(encoded.lengths, 16, 0).step(0), checkpoint)
    assert batch["input_ids"].shape == (16, 5)


@pytest.mark.parametrize(("name", "objective"), [("bert", Head()), ("llama", Response())])
def test_the_texts_are_never_unpacked_all_at_once(
    name: str, objective: Head | Response, saved: Callable[[str], Path]
) -> None:
    kind = objective.kinds[0]
    checkpoint = open_checkpoint(ModelRef(str(saved(name))), kind)
    rows = table(8_000, "x" * 2_000)
    objective.encode(rows.slice(0, 1), None, checkpoint)
    tracemalloc.start()
    try:
        objective.encode(rows, None, checkpoint)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert rows["text"].nbytes > 16e6
    assert peak < 10e6
