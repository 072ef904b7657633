"""export(run, to): build beside, check in a fresh process, and only then give the folder its name."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from foretune.errors import ExportError, StoreError, UsageError
from foretune.export import check, formats, readme
from foretune.export.source import Source
from foretune.registry import find

FORMATS: dict[str, Callable[[Source, Path], dict[str, Any]]] = {
    write.__name__: write
    for write in (
        *(formats.peft, formats.merged),
        *(formats.supertuning, formats.shira, formats.lora),
        *(formats.onnx, formats.decision),
    )
}
"""Name -> what writes a run into an empty folder and returns further entries of its ``export.json``."""

DESCRIPTION = "export.json"

CHANGED = (
    "The adapter or the predictions have changed since the run, or a library has: restore them, install the versions "
    "in `adapter/foretune.json`, or train again."
)
LOSSY = (
    "{said} A larger `--rank` loses less, a larger `--tolerance` allows for more, and `--to supertuning` holds the "
    "delta as it is."
)
"""Why an export did not pass, by whether it is an approximation."""


@dataclass(frozen=True)
class Exported:
    """An export that reproduced the recorded predictions.

    Attributes:
        folder: where it lies.
        format: one of ``FORMATS``.
        checked_rows: how many predictions were compared.
        largest_difference: between them and those of the fresh process, in ``unit``; at most ``tolerance``.
        wanted: the predictions that were to be reproduced, in words.
        delta: how well the format holds a sparse delta, see ``subset.stock.Fit`` and ``subset.lora.LoraFit``; empty for
            other formats.
        said: the same in a sentence.
    """

    folder: Path
    format: str
    checked_rows: int
    largest_difference: float
    tolerance: float
    unit: str
    wanted: str
    delta: Mapping[str, Any]
    said: str

    @property
    def files(self) -> dict[str, int]:
        """File -> bytes, sorted by name."""
        found = sorted(path for path in self.folder.rglob("*") if path.is_file())
        return {path.relative_to(self.folder).as_posix(): path.stat().st_size for path in found}


def export(
    run: Path,
    to: str,
    out: Path | None = None,
    model: str | None = None,
    collapse: str | None = None,
    rank: int | None = None,
    tolerance: float | None = None,
) -> Exported:
    """Hand ``run`` over in the format ``to``.

    Args:
        run: the folder of a finished run.
        to: one of ``FORMATS``.
        out: the folder to write, default ``<run>/export/<to>``; an earlier export there is replaced once this passed.
        model: where the base model lies now, if elsewhere.
        collapse: which one of several models, ``midpoint`` or ``vertex:0`` and so on, for a run that holds several. One
            that was chosen is checked against what foretune itself predicts with it; otherwise it is the midpoint, and
            checked against what the run recorded.
        rank, tolerance: of ``lora``, which is an approximation: its rank (16), and the largest difference from the
            recorded predictions that is allowed, in place of the 0.001 of every other format.

    Raises:
        UsageError: no such format or point, a rank or tolerance where nothing is approximated, several members answer
            in this run, or ``out`` holds something else.
        StoreError: no finished run is there, or ``out`` cannot be written.
        ModelError: the base model is absent or another one, or this run has no such form.
        ExportError: the reloaded export did not give the recorded predictions; nothing is left behind.
    """
    write = find("format", to, FORMATS)
    given = {"rank": rank, "tolerance": tolerance}
    if write is not formats.lora and (named := [f"--{name}" for name, value in given.items() if value is not None]):
        raise UsageError(f"`{named[0]}` is for `--to lora`, the one format that approximates, but got `--to {to}`.")
    if tolerance is not None and not 0 <= tolerance < 1:
        raise UsageError(f"`0 <= tolerance < 1` must hold, but got tolerance={tolerance:g}.")
    source = Source.open(Path(run), model, collapse, rank, tolerance)
    target = Path(out) if out is not None else Path(run) / "export" / to
    _require_free(target)
    made = _missing_parents(target)
    new = target.with_name(f".{target.name}.new")
    try:
        shutil.rmtree(new, ignore_errors=True)
        new.mkdir(parents=True)
        extra = write(source, new)
        said = extra.pop("said", "")
        compared = _checked(source, new, {**source.description(to), **extra}, said)
        shutil.rmtree(target, ignore_errors=True)
        os.replace(new, target)
    except BaseException as error:
        shutil.rmtree(new, ignore_errors=True)
        with suppress(OSError):
            for folder in made:
                folder.rmdir()
        if _cannot_write(error):
            raise StoreError(
                f"The export cannot be written to `{target}`: {error}. Free some space or use `--out`."
            ) from error
        raise
    delta = extra.get("delta", {})
    return Exported(
        target, to, compared.rows, compared.largest, compared.tolerance, compared.unit, source.wanted, delta, said
    )


def _checked(source: Source, folder: Path, description: dict[str, Any], said: str) -> check.Comparison:
    """Describe the export, have it reproduce the predictions that count, and write down how well it did.

    Args:
        said: what the format does not hold, for its page and for a refusal.
    """
    rows = check.expected(source)
    _describe(folder, description)
    with tempfile.TemporaryDirectory(prefix="foretune-") as scratch:
        pq.write_table(rows, Path(scratch) / "rows.parquet")
        job = (folder.resolve(), source.checkpoint.folder.resolve(), Path(scratch) / "rows.parquet")
        (found,) = check.answers([job], Path(scratch))
    compared = check.compare(description, rows, found, source.tolerance)
    if not compared.passed:
        raise ExportError(
            f"The {description['format']} export did not reproduce the {source.wanted}: of {compared.rows} rows, "
            f"{compared.other} have another answer, and the largest difference is {compared.largest:.3g} "
            f"({compared.unit}), where {compared.tolerance:g} is allowed. Nothing was written. "
            + (LOSSY.format(said=said) if "by_matrix" in description.get("delta", {}) else CHANGED)
        )
    _describe(folder, {**description, "check": asdict(compared)})
    readme.write(source, folder, description["format"], compared, readme.holds(said, description.get("delta", {})))
    return compared


def _describe(folder: Path, description: dict[str, Any]) -> None:
    (folder / DESCRIPTION).write_text(json.dumps(description, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _require_free(target: Path) -> None:
    """Raise ``UsageError`` where ``target`` holds anything but an earlier export."""
    if target.is_dir() and ((target / DESCRIPTION).exists() or not any(target.iterdir())):
        return
    if target.exists():
        raise UsageError(f"`{target}` exists and is no earlier export. Give another folder with `--out`.")


def _missing_parents(target: Path) -> list[Path]:
    """The folders above ``target`` that do not exist yet, the deepest first."""
    return [folder for folder in target.absolute().parents if not folder.exists()]


def _cannot_write(error: BaseException) -> bool:
    """A full disk, a missing permission: as Python says it, or as safetensors does."""
    from safetensors import SafetensorError

    return isinstance(error, OSError) or (isinstance(error, SafetensorError) and "I/O" in str(error))
