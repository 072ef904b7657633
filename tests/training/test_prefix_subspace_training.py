"""What a prefix subspace does in the loop: draws, penalty, decay, dev members, who answers in the end."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from foretune.errors import ModelError, UsageError
from foretune.evaluation import softmax
from foretune.records import ModelRef, Part, RunConfig
from foretune.store.folder import read_run
from foretune.tasks import Task
from foretune.testing import toys
from foretune.training.loop import optimizer_step
from foretune.training.optimizer import make_optimizer
from foretune.training.predictor import Predictor
from foretune.training.prepare import Prepared, prepare, trainable
from foretune.training.run import train
from foretune.tuners.prefix.mixture import Law

Config = Callable[..., RunConfig]
Tasks = Callable[..., Task]


def simplex(**options: object) -> Part:
    return Part("prefix-subspace", {"length": 3, **options})


@pytest.fixture
def spread(config: Config, tmp_path: Path) -> Config:
    """``config`` on a toy to which texts look different."""
    made = toys.checkpoint(tmp_path / "spread", "bert", initializer_range=0.2)
    return lambda *names, **options: replace(config(*names, **options), model=ModelRef(str(made), pooling="mean"))


def draws(run: Prepared, rows: np.ndarray) -> list[torch.Tensor]:
    """The weights of every pass of one optimizer step."""
    seen: list[torch.Tensor] = []
    mixture = run.engine.bare.mixture
    hook = run.engine.bare.get_base_model().register_forward_pre_hook(
        lambda module, args: seen.append(mixture.point.alpha.clone())
    )
    optimizer_step(run, make_optimizer(run), rows, 0)
    hook.remove()
    return seen


def test_the_candidates_of_one_question_share_a_draw(config: Config, task: Tasks) -> None:
    run = prepare(config("choice", tuner=simplex(), micro_batch=3), task("choice"))
    rows = np.arange(7)
    counts = np.diff(run.encoded["train"].groups)[rows]
    assert len(set(counts)) > 1
    seen = draws(run, rows)
    assert [len(alpha) for alpha in seen] == [int(counts[i : i + 3].sum()) for i in (0, 3, 6)]
    each = [part for alpha, i in zip(seen, (0, 3, 6), strict=True) for part in alpha.split(counts[i : i + 3].tolist())]
    for own in each:
        assert torch.equal(own, own[:1].expand_as(own))
    firsts = torch.stack([own[0] for own in each])
    assert len(torch.unique(firsts, dim=0)) == len(rows)


def test_draws_are_those_of_the_step_and_the_dropout_seed(config: Config, task: Tasks) -> None:
    asked = config(tuner=simplex())
    one, again = (draws(prepare(asked, task()), np.arange(4))[0] for _ in range(2))
    other = draws(prepare(replace(asked, seeds=replace(asked.seeds, dropout=1)), task()), np.arange(4))[0]
    assert torch.equal(one, again)
    assert not torch.isclose(one, other).any()


@pytest.mark.parametrize("options", [{"n_vertices": 1}, {"n_vertices": 3, "per": "batch"}], ids=["one", "batch"])
def test_micro_batches_give_the_gradient_of_the_whole_batch_where_the_draws_are_the_same(
    options: dict[str, object], config: Config, task: Tasks, monkeypatch: pytest.MonkeyPatch
) -> None:
    fixed = torch.tensor([0.2, 0.3, 0.5])
    monkeypatch.setattr(Law, "draw", lambda law, rows, generator: fixed.expand(rows, law.slots, 3).contiguous())
    found = []
    for micro_batch in (None, 3):
        run = prepare(config(tuner=simplex(beta=1.0, **options), micro_batch=micro_batch, clip=None), task())
        weights = trainable(run.engine.bare)
        before = {name: p.detach().clone() for name, p in weights.items()}
        optimizer_step(run, torch.optim.SGD([{"params": list(weights.values()), "peak": 1.0}], lr=1.0), np.arange(8), 0)
        found.append({name: before[name] - p.detach() for name, p in weights.items()})
    for name, gradient in found[0].items():
        torch.testing.assert_close(found[1][name], gradient, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(("name", "wanted"), [("prefix-tuning", 0.0), ("prefix-subspace", 0.0), ("decayed", 0.3)])
def test_vertices_are_decayed_only_when_asked_and_biases_never(
    name: str, wanted: float, config: Config, task: Tasks
) -> None:
    tuner = Part("prefix-tuning", {"length": 3}) if name == "prefix-tuning" else simplex()
    tuner = simplex(weight_decay_vertices=0.3) if name == "decayed" else tuner
    run = prepare(config(tuner=tuner, weight_decay=0.1, head_lr=0.5), task())
    names = {id(p): name for name, p in trainable(run.engine.bare).items()}
    found = {names[id(p)]: group for group in make_optimizer(run).param_groups for p in group["params"]}
    assert len(found) >= 3
    for parameter, group in found.items():
        body = parameter.startswith("prompt_encoder.")
        bias = parameter.endswith("bias")
        assert group["weight_decay"] == (wanted if body else 0.0 if bias else 0.1), parameter
        assert group["peak"] == (2e-2 if body else 0.5), parameter


def test_a_vertex_without_a_gradient_ends_the_run_at_its_first_step(
    config: Config, task: Tasks, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    corner = torch.tensor([0.0, 1.0, 0.0])
    monkeypatch.setattr(Law, "draw", lambda law, rows, generator: corner.expand(rows, law.slots, 3).contiguous())
    with pytest.raises(ModelError, match=r"3 vertices must get a gradient.*vertex 0, vertex 2 had none"):
        train(config(tuner=simplex(dev_samples=1)), task=task(), folder=tmp_path / "run", floors=False)
    record = read_run(tmp_path / "run")
    assert record.status == "failed"
    assert record.steps_done == 0
    assert "vertex 0" in str(record.error)


def test_the_curve_has_the_members_beside_the_pooled_metric(config: Config, task: Tasks) -> None:
    many, one = (train(config(tuner=simplex(dev_samples=n)), task=task(), floors=False) for n in (None, 1))
    own = {f"accuracy_{word}" for word in ("member_mean", "monte_carlo_error")}
    for name in ("accuracy", "loss", *own):
        assert many.curve.of("dev", name)[0] == [4, 8, 12]
    assert not own & {name for split, name in one.curve.lines() if split == "dev"}


def test_the_pooled_metric_stops_early(config: Config, task: Tasks) -> None:
    record = train(config(tuner=simplex(), steps=12, evaluations=12, patience=2, lr=1e-9), task=task(), floors=False)
    dev = list(zip(*(record.curve.of("dev", name)[1] for name in ("accuracy", "loss")), strict=True))
    best = max(range(len(dev)), key=lambda i: (dev[i][0], -dev[i][1], -i))
    assert record.steps_done == best + 3 < 12
    assert record.chosen_step == best + 1


def test_an_ensemble_may_average_logits(spread: Config, task: Tasks, tmp_path: Path) -> None:
    tuner = simplex(predict="ensemble", predict_samples=4, predict_average="logits")
    train(spread("classification", tuner=tuner, steps=4), task=task(), folder=tmp_path / "run", floors=False)
    recorded = pq.read_table(tmp_path / "run" / "predictions.parquet")
    rows = recorded.filter(np.array(recorded["split"]) == "test")
    predictor = Predictor.load(tmp_path / "run")
    engine, encoded = predictor.engine, predictor._encoded(rows)
    members, _ = engine.member_outputs(encoded, engine.tuner.ensemble(engine.bare, len(rows), 4), labelled=False)
    wanted = softmax(members.mean(0), predictor.recipe["temperature"])
    np.testing.assert_allclose(np.array(rows["probabilities"].to_pylist()), wanted, atol=1e-6)
    assert np.abs(wanted - softmax(engine.objective.pool(members), predictor.recipe["temperature"])).max() > 1e-7


@pytest.mark.parametrize("kind", ["classification", "regression", "choice"])
def test_an_ensemble_answers_with_the_mean_of_its_members(
    kind: str, spread: Config, task: Tasks, tmp_path: Path
) -> None:
    asked = spread(kind, tuner=simplex(predict="ensemble", predict_samples=4), steps=4)
    train(asked, task=task(kind), folder=tmp_path / "run", floors=False)
    recorded = pq.read_table(tmp_path / "run" / "predictions.parquet")
    rows = recorded.filter(np.array(recorded["split"]) == "test")
    predictor = Predictor.load(tmp_path / "run")
    engine, encoded = predictor.engine, predictor._encoded(rows)
    members, _ = engine.member_outputs(encoded, engine.tuner.ensemble(engine.bare, len(rows), 4), labelled=False)
    middle, _ = engine.outputs(encoded, labelled=False)
    if kind == "regression":
        center, scale = engine.objective.center, engine.objective.scale
        found = [float(value) for value in rows["prediction"].to_pylist()]
        np.testing.assert_allclose(found, members.mean(0)[:, 0] * scale + center, rtol=1e-5)
        assert np.abs(np.array(found) - middle[:, 0] * scale - center).max() > 1e-4
        return
    pooled = np.stack([softmax(member, 1.0) for member in members]).mean(0)
    with np.errstate(divide="ignore"):
        wanted = softmax(np.log(pooled), predictor.recipe["temperature"])
    for row, expected, alone in zip(rows["probabilities"].to_pylist(), wanted, softmax(middle, 1.0), strict=True):
        np.testing.assert_allclose(row, expected[: len(row)], rtol=1e-5)
        assert np.abs(pooled - alone).max() > 1e-4


def test_texts_are_not_pooled_and_that_is_said_before_training(config: Config, task: Tasks) -> None:
    asked = config("generation", "llama", tuner=simplex(predict="ensemble"))
    with pytest.raises(UsageError, match=r"10 members.*`response` have no mean.*`predict`"):
        prepare(asked, task("generation"))


@pytest.mark.parametrize(("samples", "members"), [(None, False), (3, True)])
def test_where_text_is_written_the_midpoint_judges_dev_unless_asked_otherwise(
    samples: int | None, members: bool, config: Config
) -> None:
    """With members also where a row has several accepted responses."""
    rows = [{**row, "response": f"{row['response']}|{row['response']} nice"} for row in toys.rows("generation")]
    rows[0]["response"] = "good"
    made = Task.from_records(rows, kind="generation")
    task = Task.from_splits("several", replace(made.schema, references="|"), dict(made.splits))
    asked = config("generation", "llama", tuner=simplex(dev_samples=samples), steps=2, evaluations=1)
    asked = replace(asked, task=task.ref, objective=Part("response", {"references": "|"}))
    record = train(asked, task=task, floors=False)
    names = {name for split, name in record.curve.lines() if split == "dev"}
    assert any(name.endswith("_member_mean") for name in names) == members


def test_a_bf16_run_leaves_the_frozen_weights_as_they_were(config: Config, task: Tasks) -> None:
    run = prepare(config(tuner=simplex(), precision="bf16"), task())
    before = {n: p.detach().clone() for n, p in run.engine.bare.named_parameters() if not p.requires_grad}
    with run.engine.training():
        optimizer_step(run, make_optimizer(run), np.arange(8), 0)
    after = dict(run.engine.bare.named_parameters())
    assert all(torch.equal(after[name], weight) for name, weight in before.items())
