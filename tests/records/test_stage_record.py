"""A stage and a teacher in a config and in a record: they survive JSON, and leave what has none as it was."""

from __future__ import annotations

import json
import math
from dataclasses import replace

from foretune.records import Cost, ModelRef, Part, RunConfig, RunRecord, Schedule, Stage, TaskRef, Teaching

PLAIN = RunConfig(
    ModelRef("m", fingerprint="f1"),
    TaskRef("a.csv", "classification", fingerprint="f2"),
    Part("lora"),
    Part("head"),
    Schedule(5),
)
BEFORE = RunConfig(
    ModelRef("m", fingerprint="f1", pooling="none"), TaskRef("t.txt", "text", fingerprint="f3"), Part("full"),
    Part("language"), Schedule(7)
)  # fmt: skip
STAGE = Stage("d1", 90, 10, 2, 7, 3.0, math.nan, ("cls",), Cost(train_seconds=2.0, tokens=5), True, ("cut",))
TEACHING = Teaching(
    "d2", 80, 1, ((1, 2), (3, 4)), 1.5, 900, False, {"test": {"accuracy": 0.9}}, {"test": {"accuracy": 0.5}}
)


def again(record: RunRecord) -> RunRecord:
    return RunRecord.from_json(json.loads(json.dumps(record.to_json(), allow_nan=False)))


def test_a_config_with_a_stage_survives_json():
    config = replace(PLAIN, pretraining=BEFORE)
    found = RunConfig.from_json(json.loads(json.dumps(config.to_json())))
    assert found == config
    assert found.digest == config.digest != PLAIN.digest


def test_a_config_without_a_stage_is_written_as_before_there_were_stages():
    assert "pretraining" not in PLAIN.to_json()
    assert "pretraining" not in replace(PLAIN, pretraining=BEFORE).to_json()["pretraining"]


def test_where_the_stage_and_its_texts_lie_does_not_count():
    config = replace(PLAIN, pretraining=BEFORE)
    moved = replace(
        config,
        model=replace(config.model, name="cache/model", fingerprint="of the result"),
        pretraining=replace(
            BEFORE, task=replace(BEFORE.task, source="moved.txt"), model=replace(BEFORE.model, name="elsewhere")
        ),
    )
    assert moved.digest == config.digest
    assert replace(config, model=replace(config.model, pooling="mean")).digest != config.digest


def test_a_record_keeps_stage_and_teacher_and_has_neither_where_there_was_none():
    plain = RunRecord(PLAIN, "ok")
    assert not {"stage", "teaching"} & plain.to_json().keys()
    found = again(replace(plain, stage=STAGE, teaching=TEACHING))
    assert found.teaching == TEACHING
    assert found.stage is not None
    assert math.isnan(found.stage.loss_after)
    assert replace(found.stage, loss_after=0.0) == replace(STAGE, loss_after=0.0)


def test_the_sentences_name_a_random_head_and_an_earlier_run():
    said = " ".join(STAGE.sentences())
    assert "`cls` started at random" in said
    assert "of an earlier run of the same stage" in said
    fresh = " ".join(replace(STAGE, fresh=(), reused=False).sentences())
    assert "random" not in fresh
    assert "earlier" not in fresh
