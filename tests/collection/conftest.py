"""A tiny encoder, two tiny tasks as files, and short plans over them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from foretune.collection import CollectionPlan
from foretune.collection.local import opened
from foretune.collection.runs import Runs
from foretune.collection.worker import work
from foretune.testing import toys

Make = Callable[..., CollectionPlan]


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with two tables: the second has other words around the first one's."""
    folder = tmp_path_factory.mktemp("data")
    rows = toys.rows("classification")
    toys.table(folder / "kind.csv", rows)
    toys.table(folder / "other.csv", [{**row, "text": f"one two {row['text']} it"} for row in rows])
    return folder


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return toys.checkpoint(tmp_path_factory.mktemp("models") / "bert", "bert")


@pytest.fixture(scope="session")
def plan(data: Path, tiny: Path) -> Make:
    """``plan(configs=4, ...)``: a collection of short runs on two tasks."""

    def make(**given: Any) -> CollectionPlan:
        short = {
            "tasks": [str(data / "kind.csv"), str(data / "other.csv")],
            "models": [str(tiny)],
            "shots": [8],
            "tuners": ["lora", "full", "bitfit"],
            "configs": 4,
            "repeats": 0.25,
            "steps": [2, 4],
            "evaluations": 2,
            "test_rows": 8,
        }
        return CollectionPlan.from_json({**short, **given})

    return make


@pytest.fixture(scope="session")
def done(plan: Make, tmp_path_factory: pytest.TempPathFactory) -> Runs:
    """A finished collection, in which prompts of 50 vectors do not fit the model's 32 positions."""
    asked = plan(tuners=["prompt-tuning", "head"], configs=8, repeats=0)
    runs = opened(asked, store=tmp_path_factory.mktemp("store"))
    work(runs)
    return runs


@pytest.fixture(scope="session")
def scores() -> Callable[[Runs], dict[str, Any]]:
    """Of a store, digest -> all of a run that is not seconds or bytes."""

    def of(runs: Runs) -> dict[str, Any]:
        found = {}
        for record in runs.store:
            points = [(p.step, p.split, p.metric, p.value) for p in record.curve]
            evaluations = {split: dict(each.scores) for split, each in record.evaluations.items()}
            found[record.digest] = (record.status, points, evaluations, record.initial_hash)
        return json.loads(json.dumps(found))

    return of
