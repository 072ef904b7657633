"""Our own records as runs to learn from: what one knows of a task holds for all, and defaults are written out."""

from __future__ import annotations

from dataclasses import replace

from foretune.records import Evaluation, Part, TaskCard
from foretune.store.metadata import from_records, own_config, plain_settings
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
