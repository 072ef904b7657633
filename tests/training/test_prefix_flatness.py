"""Acceptance check 26: how scores fall inside a simplex and under noise; and that the measurement leaves no trace."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from foretune.errors import UsageError
from foretune.records import Flatness, ModelRef, Part, RunConfig, Seeds
from foretune.tasks import Task
from foretune.testing import toys
from foretune.training.landscape import measure_flatness
from foretune.training.loop import fit
from foretune.training.prepare import Prepared, prepare, trainable

Config = Callable[..., RunConfig]
Tasks = Callable[..., Task]
SIZES = (0.25, 0.5, 1.0)


@pytest.fixture(scope="module")
def learned(config: Config, tmp_path_factory: pytest.TempPathFactory) -> Callable[[int, int], Prepared]:
    """``learned(n, seed)``: a simplex of n vertices after training on texts of which every word says the label."""
    folder = toys.checkpoint(tmp_path_factory.mktemp("models") / "bert", "bert", initializer_range=0.2)
    words = {"good": toys.WORDS[:4], "bad": toys.WORDS[4:8]}
    pairs = [(label, a, b) for label, own in words.items() for a in own for b in own]
    task = Task.from_records([{"text": f"{a} {b} {a}", "label": label} for label, a, b in pairs])

    def made(n: int, seed: int) -> Prepared:
        tuner = Part("prefix-subspace", {"length": 3, "n_vertices": n, "dev_samples": 1})
        asked = config(tuner=tuner, seeds=Seeds.all(seed), steps=60, evaluations=1, head_lr=0.05)
        asked = replace(asked, model=ModelRef(str(folder), pooling="mean"), task=replace(task.ref, dev_fraction=0.5))
        run = prepare(asked, task)
        fit(run)
        return run

    return made


def flat(run: Prepared, split: str = "dev", **options: Any) -> Flatness:
    found = measure_flatness(run, split, **{"sizes": SIZES, **options})
    assert found is not None
    return found


def test_check_26_a_simplex_falls_less_than_one_prefix(learned: Callable[[int, int], Prepared]) -> None:
    """Means over three seeds: at equal noise, and inside the simplex beside noise that goes as far.

    Inside, the head is mixed anew too, which noise leaves alone: the comparison is to the disadvantage of the simplex.
    """
    noise: dict[float, list[tuple[float, float]]] = {size: [] for size in SIZES}
    inside = []
    for seed in range(3):
        three = flat(learned(3, seed))
        assert three.reach is not None
        one = flat(learned(1, seed), sizes=(*SIZES, three.reach))
        assert min(one.rest["accuracy"], three.rest["accuracy"]) >= 0.75
        assert (one.inside, one.reach) == ((), None)
        inside.append((one.change("loss", three.reach), three.change("loss")))
        for size, found in noise.items():
            found.append((one.change("loss", size), three.change("loss", size)))
    for where, found in (*noise.items(), ("inside", inside)):
        of_one, of_three = np.mean(found, axis=0)
        assert 0 < of_three < 0.75 * of_one, where


@pytest.fixture
def planted(config: Config, task: Tasks) -> Prepared:
    """A run whose vertices, prefixes and heads alike, are far apart."""
    run = prepare(config(tuner=Part("prefix-subspace", {"length": 3})), task())
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in trainable(run.engine.bare).values():
            parameter.copy_(2 * torch.randn_like(parameter))
    return run


def test_at_rest_it_is_the_exported_model_and_equal_seeds_give_equal_numbers(planted: Prepared) -> None:
    outputs, loss = planted.engine.outputs(planted.encoded["dev"])
    right = float((outputs.argmax(1) == planted.encoded["dev"].targets).mean())
    first = flat(planted)
    assert dict(first.rest) == {"accuracy": pytest.approx(right), "loss": pytest.approx(loss)}
    assert flat(planted) == first
    assert flat(planted, seed=1).moved != first.moved
    assert (len(first.inside), {size: len(found) for size, found in first.moved.items()}) == (
        10,
        dict.fromkeys(SIZES, 5),
    )
    assert len({scores["loss"] for scores in first.inside}) == 10


def test_nothing_is_left_behind(planted: Prepared) -> None:
    model = planted.engine.bare.train()
    before = {name: (id(p), p.detach().clone()) for name, p in model.named_parameters()}
    flat(planted)
    assert model.training
    for name, parameter in model.named_parameters():
        identity, value = before[name]
        assert id(parameter) == identity
        assert torch.equal(parameter, value)


def test_noise_moves_the_midpoint_by_its_size_however_many_vertices_there_are(config: Config, task: Tasks) -> None:
    directions = []
    for n in (1, 3):
        run = prepare(config(tuner=Part("prefix-subspace", {"length": 3, "n_vertices": n})), task())
        prefix, seen = run.engine.bare.mixture.prefix, []
        rest = prefix.midpoint.detach().clone()

        def score(prefix: Any = prefix, seen: Any = seen) -> dict[str, float]:
            seen.append(prefix.midpoint.detach().clone())
            return {}

        found = run.engine.tuner.flatness(run.engine.bare, score, sizes=(0.5, 2.0), draws=1, points=2)
        assert found.rms == pytest.approx(float(rest.square().mean().sqrt()))
        small, large = (point - rest for point in seen[-2:])
        torch.testing.assert_close(large, 4 * small, rtol=1e-3, atol=1e-5)
        assert float(small.std()) == pytest.approx(0.5, rel=0.2)
        directions.append(small)
    torch.testing.assert_close(*directions, rtol=1e-3, atol=1e-5)


def test_the_reach_is_the_distance_of_the_points_inside(planted: Prepared) -> None:
    mixture, seen = planted.engine.bare.mixture, []

    def score() -> dict[str, float]:
        seen.append(torch.stack(mixture.prepare(mixture.point.alpha).layers))
        return {}

    found = planted.engine.tuner.flatness(planted.engine.bare, score, points=4, draws=1, sizes=(1.0,))
    away = np.sqrt(np.mean([float((point - seen[0]).square().mean()) for point in seen[1:5]]))
    assert found.reach == pytest.approx(away, rel=1e-5)


def test_a_projection_is_moved_where_it_comes_out_and_is_back_afterwards(config: Config, task: Tasks) -> None:
    run = prepare(config(tuner=Part("prefix-subspace", {"length": 3, "prefix_projection": True})), task())
    prefix = run.engine.bare.mixture.prefix
    before = prefix.vertices, prefix.projection
    assert len({scores["loss"] for scores in flat(run).moved[1.0]}) == 5
    assert prefix.vertices is before[0]
    assert prefix.projection is before[1] is not None


def test_what_cannot_be_measured_is_said(planted: Prepared, config: Config, task: Tasks) -> None:
    for options in ({"points": 0}, {"draws": 0}, {"sizes": (0.0,)}):
        with pytest.raises(UsageError, match="`points >= 1`"):
            flat(planted, **options)
    assert measure_flatness(prepare(config(), task())) is None
    with pytest.raises(KeyError, match="No point was drawn"):
        Flatness({"loss": 1.0}, (), {}, None, 1.0).change("loss")
