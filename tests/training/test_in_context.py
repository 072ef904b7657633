"""Nothing is trained, and all else is a run: demonstrations, refusals, price, saving, and the zero-shot scorer."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from foretune.errors import DataError, UsageError
from foretune.records import Part, RunConfig, Seeds
from foretune.report.snippet import load_and_predict
from foretune.tasks import Task
from foretune.testing import toys
from foretune.training.predictor import Predictor
from foretune.training.prepare import prepare
from foretune.training.run import train

FROZEN = Part("frozen")


@pytest.fixture(scope="session")
def untrained(config: Callable[..., RunConfig], tmp_path_factory: pytest.TempPathFactory) -> Callable[..., RunConfig]:
    """``untrained(demonstrations=4)``: a run on a decoder with room for a context; options of the objective."""
    folder = toys.checkpoint(tmp_path_factory.mktemp("roomy") / "llama", "llama", max_position_embeddings=256)

    def make(tuner: Part = FROZEN, seeds: Seeds = Seeds(), steps: int = 0, **options: Any) -> RunConfig:  # noqa: B008
        made = config(tuner=tuner, seeds=seeds, objective=Part("pattern", options), steps=steps)
        return replace(made, model=replace(made.model, name=str(folder)))

    return make


def test_a_run_without_a_step_is_judged_priced_and_restored(
    untrained: Callable[..., RunConfig], task: Callable[..., Task], tmp_path: Path
) -> None:
    found = {}
    for n in (0, 4):
        folder = tmp_path / str(n)
        record = train(untrained(demonstrations=n), task=task(), folder=folder)
        assert (record.status, record.steps_done, record.cost.tokens) == ("ok", 0, 0)
        assert record.cost.trainable_parameters == 0
        assert "accuracy" in record.evaluations["test"].scores
        found[n] = record.cost.prompt_tokens or 0.0
        kept = pq.read_table(folder / "predictions.parquet")
        rows = kept.filter([s == "test" for s in kept["split"].to_pylist()])
        again = Predictor.load(folder)(rows.select(["row", "text", "pair", "choices", "label"]))
        np.testing.assert_array_equal(again["probability"].to_numpy(), rows["probability"].to_numpy())
        recipe = json.loads((folder / "adapter" / "foretune.json").read_text(encoding="utf-8"))
        assert len(recipe["objective"]["options"]["shown"]) == n
        assert recipe["objective"]["options"]["context"].count("\n\n") == n
    assert found[4] > 4 * found[0] > 0


def test_the_adapter_of_a_run_that_answers_with_words_is_not_said_to_be_enough_for_stock_tools(
    untrained: Callable[..., RunConfig], task: Callable[..., Task], tmp_path: Path
) -> None:
    record = train(untrained(), task=task(), folder=tmp_path, floors=False)
    assert "in a prompt that foretune writes" in str(record.stock_refusal)
    assert "Predictor" in load_and_predict(record.config, record.stock_refusal)


def test_demonstrations_are_training_rows_of_both_classes_by_seed(
    untrained: Callable[..., RunConfig], task: Callable[..., Task]
) -> None:
    shown: dict[Seeds, tuple[int, ...]] = {}
    for seeds in (Seeds(), Seeds(), Seeds(data=1), Seeds(order=1)):
        run = prepare(untrained(seeds=seeds, demonstrations=6), task())
        train_rows = dict(zip(*(run.tables["train"][name].to_pylist() for name in ("row", "label")), strict=True))
        numbers = run.engine.objective.shown  # type: ignore[attr-defined]
        assert [train_rows[n] for n in numbers].count("good") == 3
        assert shown.setdefault(seeds, numbers) == numbers
    assert set(shown[Seeds()]) == set(shown[Seeds(order=1)]) != set(shown[Seeds(data=1)])
    assert shown[Seeds()] != shown[Seeds(order=1)]


def test_check_5_the_scores_before_training_are_those_of_the_untrained_scorer(
    untrained: Callable[..., RunConfig], task: Callable[..., Task]
) -> None:
    scorer, tuned = (prepare(untrained(tuner=t, steps=s), task()) for t, s in ((FROZEN, 0), (Part("lora"), 3)))
    ours, theirs = (run.engine.outputs(run.encoded["test"])[0] for run in (scorer, tuned))
    np.testing.assert_array_equal(ours, theirs)


def test_check_9_a_context_that_does_not_fit_is_refused_with_the_number_of_rows(
    untrained: Callable[..., RunConfig], task: Callable[..., Task]
) -> None:
    roomy = untrained(demonstrations=4)
    fitting = prepare(roomy, task())
    lengths = {split: e.lengths for split, e in fitting.encoded.items()}
    limit = int(max(lengths["test"].max(), lengths["dev"].max())) - 1
    tight = replace(roomy, model=replace(roomy.model, max_length=limit))
    long = {split: int((lengths[split] > limit).sum()) for split in ("dev", "test")}
    assert sum(long.values()) > 0
    said = ", ".join(f"{n} of {len(lengths[split])} rows of {split}" for split, n in long.items() if n)
    with pytest.raises(DataError, match=f"fit into {limit} tokens together, but {said} do not"):
        prepare(tight, task())
    assert prepare(replace(tight, objective=Part("pattern")), task()).encoded["test"].cut == 0


def test_a_new_row_that_does_not_fit_is_refused_too(
    untrained: Callable[..., RunConfig], task: Callable[..., Task], tmp_path: Path
) -> None:
    from foretune.pipeline.result import table_of

    train(untrained(demonstrations=2), task=task(), folder=tmp_path, floors=False)
    with pytest.raises(DataError, match="but 1 of 2 rows of new do not"):
        Predictor.load(tmp_path).raw(table_of(["the good film was", "very " * 300]))


def test_what_is_shown_is_not_trained_on_and_what_is_frozen_takes_no_step(
    untrained: Callable[..., RunConfig], task: Callable[..., Task]
) -> None:
    with pytest.raises(UsageError, match=r"`lora` would train on the very rows.*--tuner frozen"):
        prepare(untrained(tuner=Part("lora"), steps=3, demonstrations=2), task())
    with pytest.raises(UsageError, match=r"steps = 0 .*trains nothing.*steps=3"):
        prepare(untrained(steps=3), task())
    with pytest.raises(UsageError, match="steps >= 1"):
        prepare(untrained(tuner=Part("lora")), task())


def test_members_are_not_asked_for_scores_of_one_model(
    config: Callable[..., RunConfig], task: Callable[..., Task]
) -> None:
    asked = Part("prefix-subspace", {"dev_samples": 3})
    made = config(name="gpt2", tuner=asked, objective=Part("pattern", {"calibrate": True}))
    with pytest.raises(UsageError, match="scores one model at a time"):
        prepare(made, task())


def test_a_floor_reads_the_text_and_not_the_demonstrations(
    untrained: Callable[..., RunConfig], task: Callable[..., Task]
) -> None:
    from foretune.training.floors import embedding_floor, frozen_of

    made = [prepare(untrained(demonstrations=n), task()) for n in (0, 4)]
    plain, shown = (embedding_floor(run, frozen_of(run)) for run in made)
    np.testing.assert_array_equal(plain["test"], shown["test"])
