"""What a run says of the simplex it trained: dev scores at fixed points, and how the vertices moved."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from foretune.errors import Interrupted
from foretune.evaluation import judge
from foretune.models import build
from foretune.records import Landscape, Part, Place, RunConfig
from foretune.store.folder import read_run
from foretune.tasks import Task
from foretune.training import run as runs
from foretune.training.engine import Engine
from foretune.training.landscape import measure_landscape
from foretune.training.loop import fit
from foretune.training.measure import gold, predictions
from foretune.training.prepare import Prepared, prepare, trainable
from foretune.training.progress import Progress
from foretune.training.run import train
from foretune.training.state import State
from foretune.tuners.prefix.members import grid
from foretune.tuners.prefix_subspace import as_prefix

Config = Callable[..., RunConfig]
Tasks = Callable[..., Task]
SUBSPACE = Part("prefix-subspace", {"length": 3, "dev_samples": 4})
NUMBERS = ("vertex_cosine", "vertex_cosine_max", "vertex_distance", "vertex_distance_min")


@given(st.integers(2, 9))
def test_vertices_and_midpoint_are_on_the_grid_once_and_all_weights_sum_to_one(n: int) -> None:
    points = grid(n)
    corners = [tuple(map(float, row)) for row in np.eye(n)]
    assert list(points[:n]) == corners
    assert [len(set(point)) for point in points].count(1) == 1
    assert len(set(points)) == len(points)
    assert all(len(point) == n and min(point) >= 0 for point in points)
    assert [sum(point) for point in points] == pytest.approx([1.0] * len(points))


def test_three_vertices_have_a_triangle_with_its_edges() -> None:
    points = grid(3)
    assert len(points) == 28
    assert sum(point[2] == 0 for point in points) == 7


@pytest.mark.parametrize("n", [2, 6])
def test_other_numbers_of_vertices_have_the_quarters_of_an_edge(n: int) -> None:
    edge = [point[1] for point in grid(n) if point[0] + point[1] == 1]
    assert sorted(edge) == [0.0, 0.25, 0.5, 0.75, 1.0]


@pytest.fixture(params=["classification", "regression"])
def planted(request: pytest.FixtureRequest, config: Config, task: Tasks) -> Prepared:
    """A run whose vertices, prefixes and heads alike, are far apart."""
    run = prepare(config(request.param, tuner=SUBSPACE), task(request.param))
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in trainable(run.engine.bare).values():
            parameter.copy_(2 * torch.randn_like(parameter))
    return run


def found_at(run: Prepared) -> Landscape:
    found = measure_landscape(run, State())
    assert found is not None
    return found


def numbers(scores: Mapping[str, float], metric: str) -> list[float]:
    return [scores[name] for name in (metric, "nll") if name in scores]


def numbers_at(place: Place) -> list[float]:
    return [number for number in (place.score, place.nll) if number is not None]


def test_the_score_at_a_point_is_that_of_the_model_collapsed_to_it(planted: Prepared, tmp_path: Path) -> None:
    engine, schema = planted.engine, planted.task.schema
    found = found_at(planted)
    engine.tuner.save(engine.bare, tmp_path)
    assert len({tuple(numbers_at(place)) for place in found.places}) > 10
    for place in (*found.corners, found.midpoint, found.places[9]):
        assert place is not None
        fresh = build(engine.checkpoint, engine.objective.outputs(len(schema.labels))).module
        collapsed = engine.tuner.restore(fresh, tmp_path)
        collapsed.collapse(torch.tensor(place.weights))  # type: ignore[operator]
        outputs, _ = replace(engine, model=collapsed, bare=collapsed).outputs(planted.encoded["dev"])
        guess = predictions(planted, outputs)
        scores = judge(schema.kind, gold(planted, "dev"), guess, metric=schema.metric).scores
        assert numbers_at(place) == pytest.approx(numbers(scores, schema.metric), rel=1e-4)


def test_many_points_in_one_pass_score_as_one_after_another(planted: Prepared, monkeypatch: pytest.MonkeyPatch) -> None:
    from foretune.training import engine

    alone = found_at(planted)
    stacks = engine._stacks
    monkeypatch.setattr(engine, "_stacks", lambda count, rows, stacked: stacks(count, rows, True))
    together = found_at(planted)
    for one, other in zip(together.places, alone.places, strict=True):
        assert one.weights == other.weights
        assert numbers_at(one) == pytest.approx(numbers_at(other), rel=1e-4)


def test_only_dev_is_looked_at(planted: Prepared, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Any] = []
    original = Engine.member_outputs

    def watched(self: Engine, encoded: Any, *args: Any, **options: Any) -> Any:
        seen.append(encoded)
        return original(self, encoded, *args, **options)

    monkeypatch.setattr(Engine, "member_outputs", watched)
    found_at(planted)
    assert "test" in planted.encoded
    assert len(seen) == 1
    assert seen[0] is planted.encoded["dev"]


def test_the_spread_of_the_members_is_that_of_their_scores(config: Config, task: Tasks) -> None:
    run = prepare(config(tuner=SUBSPACE, steps=3, evaluations=1), task())
    state = fit(run)
    found = measure_landscape(run, state)
    ensemble = run.engine.tuner.ensemble(run.engine.bare, len(run.encoded["dev"]), 4)
    outputs, _ = run.engine.member_outputs(run.encoded["dev"], ensemble)
    each = [float((raw.argmax(1) == gold(run, "dev")).mean()) for raw in outputs]
    assert found is not None
    assert found.members == 4
    assert found.member_sd == pytest.approx(np.std(each, ddof=1))


@pytest.mark.parametrize(
    ("kind", "name", "tuner"),
    [
        ("classification", "bert", Part("lora", {"rank": 2})),
        ("classification", "bert", Part("prefix-subspace", {"n_vertices": 1})),
        ("generation", "llama", SUBSPACE),
    ],
    ids=["no-simplex", "one-vertex", "written-text"],
)
def test_where_there_is_nothing_to_see_there_is_none(
    kind: str, name: str, tuner: Part, config: Config, task: Tasks
) -> None:
    assert measure_landscape(prepare(config(kind, name, tuner), task(kind)), State()) is None


def test_without_dev_there_is_none(planted: Prepared) -> None:
    encoded = {split: rows for split, rows in planted.encoded.items() if split != "dev"}
    assert measure_landscape(replace(planted, encoded=encoded), State()) is None


def test_the_numbers_are_the_angles_and_distances_of_the_vertices(planted: Prepared) -> None:
    vertices = as_prefix(planted.engine.bare).vertices.detach().flatten(1).double().numpy()
    pairs = [(vertices[i], vertices[j]) for i, j in ((0, 1), (0, 2), (1, 2))]
    cosines = [a @ b / np.linalg.norm(a) / np.linalg.norm(b) for a, b in pairs]
    distances = [np.linalg.norm(a - b) for a, b in pairs]
    expected = (np.mean(cosines), max(cosines), np.mean(distances), min(distances))
    told = planted.engine.tuner.monitor(planted.engine.bare)
    assert dict(told) == pytest.approx(dict(zip(NUMBERS, expected, strict=True)), rel=1e-4, abs=1e-6)


def test_a_diversity_term_is_told_beside_them_and_is_not_in_the_training_loss(config: Config, task: Tasks) -> None:
    options = {**SUBSPACE.options, "beta": 2.0}
    record = train(config(tuner=Part("prefix-subspace", options), steps=1, evaluations=1), task=task(), floors=False)
    plain = train(config(tuner=SUBSPACE, steps=1, evaluations=1), task=task(), floors=False)
    assert record.curve.of("train", "loss") == plain.curve.of("train", "loss")
    assert plain.curve.of("train", "diversity_term") == ([], [])
    vertices = as_prefix(prepare(config(tuner=SUBSPACE), task()).engine.bare).vertices.detach().flatten(1)
    cosines = torch.corrcoef(torch.cat([vertices, -vertices], 1))  # of centred doubles: plain cosines
    squares = [float(cosines[i, j]) ** 2 for i, j in ((0, 1), (0, 2), (1, 2))]
    assert record.curve.of("train", "diversity_term")[1][0] == pytest.approx(2 * np.mean(squares), rel=1e-3)


class Stop(Progress):
    """Sends SIGTERM to this very process at one step."""

    def step(self, step: int, loss: float, seconds_left: float) -> None:
        if step == 5:
            os.kill(os.getpid(), signal.SIGTERM)


def test_a_resumed_run_has_every_number_once_and_the_same_landscape(
    config: Config, task: Tasks, tmp_path: Path
) -> None:
    asked = config(tuner=SUBSPACE, steps=8, evaluations=4)
    with pytest.raises(Interrupted):
        train(asked, task=task(), folder=tmp_path / "run", progress=Stop(), floors=False)
    stopped = read_run(tmp_path / "run")
    assert stopped.landscape is None
    assert stopped.curve.of("train", "vertex_cosine")[0] == [0, 2, 4]
    resumed = train(asked, task=task(), folder=tmp_path / "run", floors=False)
    whole = train(asked, task=task(), floors=False)
    for name in NUMBERS:
        assert whole.curve.of("train", name)[0] == [0, 2, 4, 6, 8]
        assert resumed.curve.of("train", name) == whole.curve.of("train", name)
    assert resumed.landscape == whole.landscape == read_run(tmp_path / "run").landscape
    assert whole.landscape is not None
    assert whole.landscape.midpoint is not None
    assert whole.landscape.midpoint.score == whole.evaluations["dev"].scores["accuracy"]
    assert len(set(whole.curve.of("train", "vertex_distance")[1])) > 1


def test_a_method_without_a_simplex_records_no_such_numbers(config: Config, task: Tasks) -> None:
    record = train(config(steps=2, evaluations=1), task=task(), floors=False)
    assert {metric for _, metric in record.curve.lines()} == {"loss", "accuracy"}
    assert record.landscape is None
    assert "landscape" not in record.to_json()


def test_its_seconds_are_seconds_of_evaluation(config: Config, task: Tasks, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runs, "measure_landscape", lambda run, state: time.sleep(0.3))
    record = train(config(steps=1, evaluations=1), task=task(), floors=False)
    assert record.cost.eval_seconds >= 0.3
