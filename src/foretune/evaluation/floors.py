"""What a result must beat: answers that need no fine-tuning, learned from the same labelled rows.

==============  ===================================  =======================================  =================
kind            ``majority``                         ``tfidf``                                ``copy``
==============  ===================================  =======================================  =================
classification  the class shares                     logistic regression on TF-IDF            -
choice          the shares of the right positions    similarity of question and choice        -
regression      the mean, called ``mean``            ridge regression on TF-IDF               -
generation      the most frequent response           the response to the most similar prompt  the prompt itself
==============  ===================================  =======================================  =================

``probe`` is the third floor: the same models on frozen embeddings that a caller with a language model hands in.
TF-IDF counts words and pairs of words, and 3 to 5 characters within words; a text pair enters joined and as two
fields. Everything is deterministic. Outputs have the form that ``judge`` takes.
"""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from foretune.errors import UsageError
from foretune.evaluation.calibration import fit_temperature, softmax
from foretune.evaluation.metrics import Floats, Ints

Outputs = Floats | list[str]

FOLDS = 3
AFFORDABLE = 10_000
"""Rows times classes up to which the strength is cross-validated; beyond, the default is used. A fit with 2,000 rows
of 77 classes takes seconds, and on Banking77 the default is within 0.002 of the best of the grid."""

SEPARATOR = " [SEP] "
_BLANK = "∅"
_WORDS = r"\w+|[^\w\s]"


@dataclass(frozen=True)
class Inputs:
    """The texts of ``n`` rows.

    Attributes:
        texts: (n,) texts, first texts of pairs, questions or prompts.
        pairs: (n,) second texts, or None.
        choices: (n,) candidate texts of each row, or None.
    """

    texts: Sequence[str]
    pairs: Sequence[str] | None = None
    choices: Sequence[Sequence[str]] | None = None


def floors(
    kind: str, train: Inputs, targets: Sequence[Any] | np.ndarray, judged: Mapping[str, Inputs], classes: int = 0
) -> dict[str, dict[str, Outputs]]:
    """The floors that need no language model: floor -> split -> outputs.

    Args:
        kind: one of ``foretune.records.KINDS``.
        train: the labelled rows.
        targets: theirs, as for ``judge``.
        judged: split -> rows.
        classes: number of classes (classification only); classes without a labelled row get probability 0.

    >>> train = Inputs(["good film", "great film", "bad film", "awful film"])
    >>> found = floors("classification", train, [1, 1, 0, 0], {"test": Inputs(["a great one"])}, classes=2)
    >>> found["majority"]["test"].tolist(), found["tfidf"]["test"].argmax(axis=1).tolist()
    ([[0.5, 0.5]], [1])
    """
    if kind == "generation":
        return _generation(train, [accepted[0] for accepted in targets], judged)
    if kind == "choice":
        return _choice(train, np.asarray(targets, dtype=np.int64), judged)
    fields = [_fields(rows) for rows in (train, *judged.values())]
    first, *others = _tfidf(fields)
    known, size = _learned(kind, targets, classes)
    model = _fit(kind, first, known, size)
    simplest = "mean" if kind == "regression" else "majority"
    return {
        simplest: {split: _constant(kind, known, size, len(rows.texts)) for split, rows in judged.items()},
        "tfidf": {split: _apply(model, table, size) for split, table in zip(judged, others, strict=True)},
    }


def probe(
    train_features: ArrayLike, train_labels: ArrayLike, eval_features: ArrayLike, kind: str, classes: int = 0
) -> Floats:
    """The floor ``embedding``: logistic or ridge regression on standardised frozen features.

    Args:
        train_features: (n, d); eval_features: (m, d), several splits may be stacked.
        train_labels: (n,) class indices or numbers.
        kind: ``classification`` or ``regression``.
        classes: number of classes, 0 for the largest label plus one.

    Returns:
        (m, C) probabilities or (m,) values.

    >>> probe([[0.0], [0.1], [0.9], [1.0]], [0, 0, 1, 1], [[0.2], [0.8]], "classification").argmax(axis=1).tolist()
    [0, 1]
    """
    if kind not in ("classification", "regression"):
        raise UsageError(f"A probe learns `classification` or `regression`, but got {kind=}.")
    first, other = (np.asarray(table, dtype=np.float64) for table in (train_features, eval_features))
    known, size = _learned(kind, train_labels, classes)
    return _apply(_fit(kind, first, known, size), other, size)


def _learned(kind: str, targets: Any, classes: int) -> tuple[Ints | Floats, int]:
    """The targets as an array, and the number of classes (0 for numbers)."""
    if kind == "regression":
        return np.asarray(targets, dtype=np.float64), 0
    known = np.asarray(targets, dtype=np.int64)
    return known, classes or int(known.max()) + 1


def _constant(kind: str, known: Any, size: int, n: int) -> Floats:
    """Class shares, or the mean, for each of ``n`` rows."""
    if kind == "regression":
        return np.full(n, known.mean())
    return np.tile(np.bincount(known, minlength=size) / len(known), (n, 1))


def _fit(kind: str, features: Any, known: Any, size: int) -> Any:
    """Logistic or ridge regression; its strength by cross-validation within the labelled rows where they allow it.

    Dense features are standardised, so a row's squared norm is about the number of columns: strengths are divided by
    it and mean the same as for TF-IDF rows, whose norm is about 1.
    """
    from sklearn.dummy import DummyClassifier
    from sklearn.linear_model import LogisticRegression, Ridge
    from sklearn.model_selection import GridSearchCV, KFold, StratifiedKFold
    from sklearn.pipeline import Pipeline
    from sklearn.preprocessing import StandardScaler

    dense = isinstance(features, np.ndarray)
    width = features.shape[1] if dense else 1
    if kind == "regression":
        strengths = {"model__alpha": [width * alpha for alpha in (1.0, 0.1, 10.0)]}
        model, scoring = Ridge(), "neg_mean_squared_error"
        folds, enough = KFold(FOLDS, shuffle=True, random_state=0), len(known) >= 2 * FOLDS
    else:
        sizes = np.unique(known, return_counts=True)[1]
        if len(sizes) < 2:
            return DummyClassifier().fit(features, known)
        strengths = {"model__C": [inverse / width for inverse in (10.0, 1.0, 100.0)]}
        model, scoring = LogisticRegression(max_iter=10_000), "accuracy"
        folds = StratifiedKFold(max(2, min(FOLDS, int(sizes.min()))), shuffle=True, random_state=0)
        enough = sizes.min() >= 2 and len(known) * size <= AFFORDABLE
    steps = Pipeline([("scale", StandardScaler() if dense else "passthrough"), ("model", model)])
    default = {name: values[0] for name, values in strengths.items()}
    chosen = GridSearchCV(steps, strengths, cv=folds, scoring=scoring) if enough else steps.set_params(**default)
    with warnings.catch_warnings():  # scikit-learn takes many classes with few rows each for a mistake
        warnings.filterwarnings("ignore", "The number of unique classes is greater than 50%")
        return chosen.fit(features, known)


def _apply(model: Any, features: Any, size: int) -> Floats:
    """(m, size) probabilities with a column for every class, or (m,) values when ``size`` is 0."""
    if not size:
        return np.asarray(model.predict(features), dtype=np.float64)
    table = np.zeros((features.shape[0], size))
    table[:, model.classes_] = model.predict_proba(features)
    return table


def _fields(rows: Inputs) -> list[list[str]]:
    """The columns that TF-IDF sees: the text alone, or the pair joined and its two sides."""
    texts = [text if text.strip() else _BLANK for text in rows.texts]
    if rows.pairs is None:
        return [texts]
    pairs = [pair if pair.strip() else _BLANK for pair in rows.pairs]
    return [[a + SEPARATOR + b for a, b in zip(texts, pairs, strict=True)], texts, pairs]


def _tfidf(parts: Sequence[list[list[str]]]) -> list[Any]:
    """One sparse matrix for each part, its weights learned from the first."""
    from scipy.sparse import hstack

    vectorisers = [_vectoriser().fit(field) for field in parts[0]]
    return [
        hstack([v.transform(field) for v, field in zip(vectorisers, fields, strict=True)], format="csr")
        for fields in parts
    ]


def _vectoriser() -> Any:
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.pipeline import FeatureUnion

    words = TfidfVectorizer(ngram_range=(1, 2), token_pattern=_WORDS, sublinear_tf=True)
    characters = TfidfVectorizer(analyzer="char_wb", ngram_range=(3, 5), sublinear_tf=True)
    return FeatureUnion([("words", words), ("characters", characters)])


def _open_vectoriser() -> Any:
    """TF-IDF over all words and characters there are; those that the labelled rows lack weigh most."""
    from sklearn.feature_extraction.text import HashingVectorizer, TfidfTransformer
    from sklearn.pipeline import FeatureUnion, Pipeline

    plain = {"n_features": 2**18, "alternate_sign": False, "norm": None}
    words = HashingVectorizer(ngram_range=(1, 2), token_pattern=_WORDS, **plain)
    characters = HashingVectorizer(analyzer="char_wb", ngram_range=(3, 5), **plain)
    union = FeatureUnion([("words", words), ("characters", characters)])
    return Pipeline([("counts", union), ("weights", TfidfTransformer(sublinear_tf=True))])


def _choice(train: Inputs, known: Ints, judged: Mapping[str, Inputs]) -> dict[str, dict[str, Outputs]]:
    """Choices by position, and by likeness to the question with a temperature fitted on the labelled rows."""
    vectoriser = _open_vectoriser().fit([*_fields(train)[0], *(c for row in train.choices or () for c in row)])
    temperature = fit_temperature(_similarities(vectoriser, train), known)
    return {
        "majority": {split: _positions(known, rows) for split, rows in judged.items()},
        "tfidf": {split: softmax(_similarities(vectoriser, rows), temperature) for split, rows in judged.items()},
    }


def _positions(known: Ints, rows: Inputs) -> Floats:
    """How often each position was right, over the choices that a row offers; one pseudo-count keeps them above 0."""
    offered = _offered(rows)
    shares = np.bincount(known, minlength=offered.shape[1])[: offered.shape[1]] + 1.0
    table = np.where(offered, shares, 0.0)
    return table / table.sum(axis=1, keepdims=True)


def _offered(rows: Inputs) -> np.ndarray:
    """(n, most choices), True where the row has a choice."""
    sizes = np.array([len(row) for row in rows.choices or ()])
    return np.arange(sizes.max()) < sizes[:, None]


def _similarities(vectoriser: Any, rows: Inputs) -> Floats:
    """Cosines of questions and choices, (n, most choices); -inf where there is no choice."""
    offered = _offered(rows)
    questions = vectoriser.transform(_fields(rows)[0])[np.nonzero(offered)[0]]
    choices = vectoriser.transform([choice for row in rows.choices or () for choice in row])
    table = np.full(offered.shape, -np.inf)
    table[offered] = np.asarray(questions.multiply(choices).sum(axis=1)).ravel()
    return table


def _generation(train: Inputs, responses: list[str], judged: Mapping[str, Inputs]) -> dict[str, dict[str, Outputs]]:
    usual = Counter(responses).most_common(1)[0][0]
    first, *others = _tfidf([_fields(rows) for rows in (train, *judged.values())])
    return {
        "majority": {split: [usual] * len(rows.texts) for split, rows in judged.items()},
        "tfidf": {
            split: [responses[nearest] for nearest in np.asarray((table @ first.T).todense()).argmax(axis=1)]
            for split, table in zip(judged, others, strict=True)
        },
        "copy": {split: list(rows.texts) for split, rows in judged.items()},
    }
