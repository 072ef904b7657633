"""The floors: what they predict, in the form that `judge` takes, on ordinary and on awkward rows."""

import numpy as np
import pytest

from foretune.errors import UsageError
from foretune.evaluation import Inputs, floors, judge, probe

FILMS = [
    "a good film",
    "a great film",
    "good fun",
    "great fun",
    "a bad film",
    "an awful film",
    "bad taste",
    "awful waste",
]
GRADES = [1, 1, 1, 1, 0, 0, 0, 0]


def test_tfidf_learns_words_and_majority_gives_the_class_shares():
    rows = Inputs(["great good", "awful bad", "a good one"])
    found = floors("classification", Inputs(FILMS), GRADES, {"dev": rows, "test": Inputs(["bad"])}, classes=2)
    assert found["tfidf"]["dev"].argmax(axis=1).tolist() == [1, 0, 1]
    assert found["majority"]["dev"].tolist() == [[0.5, 0.5]] * 3
    assert found["tfidf"]["test"].shape == (1, 2)
    np.testing.assert_allclose(found["tfidf"]["dev"].sum(axis=1), 1)


def test_floors_repeat_themselves():
    once, again = (floors("classification", Inputs(FILMS), GRADES, {"t": Inputs(["good waste"])}) for _ in range(2))
    assert once["tfidf"]["t"].tolist() == again["tfidf"]["t"].tolist()


def test_characters_help_where_a_script_puts_no_space_between_words():
    found = floors(
        "classification",
        Inputs(["很好的电影", "非常好看", "很差的电影", "非常差劲"]),
        [1, 1, 0, 0],
        {"t": Inputs(["真差劲", "真好看"])},
    )
    assert found["tfidf"]["t"].argmax(axis=1).tolist() == [0, 1]


def test_the_side_of_a_pair_matters():
    # The label is whether "red" stands on the first side: the joined words alone cannot tell.
    train = Inputs(["red", "red", "red", "blue", "blue", "blue"], ["blue"] * 3 + ["red"] * 3)
    found = floors("classification", train, [1, 1, 1, 0, 0, 0], {"t": Inputs(["red", "blue"], ["blue", "red"])})
    assert found["tfidf"]["t"].argmax(axis=1).tolist() == [1, 0]


def test_a_class_without_a_labelled_row_has_probability_zero():
    found = floors("classification", Inputs(FILMS), [3 * g for g in GRADES], {"t": Inputs(["good"])}, classes=5)
    assert found["tfidf"]["t"][0, [1, 2, 4]].tolist() == [0, 0, 0]
    assert found["majority"]["t"].tolist() == [[0.5, 0, 0, 0.5, 0]]


@pytest.mark.parametrize("labels", [[0, 1], [1, 1], list(range(30)), [0] * 20 + [1]])
def test_few_rows_one_class_and_a_class_of_one_row_still_give_probabilities(labels):
    texts = [f"word{i} common" for i in range(len(labels))]
    found = floors("classification", Inputs(texts), labels, {"t": Inputs(["common", "word1"])}, classes=30)
    np.testing.assert_allclose(found["tfidf"]["t"].sum(axis=1), 1)


def test_blank_texts_and_bare_punctuation_are_texts_too():
    found = floors("classification", Inputs(["!", "?", " ", ""]), [0, 1, 0, 1], {"t": Inputs(["", "!"], None)})
    assert found["tfidf"]["t"].shape == (2, 2)


def test_regression_falls_back_on_the_mean_and_learns_words():
    found = floors("regression", Inputs(FILMS), [5.0, 5, 5, 5, 1, 1, 1, 1], {"t": Inputs(["good great", "bad awful"])})
    assert found["mean"]["t"].tolist() == [3.0, 3.0]
    high, low = found["tfidf"]["t"]
    assert high > 3.5 > 2.5 > low


def test_choices_by_position_and_by_likeness():
    train = Inputs(
        ["the red cat sleeps", "a green boat sails", "an old king dies", "snow on the hill"],
        choices=[["red cat", "blue dog"], ["a boat", "two men"], ["a queen", "the king"], ["sun", "snow", "rain"]],
    )
    rows = Inputs(["the big dog barks", "who eats bread"], choices=[["a dog", "a cat"], ["fish", "meat", "bread"]])
    found = floors("choice", train, [0, 0, 1, 1], {"t": rows})
    assert found["tfidf"]["t"].argmax(axis=1).tolist() == [0, 2]
    assert found["tfidf"]["t"][0, 2] == found["majority"]["t"][0, 2] == 0
    assert found["majority"]["t"][0].tolist() == [0.5, 0.5, 0]
    assert found["majority"]["t"][1] == pytest.approx([3 / 7, 3 / 7, 1 / 7])
    assert judge("choice", [0, 2], found["tfidf"]["t"], metric="accuracy").scores["accuracy"] == 1.0


def test_generation_repeats_the_usual_the_nearest_and_the_prompt():
    train = Inputs(["capital of France", "capital of Spain", "largest planet"])
    targets = [["Paris"], ["Madrid"], ["Paris", "Jupiter"]]
    found = floors("generation", train, targets, {"t": Inputs(["the capital of Spain"])})
    assert {name: splits["t"] for name, splits in found.items()} == {
        "majority": ["Paris"],
        "tfidf": ["Madrid"],
        "copy": ["the capital of Spain"],
    }


def test_a_probe_reads_linear_features():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, 90)
    features = rng.normal(size=(90, 10)) + 4 * np.eye(10)[labels]
    table = probe(features[:60], labels[:60], features[60:], "classification", classes=4)
    assert table.shape == (30, 4)
    assert np.mean(table.argmax(axis=1) == labels[60:]) > 0.9
    values = features @ np.arange(10.0)
    assert probe(features[:60], values[:60], features[60:], "regression") == pytest.approx(values[60:], abs=6)


def test_a_probe_survives_a_constant_feature_and_other_units():
    rng = np.random.default_rng(0)
    features = np.c_[np.ones(40), 1e6 * rng.normal(size=40)]
    labels = (features[:, 1] > 0).astype(int)
    assert np.mean(probe(features, labels, features, "classification").argmax(axis=1) == labels) > 0.9


def test_a_probe_refuses_other_kinds():
    with pytest.raises(UsageError, match="kind='generation'"):
        probe([[0.0]], [0], [[0.0]], "generation")
