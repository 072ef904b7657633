"""The adapter folder: ordinary PEFT, no network, no local paths, and equal logits where foretune is not loaded."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from foretune.errors import ModelError
from foretune.testing import toys
from foretune.testing.contracts import logits, train
from foretune.tuners import IA3, DoRA, LNTuning, LoRA, PrefixSubspace, PrefixTuning, PromptTuning, Tuner
from foretune.tuners._peft import read_config

CASES = [
    (LoRA(rank=2), "bert", "sequence"),
    (LoRA(rank=2), "t5", "sequence"),
    (DoRA(rank=2), "gpt2", "language"),
    (IA3(), "distilbert", "sequence"),
    (LNTuning(), "modernbert", "sequence"),
    (PromptTuning(length=3), "deberta-v2", "sequence"),
    (PromptTuning(length=3), "t5", "language"),
    (PrefixTuning(length=3), "bert", "token"),
    (PrefixTuning(length=3), "qwen3", "sequence"),
]
SUBSPACES = [
    *((PrefixSubspace(length=3), name, "sequence") for name in ("bert", "roberta", "gpt2", "llama", "qwen3")),
    *((PrefixSubspace(length=3), name, "language") for name in ("gpt2", "llama", "qwen3", "gemma3")),
]

STOCK = """
import sys, torch, transformers
from peft import PeftModel
from safetensors.torch import load_file
auto = {
    "sequence": transformers.AutoModelForSequenceClassification,
    "token": transformers.AutoModelForTokenClassification,
}
for line in sys.stdin:
    folder, kind, name = line.split()
    writer = transformers.AutoModelForSeq2SeqLM if name == "t5" else transformers.AutoModelForCausalLM
    base = auto.get(kind, writer).from_pretrained(folder + "/base")
    model = PeftModel.from_pretrained(base, folder + "/adapter").eval()
    data = load_file(folder + "/data.safetensors")
    expected = data.pop("expected")
    with torch.no_grad():
        print(folder, (model(**data).logits - expected).abs().max().item())
assert "foretune" not in sys.modules
"""


def trained(tuner: Tuner, name: str, kind: str):
    import torch

    network = toys.network(name, kind)
    torch.manual_seed(0)
    model = tuner.attach(network, toys.fresh(network))
    train(model, toys.batch(network), tuner)
    return model.eval()


def differences(cases: list[tuple[Tuner, str, str]], folder: Path) -> list[float]:
    """The largest difference of a logit in one process with stock PEFT alone, by case."""
    from safetensors.torch import save_file

    lines = []
    for number, (tuner, name, kind) in enumerate(cases):
        place = folder / str(number)
        base = toys.network(name, kind)
        base.save_pretrained(place / "base")
        model, batch = trained(tuner, name, kind), toys.batch(base, (4, 3, 4))
        tuner.save(model, place / "adapter")
        save_file({**batch, "expected": logits(model, batch).contiguous()}, place / "data.safetensors")
        lines.append(f"{place} {kind} {name}")
    done = subprocess.run(
        [sys.executable, "-c", STOCK], input="\n".join(lines), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return [float(line.split()[-1]) for line in done.stdout.splitlines()]


def test_stock_peft_gives_equal_logits_in_a_process_without_foretune(tmp_path: Path):
    for (tuner, name, _), difference in zip(CASES, differences(CASES, tmp_path), strict=True):
        virtual = isinstance(tuner, PromptTuning)  # stock PEFT lays these out otherwise: rounding differs
        assert difference <= (2e-6 if virtual else 0.0), (tuner.name, name)


def test_check_07_03_stock_peft_reloads_the_midpoint_bit_for_bit_in_a_fresh_process(tmp_path: Path):
    assert differences(SUBSPACES, tmp_path) == [0.0] * len(SUBSPACES)


def test_saving_opens_no_connection_and_writes_one_path_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    network = toys.network("llama", "language")
    network.name_or_path = "somebody/a-model-on-the-hub"
    model = LoRA(rank=2).attach(network)
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)

    def refuse(*args: object, **kwargs: object) -> None:
        raise AssertionError("a connection was opened")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    LoRA(rank=2).save(model, tmp_path)
    written = json.loads((tmp_path / "adapter_config.json").read_text())
    assert written.pop("base_model_name_or_path") == "somebody/a-model-on-the-hub"
    assert str(tmp_path) not in json.dumps(written)
    assert "/" not in json.dumps(written)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["adapter_config.json", "adapter_model.safetensors"]


def test_the_head_is_named_once(tmp_path: Path):
    LoRA(rank=2).save(trained(LoRA(rank=2), "bert", "sequence"), tmp_path)
    written = json.loads((tmp_path / "adapter_config.json").read_text())
    assert written["modules_to_save"] == ["bert.pooler", "classifier"]
    assert written["inference_mode"] is True


def test_a_folder_of_another_method_or_another_size_is_refused(tmp_path: Path):
    LoRA(rank=2).save(trained(LoRA(rank=2), "bert", "sequence"), tmp_path)
    with pytest.raises(ModelError, match="must be of type IA3, but it is LORA"):
        IA3().restore(toys.network("bert"), tmp_path)
    with pytest.raises(ModelError, match=r"classifier.bias.*\(3,\) there.*\(4,\) here"):
        LoRA().restore(toys.network("bert", labels=4), tmp_path)
    (tmp_path / "adapter_model.safetensors").unlink()
    with pytest.raises(ModelError, match="only safetensors"):
        LoRA().restore(toys.network("bert"), tmp_path)


def test_the_options_in_the_folder_win(tmp_path: Path):
    LoRA(rank=2).save(trained(LoRA(rank=2), "bert", "sequence"), tmp_path)
    assert LoRA(rank=8).restore(toys.network("bert"), tmp_path).peft_config["default"].r == 2
    assert not read_config(tmp_path, "LORA").inference_mode


@pytest.mark.parametrize("tuner", [LoRA(rank=2), PrefixTuning(length=3)], ids=lambda t: t.name)
def test_training_goes_on_after_a_restore_as_if_nothing_had_happened(tuner: Tuner, tmp_path: Path):
    import torch

    batch = toys.batch(toys.network("bert"))
    model = trained(tuner, "bert", "sequence")
    tuner.save(model, tmp_path)
    restored = tuner.restore(toys.network("bert"), tmp_path)
    for one in (model, restored):
        train(one, batch, tuner)
    assert torch.equal(logits(model.eval(), batch), logits(restored.eval(), batch))
