"""One file -> ``Rows``, chosen by the file's ending; a ``datasets`` folder too."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa

from foretune.errors import DataError
from foretune.tasks.delimited import read_delimited
from foretune.tasks.encoding import check_file, find_encoding, reading
from foretune.tasks.raw import Rows, RowsBuilder, from_arrow

READERS = (".csv", ".tsv", ".jsonl", ".ndjson", ".json", ".parquet")
"""The endings that are read, lower case."""


def read_file(path: Path, named: frozenset[str] = frozenset()) -> tuple[Rows, list[str]]:
    """Read one data file.

    Args:
        path: an existing file; its ending says the format.
        named: the columns that the user named (they prove that a first row is a header).

    Returns:
        The rows, and sentences on how the file was read.

    Raises:
        DataError: an ending that is not in ``READERS``, or contents that break the format.
    """
    ending = path.suffix.lower()
    if ending not in READERS:
        raise DataError(
            f"`{path}` must end in one of {', '.join(READERS)}, but ends in `{ending}`. Save it as one of these."
        )
    if ending in (".csv", ".tsv"):
        return read_delimited(path, named)
    if ending == ".parquet":
        return _read_parquet(path), []
    builder = RowsBuilder(path.name)
    objects = _json_objects(path) if ending == ".json" else _json_lines(path)
    for number, value in objects:
        if not isinstance(value, dict):
            raise DataError(
                f"{path}: row {number} must be a JSON object such as "
                f'{{"text": "...", "label": "..."}}, but is a {type(value).__name__}. Write one object per row.'
            )
        builder.add(number, value)
    return builder.finish(), []


def _json_lines(path: Path) -> Iterator[tuple[int, Any]]:
    encoding = find_encoding(path)
    with reading(path), open(path, encoding=encoding, newline="\n") as file:
        for number, line in enumerate(file, 1):
            if line.strip():
                yield number, _parse(line, f"{path}: row {number}")


def _json_objects(path: Path) -> Iterator[tuple[int, Any]]:
    """A list of objects, an object of objects (its keys are dropped), or JSON Lines under another name."""
    encoding = find_encoding(path)
    with reading(path), open(path, encoding=encoding) as file:
        text = file.read()
    try:
        value = _parse(text, str(path))
    except DataError:
        first = text.lstrip().partition("\n")[0].rstrip()
        if not (first.startswith("{") and first.endswith("}")):
            raise
        yield from _json_lines(path)
        return
    if isinstance(value, dict) and value:
        _require_rows(value, path)
        if all(isinstance(v, dict) for v in value.values()):
            value = list(value.values())
    yield from enumerate(value if isinstance(value, list) else [value], 1)


def _require_rows(value: dict[str, Any], path: Path) -> None:
    """Refuse an object that holds the rows one floor down, or columns in place of rows as pandas writes them."""
    below = next((k for k, v in value.items() if isinstance(v, list) and v and isinstance(v[0], dict | list)), None)
    if below is not None:
        raise DataError(
            f"{path} must hold a list of rows, but is one object that holds a list of {len(value[below]):,} under "
            f'`{below}`. Write a list of flat objects alone: `[{{"text": "...", "label": "..."}}, ...]`.'
        )
    first = next(iter(value.values()))
    counted = list(map(str, range(len(first)))) if isinstance(first, dict) else []
    if counted and all(isinstance(v, dict) and list(v) == counted for v in value.values()):
        raise DataError(
            f"{path} must hold one object per row, but holds one per column "
            f"({', '.join(f'`{name}`' for name in list(value)[:6])}), as pandas writes them by default. Write it with "
            '`df.to_json(path, orient="records", lines=True)`, or as CSV.'
        )


def _parse(text: str, where: str) -> Any:
    """JSON with numbers kept as they are written, so that 1.0 and 007-like labels are not rounded."""
    try:
        return json.loads(text, parse_int=str, parse_float=str, parse_constant=lambda _: None)
    except json.JSONDecodeError as error:
        raise DataError(
            f"{where} is not valid JSON ({error.msg}, line {error.lineno}, column {error.colno}). Correct it, or save "
            "the data as CSV."
        ) from None
    except RecursionError:
        raise DataError(f"{where} is nested too deeply to be a row. Write one flat object per row.") from None


def _read_parquet(path: Path) -> Rows:
    import pyarrow.parquet as pq

    check_file(path)
    try:
        with reading(path), pq.ParquetFile(path) as file:
            return from_arrow(file.read(), path.name)
    except pa.ArrowException as error:
        reason = (str(error).splitlines() or ["damaged"])[0]
        raise DataError(f"`{path}` is not a readable Parquet file ({reason}). Write it again.") from None


def read_saved(folder: Path) -> dict[str, Rows]:
    """Read what ``datasets`` wrote with ``save_to_disk``; text stays memory-mapped.

    Returns:
        Split name -> rows; a single ``Dataset`` is the split ``train``.
    """
    import datasets

    try:
        loaded = datasets.load_from_disk(str(folder))
        return from_datasets(loaded, str(folder))
    except DataError:
        raise
    except Exception as error:  # whatever a library makes of damaged files must reach the user as one sentence
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise DataError(f"`{folder}` is not a readable `datasets` folder ({reason}). Save it again.") from None


def from_datasets(loaded: Any, where: str) -> dict[str, Rows]:
    """Rows of a ``datasets.Dataset`` or ``DatasetDict``, class numbers replaced by the class names."""
    splits: Mapping[str, Any] = loaded if isinstance(loaded, Mapping) else {"train": loaded}
    return {str(name): from_arrow(_with_names(split), f"{where}:{name}") for name, split in splits.items()}


def _with_names(split: Any) -> pa.Table:
    """The split's Arrow table; ``ClassLabel`` numbers become names, and -1 (unlabelled) becomes null."""
    import datasets

    table = split.with_format("arrow")[:]
    for name, feature in split.features.items():
        if isinstance(feature, datasets.ClassLabel):
            numbers = table[name].to_pylist()
            names = [None if n is None or n < 0 else feature.names[n] for n in numbers]
            table = table.set_column(table.column_names.index(name), name, pa.array(names, pa.string()))
    return table.replace_schema_metadata(None)
