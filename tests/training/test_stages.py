"""Continued pretraining: a stage on unlabelled texts that a run starts from, made once, with a cost of its own."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from foretune.errors import DataError, Interrupted, ModelError, UsageError
from foretune.models import build, open_checkpoint
from foretune.records import ModelRef, Part, RunConfig, RunRecord, Seeds
from foretune.store.folder import read_run
from foretune.tasks import Task
from foretune.tasks.unlabelled import evaluation_rows, open_texts
from foretune.testing import toys
from foretune.training import stages
from foretune.training.predictor import Predictor
from foretune.training.progress import Progress
from foretune.training.run import train
from foretune.training.stages import pretrained, stage_config

Config = Callable[..., RunConfig]
STEPS = 12


@pytest.fixture(autouse=True)
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("FORETUNE_STORE", str(tmp_path / "store"))
    return tmp_path / "store"


@pytest.fixture(scope="module")
def texts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two hundred texts in the words of the toys, with an order that a model can learn."""
    path = tmp_path_factory.mktemp("texts") / "texts.txt"
    lines = [
        f"the {toys.WORDS[i % 8]} {noun} was {very}it and a {number}"
        for i in range(8)
        for noun in ("film", "food")
        for very in ("", "very ", "very very ")
        for number in ("one", "two", "three", "four")
    ]
    path.write_text("\n".join(lines), encoding="utf-8")
    return path


@pytest.fixture
def staged(config: Config, task: Callable[..., Task], texts: Path) -> Callable[..., RunConfig]:
    """A short run after a short stage; names as for ``stage_config``."""

    def make(kind: str = "classification", name: str = "bert", source: Path = texts, **asked: object) -> RunConfig:
        opened, following = task(kind), config(kind, name)
        base = open_checkpoint(following.model, kind).ref
        given = open_texts(source, opened.schema).without(evaluation_rows(opened, following.task.test_fraction))
        stage = stage_config(base, given, **{"steps": STEPS, "lr": 5e-3, **asked})
        return replace(following, model=base, pretraining=stage)

    return make


class StopAt(Progress):
    """Interrupts as Ctrl-C does, after so many steps of the first training that runs."""

    def __init__(self, step: int) -> None:
        self.at = step

    def step(self, step: int, loss: float, seconds_left: float) -> None:
        if step == self.at:
            import signal

            signal.raise_signal(signal.SIGINT)


class Phases(Progress):
    def __init__(self) -> None:
        self.told: list[str] = []

    def phase(self, text: str) -> None:
        self.told.append(text)


def stage_folder(config: RunConfig, store: Path) -> Path:
    assert config.pretraining is not None
    return store / "pretrained" / config.pretraining.digest


@pytest.mark.parametrize("name", ["bert", "llama"])
def test_a_run_starts_from_what_its_stage_learned(staged, task, store, tmp_path, name):
    asked = staged(name=name)
    record = train(asked, task=task(), folder=tmp_path / "run", floors=False)
    left = stage_folder(asked, store) / "model"
    assert record.status == "ok"
    assert record.config.model.name == str(left)
    assert record.stage is not None
    assert record.stage.loss_after < record.stage.loss_before
    base = asked.pretraining.model.name
    before, after = (transformers.AutoModel.from_pretrained(f).state_dict() for f in (base, left))
    assert before.keys() == after.keys()
    moved = [key for key in before if not torch.equal(before[key], after[key])]
    assert len(moved) > len(before) / 2
    rows = task().splits["train"].slice(0, 4)
    assert Predictor.load(tmp_path / "run").raw(rows).shape == (4, 2)


def test_the_record_has_the_cost_of_the_stage_beside_that_of_the_run(staged, task, tmp_path):
    alone = train(replace(staged(), pretraining=None), task=task(), floors=False)
    record = train(staged(), task=task(), folder=tmp_path / "run", floors=False)
    assert record.stage is not None
    assert record.stage.cost.tokens > 0
    assert record.stage.cost.trainable_parameters == record.stage.cost.total_parameters > 0
    assert record.cost.tokens == alone.cost.tokens
    assert record.stage.steps == STEPS
    assert read_run(tmp_path / "run").stage == record.stage
    assert any("held-out texts" in note for note in record.notes)
    assert alone.stage is None
    assert "stage" not in alone.to_json()


def test_the_identity_of_the_stage_is_in_that_of_the_run(staged, texts, tmp_path):
    other = tmp_path / "other.txt"
    other.write_text(texts.read_text(encoding="utf-8") + "\nthe one food was a film", encoding="utf-8")
    moved = tmp_path / "moved.txt"
    moved.write_bytes(texts.read_bytes())
    base = staged()
    same = [base, staged(source=moved), replace(base, model=replace(base.model, name="elsewhere", fingerprint="f"))]
    differ = [
        staged(source=other),
        staged(steps=STEPS + 1),
        staged(lr=1e-3),
        staged(seed=1),
        staged(name="roberta"),
        replace(base, pretraining=None),
    ]
    assert len({config.digest for config in same}) == 1
    assert len({config.digest for config in [base, *differ]}) == 1 + len(differ)
    assert RunConfig.from_json(json.loads(json.dumps(base.to_json()))).digest == base.digest


def test_the_digest_of_the_record_is_that_of_what_was_asked(staged, task):
    asked = staged()
    assert train(asked, task=task(), floors=False).digest == asked.digest


def test_runs_of_a_comparison_share_one_stage(staged, task, store):
    asked = staged()
    first = train(asked, task=task(), floors=False)
    weights = stage_folder(asked, store) / "model" / "model.safetensors"
    written, phases = weights.stat().st_mtime_ns, Phases()
    other = replace(asked, tuner=Part("ia3"), seeds=Seeds.all(3))
    second = train(other, task=task(), floors=False, progress=phases)
    assert not any("pretraining" in phase for phase in phases.told)
    assert weights.stat().st_mtime_ns == written
    assert first.stage is not None
    assert second.stage == replace(first.stage, reused=True)
    assert len(list((store / "pretrained").iterdir())) == 1


def test_a_stage_that_was_stopped_goes_on_and_ends_with_the_same_bits(staged, task, tmp_path):
    asked = staged()
    whole, _ = pretrained(asked, task(), folder=tmp_path / "whole")
    for stop in (5, 9):
        with pytest.raises(Interrupted):
            pretrained(asked, task(), folder=tmp_path / "stopped", progress=StopAt(stop), save_every=0.0)
    again, _ = pretrained(asked, task(), folder=tmp_path / "stopped")
    first, second = (Path(config.model.name) / "model.safetensors" for config in (whole, again))
    assert first.read_bytes() == second.read_bytes()
    assert not (second.parents[1] / "checkpoint").exists()


def test_a_run_that_is_stopped_in_its_stage_says_so_and_goes_on(staged, task, tmp_path):
    asked, folder = staged(), tmp_path / "run"
    with pytest.raises(Interrupted):
        train(asked, task=task(), folder=folder, floors=False, progress=StopAt(3))
    assert read_run(folder).status == "stopped"
    assert train(read_run(folder).config, task=task(), folder=folder, floors=False).status == "ok"


def test_texts_that_changed_since_the_config_was_made_are_refused(staged, task, texts, tmp_path):
    copy = tmp_path / "copy.txt"
    copy.write_bytes(texts.read_bytes())
    asked = staged(source=copy)
    copy.write_text("\n".join(texts.read_text(encoding="utf-8").splitlines()[:-1]), encoding="utf-8")
    with pytest.raises(DataError, match="have changed"):
        train(asked, task=task(), floors=False)


def test_evaluation_rows_among_the_texts_are_left_out_and_counted(staged, task, texts, tmp_path):
    opened = task()
    judged = evaluation_rows(opened, 0.2)[0]["text"].to_pylist()
    spiked = tmp_path / "spiked.txt"
    spiked.write_text("\n".join([texts.read_text(encoding="utf-8"), *(t.upper() + " !" for t in judged)]), "utf-8")
    record = train(staged(source=spiked), task=opened, floors=False)
    assert record.stage is not None
    assert record.stage.left_out == len(judged)
    assert staged(source=spiked).pretraining.digest == staged().pretraining.digest


def test_a_base_that_changed_since_the_config_was_made_is_refused(config, task, texts, tmp_path):
    asked = following(config(), toys.checkpoint(tmp_path / "base", "bert"), texts)
    toys.checkpoint(tmp_path / "base", "bert", seed=1)
    with pytest.raises(ModelError, match="it has changed"):
        train(asked, task=task(), floors=False)


def body_only(folder: Path, name: str) -> Path:
    """A toy checkpoint without its language-model head, as sentence encoders are published."""
    toys.checkpoint(folder, name)
    kept = {k: v for k, v in load_file(folder / "model.safetensors").items() if not k.startswith(("cls.", "lm_head"))}
    save_file(kept, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def following(config: RunConfig, folder: Path, pretraining_texts: Path) -> RunConfig:
    base = open_checkpoint(ModelRef(str(folder)), "classification").ref
    return replace(config, model=base, pretraining=stage_config(base, open_texts(pretraining_texts), steps=3))


def test_an_encoder_without_a_head_gets_a_fresh_one_and_the_record_says_so(config, task, texts, tmp_path):
    record = train(following(config(), body_only(tmp_path / "body", "bert"), texts), task=task(), floors=False)
    assert record.stage is not None
    assert record.stage.fresh == ("cls",)
    assert any("started at random" in note for note in record.notes)


def test_a_decoder_without_a_head_is_refused(config, task, texts, tmp_path):
    with pytest.raises(ModelError, match="no language-model head"):
        train(following(config(), body_only(tmp_path / "body", "llama"), texts), task=task(), floors=False)


def test_an_encoder_decoder_is_refused(config, task, texts, saved):
    asked = following(config("classification", "t5"), saved("t5"), texts)
    with pytest.raises(ModelError, match="encoder-decoder"):
        train(asked, task=task(), floors=False)


def test_a_base_that_was_not_opened_is_refused(texts):
    with pytest.raises(UsageError, match="opened checkpoint"):
        stage_config(ModelRef("somewhere"), open_texts(texts))


def test_what_a_task_head_may_need_of_the_base_survives_the_stage(config, task, texts, tmp_path):
    """BERT's pooler is no part of a masked language model; how to pool stands in files of its own."""
    folder = toys.checkpoint(tmp_path / "base", "bert")
    pooled = transformers.AutoModel.from_pretrained(folder)
    head = {k: v for k, v in load_file(folder / "model.safetensors").items() if k.startswith("cls.")}
    own = {f"bert.{k}": v.contiguous() for k, v in pooled.state_dict().items() if "position_ids" not in k}
    save_file({**head, **own}, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "1_Pooling").mkdir()
    kinds = [{"path": "", "type": "x.Transformer"}, {"path": "1_Pooling", "type": "x.Pooling"}]
    (folder / "modules.json").write_text(json.dumps(kinds), encoding="utf-8")
    (folder / "1_Pooling" / "config.json").write_text('{"pooling_mode_mean_tokens": true}', encoding="utf-8")
    asked = following(config(), folder, texts)
    after, _ = pretrained(asked, task())
    again = open_checkpoint(ModelRef(after.model.name), "classification")
    assert again.ref.pooling == "mean"
    network = build(open_checkpoint(ModelRef(after.model.name, pooling="cls"), "classification"), 2)
    assert network.fresh == ("classifier",)
    assert torch.equal(network.module.bert.pooler.dense.weight, pooled.pooler.dense.weight)


def test_two_runs_at_once_make_one_stage(staged, task, tmp_path):
    from concurrent.futures import ThreadPoolExecutor

    asked = staged()
    with ThreadPoolExecutor(2) as pool:
        found = list(pool.map(lambda _: pretrained(asked, task(), folder=tmp_path / "stages")[1], range(2)))
    assert sorted(stage.reused for stage in found) == [False, True]


def test_a_stage_that_diverged_is_no_stage(staged, task, tmp_path):
    from foretune.errors import DivergedError

    asked = staged(lr=1e30)
    with pytest.raises(DivergedError):
        train(asked, task=task(), folder=tmp_path / "run", floors=False)
    record: RunRecord = read_run(tmp_path / "run")
    assert record.status == "diverged"
    assert not (tmp_path / "store" / "pretrained" / asked.pretraining.digest / stages.DONE).exists()
