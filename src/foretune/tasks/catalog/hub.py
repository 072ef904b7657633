"""The catalog's other home: rows of a split from the Hugging Face Hub, or from its local cache."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from foretune.errors import DataError
from foretune.tasks.catalog.entry import Hub
from foretune.tasks.catalog.readers import Row

BATCH = 1_000


def read(task: str, hub: Hub) -> Iterator[Row]:
    """The rows of one split; class indices arrive as class names.

    Raises:
        DataError: the Hub did not give the data set, most often because there is no network.
    """
    from datasets import load_dataset

    files = None if hub.data_files is None else {hub.split: hub.data_files}
    try:
        dataset = load_dataset(hub.id, hub.config, split=hub.split, revision=hub.revision, data_files=files)
    except Exception as error:  # the library raises a dozen unrelated classes for "not reachable" and "not there"
        raise DataError(
            f"`{task}` was not found on disk and could not be read from the Hub ({hub.id}: {_first_line(error)}). "
            "Give the folder with its files (--data-dir or FORETUNE_DATA), or go online."
        ) from error
    return rows(dataset)


def rows(dataset: Any) -> Iterator[Row]:
    """One dict per row of a ``datasets.Dataset``, decoded in batches so that a large set does not fill the memory."""
    from datasets import ClassLabel

    names = {column: kind.names for column, kind in dataset.features.items() if isinstance(kind, ClassLabel)}
    for batch in dataset.iter(batch_size=BATCH):
        for column, classes in names.items():
            batch[column] = [classes[i] if i is not None and i >= 0 else i for i in batch[column]]
        for values in zip(*batch.values(), strict=True):
            yield dict(zip(batch, values, strict=True))


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
