"""Our own records as runs to learn from: what one knows of a task holds for all, and defaults are written out."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from foretune.records import Evaluation, LearningCurve, Part, Point, TaskCard
from foretune.store.metadata import from_records, own_config, plain_settings
from foretune.store.metadataset import metadataset
from foretune.surrogates.cost import full_seconds
from foretune.testing.store_contract import toy_record


def described(**features: float) -> TaskCard:
    return TaskCard("toy", "classification", {"train": 12}, classes=2, features=features)


def floors(record, **features: float):
    judged = {"majority": {"dev": Evaluation(4, {"accuracy": 0.5})}}
    config = replace(record.config, tuner=Part("floors"))
    return replace(record, config=config, status="ok", evaluations={}, floors=judged, card=described(**features))


def test_what_the_floors_measured_describes_the_task_and_they_are_no_run():
    run = replace(toy_record(), card=described(words_mean=3.0))
    made = from_records([floors(run, words_mean=4.0, landmark_probe=0.8), run])
    assert len(made.runs) == 1
    assert made.tasks[0].features["landmark_probe"] == 0.8
    assert made.tasks[0].features["words_mean"] == 3.0


def test_features_of_another_version_are_not_mixed_in():
    run = replace(toy_record(), card=described(words_mean=3.0))
    other = floors(run, landmark_probe=0.8)
    assert other.card is not None
    made = from_records([run, replace(other, card=replace(other.card, version=other.card.version + 1))])
    assert "landmark_probe" not in made.tasks[0].features


def test_floors_alone_make_no_task():
    assert from_records([floors(toy_record(), landmark_probe=0.8)]).tasks == ()


def test_a_run_without_a_description_takes_that_of_the_floors():
    run = replace(toy_record(), card=None)
    made = from_records([run, floors(run, landmark_probe=0.8)])
    assert made.tasks[0].features["landmark_probe"] == 0.8
    assert made.tasks[0].features_version


def test_an_option_that_nobody_gave_counts_as_its_default():
    asked = toy_record()
    whole = {**asked.config.tuner.options, "dropout": 0.0}
    recorded = replace(asked, tuner=Part(asked.config.tuner.name, whole))
    assert own_config(recorded)["tuner.dropout"] == 0.0
    assert "tuner.dropout" not in own_config(asked)
    config = asked.config
    assert own_config(recorded) == plain_settings(
        Part("lora", whole), config.objective, config.schedule, config.model.pooling, config.model.max_length
    )


def test_the_whole_tuner_survives_the_store():
    recorded = replace(toy_record(), tuner=Part("lora", {"rank": 8, "dropout": 0.0}))
    assert type(recorded).from_json(recorded.to_json()) == recorded
    assert "tuner" not in toy_record().to_json()


def cut(steps_done: int, scores: tuple[float, ...], patience: int | None = None, status: str = "ok"):
    """A run of 20 steps that ended after ``steps_done``, judged on dev after every second step."""
    made = toy_record(status=status)
    schedule = replace(made.config.schedule, patience=patience)
    points = [Point(2 * (n + 1), "dev", "accuracy", score, 0.1 * (n + 1)) for n, score in enumerate(scores)]
    curve = LearningCurve((*points, Point(steps_done, "train", "loss", 0.5, 0.05 * steps_done)))
    cost = replace(made.cost, train_seconds=0.05 * steps_done)
    config = replace(made.config, schedule=schedule)
    return replace(made, config=config, curve=curve, cost=cost, steps_done=steps_done)


def learned(record):
    return metadataset([from_records([record])])


def test_a_run_that_a_budget_cut_has_a_pace_and_no_final_score():
    made = learned(cut(5, (0.6, 0.9)))
    assert made.status.tolist() == ["stopped"]
    assert (made.whole[0], made.reached[0]) == (False, 0.25)
    assert np.isnan([made.score[0], made.test[0]]).all()
    assert made.curves["score"][0, :2].tolist() == [0.6, 0.9]
    assert full_seconds(made)[0] == pytest.approx(1.0)


def test_a_trial_that_was_dropped_after_a_tenth_has_no_final_score_and_one_that_was_played_through_has():
    dropped, through = cut(2, (0.7,), status="stopped"), cut(20, tuple(0.05 * n for n in range(10)), status="stopped")
    assert np.isnan(learned(dropped).score[0])
    assert learned(through).score[0] == pytest.approx(0.45)


def test_a_run_that_stopped_for_want_of_a_gain_ended_by_itself():
    made = learned(cut(8, (0.6, 0.9, 0.8, 0.9), patience=2))
    assert made.status.tolist() == ["ok"]
    assert (made.whole[0], made.reached[0], made.score[0]) == (True, 0.4, 0.9)
    assert full_seconds(made)[0] == pytest.approx(1.0)


def test_a_run_with_patience_left_was_cut():
    assert np.isnan(learned(cut(6, (0.6, 0.9, 0.8), patience=2)).score[0])


def test_a_run_of_no_steps_is_whole():
    record = cut(0, ())
    record = replace(record, config=replace(record.config, schedule=replace(record.config.schedule, steps=0)))
    assert learned(record).whole.tolist() == [True]


def drawn(seed: int, sample: str | None):
    """A run whose rows were drawn by ``seed``."""
    return replace(toy_record(seed), sample=sample)


def test_two_draws_of_one_file_are_two_tasks_of_one_group():
    made = from_records([drawn(1, "aaaa"), drawn(2, "bbbb")])
    assert len(made.tasks) == 2
    assert len({task.group_key for task in made.tasks}) == 1


def test_seeds_that_draw_the_same_rows_have_one_task():
    assert len(from_records([drawn(1, "aaaa"), drawn(2, "aaaa")]).tasks) == 1


def test_where_no_draw_was_kept_its_seed_stands_for_it():
    first = toy_record(1)
    again = replace(first, config=replace(first.config, seeds=replace(first.config.seeds, init=7)))
    assert len(from_records([first, again]).tasks) == 1
    assert len(from_records([first, toy_record(2)]).tasks) == 2


def test_a_run_that_failed_before_its_draw_is_of_the_task_of_those_that_asked_for_the_same():
    done = drawn(1, "aaaa")
    failed = replace(toy_record(1, "failed"), config=replace(done.config, tuner=Part("ia3")), metric=done.metric)
    made = from_records([failed, done])
    assert len(made.tasks) == 1
    assert made.tasks[0].features_version
