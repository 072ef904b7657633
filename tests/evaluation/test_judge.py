"""One split judged once: which scores, which intervals, which flags."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from foretune.errors import UsageError
from foretune.evaluation import METRICS, judge, metrics, wilson
from foretune.records import KINDS, UNLABELLED

RNG = np.random.default_rng(0)
LABELS = RNG.integers(0, 3, 60)
TABLE = RNG.dirichlet(np.ones(3), 60) * 0.5 + 0.5 * np.eye(3)[np.where(RNG.random(60) < 0.8, LABELS, 0)]
WORDS = [["a red cat"], ["two dogs", "a pair of dogs"], ["it rains"]]
GIVEN = {
    "classification": (LABELS, TABLE),
    "choice": (LABELS, TABLE),
    "regression": (RNG.normal(size=20), RNG.normal(size=20)),
    "generation": (WORDS, ["a red cat", "two dogs", "it snows"]),
}


def some_metric(kind):
    return next(name for name, entry in METRICS.items() if kind in entry.kinds)


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_gets_its_scores_and_an_interval_around_each_but_ece(kind):
    found = judge(kind, *GIVEN[kind], metric=some_metric(kind))
    assert set(found.scores) == {n for n, entry in METRICS.items() if kind in entry.kinds} - {"gsm8k"}
    assert set(found.intervals) == set(found.scores) - {"ece"}
    assert found.n == len(GIVEN[kind][0])
    for name, (low, high) in found.intervals.items():
        assert METRICS[name].low <= low <= found.scores[name] <= high <= METRICS[name].high
        assert low < high


def test_scores_are_those_of_the_metrics():
    found = judge("classification", LABELS, TABLE, metric="accuracy")
    guess = TABLE.argmax(axis=1)
    for name in ("accuracy", "macro_f1", "mcc"):
        assert found.scores[name] == pytest.approx(getattr(metrics, name)(LABELS, guess))
    for name in ("nll", "ece", "brier"):
        assert found.scores[name] == pytest.approx(getattr(metrics, name)(LABELS, TABLE))
    assert found.intervals["accuracy"] == wilson(int((guess == LABELS).sum()), 60)


def test_a_seed_repeats_the_evaluation():
    once, again, other = (judge("classification", LABELS, TABLE, metric="mcc", seed=s) for s in (0, 0, 1))
    assert once == again
    assert once.scores == other.scores
    assert once.intervals["nll"] != other.intervals["nll"]


def test_measurements_on_the_way_need_no_intervals():
    found = judge("classification", LABELS, TABLE, metric="mcc", with_intervals=False)
    assert (found.intervals, found.flags) == ({}, ())
    assert found.scores == judge("classification", LABELS, TABLE, metric="mcc").scores


@given(st.integers(1, 12), st.integers(0, 2**31))
def test_any_small_set_is_judged_within_the_scales(n, seed):
    rng = np.random.default_rng(seed)
    found = judge("classification", rng.integers(0, 3, n), rng.dirichlet(np.full(3, 0.3), n), metric="macro_f1")
    for name, (low, high) in found.intervals.items():
        assert METRICS[name].low - 1e-9 <= low <= found.scores[name] <= high <= METRICS[name].high + 1e-9


def test_a_small_set_that_is_all_right_is_not_certain():
    found = judge("classification", [0, 1, 0, 1], np.eye(2)[[0, 1, 0, 1]], metric="macro_f1")
    assert found.scores["macro_f1"] == 1.0
    assert found.intervals["macro_f1"] == pytest.approx((0.5101, 1.0), abs=1e-4)
    assert found.intervals["mcc"] == (0.0, 1.0)  # a resample of one class has an MCC of 0


def test_ragged_choices_equal_padded_ones():
    ragged = [[0.7, 0.3], [0.1, 0.2, 0.7], [0.4, 0.6]]
    padded = [[0.7, 0.3, 0.0], [0.1, 0.2, 0.7], [0.4, 0.6, 0.0]]
    one, two = (judge("choice", [0, 2, 0], rows, metric="accuracy", ood=True) for rows in (ragged, np.array(padded)))
    assert one == two
    assert one.scores["accuracy"] == pytest.approx(2 / 3)
    # Blind guessing is right in 1/2, 1/3 and 1/2 of the cases.
    assert any(flag.endswith("blind guessing gives 0.444") for flag in one.flags)


def test_answers_given_before_classes_were_summed_count_instead_of_the_most_probable_class():
    table = [[0.4, 0.6], [0.9, 0.1], [0.2, 0.8]]
    found = judge("classification", [0, 0, 1], table, metric="accuracy", answers=[0, 0, 1], ood=True)
    assert found.scores["accuracy"] == found.scores["macro_f1"] == 1.0
    assert found.scores["nll"] == pytest.approx(metrics.nll([0, 0, 1], table))
    with pytest.raises(UsageError, match=r"\(3,\) and \(2,\)"):
        judge("classification", [0, 0, 1], table, metric="accuracy", answers=[0, 0])


def test_outputs_with_a_nan_get_no_score_and_a_flag():
    broken = TABLE.copy()
    broken[3, 0] = np.nan
    found = judge("classification", LABELS, broken, metric="accuracy")
    assert all(math.isnan(value) for value in found.scores.values())
    assert found.intervals == {}
    assert found.flags == ("nan: 1 of 60 outputs is not finite",)


def test_a_constant_classifier_and_chance_out_of_domain_are_flagged():
    targets = [0, 1] * 50
    found = judge(
        "classification", targets, np.tile([0.9, 0.1], (100, 1)), metric="mcc", labels=("no", "yes"), ood=True
    )
    assert [flag.split(":")[0] for flag in found.flags] == [
        "constant_prediction",
        "at_or_below_majority",
        "ood_at_chance",
    ]
    assert "`no`" in found.flags[0]
    assert found.scores["mcc"] == 0.0
    assert "mcc" not in found.intervals


def test_constant_numbers_and_constant_texts_are_flagged():
    numbers = judge("regression", [1.0, 2.0, 3.0], [2.0, 2.0, 2.0], metric="pearson")
    assert numbers.flags == ("constant_prediction: all 3 predictions are `2.0`",)
    assert math.isnan(numbers.scores["pearson"])
    assert set(numbers.intervals) == {"rmse", "mae"}
    texts = judge("generation", WORDS, ["yes"] * 3, metric="bleu")
    assert texts.flags == ("constant_prediction: all 3 predictions are `yes`",)


def test_gsm8k_is_scored_when_it_is_the_tasks_metric():
    found = judge("generation", [["#### 1,000"], ["#### 3"]], ["so 1000", "so 4"], metric="gsm8k")
    assert found.scores["gsm8k"] == 0.5
    assert found.intervals["gsm8k"] == wilson(1, 2)


def test_directions_are_known_to_other_rooms():
    assert {name for name, entry in METRICS.items() if not entry.greater_is_better} == {
        "nll",
        "ece",
        "brier",
        "rmse",
        "mae",
        "loss",
        "perplexity",
    }
    assert {kind for entry in METRICS.values() for kind in entry.kinds} == {*KINDS, UNLABELLED}


def test_a_language_model_is_judged_per_token_and_not_per_text():
    found = judge(UNLABELLED, [1, 3], [4.0, 2.0], metric="loss")
    assert found.scores == {"loss": 1.5, "perplexity": pytest.approx(np.exp(1.5))}
    assert found.intervals["loss"][0] < 1.5 < found.intervals["loss"][1]
    broken = judge(UNLABELLED, [1, 3], [np.nan, 2.0], metric="loss")
    assert np.isnan(broken.scores["loss"])
    assert broken.flags
    assert np.isfinite(judge(UNLABELLED, [1], [1e4], metric="loss").scores["perplexity"])


@pytest.mark.parametrize(
    ("kind", "targets", "outputs", "metric", "message"),
    [
        ("classification", [0], [[1.0, 0.0]], "acuracy", "Did you mean `accuracy`"),
        ("regression", [0.0], [1.0], "accuracy", "not a metric of regression tasks.*Known: pearson"),
        ("classification", [0, 1], [[1.0, 0.0]], "accuracy", "2 and 1"),
        ("classification", [], [], "accuracy", "at least 1"),
        ("classification", [0], [[3.0, -2.0]], "accuracy", r"row 0 is \[3.0, -2.0\].*softmax"),
        ("classification", [2], [[0.5, 0.5]], "accuracy", "example 0 has 2"),
        ("regression", [1.0, 2.0], [[1.0], [2.0]], "rmse", r"\(2,\) and \(2, 1\)"),
    ],
)
def test_what_does_not_fit_is_named(kind, targets, outputs, metric, message):
    with pytest.raises(UsageError, match=message):
        judge(kind, targets, outputs, metric=metric)
