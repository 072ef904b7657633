"""Context distillation, by acceptance check 8 of its specification: on a rule that only a context tells."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import recall
import torch

from foretune.errors import DataError, UsageError
from foretune.models import open_checkpoint
from foretune.objectives import make
from foretune.objectives.distillation import Distillation, answer_logits
from foretune.objectives.taught import Taught, divergence, kept, mixed
from foretune.records import Evaluation, ModelRef, Part, RunConfig, RunRecord, Schedule, Seeds, Teaching
from foretune.tasks import Task
from foretune.testing import toys
from foretune.training import teaching
from foretune.training.prepare import Prepared, prepare
from foretune.training.references import told
from foretune.training.run import train

SHOTS, DEMONSTRATIONS, SETS = 16, 8, 4


@pytest.fixture(autouse=True)
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("FORETUNE_STORE", str(tmp_path / "store"))
    return tmp_path / "store"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return recall.checkpoint(tmp_path_factory.mktemp("models") / "recall")


@pytest.fixture(scope="module")
def task() -> Task:
    return Task.from_records(recall.rows())


@pytest.fixture
def config(model: Path, task: Task) -> Callable[..., RunConfig]:
    """A run of the student; names are options of the objective."""

    def build(steps: int = 60, tuner: Part = Part("full"), seeds: Seeds = Seeds(), **options: object) -> RunConfig:  # noqa: B008
        asked = {"demonstrations": DEMONSTRATIONS, "sets": SETS, **recall.PATTERN, **options}
        schedule = Schedule(steps=steps, batch_size=16, lr=3e-3, evaluations=3)
        ref = open_checkpoint(ModelRef(str(model), max_length=48, pooling="none"), "classification").ref
        return RunConfig(ref, replace(task.ref, shots=SHOTS), tuner, Part("distillation", asked), schedule, seeds)

    return build


def batch_of(run: Prepared, rows: np.ndarray) -> dict[str, torch.Tensor]:
    return run.engine.objective.batch(run.learning, rows, run.engine.checkpoint)


def whole(run: Prepared) -> dict[str, torch.Tensor]:
    return batch_of(run, np.arange(len(run.learning)))


@pytest.mark.parametrize("name", ["llama", "gpt2", "bert", "t5"])
def test_check_8_without_a_context_the_student_has_nothing_to_learn(name, tmp_path):
    plain = Task.from_records(toys.rows("classification"))
    ref = ModelRef(str(toys.checkpoint(tmp_path / name, name)), pooling="none")
    objective = Part("distillation", {"demonstrations": 0, "sets": 1, "pattern": "{text} and {answer}"})
    asked = RunConfig(ref, replace(plain.ref, shots=8), Part("full"), objective, Schedule(steps=1), Seeds())
    run = prepare(asked, plain)
    loss = run.engine.objective.loss(run.engine.bare, whole(run)) / len(run.learning)
    loss.backward()
    steepest = max(float(p.grad.abs().max()) for p in run.engine.bare.parameters() if p.grad is not None)
    assert abs(float(loss.detach())) < 1e-6
    assert steepest < 1e-6


def test_check_8_a_context_is_something_to_learn(config, task):
    run = prepare(config(), task)
    with torch.no_grad():
        assert run.engine.objective.loss(run.engine.bare, whole(run)) / len(run.learning) > 0.5


def test_check_8_the_student_never_sees_a_demonstration(config, task):
    run = prepare(config(labelled=1.0), task)
    inputs = whole(run)
    separator = recall.WORDS.index("so")
    assert inputs["input_ids"].shape[1] == 3
    assert not (inputs["input_ids"] == separator).any()
    assert run.lessons is not None
    drawn = set(run.tables["train"]["row"].to_pylist())
    assert all(len(set(rows)) == DEMONSTRATIONS and set(rows) <= drawn for rows in run.lessons.told.shown)
    assert len(set(run.lessons.told.shown)) == SETS


def test_check_8_targets_are_distributions_with_one_bucket_for_the_rest(config, task):
    run = prepare(config(top=5), task)
    taught = run.learning.taught
    assert taught is not None
    assert taught.shares.shape == (len(run.learning), 6)
    np.testing.assert_allclose(taught.shares.sum(1), 1, atol=1e-6)
    assert (taught.shares[:, -1] >= 0).all()
    assert taught.shares[:, -1].max() > 0.01
    assert (np.diff(taught.shares[:, :-1], axis=1) <= 0).all()


def test_check_8_raw_logits_are_no_targets():
    logits = torch.randn(4, 9).numpy()
    with pytest.raises(UsageError, match="softmax first"):
        Taught(np.tile(np.arange(8), (4, 1)), logits, np.ones(4, bool))


def test_check_8_a_vocabulary_smaller_than_what_is_kept_has_no_rest():
    chance = torch.randn(3, 7).softmax(-1)
    ids, shares = kept(chance, 50)
    assert shares.shape == (3, 8)
    assert (shares[:, -1] == 0).all()
    logits = torch.randn(3, 7, requires_grad=True)
    each = divergence(logits, ids, shares)
    expected = (chance * (chance.log() - logits.log_softmax(-1))).sum(-1)
    torch.testing.assert_close(each, expected)
    each.sum().backward()
    assert torch.isfinite(logits.grad).all()


@pytest.mark.parametrize("tau", [0.5, 1.0, 4.0])
def test_the_divergence_is_that_of_the_two_coarsened_distributions(tau):
    teacher, student = torch.randn(5, 30).double(), torch.randn(5, 30).double()
    ids, shares = kept((teacher / tau).softmax(-1), 4)
    p = (student / tau).softmax(-1)
    named = p.gather(1, ids)
    coarse = torch.cat([named, 1 - named.sum(1, keepdim=True)], 1)
    expected = tau**2 * (shares * (shares / coarse).log()).sum(1)
    torch.testing.assert_close(divergence(student, ids, shares, tau).double(), expected, rtol=1e-4, atol=1e-5)


def test_teachers_are_averaged_as_distributions():
    sure, other = torch.tensor([[20.0, 0.0]]), torch.tensor([[0.0, 20.0]])
    torch.testing.assert_close(mixed([sure, other]), torch.tensor([[0.5, 0.5]]))


@pytest.fixture(scope="module")
def record(model: Path, task: Task, tmp_path_factory: pytest.TempPathFactory) -> RunRecord:
    """A whole run of the student on the planted rule."""
    folder = tmp_path_factory.mktemp("run")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FORETUNE_STORE", str(folder / "store"))
        options = {"demonstrations": DEMONSTRATIONS, "sets": SETS, **recall.PATTERN}
        config = RunConfig(
            ModelRef(str(model), max_length=48, pooling="none"),
            replace(task.ref, shots=SHOTS),
            Part("full"),
            Part("distillation", options),
            Schedule(steps=60, batch_size=16, lr=3e-3, evaluations=3),
        )
        return train(config, task=task, folder=folder / "run")


def test_check_8_a_rule_that_only_the_context_tells_reaches_the_student(record):
    """The acceptance: at least 90 % of its teacher, where the untrained model without a context is at chance."""
    found = record.teaching
    above, below = found.with_context["test"]["accuracy"], found.without_context["test"]["accuracy"]
    assert above > 0.9
    assert 0.35 <= below <= 0.65
    assert record.evaluations["test"].scores["accuracy"] >= 0.9 * above


def test_the_record_reports_teacher_floor_and_student_and_what_the_teacher_cost(record):
    assert record.teaching.tokens > 0
    assert record.teaching.seconds > 0
    assert record.teaching.texts + 2 * SHOTS < len(recall.rows())
    assert any("in its context" in note and "untrained" in note for note in record.notes)
    assert RunRecord.from_json(json.loads(json.dumps(record.to_json()))).teaching == record.teaching
    assert record.cost.tokens < 60 * 16 * 4


def test_check_8_the_divergence_falls_on_texts_that_were_not_learned_on(config, task):
    from foretune.training.loop import fit

    run = prepare(config(), task)
    objective, checkpoint, device = run.engine.objective, run.engine.checkpoint, torch.device("cpu")
    held = run.tables["test"]
    lesson = objective.lesson(task, run.tables, run.config.seeds, checkpoint, None)
    answers = teaching.ask(replace(lesson, table=held), run.engine.bare, {}, checkpoint, device).taught
    inputs = objective.batch(objective.encode(held, None, checkpoint), np.arange(len(held)), checkpoint)

    def far() -> float:
        with torch.no_grad():
            logits = answer_logits(run.engine.bare.eval(), inputs)
        return float(divergence(logits, torch.from_numpy(answers.ids), torch.from_numpy(answers.shares)).mean())

    before = far()
    fit(run)
    assert far() <= 0.5 * before


@pytest.mark.parametrize(("score", "flag"), [(0.4, "below the untrained"), (0.95, "above its teacher"), (0.7, None)])
def test_check_8_a_student_outside_its_references_is_flagged(score, flag):
    references = {"test": {"accuracy": 0.9}}, {"test": {"accuracy": 0.5}}
    found = Teaching("d", 80, 0, ((1, 2),), 1.0, 10, False, *references)
    raised = told(found, "accuracy", {"test": Evaluation(40, {"accuracy": score})})[1]
    assert [flag in sentence for sentence in raised] == ([True] if flag else [])


def test_the_teacher_is_asked_once(config, task, store, monkeypatch):
    first = prepare(config(), task)
    monkeypatch.setattr(teaching, "_asked", lambda *given: pytest.fail("asked again"))
    second = prepare(config(tuner=Part("bitfit"), steps=5, labelled=0.5), task)
    assert first.lessons is not None
    assert second.lessons is not None
    assert second.lessons.told == replace(first.lessons.told, reused=True)
    np.testing.assert_array_equal(first.lessons.taught.shares, second.lessons.taught.shares)
    assert len(list((store / "teachers").iterdir())) == 1


@pytest.mark.parametrize("changed", [{"tau": 2.0}, {"sets": 2}, {"demonstrations": 4}, {"top": 3}])
def test_another_question_is_asked_anew(config, task, changed):
    first, second = prepare(config(), task), prepare(config(**changed), task)
    assert first.lessons is not None
    assert second.lessons is not None
    assert first.lessons.told.digest != second.lessons.told.digest
    assert not second.lessons.told.reused


def test_labelled_rows_may_take_part(config, task):
    plain, both = prepare(config(), task), prepare(config(labelled=0.5), task)
    assert len(both.learning) == len(plain.learning) + len(both.tables["train"])
    labelled = np.arange(len(plain.learning), len(both.learning))
    with torch.no_grad():
        found = both.engine.objective.loss(both.engine.bare, batch_of(both, labelled))
        dev = both.engine.objective.loss(
            both.engine.bare,
            both.engine.objective.batch(both.encoded["train"], np.arange(len(labelled)), both.engine.checkpoint),
        )
    torch.testing.assert_close(found, 0.5 * dev, rtol=1e-4, atol=1e-4)


def test_texts_of_a_file_are_part_of_the_identity_and_lose_the_rows_that_are_judged(config, task, tmp_path):
    pool = tmp_path / "pool.txt"
    drawn = prepare(config(), task)
    judged = drawn.tables["test"]["text"].to_pylist()
    pool.write_text("\n".join([f"n{i} {s} n{i}" for i in range(9) for s in recall.SYMBOLS] + judged), encoding="utf-8")
    asked = make(Part("distillation", {**config(texts=str(pool)).objective.options})).identified(task.schema)
    assert isinstance(asked, Distillation)
    options = {**config().objective.options, "texts": str(pool), "fingerprint": asked.fingerprint}
    run = prepare(replace(config(), objective=Part("distillation", options)), task)
    assert run.lessons is not None
    assert (run.lessons.told.texts, run.lessons.told.left_out) == (36, len(judged))
    pool.write_text(pool.read_text(encoding="utf-8") + "\nn1 opal n2", encoding="utf-8")
    with pytest.raises(DataError, match="have changed"):
        prepare(replace(config(), objective=Part("distillation", options)), task)


def test_a_context_that_does_not_fit_is_refused(config, task):
    asked = config()
    with pytest.raises(DataError, match="max-length"):
        prepare(replace(asked, model=replace(asked.model, max_length=20)), task)


def test_a_task_with_no_rows_left_to_learn_on_is_refused(config, task):
    asked = config()
    with pytest.raises(DataError, match="fewer than"):
        prepare(replace(asked, task=replace(asked.task, shots=None)), task)


@pytest.mark.parametrize("wrong", [{"tau": 0.0}, {"sets": 0}, {"labelled": -1.0}, {"top": 0}, {"demonstrations": -2}])
def test_an_option_out_of_range_is_refused_by_name(wrong):
    with pytest.raises(UsageError, match=next(iter(wrong))):
        Distillation(**wrong)
