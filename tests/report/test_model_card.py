"""The model card: a header the Hub can read, code that compiles, nothing private, nothing that Markdown obeys."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
import samples
import yaml

from foretune.records import ModelRef, Part, TaskRef
from foretune.report.markdown import card
from foretune.report.snippet import load_and_predict


def header(text: str) -> dict:
    assert text.startswith("---\n")
    return yaml.safe_load(text.split("---\n")[1])


def code(text: str) -> str:
    return re.findall(r"```python\n(.*?)```", text, re.S)[0]


def test_the_header_holds_what_the_hub_indexes():
    record = samples.banking().record
    found = header(card(record))
    assert found["base_model"] == "sentence-transformers/all-MiniLM-L6-v2"
    assert found["library_name"] == "peft"
    assert found["pipeline_tag"] == "text-classification"
    assert found["metrics"] == ["accuracy"]
    assert "datasets" not in found
    results = found["model-index"][0]["results"]
    assert [r["dataset"]["split"] for r in results] == ["test", "ood:branch_2026"]
    first = results[0]["metrics"][0]
    assert first["type"] == "accuracy"
    assert first["value"] == round(record.evaluations["test"].scores["accuracy"], 6)
    assert "95 % interval [83.2, 90.6], n = 320, 1 seed" in first["name"]


def test_a_hub_data_set_is_named_and_a_file_is_not():
    record = samples.banking().record
    hub = replace(record, config=replace(record.config, task=TaskRef("PolyAI/banking77", "classification")))
    assert header(card(hub))["datasets"] == ["PolyAI/banking77"]
    for path in ("/home/ann/secret/train.csv", "train.csv", r"C:\data\train.csv"):
        own = replace(record, card=None, config=replace(record.config, task=TaskRef(path, "classification")))
        text = card(own)
        assert "datasets" not in header(text)
        assert "secret" not in text
        assert "ann" not in re.findall(r"^# .*", text, re.M)[0].split()


def test_a_local_model_shows_no_path():
    record = samples.banking().record
    text = card(replace(record, config=replace(record.config, model=ModelRef("/home/ann/models/mine", pooling="cls"))))
    assert "/home" not in text
    assert header(text)["base_model"] == "mine"


def test_no_row_of_the_data_is_in_the_card():
    text = card(samples.hostile("label", "a private sentence").record)
    assert not any(phrase in text for phrase in samples.PHRASES)


@pytest.mark.parametrize("kind", ["classification", "regression", "choice", "generation"])
@pytest.mark.parametrize("tuner", ["lora", "full"])
@pytest.mark.parametrize("pooling", ["cls", "mean", "last"])
def test_the_code_compiles_and_loads_what_the_pooling_asks_for(kind, tuner, pooling):
    base = samples.banking().record.config
    pooling = "none" if kind == "generation" else pooling
    config = replace(base, task=TaskRef("t.csv", kind), tuner=Part(tuner), model=ModelRef("org/name", pooling=pooling))
    text = load_and_predict(config)
    compile(text, "card", "exec")
    assert ("PeftModel" in text) == (tuner == "lora")
    assert ("patch.safetensors" in text) == (tuner == "full")
    assert ("AutoModelForTokenClassification" in text) == (pooling == "mean")
    assert ("AutoModelForCausalLM" in text) == (kind == "generation")


def test_a_pair_is_given_as_a_pair():
    base = samples.banking().record.config
    config = replace(base, task=replace(base.task, columns={"text": "a", "pair": "b"}))
    assert "the second text" in load_and_predict(config)


@pytest.mark.parametrize("hostile", ['x"""\n```\nimport os', "<script>x</script>", "a|b\n# Title", "---\nlicense: no"])
def test_a_users_words_change_neither_header_nor_code_nor_structure(hostile):
    plain, text = card(samples.banking().record), card(samples.hostile(hostile, hostile).record)
    assert header(text).keys() == header(plain).keys()
    compile(code(text), "card", "exec")
    assert re.findall(r"^## .*", text, re.M) == re.findall(r"^## .*", plain, re.M)
    assert text.count("```") == plain.count("```") or "```" in hostile
    assert len(re.findall(r"^```", text, re.M)) == 2
    assert "<script" not in text.split("---\n", 2)[2].replace(code(text), "")


def test_a_run_that_was_never_judged_has_a_card_without_scores():
    text = card(samples.failed().record)
    assert "metrics" not in header(text)
    assert "Nothing was evaluated" in text


def test_results_carry_interval_count_and_floors():
    text = card(samples.banking().record).replace("\xa0", " ")
    assert re.search(r"\| test \| 320 \| 86\.9 % \[83\.2, 90\.6\] \| majority class 11\.9 %", text)
    assert "Dev chose the checkpoint" in text


def test_a_verdict_given_takes_the_place_of_the_records_own():
    record = samples.banking().record
    assert "No difference found" in card(record)
    text = card(record, ("87 % accuracy", "Better than the strongest floor by 7 points."))
    assert "87 % accuracy. Better than the strongest floor by 7 points." in text
    assert "No difference found" not in text
