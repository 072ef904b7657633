"""RunConfig and RunRecord: JSON both ways, and a digest that knows what a run is, not where it lies."""

from __future__ import annotations

import json
import math
from dataclasses import fields, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from foretune.records import (
    KINDS,
    STATUSES,
    Cost,
    Evaluation,
    Gap,
    Landscape,
    LearningCurve,
    ModelRef,
    Part,
    Place,
    Plan,
    Point,
    Recommendation,
    RunConfig,
    RunRecord,
    Schedule,
    Seeds,
    TaskCard,
    TaskRef,
)

TEXT = st.text(max_size=8)
MAYBE_TEXT = st.none() | TEXT
NUMBER = st.floats(allow_nan=False, allow_infinity=False)
PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | NUMBER | TEXT, lambda x: st.lists(x, max_size=3), max_leaves=4
)
OPTIONS = st.dictionaries(TEXT, PLAIN, max_size=3)
CONFIGS = st.builds(
    RunConfig,
    st.builds(ModelRef, TEXT, MAYBE_TEXT, MAYBE_TEXT, TEXT, st.integers(1, 9999), st.booleans()),
    st.builds(
        TaskRef,
        TEXT,
        st.sampled_from(KINDS),
        st.dictionaries(TEXT, TEXT | st.lists(TEXT, max_size=3), max_size=3),
        MAYBE_TEXT,
        MAYBE_TEXT,
        st.dictionaries(TEXT, TEXT, max_size=2),
        st.none() | st.integers(1, 99),
        NUMBER,
        NUMBER,
        MAYBE_TEXT,
        MAYBE_TEXT,
    ),
    st.builds(Part, TEXT, OPTIONS),
    st.builds(Part, TEXT, OPTIONS),
    st.builds(Schedule, st.integers(1, 99), lr=NUMBER, clip=st.none() | NUMBER, patience=st.none() | st.integers(1, 9)),
    st.builds(Seeds, *[st.integers(0, 2**63)] * 4),
)
BASE = RunConfig(
    ModelRef("here/model", "main", "f1", "mean", 64),
    TaskRef(
        "train.csv", "classification", {"text": "t"}, "dev.csv", "test.csv", {"far": "far.csv"}, 8, fingerprint="f2"
    ),
    Part("lora", {"rank": 8}),
    Part("head", {}),
    Schedule(100),
)


@given(CONFIGS)
def test_a_config_survives_json(config: RunConfig) -> None:
    again = RunConfig.from_json(json.loads(json.dumps(config.to_json())))
    assert again.to_json() == config.to_json()
    assert again.digest == config.digest
    assert len(config.digest) == 16


@given(CONFIGS)
def test_the_order_of_options_does_not_matter(config: RunConfig) -> None:
    turned = Part(config.tuner.name, dict(reversed(config.tuner.options.items())))
    assert replace(config, tuner=turned).digest == config.digest


@pytest.mark.parametrize(
    "moved",
    [
        replace(BASE, model=replace(BASE.model, name="there/model")),
        replace(BASE, model=replace(BASE.model, revision="v2")),
        replace(BASE, task=replace(BASE.task, source="other/train.parquet")),
        replace(BASE, task=replace(BASE.task, dev=None, test="x.csv", ood={"far": "elsewhere.csv"})),
    ],
    ids=["model", "revision", "source", "splits"],
)
def test_the_place_does_not_count_where_a_fingerprint_says_what_is_there(moved: RunConfig) -> None:
    assert moved.digest == BASE.digest


@pytest.mark.parametrize(
    ("part", "field"), [("model", "name"), ("model", "revision"), ("task", "source"), ("task", "ood")]
)
def test_the_place_counts_where_there_is_no_fingerprint(part: str, field: str) -> None:
    bare = replace(BASE, model=replace(BASE.model, fingerprint=None), task=replace(BASE.task, fingerprint=None))
    held = vars(bare)[part]
    value = {"other": "x.csv"} if field == "ood" else "elsewhere"
    assert replace(bare, **{part: replace(held, **{field: value})}).digest != bare.digest


WHERE = {"model": {"name", "revision"}, "task": {"source", "dev", "test", "ood"}}


@pytest.mark.parametrize(
    ("part", "field"),
    [
        (part, f.name)
        for part, cls in (
            ("model", ModelRef),
            ("task", TaskRef),
            ("schedule", Schedule),
            ("seeds", Seeds),
            ("tuner", Part),
        )
        for f in fields(cls)
        if f.name not in WHERE.get(part, set())
    ],
)
def test_every_other_field_makes_another_run(part: str, field: str) -> None:
    held = vars(BASE)[part]
    before = vars(held)[field]
    now = {bool: lambda: not before, int: lambda: before + 1, float: lambda: before + 0.125, str: lambda: before + "x"}
    other = now[type(before)]() if type(before) in now else {"text": "other"} if isinstance(before, dict) else 3
    assert replace(BASE, **{part: replace(held, **{field: other})}).digest != BASE.digest


def test_the_objective_counts() -> None:
    assert replace(BASE, objective=Part("head", {"label_smoothing": 0.1})).digest != BASE.digest


def test_a_field_that_nobody_knows_is_not_dropped_in_silence() -> None:
    plain = BASE.to_json()
    plain["schedule"]["epochs"] = 3
    with pytest.raises(ValueError, match="epochs"):
        RunConfig.from_json(plain)


def test_one_seed_for_all_is_the_same_for_every_draw() -> None:
    assert Seeds.all(7) == Seeds(7, 7, 7, 7)


SCORES = st.dictionaries(TEXT, st.floats(allow_infinity=False), max_size=2)
PAIRS = st.dictionaries(TEXT, st.tuples(NUMBER, NUMBER), max_size=2)
EVALUATIONS = st.builds(Evaluation, st.integers(0, 99), SCORES, PAIRS, st.lists(TEXT, max_size=2).map(tuple))
WEIGHTS = st.tuples(st.floats(0, 1), st.floats(0, 1))
PLACES = st.lists(st.builds(Place, WEIGHTS, NUMBER | st.just(math.nan), st.none() | NUMBER), min_size=1, max_size=3)
LANDSCAPES = st.builds(Landscape, TEXT, TEXT, PLACES.map(tuple), st.integers(1, 9), st.none() | NUMBER)
RECORDS = st.builds(
    RunRecord,
    CONFIGS,
    st.sampled_from(STATUSES),
    card=st.none() | st.builds(TaskCard, TEXT, TEXT, st.dictionaries(TEXT, st.integers(0, 9), max_size=2)),
    curve=st.lists(st.builds(Point, st.integers(0, 9), TEXT, TEXT, st.floats(), NUMBER), max_size=3).map(
        lambda points: LearningCurve(tuple(points))
    ),
    cost=st.builds(Cost, NUMBER, NUMBER, NUMBER, tokens=st.integers(0, 99)),
    evaluations=st.dictionaries(TEXT, EVALUATIONS, max_size=2),
    floors=st.dictionaries(TEXT, st.dictionaries(TEXT, EVALUATIONS, max_size=2), max_size=2),
    gaps=st.lists(st.builds(Gap, TEXT, TEXT, NUMBER, NUMBER, NUMBER), max_size=2).map(tuple),
    landscape=st.none() | LANDSCAPES,
    labels=st.lists(TEXT, max_size=3).map(tuple),
    notes=st.lists(TEXT, max_size=2).map(tuple),
    temperature=st.none() | NUMBER,
    error=MAYBE_TEXT,
)


@given(RECORDS)
def test_a_record_survives_strict_json(record: RunRecord) -> None:
    text = json.dumps(record.to_json(), allow_nan=False)
    again = RunRecord.from_json(json.loads(text))
    assert json.dumps(again.to_json()) == text
    assert again.digest == record.digest
    for split, judged in record.evaluations.items():
        for name, value in judged.scores.items():
            found = again.evaluations[split].scores[name]
            assert found == value or (math.isnan(found) and not math.isfinite(value))


def test_a_gap_without_an_interval_stays_one() -> None:
    record = RunRecord(BASE, "ok", gaps=(Gap("far", "accuracy", 0.1, math.nan, math.nan),))
    (gap,) = RunRecord.from_json(json.loads(json.dumps(record.to_json()))).gaps
    assert gap.value == 0.1
    assert math.isnan(gap.low)
    assert math.isnan(gap.high)


def test_a_landscape_is_read_as_it_was_written() -> None:
    places = (Place((1.0, 0.0), 0.25, 0.7), Place((0.0, 1.0), 0.5), Place((0.5, 0.5), 0.75, 0.1))
    record = RunRecord(BASE, "ok", landscape=Landscape("accuracy", "dev", places, 10, 0.03))
    assert RunRecord.from_json(json.loads(json.dumps(record.to_json()))) == record


def test_a_record_from_before_landscapes_is_read_and_written_as_it_was() -> None:
    plain = RunRecord(BASE, "ok").to_json()
    assert "landscape" not in plain
    again = RunRecord.from_json(plain)
    assert again.landscape is None
    assert again.to_json() == plain


def test_a_plan_survives_json() -> None:
    best = Recommendation(Part("lora", {"rank": 4}), Part("head"), Schedule(10), 0.9, (0.8, 1.0), 12.0, 10**9)
    plan = Plan((best, replace(best, interval=None, score=None)), "default", ("because",))
    assert Plan.from_json(json.loads(json.dumps(plan.to_json()))) == plan
