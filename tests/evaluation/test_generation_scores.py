"""Scores of written responses: sacrebleu's and rouge-score's own values, SQuAD's normalisation, all scripts."""

import numpy as np
import pytest
import sacrebleu
from hypothesis import given
from hypothesis import strategies as st
from rouge_score.rouge_scorer import RougeScorer

from foretune.errors import UsageError
from foretune.evaluation import generation

SCORES = (generation.exact_match, generation.token_f1, generation.rouge_l, generation.chrf, generation.bleu)
REFERENCES = [
    ["The cat sat on the mat.", "A cat was on the mat."],
    ["Two dogs run in the park."],
    ["It rains today again."],
]
OUTPUTS = ["The cat was on the mat.", "Two dogs ran in a park.", "Today it rains."]


def test_normalisation_is_that_of_squad_on_english():
    assert generation.normalise("The U.S.  'economy', again!") == "us economy again"
    assert generation.normalise("an A the") == ""


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Привет, мир!", "привет мир"),
        ("हिन्दी है।", "हिन्दी है"),
        ("مرحبا، بالعالم؟", "مرحبا بالعالم"),
        ("東京タワー。", "東 京 タ ワ ー"),
        ("안녕, 세계", "안녕 세계"),
        ("cafe\u0301", "café"),
    ],
)
def test_other_scripts_keep_their_letters_and_lose_their_punctuation(text, expected):
    assert generation.normalise(text) == expected


def test_token_f1_counts_words_as_a_bag():
    # "red cat red" against "red red dog": two words in common of three and three.
    assert generation.token_f1([["red cat red"]], ["red red dog"]).value == pytest.approx(2 / 3)
    assert generation.token_f1([["東京"]], ["東北"]).value == pytest.approx(0.5)
    assert generation.token_f1([["the"], ["the"]], ["", "x"]).examples.tolist() == [1.0, 0.0]


@pytest.mark.parametrize("score", [generation.exact_match, generation.token_f1, generation.rouge_l, generation.chrf])
def test_the_best_of_several_references_counts(score):
    both = score([["something else", "green tea"]], ["green tea"]).value
    assert both == pytest.approx(score([["green tea"]], ["green tea"]).value) == pytest.approx(1.0)


def test_rouge_equals_rouge_score_on_ascii_and_sees_other_scripts():
    scorer = RougeScorer(["rougeL"])
    expected = [scorer.score_multi(r, o)["rougeL"].fmeasure for r, o in zip(REFERENCES, OUTPUTS, strict=True)]
    assert generation.rouge_l(REFERENCES, OUTPUTS).examples == pytest.approx(expected)
    assert generation.rouge_l([["мама мыла раму"]], ["мама раму"]).value == pytest.approx(0.8)


@given(st.lists(st.text(st.characters(max_codepoint=127), max_size=20), min_size=2, max_size=2))
def test_our_rouge_tokenizer_agrees_with_theirs_on_ascii(texts):
    expected = RougeScorer(["rougeL"]).score(*texts)["rougeL"].fmeasure
    assert generation.rouge_l([[texts[0]]], [texts[1]]).value == pytest.approx(expected)


def test_chrf_and_bleu_equal_sacrebleu_with_references_of_different_number():
    streams = [[r[0] for r in REFERENCES], [r[1] if len(r) > 1 else None for r in REFERENCES]]
    assert generation.chrf(REFERENCES, OUTPUTS).value == pytest.approx(
        sacrebleu.corpus_chrf(OUTPUTS, streams).score / 100
    )
    assert generation.bleu(REFERENCES, OUTPUTS).value == pytest.approx(
        sacrebleu.corpus_bleu(OUTPUTS, streams).score / 100
    )
    single = sacrebleu.sentence_bleu(OUTPUTS[0], REFERENCES[0]).score / 100
    assert generation.bleu(REFERENCES, OUTPUTS).examples[0] == pytest.approx(single)


@pytest.mark.parametrize("score", SCORES)
def test_summed_statistics_give_the_score_of_a_resample(score):
    found = score(REFERENCES, OUTPUTS)
    drawn = [2, 0, 0]
    again = score([REFERENCES[i] for i in drawn], [OUTPUTS[i] for i in drawn])
    assert found.combine(found.statistics[drawn].sum(axis=0, keepdims=True))[0] == pytest.approx(again.value)


texts = st.text(max_size=12)


@given(st.lists(st.tuples(st.lists(texts, min_size=1, max_size=3), texts), min_size=1, max_size=4))
def test_every_score_of_any_text_lies_between_0_and_1(rows):
    references, outputs = [r for r, _ in rows], [o for _, o in rows]
    for score in SCORES:
        found = score(references, outputs)
        assert found.examples.shape == (len(rows),)
        for value in (found.value, *found.examples):
            assert -1e-9 <= value <= 1 + 1e-9


@given(st.text(min_size=1, max_size=20))
def test_a_text_matches_itself(text):
    assert generation.exact_match([[text]], [text]).value == 1.0
    assert generation.token_f1([[text]], [text]).value == 1.0


def test_empty_responses_score_zero():
    assert [score([["a cat sat there"]], [""]).value for score in SCORES] == [0.0] * 5


def test_lists_that_do_not_fit_are_named():
    with pytest.raises(UsageError, match="2 and 1"):
        generation.exact_match([["a"], ["b"]], ["a"])
    with pytest.raises(UsageError, match="example 1 has 'a'"):
        generation.bleu(["a"], ["a"])


def test_examples_are_numbers_for_intervals():
    assert all(score(REFERENCES, OUTPUTS).examples.dtype == np.float64 for score in SCORES)
