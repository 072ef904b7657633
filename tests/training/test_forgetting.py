"""Forgetting: the language model's loss on texts held apart, with what was learned against without it."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import transformers
from torch.nn.functional import cross_entropy

from foretune.errors import DataError, UsageError
from foretune.models import open_checkpoint
from foretune.records import Forgetting, HeldTexts, Part, RunConfig, RunRecord
from foretune.report.page import write
from foretune.tasks import Task
from foretune.tasks.unlabelled import open_held, open_texts
from foretune.testing import toys
from foretune.training.run import train
from foretune.training.stages import stage_config

Make = Callable[..., RunConfig]
PATTERN = Part("pattern", {"pattern": "{text} {answer}", "words": {"good": "good", "bad": "bad"}})


@pytest.fixture(autouse=True)
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORETUNE_STORE", str(tmp_path / "store"))


@pytest.fixture(scope="module")
def texts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("texts") / "held.txt"
    lines = [f"one {a} and {b} food of it" for a in toys.WORDS[:6] for b in toys.WORDS[6:12]]
    path.write_text("\n".join(lines), encoding="utf-8")
    return path


@pytest.fixture
def asked(config: Make, texts: Path) -> Make:
    """A short run of a pattern method that measures what it forgets."""

    def make(name: str = "llama", tuner: str = "lora", objective: Part = PATTERN, **course: object) -> RunConfig:
        made = config(name=name, tuner=Part(tuner), objective=objective, **{"steps": 6, **course})
        return replace(made, model=replace(made.model, pooling="none"), held=HeldTexts(str(texts), rows=20))

    return make


def by_hand(folder: str, table) -> tuple[float, int]:
    """Nats per predicted token of a causal model, one text at a time, with transformers alone."""
    model = transformers.AutoModelForCausalLM.from_pretrained(folder).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    total, count = 0.0, 0
    for text in table["text"].to_pylist():
        ids = tokenizer(text)["input_ids"]
        ids = torch.tensor([*ids, *([] if ids[-1] == tokenizer.eos_token_id else [tokenizer.eos_token_id])])
        with torch.inference_mode():
            logits = model(ids[None]).logits[0]
        total += float(cross_entropy(logits[:-1], ids[1:], reduction="sum"))
        count += len(ids) - 1
    return total / count, count


@pytest.mark.parametrize("tuner", ["lora", "full"])
def test_the_loss_before_is_the_base_model_s_own_and_training_moves_it(asked: Make, task, tuner: str):
    """``full`` overwrites its base, so the base is read again."""
    config = asked(tuner=tuner)
    found = train(config, task=task(), floors=False).forgetting
    assert found is not None
    table = open_held(config.held, task()).table
    before, tokens = by_hand(config.model.name, table)
    assert (found.texts, found.tokens) == (20, tokens)
    assert found.before == pytest.approx(before, abs=1e-4)
    assert found.rise != pytest.approx(0, abs=1e-3)


@pytest.mark.parametrize("name", ["bert", "llama"])
@pytest.mark.parametrize("tuner", ["lora", "full"])
def test_what_hardly_learns_hardly_forgets(asked: Make, task, name: str, tuner: str):
    found = train(asked(name, tuner, lr=1e-12, weight_decay=0.0), task=task(), floors=False).forgetting
    assert found is not None
    assert found.rise == pytest.approx(0, abs=1e-5)


def test_a_method_that_starts_away_from_the_base_is_still_held_against_the_base(asked: Make, task):
    """The first prefix already changes every answer."""
    found = [train(asked(tuner=t, lr=1e-12), task=task(), floors=False).forgetting for t in ("prefix-tuning", "lora")]
    assert found[0].before == pytest.approx(found[1].before, abs=1e-5)
    assert found[0].rise != pytest.approx(0, abs=1e-4)


def test_what_a_stage_before_the_task_forgets_counts_too(asked: Make, task, tmp_path: Path):
    config, opened = asked(lr=1e-12), task()
    other = tmp_path / "other.txt"
    other.write_text("\n".join(f"three {w} film was very {w}" for w in toys.WORDS[:16]), encoding="utf-8")
    base = open_checkpoint(config.model, "classification").ref
    stage = stage_config(base, open_texts(other), steps=8, lr=5e-3)
    plain = train(config, task=opened, floors=False).forgetting
    record = train(replace(config, model=base, pretraining=stage), task=opened, floors=False)
    assert record.stage is not None
    assert record.forgetting.before == pytest.approx(plain.before, abs=1e-5)
    assert abs(record.forgetting.rise) > 100 * abs(plain.rise)


def test_texts_of_the_task_are_not_held(config: Make, task, tmp_path: Path):
    path = tmp_path / "held.txt"
    mine = [row["text"] for row in toys.rows("classification")]
    path.write_text("\n".join([*mine, *(f"two {word} one" for word in toys.WORDS)]), encoding="utf-8")
    found = open_held(HeldTexts(str(path), rows=1000), task())
    assert not set(found.table["text"].to_pylist()) & set(mine)
    assert len(found.left_out) == len(mine)


def test_the_texts_chosen_hang_on_their_contents_alone(task, texts: Path, tmp_path: Path):
    moved = tmp_path / "elsewhere.txt"
    moved.write_bytes(texts.read_bytes())
    one, two = (open_held(HeldTexts(str(path), rows=7), task()) for path in (texts, moved))
    assert one.table.num_rows == 7
    assert one.fingerprint == two.fingerprint
    with pytest.raises(DataError, match="have changed"):
        open_held(HeldTexts(str(texts), rows=8, fingerprint=one.fingerprint), task())


def test_held_texts_are_part_of_what_a_run_is_and_where_they_lie_is_not(asked: Make):
    config = asked()
    known = replace(config, held=HeldTexts("a.txt", 20, "f1"))
    assert "held" not in replace(config, held=None).to_json()
    assert replace(known, held=HeldTexts("b.txt", 20, "f1")).digest == known.digest
    assert len({c.digest for c in (config, known, replace(known, held=None))}) == 3
    assert RunConfig.from_json(json.loads(json.dumps(known.to_json()))) == known


def test_a_record_keeps_what_was_forgotten_and_says_so(asked: Make, task, tmp_path: Path):
    record = train(asked(), task=task(), floors=False, folder=tmp_path / "run")
    again = RunRecord.from_json(json.loads((tmp_path / "run" / "run.json").read_text(encoding="utf-8")))
    assert again.forgetting == record.forgetting
    write(tmp_path / "run")
    assert record.forgetting.sentence() in (tmp_path / "run" / "report.html").read_text(encoding="utf-8")
    assert "forgetting" not in RunRecord(asked(), "ok").to_json()
    assert Forgetting(1, 2, 3.0, 2.5).rise == -0.5


def test_measuring_is_no_part_of_what_a_run_takes(asked: Make, task):
    config = asked()
    record, plain = (train(c, task=task(), floors=False) for c in (config, replace(config, held=None)))
    assert record.forgetting.seconds > 0
    assert record.cost.tokens == plain.cost.tokens
    assert record.initial_hash == plain.initial_hash
    assert record.evaluations == plain.evaluations


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"objective": Part("head")}, "puts another one in its place"),
        ({"tuner": "frozen", "steps": 0}, "trains nothing and forgets nothing"),
    ],
)
def test_where_there_is_nothing_to_forget_the_texts_are_refused(
    asked: Make, task: Callable[..., Task], change, message
):
    config = asked(**change)
    ref = replace(config.model, pooling="auto") if config.objective.name == "head" else config.model
    with pytest.raises(UsageError, match=message):
        train(replace(config, model=ref), task=task(), floors=False)
