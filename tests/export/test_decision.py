"""decision.json, read without foretune, gives what foretune predicts for any text; what it holds; what it refuses."""

import functools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from export_cases import LABELS, WORDS, Runs
from hypothesis import given, settings
from hypothesis import strategies as st

from foretune.export import FORMATS, decide
from foretune.export.source import Source
from foretune.tasks.schema import SPLIT_COLUMNS
from foretune.testing import toys
from foretune.training.predictor import Predictor

ODD = ("", " ", "{answer}", "{text}", "[MASK]", "</s>", "N/A", "zebra", "bad.", "\n")


@pytest.fixture(scope="module")
def decider(runs: Runs, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], tuple[dict[str, Any], Any]]:
    """``decider(case)``: the contents of its ``decision.json``, and text, pair -> probabilities."""

    @functools.cache
    def make(name: str) -> tuple[dict[str, Any], Any]:
        source, folder = Source.open(runs(name)), tmp_path_factory.mktemp("decision")
        FORMATS["decision"](source, folder)
        how = json.loads((folder / "decision.json").read_text(encoding="utf-8"))
        return how, functools.partial(decide.probabilities, source.restored(), source.checkpoint.tokenizer, how)

    return make


@pytest.mark.parametrize("name", ["cloze", "cloze-pair", "asked-prefix", "asked-prompt", "asked-t5"])
def test_any_text_gets_the_probabilities_that_foretune_predicts(
    name: str, runs: Runs, decider: Callable[[str], tuple[dict[str, Any], Any]]
) -> None:
    how, probabilities = decider(name)
    predictor = Predictor.load(runs(name))
    text = st.lists(st.sampled_from((*toys.WORDS, *ODD)), max_size=12).map(" ".join)

    @settings(max_examples=25, deadline=None)
    @given(text, text)
    def check(text: str, second: str) -> None:
        pair = second if how["before"].count("pair") else None
        row = {"row": 1, "text": text, "pair": pair, "choices": None, "label": None}
        (wanted,) = predictor.raw(pa.Table.from_pylist([row], schema=SPLIT_COLUMNS))
        assert probabilities(text, pair) == pytest.approx(wanted, abs=1e-4)

    check()


def test_the_words_stand_in_the_order_of_the_labels_with_the_tokens_that_are_scored(
    decider: Callable[[str], tuple[dict[str, Any], Any]],
) -> None:
    how, _ = decider("cloze")
    assert [answer["label"] for answer in how["answers"]] == list(LABELS)
    assert [answer["word"] for answer in how["answers"]] == list(WORDS.values())
    assert [" ".join(answer["pieces"]) for answer in how["answers"]] == list(WORDS.values())
    assert how["before"] == ["the ", "text", " was "]
    assert how["after"] == [" and"]
    assert how["temperature"] > 0


def test_priors_are_written_down_where_the_run_used_them_and_nowhere_else(
    decider: Callable[[str], tuple[dict[str, Any], Any]],
) -> None:
    def offsets(name: str) -> list[float]:
        return [answer["offset"] for answer in decider(name)[0]["answers"]]

    assert offsets("cloze") == [0.0] * 3
    assert sum(2.718281828**offset for offset in offsets("cloze-pair")) == pytest.approx(1, abs=1e-5)
    assert len(set(offsets("asked-t5"))) == 3


def test_a_row_that_has_no_room_behind_its_examples_is_refused(
    decider: Callable[[str], tuple[dict[str, Any], Any]],
) -> None:
    how, probabilities = decider("shown")
    assert how["context"].count("\n\n") == 3
    assert sum(probabilities("good film")) == pytest.approx(1)
    with pytest.raises(ValueError, match=r"too long to stand behind its examples in 96 tokens"):
        probabilities("good " * 96)


def test_a_model_that_is_not_merged_leaves_as_an_adapter_beside_the_words(runs: Runs, tmp_path: Path) -> None:
    FORMATS["decision"](Source.open(runs("asked-prompt")), tmp_path)
    names = {path.name for path in tmp_path.iterdir()}
    assert {"adapter_config.json", "adapter_model.safetensors", "decision.json", "tokenizer.json"} <= names
    assert not {"README.md", "model.safetensors"} & names
