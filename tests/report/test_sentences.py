"""What may be claimed: words follow intervals."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import samples
from hypothesis import assume, given
from hypothesis import strategies as st

from foretune.records import Evaluation, Gap, Part, Plan, Recommendation
from foretune.report import compare, sentences, tables, units
from foretune.report.predictions import rows
from foretune.report.sentences import Difference

PRAISE = ("better", "beats", "outperform", "improve", "superior", "stronger than", "wins")
SHARES = st.floats(0, 1)
METRICS = st.sampled_from(["accuracy", "mcc", "spearman", "rmse", "exact_match"])


def record_with(metric: str, own: tuple[float, float, float], floor: tuple[float, float, float], split: str = "test"):
    base = samples.banking().record
    return replace(
        base,
        metric=metric,
        evaluations={split: Evaluation(100, {metric: own[1]}, {metric: (own[0], own[2])})},
        floors={"tfidf": {split: Evaluation(100, {metric: floor[1]}, {metric: (floor[0], floor[2])})}},
        gaps=(),
    )


def said(record, split="test"):
    differences = compare.differences(record, split, None, None)
    return " ".join((sentences.headline(record, split), *sentences.verdict(record, split, differences))).lower()


@given(METRICS, st.tuples(SHARES, SHARES, SHARES).map(sorted), st.tuples(SHARES, SHARES, SHARES).map(sorted))
def test_overlapping_intervals_never_praise(metric, own, floor):
    assume(own[0] <= floor[2] and floor[0] <= own[2])
    text = said(record_with(metric, own, floor))
    assert not any(word in text for word in PRAISE)


@given(METRICS, st.floats(-1, 1), st.floats(0, 1), st.floats(0, 1), st.booleans())
def test_a_difference_whose_interval_covers_zero_never_praises(metric, value, down, up, paired):
    low, high = value - down, value + up
    assume(low <= 0 <= high)
    record = samples.banking().record
    text = " ".join(sentences.verdict(record, "test", [Difference("tfidf", metric, value, low, high, paired)])).lower()
    assert not any(word in text for word in PRAISE)
    assert "no difference found" in text


@given(st.floats(0.001, 0.5), st.floats(0, 0.4))
def test_an_interval_wholly_on_one_side_is_said_with_its_direction(low, width):
    record = samples.banking().record
    up = Difference("tfidf", "accuracy", low + width / 2, low, low + width, True)
    down = Difference("tfidf", "accuracy", -low - width / 2, -low - width, -low, True)
    error = replace(up, metric="rmse", greater=False)
    assert "Better than the strongest floor" in " ".join(sentences.verdict(record, "test", [up]))
    assert "Worse than the strongest floor" in " ".join(sentences.verdict(record, "test", [down]))
    assert "Worse than the strongest floor" in " ".join(sentences.verdict(record, "test", [error]))


@given(st.tuples(SHARES, SHARES, SHARES).map(sorted), st.tuples(SHARES, SHARES, SHARES).map(sorted))
def test_a_dev_score_claims_nothing(own, floor):
    text = said(record_with("accuracy", own, floor, "dev"), "dev")
    assert not any(word in text for word in PRAISE)
    assert "optimistic" in text


def test_the_strongest_floor_is_the_one_that_counts():
    weak = Difference("majority", "accuracy", 0.5, 0.4, 0.6, True)
    strong = Difference("embedding", "accuracy", 0.01, -0.03, 0.05, True)
    text = " ".join(sentences.verdict(samples.banking().record, "test", [weak, strong]))
    assert "No difference found from the strongest floor (frozen embedding + linear model)" in text


@pytest.mark.parametrize(("own", "word"), [(0.4, "at the majority"), (0.3, "not above the majority")])
def test_a_run_that_does_not_clear_the_majority_is_told_so(own, word):
    record = record_with("accuracy", (own - 0.1, own, own + 0.1), (0.3, 0.4, 0.5))
    record = replace(record, floors={"majority": record.floors["tfidf"]})
    text = said(record)
    assert word in text
    assert "do not use this model" in text


def test_a_constant_classifier_is_named():
    assert "“\u2068card_not_working\u2069”, to every dev example" in " ".join(
        sentences.verdict(samples.constant().record, "dev", (), "card_not_working")
    )


def test_a_missing_interval_allows_no_claim():
    nowhere = Difference("tfidf", "accuracy", 0.3, math.nan, math.nan, False)
    assert "no claim can be made" in " ".join(sentences.verdict(samples.banking().record, "test", [nowhere]))


@pytest.mark.parametrize(
    ("low", "high", "greater", "word"),
    [
        (0.02, 0.1, True, "weaker"),
        (-0.1, -0.02, True, "stronger"),
        (0.02, 0.1, False, "stronger"),
        (-0.1, -0.02, False, "weaker"),
        (-0.01, 0.1, True, "No gap found"),
        (math.nan, math.nan, True, "nothing can be claimed"),
    ],
)
def test_a_gap_is_said_only_when_its_interval_leaves_zero(low, high, greater, word):
    assert word in sentences.gap(Gap("other", "accuracy", (low + high) / 2, low, high), greater)


def test_the_expectation_is_held_against_dev_and_only_for_the_pipeline_that_was_run():
    record = samples.banking().record
    assert "inside the expected interval" in sentences.expectation(samples.plan(record), record)
    assert "No expectation" in sentences.expectation(samples.plan(record, None), record)
    assert "nothing was expected" in sentences.expectation(None, record)
    other = Plan((Recommendation(Part("ia3"), Part("head"), record.config.schedule, 0.9, (0.8, 0.95)),), "rule")
    longer = replace(record, config=replace(record.config, schedule=replace(record.config.schedule, steps=480)))
    assert "changes what “\u2068published-default\u2069” planned (steps)" in sentences.expectation(
        samples.plan(record), longer
    )
    assert "does not follow the plan" in sentences.expectation(other, record)


def test_expected_and_achieved_stand_side_by_side_and_only_for_what_was_planned():
    record = samples.banking().record
    told = sentences.achieved(samples.plan(record), record)
    assert told.startswith("Expected and achieved: ")
    assert "on dev" in told
    assert "(expected " in told
    other = Plan((Recommendation(Part("ia3"), Part("head"), record.config.schedule, 0.9, (0.8, 0.95)),), "rule")
    assert sentences.achieved(other, record) is None
    table = tables.expected(samples.plan(record), record)
    assert table is not None
    cells = {name: (foretold, came) for name, foretold, came in table.rows}
    dev, test = (next(cells[name] for name in cells if name.endswith(split)) for split in ("dev", "test"))
    assert units.NONE not in dev
    assert test[0] == units.NONE != test[1]  # no recommender speaks of test


def test_paired_answers_find_what_two_intervals_cannot():
    made = samples.banking()
    judged = rows(made.predictions, "test")
    paired = {d.floor: d for d in compare.differences(made.record, "test", judged, made.floors)}
    apart = {d.floor: d for d in compare.differences(made.record, "test", judged, None)}
    assert all(d.paired for d in paired.values())
    assert not any(d.paired for d in apart.values())
    assert paired["embedding"].direction == 1
    assert apart["embedding"].direction == 0
    for name, found in paired.items():
        assert apart[name].low < found.low < found.value < found.high < apart[name].high


def test_floors_of_other_rows_are_not_paired():
    made = samples.banking()
    judged = rows(made.predictions, "test")
    moved = made.floors.set_column(1, "row", [[i + 1 for i in made.floors["row"].to_pylist()]])
    assert not any(d.paired for d in compare.differences(made.record, "test", judged, moved))


def test_the_paired_interval_covers_the_true_difference_about_as_often_as_it_says():
    rng = np.random.default_rng(0)
    cells = [0.55, 0.15, 0.05, 0.25]
    covered = 0
    for _ in range(400):
        drawn = rng.choice(4, size=60, p=cells)
        low, high = compare.newcombe(np.isin(drawn, (0, 1)), np.isin(drawn, (0, 2)))
        covered += low <= 0.1 <= high
    assert 0.92 <= covered / 400 <= 0.99


@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=60))
def test_the_paired_interval_holds_the_difference_and_turns_with_its_arguments(pairs):
    first, second = (np.array(column) for column in zip(*pairs, strict=True))
    low, high = compare.newcombe(first, second)
    value = first.mean() - second.mean()
    assert low - 1e-12 <= value <= high + 1e-12
    assert np.allclose(compare.newcombe(second, first), (-high, -low))
