"""The column names that data sets use, so that detection is a table to read rather than code.

Names are compared in lower case with everything but letters and digits removed: ``#1 String`` is ``1string``.
"""

from __future__ import annotations

import re

LABEL = (
    *("label", "labels", "class", "category", "target", "y", "intent", "sentiment", "goldlabel", "gold", "topic"),
    *("emotion", "polarity", "score", "rating", "stars", "similarity", "similarityscore", "isduplicate", "quality"),
    *("coarselabel", "answer", "answerkey", "correct", "correctanswer"),
)
"""Label columns, strongest first: the first two win over any other; between the others a second one is ambiguous."""

TEXT = (
    *("text", "sentence", "content", "review", "document", "utterance", "query", "question", "message", "comment"),
    *("tweet", "body", "input", "inputs", "post", "headline", "passage", "title", "abstract", "prompt", "premise"),
    *("context", "ctx", "goal"),
)
"""Text columns; the first two win over any other."""

PAIRS = (
    *(("sentence1", "sentence2"), ("premise", "hypothesis"), ("question1", "question2"), ("question", "passage")),
    *(("question", "sentence"), ("question", "context"), ("text1", "text2"), ("texta", "textb")),
    *(("sentencea", "sentenceb"), ("s1", "s2"), ("1string", "2string"), ("query", "passage"), ("query", "document")),
    *(("claim", "evidence"), ("text", "textpair")),
)
"""First and second text of a pair."""

RESPONSES = (
    *(("prompt", "response"), ("prompt", "completion"), ("instruction", "output"), ("instruction", "response")),
    *(("question", "response"), ("article", "highlights"), ("document", "summary"), ("text", "summary")),
    *(("article", "summary"), ("dialogue", "summary")),
)
"""Prompt and response: these names alone make a generation task."""

ANSWERS = (
    *(("question", "answer"), ("query", "answer"), ("question", "answers"), ("question", "answerstext")),
    *(("input", "output"), ("source", "target")),
)
"""The same when the second column is free text rather than a handful of values."""

PROMPT_PARTS = {"instruction": ("instruction", "input"), "question": ("context", "question")}
"""Prompts that stand in two columns, in the order in which they are joined by a blank line."""

CHOICE_STEMS = ("choice", "option", "ending", "answer", "sol", "candidate", "alternative", "mc")
"""``choice1, choice2``, ``ending0, ending1``, ``option_a, option_b``: numbered or lettered columns of candidates."""

CHOICE_LISTS = ("choices", "options", "endings", "candidates", "choicestext", "alternatives")
"""A column whose cells are lists of candidates."""

IGNORED = (
    *("id", "idx", "index", "guid", "uid", "pairid", "qid", "row", "rowid", "split", "source", "url", "date"),
    *("timestamp", "1id", "2id", "annotator", "heuristic", "subcase", "template"),
)
"""Never taken for a label or a text unless the user says so."""


def plain(name: str) -> str:
    """The form in which names are compared.

    >>> plain("Gold_Label"), plain("#1 String")
    ('goldlabel', '1string')
    """
    return re.sub(r"[\W_]+", "", name.lower())


def numbered(names: list[str]) -> list[str]:
    """The columns of one numbered or lettered family of choices, in their order; empty when there is none.

    >>> numbered(["premise", "choice2", "choice1", "label"]), numbered(["answer", "text"])
    (['choice1', 'choice2'], [])
    """
    for stem in CHOICE_STEMS:
        family = {m[1]: name for name in names if (m := re.fullmatch(rf"{stem}([0-9]+|[a-h])", plain(name)))}
        if len(family) > 1:
            return [family[key] for key in sorted(family, key=lambda k: (len(k), k))]
    return []
