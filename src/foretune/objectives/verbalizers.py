"""Verbalizers as tokens: what a label's word is to the tokenizer, and in how many passes all of them can be scored.

A space before the answer belongs to the answer: byte-level vocabularies hold it in the token (`` Yes``), and word
pieces do not care. A word of several tokens is scored by the sum of their log-probabilities.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from foretune.errors import ModelError, UsageError
from foretune.models import Checkpoint

Tokens = tuple[int, ...]


@dataclass(frozen=True)
class Frame:
    """What is put at the place of the answer for one pass.

    Attributes:
        tokens: mask tokens, or the beginning of an answer, whose last token need not be read.
        reads: how many tokens of an answer the pass can score.
    """

    tokens: Tokens
    reads: int


def split_gap(text: str) -> tuple[str, str]:
    """``text`` without the spaces at its end, and these.

    >>> split_gap("answer: ")
    ('answer:', ' ')
    """
    kept = text.rstrip(" ")
    return kept, text[len(kept) :]


def ids(checkpoint: Checkpoint, texts: Sequence[str]) -> list[list[int]]:
    """Token ids of ``texts`` as plain text: no special tokens are added, and those written in them are not obeyed."""
    if not texts:
        return []
    read = checkpoint.tokenizer(
        list(texts), add_special_tokens=False, split_special_tokens=True, return_attention_mask=False, verbose=False
    )
    return [list(sequence) for sequence in read["input_ids"]]


def brackets(checkpoint: Checkpoint) -> tuple[list[int], list[int]]:
    """The special tokens that the tokenizer puts before and after a text."""
    whole, plain = checkpoint.tokenizer("a")["input_ids"], ids(checkpoint, ["a"])[0]
    for start in range(len(whole) - len(plain) + 1):
        if whole[start : start + len(plain)] == plain:
            return list(whole[:start]), list(whole[start + len(plain) :])
    raise ModelError(
        f"The tokenizer of `{checkpoint.ref.name}` reads a text otherwise between its special tokens than alone, so no "
        "prompt can be put together. Use another checkpoint."
    )


def answer_tokens(checkpoint: Checkpoint, labels: Sequence[str], words: Sequence[str], lead: str) -> tuple[Tokens, ...]:
    """The tokens of each word where it follows ``lead``; an empty one: where it opens the prompt.

    Raises:
        UsageError: a word of which the tokenizer knows nothing, or one that melts into what stands before it.
    """
    kept, gap = split_gap(lead)
    (before, *whole) = ids(checkpoint, [kept, *(f"{kept}{gap}{word}" for word in words)])
    unknown = checkpoint.tokenizer.unk_token_id
    found: list[Tokens] = []
    for label, word, sequence in zip(labels, words, whole, strict=True):
        tokens = tuple(sequence[len(before) :])
        if sequence[: len(before)] != before:
            raise UsageError(
                f"The word `{word}` of the label `{label}` must begin a token, but the tokenizer joins it to "
                f"`{kept}`. Put a space before the place of the answer."
            )
        if not tokens or all(token == unknown for token in tokens):
            raise UsageError(
                f"The word `{word}` of the label `{label}` is unknown to the tokenizer of `{checkpoint.ref.name}`. "
                f"Give another: `--objective-option 'words={{{label}: a word}}'`."
            )
        found.append(tokens)
    return tuple(found)


def require_distinct(
    labels: Sequence[str], words: Sequence[str], answers: Sequence[Tokens], *, first: bool, nested: bool
) -> None:
    """Raise ``UsageError`` where two answers cannot be told apart.

    Args:
        answers: the tokens that are scored.
        first: whether these are the first tokens only.
        nested: whether an answer that begins another one always outscores it, as a sum of log-probabilities does where
            each token is read after those before it.
    """
    give = "Give words that differ there: `--objective-option 'words={label: word, ...}'`"
    for i, one in enumerate(answers):
        for j, other in enumerate(answers):
            pair = f"`{words[j]}` (label `{labels[j]}`) and `{words[i]}` (label `{labels[i]}`)"
            if i < j and one == other:
                what, more = ("first token", ", or score all: `tokens=all`") if first else ("tokens", "")
                raise UsageError(f"Labels must not share their answer's {what}, but {pair} do. {give}{more}.")
            if nested and len(one) < len(other) and other[: len(one)] == one:
                raise UsageError(
                    f"No answer may begin another, for the shorter would always win, but of {pair} the second begins "
                    f"the first ({len(one)} of {len(other)} tokens). {give}, or divide by length: `normalise=length`."
                )


def causal_frames(answers: Sequence[Tokens]) -> tuple[tuple[Frame, ...], tuple[int, ...]]:
    """Frames that score every answer of a model that reads from left to right, and the frame of each answer.

    Answers that differ in their last token alone share a pass, and a longer beginning serves shorter ones.

    >>> frames, where = causal_frames([(5,), (7, 8), (7, 9)])
    >>> [frame.tokens for frame in frames], where
    ([(7,)], (0, 0, 0))
    """
    starts = sorted({answer[:-1] for answer in answers}, key=lambda start: (-len(start), start))
    kept: list[Tokens] = []
    for start in starts:
        if not any(longer[: len(start)] == start for longer in kept):
            kept.append(start)
    where = tuple(
        next(i for i, start in enumerate(kept) if start[: len(answer) - 1] == answer[:-1]) for answer in answers
    )
    return tuple(Frame(start, len(start) + 1) for start in kept), where


def masked_frames(answers: Sequence[Tokens], mask: int) -> tuple[tuple[Frame, ...], tuple[int, ...]]:
    """The same for a model that fills masks: one frame per length, all of whose tokens are read at once.

    So PET trains words of several tokens (Schick and Schuetze 2021, arXiv 2009.07118, section 3.1).

    >>> masked_frames([(5,), (7, 8)], mask=4)[1]
    (0, 1)
    """
    lengths = sorted({len(answer) for answer in answers})
    return tuple(Frame((mask,) * length, length) for length in lengths), tuple(lengths.index(len(a)) for a in answers)
