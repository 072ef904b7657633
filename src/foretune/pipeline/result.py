"""Result: a finished run as a user holds it."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from foretune.errors import StoreError, UsageError
from foretune.pipeline.predict import ANSWER, SPREAD
from foretune.pipeline.request import read_plan
from foretune.records import Plan, RunRecord
from foretune.report import page, sentences
from foretune.store.folder import read_run
from foretune.tasks.checks import check_texts
from foretune.tasks.schema import SPLIT_COLUMNS
from foretune.training.predictor import Predictor

if TYPE_CHECKING:
    import pyarrow as pa

    from foretune.export.hand_over import Exported


@dataclass(frozen=True)
class Result:
    """A finished run.

    Attributes:
        record: what happened.
        folder: the run folder.
        plan: what had been recommended; None where no plan was kept.
        model: where the base model lies now, when not where the record says.
    """

    record: RunRecord
    folder: Path
    plan: Plan | None = None
    model: str | None = None

    @property
    def metrics(self) -> dict[str, dict[str, float]]:
        """Split -> metric -> value."""
        return {split: dict(judged.scores) for split, judged in self.record.evaluations.items()}

    @property
    def verdict(self) -> list[str]:
        """What may be said of the result, in sentences."""
        return page.verdict(self.folder)[1:]

    @property
    def expected(self) -> str | None:
        """What was foretold beside what came, in a sentence; None where nothing was foretold."""
        return sentences.achieved(self.plan, self.record) if self.plan else None

    @cached_property
    def predictor(self) -> Predictor:
        """The restored model; loaded at the first use."""
        return Predictor.load(self.folder, self.model)

    def predict(self, texts: Iterable[str | Mapping[str, Any]], members: int | None = None) -> list[dict[str, Any]]:
        """Answers for texts, or for mappings with ``text`` (and ``pair`` or ``choices``): prediction and probability.

        Args:
            texts: what to answer.
            members: let so many of the run's models answer together, and say how far they are apart.

        Returns:
            one dict per row: ``prediction``, ``probability`` and ``probabilities`` (None where the kind has none);
            with ``members`` also ``members``, ``spread`` and ``agreement`` (see ``Predictor.spread``).

        Raises:
            UsageError: the run has no members to ask.
        """
        table = table_of(texts)
        if not len(table):
            return []
        if members is None:
            return list(self.predictor(table).select([*ANSWER]).to_pylist())
        return list(self.predictor.spread(table, members).select([*ANSWER, *SPREAD]).to_pylist())

    def save(self, folder: str | os.PathLike[str]) -> Path:
        """Copy the adapter folder, the part that travels, to ``folder``."""
        target = Path(folder)
        try:
            shutil.copytree(self.folder / "adapter", target, dirs_exist_ok=True)
        except OSError as error:
            raise StoreError(f"The adapter cannot be copied to `{target}`: {error.strerror or error}.") from error
        return target

    def export(
        self,
        to: str,
        out: str | os.PathLike[str] | None = None,
        collapse: str | None = None,
        rank: int | None = None,
        tolerance: float | None = None,
    ) -> Exported:
        """Hand the run over in a stock format, checked in a fresh process: ``foretune export``, which see.

        Raises:
            UsageError: no such format. ModelError: the run has no such form. ExportError: it did not give the recorded
                predictions; nothing is left behind.
        """
        from foretune.export import export

        return export(self.folder, to, None if out is None else Path(out), self.model, collapse, rank, tolerance)

    def report(self, out: Path | None = None) -> Path:
        """Write ``report.html`` again and return its path."""
        return page.write(self.folder, out)

    def to_json(self) -> dict[str, Any]:
        """Plain data for ``--json``."""
        return {
            "folder": str(self.folder),
            "verdict": self.verdict,
            "expected": self.expected,
            "record": self.record.to_json(),
        }


def load(folder: str | os.PathLike[str], model: str | None = None) -> Result:
    """A finished run, from its folder.

    Raises:
        StoreError: there is no run, or it is not finished.
    """
    path = Path(folder)
    record = read_run(path)
    if record.status != "ok":
        raise StoreError(
            f"The run in `{path}` has status `{record.status}`, so there is nothing to use yet. "
            "The same `foretune tune` command goes on with it."
        )
    return Result(record, path, read_plan(path), model)


def table_of(texts: Iterable[str | Mapping[str, Any]]) -> pa.Table:
    """Texts or mappings as a table with ``SPLIT_COLUMNS`` and no labels.

    Raises:
        UsageError: one text in place of a list of them, or a mapping without ``text``.
        DataError: an empty text.

    >>> table_of(["good", {"text": "bad"}])["text"].to_pylist()
    ['good', 'bad']
    """
    import pyarrow as pa

    if isinstance(texts, str | Mapping):
        raise UsageError(f"`predict` takes a list of texts, but got a {type(texts).__name__}. Write `predict([text])`.")
    rows = []
    for i, row in enumerate(texts, 1):
        given = {"text": row} if isinstance(row, str) else dict(row)
        if not isinstance(given.get("text"), str):
            raise UsageError(f"Every row needs a `text`, but row {i} has {', '.join(map(str, given)) or 'nothing'}.")
        rows.append({name: given.get(name) for name in ("text", "pair", "choices")} | {"row": i, "label": None})
    table = pa.Table.from_pylist(rows, schema=SPLIT_COLUMNS)
    check_texts(table, "predict")
    return table
