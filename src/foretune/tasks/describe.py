"""describe: training rows -> TaskCard, the numbers by which a task is compared with earlier ones.

Only training rows are read: what is known of a task before a run must not come from its test text. Whatever does not
apply (the overlap of a pair where there is no pair) is absent from the card and not 0, so that a surrogate can treat it
as unknown. Lengths, duplicates and labels are counted over all rows in Arrow; what needs the characters themselves
(vocabulary, compression, script) is measured on evenly spaced rows of about ``SAMPLE`` characters, so that its cost
does not grow with the data.
"""

from __future__ import annotations

import math
import unicodedata
import zlib
from collections import Counter
from collections.abc import Mapping

import numpy as np
import pyarrow as pa

from foretune.records import TaskCard
from foretune.tasks.schema import Schema

SAMPLE = 1_000_000
"""Characters that the character-level features look at."""

WORDS = 10_000
"""Words over which the type-token ratio is taken: it falls with the length of the text, so the length is bounded."""

PAIRS = 1_000
"""Rows over which the overlap of a pair is taken."""

CODE = frozenset("{}[]()<>;=_/\\|&*^%$#@~`")
"""Characters that are common in source code and rare in prose."""


def card(name: str, schema: Schema, train: pa.Table, rows: Mapping[str, int], sketch: tuple[str, ...] = ()) -> TaskCard:
    """Describe a task by its training rows.

    Features, where they apply (an input is the text with its pair or its choices; words are separated by white space):

    - ``characters_*`` and ``words_*`` of the input, ``response_words_*`` of a written response: mean, p50, p95, max;
    - ``response_ratio``: mean words of the response over mean words of the prompt;
    - ``type_token_ratio``, ``gzip_ratio`` (compressed over raw bytes), ``duplicate_rate`` (inputs seen before);
    - ``digit_share``, ``code_share``: of the characters that are no white space;
    - ``script_<name>``: 1 for the script of most letters, e.g. ``script_latin``;
    - ``response_distinct`` (distinct labels or responses over rows), ``response_entropy`` in nats;
    - ``pair_overlap``: share of the second text's words that stand in the first; ``choices_mean``: candidates per row.

    Args:
        name: how the task is called in reports.
        schema: its kind and class names.
        train: training rows, ``SPLIT_COLUMNS``.
        rows: split -> number of rows, for the card's counts.
        sketch: of the whole source, ``Task.sketch``; without it copies of the task are known by their bytes alone.

    >>> nothing = [None, None]
    >>> table = pa.table({"text": ["a b", "a b c d"], "pair": nothing, "choices": nothing, "label": ["x", "y"]})
    >>> made = card("toy", Schema("classification", labels=("x", "y")), table, {"train": 2})
    >>> made.classes, made.majority, made.features["words_mean"], "pair_overlap" in made.features
    (2, 0.5, 3.0, False)
    """
    counts = np.array([count["counts"] for count in train["label"].drop_null().value_counts().to_pylist()])
    classified = schema.kind == "classification" and counts.size > 0
    features: dict[str, float] = {}
    if train.num_rows:
        features |= _inputs(train) | _parts(train)
    if schema.kind == "generation" and counts.size:
        features |= _spread("response_words", _words(train["label"].drop_null()))
        if features["words_mean"]:
            features["response_ratio"] = features["response_words_mean"] / features["words_mean"]
    if counts.size:
        features |= {"response_distinct": counts.size / counts.sum(), "response_entropy": _entropy(counts)}
    return TaskCard(
        name=name,
        kind=schema.kind,
        rows=dict(rows),
        classes=len(schema.labels),
        majority=float(counts.max() / counts.sum()) if classified else 0.0,
        label_entropy=_entropy(counts) if classified else 0.0,
        features={feature: float(value) for feature, value in features.items()},
        sketch=sketch,
    )


def _inputs(train: pa.Table) -> dict[str, float]:
    """Features of the input: text, pair and choices of a row as one string."""
    import pyarrow.compute as pc

    parts = [train["text"].cast(pa.string()), train["pair"].cast(pa.string())]
    parts.append(pc.binary_join(train["choices"].cast(pa.list_(pa.string())), " "))
    inputs = pc.binary_join_element_wise(*parts, " ", null_handling="skip")
    characters, words = pc.utf8_length(inputs).to_numpy(), _words(inputs)
    features = _spread("characters", characters) | _spread("words", words)
    features["duplicate_rate"] = 1 - pc.count_distinct(inputs).as_py() / len(inputs)
    if vocabulary := _sample(inputs, words, WORDS).lower().split():
        features["type_token_ratio"] = len(set(vocabulary)) / len(vocabulary)
    return features | _characters(_sample(inputs, characters, SAMPLE))


def _words(texts: pa.ChunkedArray) -> np.ndarray:
    import pyarrow.compute as pc

    counted: np.ndarray = pc.count_substring_regex(texts, r"\S+").to_numpy()
    return counted


def _spread(name: str, values: np.ndarray) -> dict[str, float]:
    p50, p95 = np.percentile(values, [50, 95])
    return {f"{name}_mean": values.mean(), f"{name}_p50": p50, f"{name}_p95": p95, f"{name}_max": values.max()}


def _characters(text: str) -> dict[str, float]:
    """Compression, kinds of characters and script; nothing of a blank text."""
    visible = {character: n for character, n in Counter(text).items() if not character.isspace()}
    total = sum(visible.values())
    if not total:
        return {}
    raw = text.encode()
    features = {
        "gzip_ratio": len(zlib.compress(raw, 6)) / len(raw),
        "digit_share": sum(n for character, n in visible.items() if character.isdigit()) / total,
        "code_share": sum(n for character, n in visible.items() if character in CODE) / total,
    }
    scripts: Counter[str] = Counter()
    for character, n in visible.items():
        if character.isalpha():
            scripts[_script(character)] += n
    if scripts:
        features[f"script_{scripts.most_common(1)[0][0]}"] = 1.0
    return features


def _sample(inputs: pa.ChunkedArray, sizes: np.ndarray, limit: int) -> str:
    """Evenly spaced rows, one a line, whose sizes add up to about ``limit``: a sorted file is met in all its parts."""
    step = max(1, math.ceil(sizes.sum() / limit))
    return "\n".join(inputs.take(np.arange(0, len(inputs), step)).to_pylist())


def _script(letter: str) -> str:
    """The first word of the letter's Unicode name, which is its script: ``latin``, ``cyrillic``, ``cjk``."""
    return unicodedata.name(letter, "unknown").split()[0].lower()


def _parts(train: pa.Table) -> dict[str, float]:
    import pyarrow.compute as pc

    features: dict[str, float] = {}
    if train["choices"].null_count < train.num_rows:
        features["choices_mean"] = pc.mean(pc.list_value_length(train["choices"])).as_py()
    if train["pair"].null_count < train.num_rows:
        rows = train.take(np.arange(0, train.num_rows, max(1, math.ceil(train.num_rows / PAIRS))))
        overlaps = [
            len(second.intersection(text.lower().split())) / len(second)
            for text, pair in zip(rows["text"].to_pylist(), rows["pair"].to_pylist(), strict=True)
            if (second := set((pair or "").lower().split()))
        ]
        if overlaps:
            features["pair_overlap"] = sum(overlaps) / len(overlaps)
    return features


def _entropy(counts: np.ndarray) -> float:
    shares = counts / counts.sum()
    return float(-(shares * np.log(shares)).sum())
