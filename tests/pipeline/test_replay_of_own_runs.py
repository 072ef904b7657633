"""Of runs that foretune made, a replay knows the published default without being told."""

from __future__ import annotations

from dataclasses import replace

import pytest

import foretune
from foretune.comparison.replay.pools import held_out
from foretune.pipeline.replay import opened
from foretune.pipeline.without_past import without_past
from foretune.records import MetaTask, ModelCard, RunCollection
from foretune.store import bundled
from foretune.store.metadata import SOURCE
from foretune.store.metadataset import metadataset
from foretune.testing.recommender_contract import toy_collection

KNOWN = MetaTask("a", "a", "a", "accuracy", model=ModelCard("m", reading="encoder"), rows={"train": 40})


def own(made: RunCollection, first: dict[str, object]) -> RunCollection:
    """``made`` as if it were of foretune's own runs, ``first`` being the configuration of each task's first run."""
    card = ModelCard("toy", reading="encoder", parameters=1_000)
    tasks = tuple(replace(task, source=SOURCE, model=card, rows={"train": 40}) for task in made.tasks)
    seen: set[str] = set()
    runs = []
    for run in made.runs:
        runs.append(run if run.task_id in seen else replace(run, config=first))
        seen.add(run.task_id)
    return replace(made, tasks=tasks, runs=tuple(runs))


def test_every_shipped_task_has_the_default_of_its_rows(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv(bundled.INSTEAD, raising=False)
    held, _ = held_out(metadataset([opened("bundled")]), "leave-one-task-out", default=without_past)
    assert all(h.default is not None for h in held)


def test_the_default_stands_beside_the_others_unasked():
    default = without_past(
        MetaTask("a", "a", "a", "accuracy", model=ModelCard("m", reading="encoder"), rows={"train": 40})
    )
    assert default is not None
    done = foretune.replay(collection=own(toy_collection(), default), recommenders=["random"]).outcome
    assert "default" in done.entries
    assert done.settings["default"] == "published"
    other = foretune.replay(collection=toy_collection(), recommenders=["random"]).outcome
    assert "default" not in other.entries


@pytest.mark.parametrize("task", [{"model": None}, {"model": ModelCard("m")}, {"rows": {}}])
def test_where_model_or_rows_are_not_known_there_is_none(task: dict[str, object]):
    assert without_past(KNOWN) is not None
    assert without_past(replace(KNOWN, **task)) is None
