"""Scores of written responses against one or several accepted references; every one lies in [0, 1].

sacrebleu's chrF and BLEU are divided by 100 for that. ROUGE-L and chrF follow the metric's own rule for several
references (the best one), exact match and token F1 take the best, BLEU clips its counts against all.

Words. ``exact_match`` and ``token_f1`` normalise as SQuAD does (Rajpurkar et al. 2016: lower case, no punctuation, no
English articles, single spaces), extended as in MLQA (Lewis et al. 2020) to all scripts: punctuation of any script
goes, combining marks stay, and every Chinese or Japanese character is a word. ROUGE's own tokenizer deletes all but
ASCII letters and digits; ours agrees with it on ASCII and keeps the rest. BLEU uses sacrebleu's ``13a``, which needs
spaces between words: for scripts without them look at chrF.
"""

from __future__ import annotations

import re
import string
import unicodedata
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from foretune.errors import DataError, UsageError
from foretune.evaluation.metrics import Floats
from foretune.evaluation.numerals import gsm8k_answer

References = Sequence[Sequence[str]]

_ARTICLES = frozenset({"a", "an", "the"})
# Han, kana and the iteration marks: scripts that put no space between words.
_UNSPACED = re.compile(
    "([\u3005-\u3007\u3041-\u3096\u309d-\u309f\u30a1-\u30fa\u30fc-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff]|[\U00020000-\U0003ffff])"
)


@dataclass(frozen=True)
class Written:
    """A score of a set of responses.

    Attributes:
        value: the score of the whole set; for chrF and BLEU that is not the mean of ``examples``.
        examples: (n,) scores of the single responses.
        statistics: (n, k) what each response adds.
        combine: (draws, k) sums of ``statistics`` over ``n`` responses -> (draws,) scores of the set: for resampling.
    """

    value: float
    examples: Floats
    statistics: Floats
    combine: Callable[[Floats], Floats]


def normalise(text: str) -> str:
    """The form in which ``exact_match`` and ``token_f1`` compare.

    >>> normalise("The  U.S. economy!"), normalise("Привет, мир"), normalise("北京。")
    ('us economy', 'привет мир', '北 京')
    """
    plain = "".join(c for c in unicodedata.normalize("NFC", text).lower() if not _punctuation(c))
    return " ".join(word for word in _UNSPACED.sub(r" \1 ", plain).split() if word not in _ARTICLES)


def exact_match(references: References, outputs: Sequence[str]) -> Written:
    """1 where a response equals one of its references after ``normalise``.

    >>> exact_match([["Paris", "the city of Paris"]], ["City of Paris."]).value
    1.0
    """
    return _mean(references, outputs, lambda r, o: float(normalise(r) == normalise(o)))


def token_f1(references: References, outputs: Sequence[str]) -> Written:
    """The harmonic mean of precision and recall over the bag of words after ``normalise``; empty against empty is 1.

    >>> round(token_f1([["the red cat"]], ["red dog"]).value, 3)
    0.5
    """
    return _mean(references, outputs, _overlap)


def rouge_l(references: References, outputs: Sequence[str]) -> Written:
    """ROUGE-L (Lin 2004): F1 of the longest common subsequence of words, without stemming, by rouge-score.

    >>> round(rouge_l([["the cat sat on the mat"]], ["the cat on the mat"]).value, 3)
    0.909
    """
    from rouge_score.rouge_scorer import RougeScorer

    scorer = RougeScorer(["rougeL"], tokenizer=_Words())
    return _mean(references, outputs, lambda r, o: float(scorer.score(r, o)["rougeL"].fmeasure))


def chrf(references: References, outputs: Sequence[str]) -> Written:
    """chrF2 (Popović 2015) by sacrebleu: F-score of character 1- to 6-grams, recall twice as important.

    >>> round(chrf([["the cat"]], ["the cat"]).value, 3)
    1.0
    """
    from sacrebleu.metrics import CHRF

    return _sacre(CHRF(), CHRF(), references, outputs)


def bleu(references: References, outputs: Sequence[str]) -> Written:
    """BLEU-4 (Papineni et al. 2002) by sacrebleu, tokenizer ``13a``, exponential smoothing.

    The value is the set's own; ``examples`` are sentence BLEU with effective order, for short responses have no
    4-grams.

    >>> round(bleu([["the cat sat on the mat"]], ["the cat sat on the mat"]).value, 3)
    1.0
    """
    from sacrebleu.metrics import BLEU

    return _sacre(BLEU(force=True), BLEU(force=True, effective_order=True), references, outputs)


def gsm8k(references: References, outputs: Sequence[str]) -> Written:
    """1 where the number answered (``gsm8k_answer``) equals the reference's as a number: "1,000" is "1000.0".

    Raises:
        DataError: a reference without a number.

    >>> gsm8k([["2 + 2 = 4\\n#### 4"]], ["So she pays $4.00."]).value
    1.0
    """
    wanted = []
    for i, accepted in enumerate(references, start=1):
        wanted.append([gsm8k_answer(reference) for reference in accepted])
        if None in wanted[-1]:
            raise DataError(
                f"The metric `gsm8k` needs a number in every reference, but that of example {i} has none: "
                f"{accepted[wanted[-1].index(None)][-60:]!r}. Use `--metric exact_match` for answers in words."
            )
    _check(references, outputs)
    found = [gsm8k_answer(output) for output in outputs]
    return _of_mean(np.array([float(f in w) for f, w in zip(found, wanted, strict=True)]))


class _Words:
    """ROUGE's tokenizer for all scripts: lower-case runs of letters, marks and digits."""

    def tokenize(self, text: str) -> list[str]:
        plain = "".join(
            c if unicodedata.category(c)[0] in "LMN" else " " for c in unicodedata.normalize("NFC", text).lower()
        )
        return _UNSPACED.sub(r" \1 ", plain).split()


def _punctuation(character: str) -> bool:
    return character in string.punctuation or unicodedata.category(character).startswith("P")


def _overlap(reference: str, output: str) -> float:
    wanted, given = normalise(reference).split(), normalise(output).split()
    if not wanted or not given:
        return float(wanted == given)
    common = sum((Counter(wanted) & Counter(given)).values())
    return 2 * common / (len(wanted) + len(given))


def _mean(references: References, outputs: Sequence[str], score: Callable[[str, str], float]) -> Written:
    _check(references, outputs)
    return _of_mean(
        np.array(
            [max(score(r, output) for r in accepted) for accepted, output in zip(references, outputs, strict=True)]
        )
    )


def _of_mean(examples: Floats) -> Written:
    return Written(float(examples.mean()), examples, examples[:, None], lambda sums: sums[:, 0] / len(examples))


def _sacre(corpus: Any, sentence: Any, references: References, outputs: Sequence[str]) -> Written:
    """A sacrebleu metric: the set's score from summed statistics, as sacrebleu's own significance tests compute it."""
    _check(references, outputs)
    most = max(len(accepted) for accepted in references)
    streams = [[a[i] if i < len(a) else None for a in references] for i in range(most)]
    statistics = np.array(corpus._extract_corpus_statistics(list(outputs), streams), dtype=np.float64)

    def combine(sums: Floats) -> Floats:
        return np.array(
            [corpus._compute_score_from_stats(row).score / 100 for row in np.rint(sums).astype(int).tolist()]
        )

    examples = np.array(
        [sentence.sentence_score(o, list(a)).score / 100 for o, a in zip(outputs, references, strict=True)]
    )
    return Written(float(combine(statistics.sum(axis=0, keepdims=True))[0]), examples, statistics, combine)


def _check(references: References, outputs: Sequence[str]) -> None:
    if len(references) != len(outputs) or not len(outputs):
        raise UsageError(
            f"There must be one list of references per response, at least one, but got {len(references)} "
            f"and {len(outputs)}."
        )
    for i, accepted in enumerate(references, start=1):
        if isinstance(accepted, str) or not accepted:
            raise UsageError(
                f"References must be a list of at least one text per example, but example {i} has {accepted!r}."
            )
