"""Prompts: a row written as a sentence in which a word answers, and the rows that are shown before it.

A pattern is data: a text with the places ``{text}``, ``{pair}`` and ``{answer}``, what stands between two rows, and the
word for each label. One text serves every family: a masked model fills the place of the answer, wherever it is, and a
model that writes goes on from the words before it.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa

from foretune.errors import DataError, UsageError
from foretune.registry import did_you_mean
from foretune.tasks.checks import name_rows
from foretune.tasks.keys import hash64
from foretune.tasks.leaks import find_leak, group_rows

PLACES = ("text", "pair", "answer")
_PLACE = re.compile(r"\{(\w*)\}")


@dataclass(frozen=True)
class Pattern:
    """How a row is written.

    Attributes:
        template: with ``{text}`` and ``{answer}`` once each, and ``{pair}`` where rows have two texts.
        separator: what stands between two rows.
        words: label -> word, for the tasks it was written for; empty: the labels' own names.

    >>> Pattern("{text} Good or bad? {answer}").around("Nice.", None)
    ('Nice. Good or bad? ', '')
    """

    template: str
    separator: str = "\n\n"
    words: Mapping[str, str] = field(default_factory=dict, hash=False)

    def __post_init__(self) -> None:
        places = Counter(_PLACE.findall(self.template))
        for name in ("text", "answer"):
            if places[name] != 1:
                raise UsageError(
                    f"A pattern must have `{{{name}}}` once, but `{self.template}` has it {places[name]} times. "
                    "Write one such as `{text} It is {answer}.`."
                )
        unknown = [name for name in places if name not in PLACES]
        if unknown or places["pair"] > 1:
            raise UsageError(
                "A pattern has the places {text}, {answer} and, once at most, {pair}, but "
                f"`{self.template}` has {', '.join(f'{{{name}}}' for name in places)}. Use these names."
            )

    @property
    def paired(self) -> bool:
        """Whether it reads two texts."""
        return "{pair}" in self.template

    @property
    def lead(self) -> str:
        """What stands between the last text before the answer and the answer."""
        return _PLACE.split(self.template.partition("{answer}")[0])[-1]

    @property
    def sides(self) -> tuple[list[str], list[str]]:
        """What stands before and after the answer, in pieces: every second one names a place, the others are as they
        stand.

        >>> Pattern("{text} It is {answer}.").sides
        (['', 'text', ' It is '], ['.'])
        """
        before, _, after = self.template.partition("{answer}")
        return _PLACE.split(before), _PLACE.split(after)

    def around(self, text: str, pair: str | None) -> tuple[str, str]:
        """What stands before and after the answer."""
        filled = {"text": text, "pair": pair or ""}
        return tuple(  # type: ignore[return-value]
            "".join(filled[part] if i % 2 else part for i, part in enumerate(side)) for side in self.sides
        )

    def shown(self, text: str, pair: str | None, word: str) -> str:
        """A row with its answer."""
        before, after = self.around(text, pair)
        return before + word + after


_ENTAILED = ("entailment",)
_NOT_ENTAILED = ("not_entailment", "non-entailment", "contradiction")


def _nli(yes: str, no: str, **more: str) -> dict[str, str]:
    return {**dict.fromkeys(_ENTAILED, yes), **dict.fromkeys(_NOT_ENTAILED, no), **more}


_SAME = {"not_duplicate": "No", "not_paraphrase": "No", "0": "No", "duplicate": "Yes", "paraphrase": "Yes", "1": "Yes"}
_ACCEPTABLE = {"unacceptable": "No", "0": "No", "acceptable": "Yes", "1": "Yes"}

PATTERNS: dict[str, Pattern] = {
    "it-is": Pattern("{text} It is {answer}."),
    "pair-it-is": Pattern("{text} {pair} It is {answer}."),
    "nli-minimal": Pattern("{text} {pair} ? {answer}", words=_nli("Yes", "No")),
    "nli-gpt-3": Pattern("{text} question: {pair} Yes or No? answer: {answer}", words=_nli("Yes", "No")),
    "nli-eval-harness": Pattern(
        "{text} \nQuestion: {pair} True or False?\nAnswer: {answer}", words=_nli("True", "False")
    ),
    "qqp-minimal": Pattern("{text} {pair} ? {answer}", words=_SAME),
    "qqp-eval-harness": Pattern(
        "Question 1: {text}\nQuestion 2: {pair}\nQuestion: Do both questions ask the same thing? Answer: {answer}",
        words=_SAME,
    ),
    "cola-minimal": Pattern("{text} ? {answer}", separator=" ", words=_ACCEPTABLE),
    "cola-gpt-3": Pattern("grammatical: {text} Yes or No? answer: {answer}", words=_ACCEPTABLE),
}
"""Name -> pattern. ``it-is`` and ``pair-it-is`` serve any classes; the others are those of Mosbach et al. 2023 (arXiv
2305.16938, as their code writes them) for MNLI without neutral and RTE (``nli``), QQP and CoLA."""


def find_pattern(name: str, paired: bool) -> Pattern:
    """The pattern called ``name``, or the one that it spells; ``auto`` is ``it-is`` or ``pair-it-is``.

    Args:
        paired: whether the rows have two texts.

    Raises:
        UsageError: no such name, a text without the places of a pattern, or one for another number of texts.

    >>> find_pattern("auto", paired=True).template, find_pattern("{text} So: {answer}", paired=False).separator
    ('{text} {pair} It is {answer}.', '\\n\\n')
    """
    name = ("pair-it-is" if paired else "it-is") if name == "auto" else name
    if name not in PATTERNS and "{" not in name:
        raise UsageError(
            f"`{name}` is not a pattern.{did_you_mean(name, PATTERNS)} Known: {', '.join(PATTERNS)}; or write one with "
            "the places {text} and {answer}."
        )
    pattern = PATTERNS[name] if name in PATTERNS else Pattern(name)
    if pattern.paired != paired:
        have, lacks = ("two texts", "no {pair}") if paired else ("one text", "a {pair}")
        raise UsageError(f"The rows have {have}, but the pattern `{pattern.template}` has {lacks}. Use another one.")
    return pattern


def words_for(pattern: Pattern, labels: Sequence[str], given: Mapping[str, str]) -> tuple[str, ...]:
    """The word for each label: as given, else the pattern's, else (where it has none) the label itself.

    Raises:
        UsageError: a word for a label that there is not, or no word for one.

    >>> words_for(PATTERNS["it-is"], ("not_good", "fine"), {"fine": "great"})
    ('not good', 'great')
    """
    unknown = [label for label in given if label not in labels]
    if unknown:
        raise UsageError(
            f"`words` must name labels of the task, but `{unknown[0]}` is none.{did_you_mean(unknown[0], labels)} "
            f"Labels: {', '.join(labels)}."
        )
    told = {**pattern.words, **given}
    wordless = [label for label in labels if label not in told and pattern.words]
    if wordless:
        raise UsageError(
            f"The pattern `{pattern.template}` has words for {', '.join(pattern.words)}, but not for the label "
            f"`{wordless[0]}`. Give all of them: `--objective-option 'words={{{wordless[0]}: a word, ...}}'`."
        )
    return tuple(told.get(label, " ".join(re.split(r"[_\s]+", label))).strip() for label in labels)


def draw_shown(table: pa.Table, labels: Sequence[str], count: int, data_seed: int, order_seed: int) -> pa.Table:
    """``count`` rows of ``table``, as many of each label, drawn by one seed and put into order by the other.

    More rows of the same ``data_seed`` hold the fewer ones.

    Raises:
        UsageError: ``count`` is no multiple of the number of labels, or a label has fewer rows.
    """
    each, rest = divmod(count, len(labels))
    if rest:
        up, down = (each + 1) * len(labels), each * len(labels)
        raise UsageError(
            f"`demonstrations` must be as many for each of the {len(labels)} labels, but got {count}. "
            f"Use {f'{down} or ' if down else ''}{up}."
        )
    rng = np.random.Generator(np.random.PCG64(hash64("demonstrations", data_seed)))
    places: list[int] = []
    column = np.asarray(table["label"].to_pylist(), dtype=object)
    for label in labels:
        own = np.flatnonzero(column == label)
        if len(own) < each:
            raise UsageError(
                f"{count} demonstrations take {each} training rows of each label, but `{label}` has {len(own)}. "
                "Use fewer, or more `--shots`."
            )
        places += rng.permutation(own)[:each].tolist()
    order = np.random.Generator(np.random.PCG64(hash64("demonstrations-order", order_seed)))
    return table.take(pa.array(order.permutation(np.sort(places)).astype(np.int64)))


def check_unseen(shown: pa.Table, tables: Mapping[str, pa.Table]) -> None:
    """Refuse demonstrations that stand in a split to be judged.

    Raises:
        DataError: with the rows of both.
    """
    groups = group_rows(shown)
    for name, table in tables.items():
        leak = find_leak("train", name, groups, group_rows(table), shown, table) if name != "train" else None
        if leak:
            raise DataError(
                f"A demonstration must not stand in a split that is judged, but {name_rows(leak.left_rows)} of train "
                f"{'is' if len(leak.left_rows) == 1 else 'are'} also {name_rows(leak.right_rows)} of "
                f"{name.removeprefix('ood:')}. Remove it from train, or take another `--seed`."
            )


def context(pattern: Pattern, shown: pa.Table, words: Mapping[str, str]) -> str:
    """The demonstrations as they stand before a row, separator included; empty for none."""
    rows: list[dict[str, Any]] = shown.select(["text", "pair", "label"]).to_pylist()
    return "".join(pattern.shown(r["text"], r["pair"], words[r["label"]]) + pattern.separator for r in rows)
