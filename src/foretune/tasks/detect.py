"""What the columns mean: found by name first, by content second, and refused where two readings are possible.

The label is the column called ``label`` or ``labels``, else the only one with a usual name (``names.LABEL``), else the
only one whose values recur (at most half as many distinct values as rows) or are fractions. The text is a usual pair of
names, else ``text`` or ``sentence``, else the only usual name, else the only column left with free text. Choices are a
numbered family of columns or one column of lists. Prompt and response are found by name, and only where no column is
called ``label``. Whatever the user says wins.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from foretune.errors import DataError, UsageError
from foretune.records import KINDS
from foretune.registry import did_you_mean
from foretune.tasks import names as known
from foretune.tasks.labels import choice_coding, means_numbers, order
from foretune.tasks.metrics import choose_metric
from foretune.tasks.names import plain
from foretune.tasks.normal import as_names, candidate_lists, trimmed
from foretune.tasks.raw import Rows, not_text
from foretune.tasks.schema import Schema

REFERENCE_SEPARATOR = "\x1f"
"""Joins the accepted responses of one row, where the response column holds lists."""


@dataclass(frozen=True)
class Said:
    """What the user said about the columns; None is "find out"."""

    text: str | None = None
    pair: str | None = None
    label: str | None = None
    prompt: str | Sequence[str] | None = None
    response: str | None = None
    choices: str | Sequence[str] | None = None
    kind: str | None = None
    metric: str | None = None

    @property
    def columns(self) -> frozenset[str]:
        """Every column that is named."""
        roles = [getattr(self, f.name) for f in fields(self) if f.name not in ("kind", "metric")]
        return frozenset(name for role in roles for name in as_names(role))


def detect(rows: Rows, said: Said | None = None) -> Schema:
    """Find the kind, the columns, the labels and the metric from the training rows.

    Args:
        rows: the training split as found.
        said: what the user said.

    Raises:
        DataError: a named column is not there, or the contents allow two readings; the message lists the columns and
            the option that decides.
        UsageError: a kind or a metric that does not exist, or does not go with the other options.
    """
    said = said or Said()
    if said.kind is not None and said.kind not in KINDS:
        raise UsageError(f"`kind` must be one of {', '.join(KINDS)}, but got `{said.kind}`.")
    fitting = "generation" if said.prompt or said.response else "choice" if said.choices else said.kind
    if said.kind not in (None, fitting):
        raise UsageError(
            f"the columns named make a {fitting} task, but `kind` is `{said.kind}`. Leave one of them out."
        )
    finder = _Finder(rows, said)
    finder.require(*said.columns)
    if candidates := finder.choices():
        return _choice(finder, candidates)
    if said.kind == "choice":
        raise DataError(f"no choices found: say their columns with `--choices`. {finder.listed}")
    if response := finder.response():
        return _generation(finder, *response)
    return _labelled(finder)


def text_column(rows: Rows) -> str:
    """The column of the text in rows without labels: by its usual name, or the only one of free text.

    Raises:
        DataError: none or several could be it.
    """
    try:
        return _Finder(rows, Said()).text([])
    except DataError as error:
        listed = ", ".join(f"`{name}`" for name in rows.table.column_names)
        raise DataError(
            f"{rows.where} must have the columns of the task or one column of texts, but which of {listed} is it? Call "
            "it `text`."
        ) from error


class _Finder:
    """The columns that are not yet taken, with what is known of their contents."""

    def __init__(self, rows: Rows, said: Said) -> None:
        self.rows, self.said = rows, said
        self.names = [n for n in rows.table.column_names if rows.table[n].null_count < rows.table.num_rows]
        self.listed = f"The columns of {rows.where} are {', '.join(f'`{n}`' for n in rows.table.column_names)}."
        if rows.left_out:
            self.listed += f" Beside texts and numbers it {not_text(rows)}"

    def require(self, *wanted: str) -> None:
        missing = next((name for name in sorted(wanted) if name not in self.rows.table.column_names), None)
        if missing is not None:
            hint = did_you_mean(missing, self.rows.table.column_names)
            raise DataError(f"{self.rows.where} has no column `{missing}`.{hint} {self.listed}")

    def column(self, name: str) -> pa.ChunkedArray:
        return self.rows.table[name]

    def is_list(self, name: str) -> bool:
        return bool(pa.types.is_list(self.column(name).type))

    def recurs(self, name: str) -> bool:
        """Whether values come back: from two distinct ones to half as many as there are rows."""
        if self.is_list(name):
            return False
        return 2 <= pc.count_distinct(self.column(name)).as_py() <= self.rows.table.num_rows / 2

    def numeric(self, name: str) -> bool:
        return not self.is_list(name) and means_numbers(self.counts(name))

    def counts(self, name: str) -> Counter[str]:
        counted = pc.value_counts(trimmed(self.column(name)).drop_null())
        return Counter({entry["values"]: entry["counts"] for entry in counted.to_pylist()})

    def free(self, taken: Sequence[str]) -> list[str]:
        return [n for n in self.names if n not in taken and plain(n) not in known.IGNORED]

    def by_name(self, usual: Sequence[str], taken: Sequence[str], what: str, option: str) -> str | None:
        """The column with a usual name; one of the first two names wins, otherwise it must be the only one."""
        found = [n for n in self.names if n not in taken and plain(n) in usual and not self.is_list(n)]
        found.sort(key=lambda name: usual.index(plain(name)))
        if len(found) > 1 and plain(found[0]) not in usual[:2]:
            raise self.ambiguous(found, what, option)
        return found[0] if found else None

    def ambiguous(self, found: Sequence[str], what: str, option: str) -> DataError:
        which = ", ".join(f"`{n}`" for n in found)
        says = f"could each be the {what}" if found else f"no column could be recognised as the {what}"
        also = " (written answers instead of labels: `--prompt` and `--response`)" if option == "--label" else ""
        return DataError(f"{which}{' ' if found else ''}{says}. Say which with `{option}`{also}. {self.listed}")

    def named_pair(self, pairs: Sequence[tuple[str, str]], taken: Sequence[str] = ()) -> tuple[str, str] | None:
        by_plain = {plain(n): n for n in reversed(self.names) if n not in taken}
        return next(((by_plain[a], by_plain[b]) for a, b in pairs if a in by_plain and b in by_plain), None)

    def choices(self) -> list[str]:
        """The columns of the candidates: several, or one of lists."""
        if self.said.choices is not None:
            return as_names(self.said.choices)
        if self.said.kind not in (None, "choice") or self.said.response or self.said.prompt:
            return []
        lists = [n for n in self.names if plain(n) in known.CHOICE_LISTS and self.is_list(n)]
        return known.numbered([n for n in self.names if n not in self.said.columns]) or lists[:1]

    def response(self) -> tuple[list[str], str] | None:
        """The prompt's columns and the response's, where this is a generation task."""
        said = self.said
        if said.response and said.prompt:
            return as_names(said.prompt), said.response
        if said.response:
            return [self.text([said.response], "--prompt")], said.response
        wanted = said.kind == "generation" or said.prompt is not None
        labelled = said.label or said.text or said.pair or said.kind in ("classification", "regression")
        if not wanted and (labelled or {"label", "labels"} & {plain(n) for n in self.names}):
            return None
        pair = self.named_pair(known.RESPONSES) or self.named_pair(known.ANSWERS)
        answers = {b for _, b in known.ANSWERS}
        if pair and not wanted and plain(pair[1]) in answers and self.recurs(pair[1]):
            return None
        if said.prompt is not None and pair and pair[1] not in as_names(said.prompt):
            return as_names(said.prompt), pair[1]
        if pair and said.prompt is None:
            parts = self.named_pair([known.PROMPT_PARTS.get(plain(pair[0]), ("", ""))], [pair[1]])
            return list(parts) if parts else [pair[0]], pair[1]
        if wanted:
            others = [n for n in self.free(as_names(said.prompt)) if not self.is_list(n)]
            if said.prompt is not None and len(others) == 1:
                return as_names(said.prompt), others[0]
            raise self.ambiguous(others, "response", "--response")
        return None

    def label(self, taken: Sequence[str]) -> str:
        if self.said.label:
            return self.said.label
        named = self.by_name(known.LABEL, taken, "label", "--label")
        if named:
            return named
        unusual = [n for n in self.free(taken) if plain(n) not in known.TEXT]
        found = [n for n in unusual if self.recurs(n) or self.numeric(n)]
        if len(found) != 1:
            raise self.ambiguous(found, "label", "--label")
        return found[0]

    def text(self, taken: Sequence[str], option: str = "--text") -> str:
        if self.said.text:
            return self.said.text
        named = self.by_name(known.TEXT, taken, "text", option)
        if named:
            return named
        found = [n for n in self.free(taken) if not self.is_list(n) and not self.numeric(n)]
        found = [n for n in found if not self.recurs(n)] or found
        if len(found) != 1:
            raise self.ambiguous(found, "text", option)
        return found[0]


def _choice(finder: _Finder, candidates: list[str]) -> Schema:
    said = finder.said
    label = finder.label([*candidates, *as_names(said.text), *as_names(said.pair)])
    text = finder.text([*candidates, label, *as_names(said.pair)])
    columns: dict[str, Any] = {"text": text, "choices": candidates, "label": label}
    if said.pair:
        columns["pair"] = said.pair
    table = finder.rows.table
    labels = trimmed(finder.column(label)).to_pylist()
    rows = [(x, c) for x, c in zip(labels, candidate_lists(table, candidates), strict=True) if x and c]
    columns["coding"] = choice_coding([x for x, _ in rows], [c for _, c in rows])
    return Schema("choice", columns, metric=choose_metric("choice", said.metric))


def _generation(finder: _Finder, prompt: list[str], response: str) -> Schema:
    columns = {"prompt": prompt if len(prompt) > 1 else prompt[0], "response": response}
    answers = finder.column(response)
    if finder.is_list(response):
        flat, separator = pc.list_flatten(answers), REFERENCE_SEPARATOR
    else:
        flat, separator = answers, None
    metric = choose_metric("generation", finder.said.metric, response, flat)
    return Schema("generation", columns, metric=metric, references=separator)


def _labelled(finder: _Finder) -> Schema:
    said = finder.said
    label = finder.label([*as_names(said.text), *as_names(said.pair)])
    columns: dict[str, Any] = {}
    pair = None if said.text or said.pair else finder.named_pair(known.PAIRS, [label])
    if pair:
        columns["text"], columns["pair"] = pair
    else:
        columns["text"] = finder.text([label, *as_names(said.pair)])
        if said.pair:
            columns["pair"] = said.pair
    columns["label"] = label
    if len({*columns.values()}) < len(columns):
        raise UsageError(f"text, pair and label must be different columns, but got {columns}.")
    if finder.is_list(label):
        raise DataError(
            f"column `{label}` must hold one label per row, but holds lists: several labels are not supported."
        )
    counts = finder.counts(label)
    kind = said.kind or ("regression" if means_numbers(counts) else "classification")
    labels = order(counts) if kind == "classification" else ()
    return Schema(kind, columns, labels, choose_metric(kind, said.metric))
