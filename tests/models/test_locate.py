"""Which folders are read: safetensors only, no remote code, one sentence when a model cannot be had."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from foretune.errors import ModelError
from foretune.models import open_checkpoint
from foretune.models.locate import fingerprint, locate, parameter_count
from foretune.records import ModelRef
from foretune.testing import toys


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return toys.checkpoint(tmp_path / "bert", "bert")


def test_pickled_weights_are_refused_in_words(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(ModelError, match=r"safetensors only.*pytorch_model\.bin.*save_pretrained"):
        locate(ModelRef(str(folder)))


def test_safetensors_beside_pickled_weights_are_taken(folder: Path) -> None:
    (folder / "pytorch_model.bin").write_bytes(b"never read")
    assert locate(ModelRef(str(folder))) == folder


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda f: (f / "config.json").unlink(), "config.json"),
        (lambda f: (f / "model.safetensors").unlink(), "no weights"),
        (lambda f: (f / "config.json").write_text('{"model_type": "no-such-model"}'), "no-such-model"),
        (lambda f: (f / "config.json").write_text("{"), "cannot open"),
        (lambda f: (f / "model.safetensors").write_bytes(b"\x08\0\0\0\0\0\0\0[1,2,3]"), "not a safetensors file"),
        (lambda f: (f / "model.safetensors").write_bytes(b""), "not a safetensors file"),
        (lambda f: (f / "model.safetensors").write_bytes(b"\xff" * 40), "not a safetensors file"),
        (lambda f: [t.unlink() for t in f.glob("tokenizer*")], "no vocabulary"),
    ],
    ids=["no-config", "no-weights", "unknown-type", "half-a-config", "list", "empty", "noise", "no-tokenizer"],
)
def test_a_spoiled_folder_is_refused_in_one_sentence_that_names_it(folder: Path, spoil: object, said: str) -> None:
    spoil(folder)  # type: ignore[operator]
    with pytest.raises(ModelError, match=said) as caught:
        open_checkpoint(ModelRef(str(folder)), "classification")
    assert str(folder) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_weights_that_were_cut_short_are_noticed_before_they_are_read(folder: Path) -> None:
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(ModelError, match="cut short"):
        open_checkpoint(ModelRef(str(folder)), "classification")


def test_a_file_is_no_model_folder(folder: Path) -> None:
    with pytest.raises(ModelError, match="is a file"):
        locate(ModelRef(str(folder / "config.json")))


@pytest.mark.parametrize("name", ["./nowhere", "/no/where", "~/nowhere-at-all", "a/b/c"])
def test_a_path_that_does_not_exist_is_not_looked_up_on_the_hub(name: str) -> None:
    with pytest.raises(ModelError, match="does not exist"):
        locate(ModelRef(name))


@pytest.mark.parametrize("name", ["owner/no-such-model-here", "white space/name", "no-such-model"])
def test_a_hub_id_without_network_is_one_sentence(name: str, tmp_path: Path) -> None:
    code = f"""
from foretune.errors import ModelError
from foretune.models.locate import locate
from foretune.records import ModelRef
try:
    locate(ModelRef({name!r}))
except ModelError as error:
    print(error)
"""
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        env={"HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path), "PATH": ""},
    )
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.strip().splitlines()) == 1
    assert name in done.stdout
    assert "Traceback" not in done.stderr


def test_code_of_the_checkpoint_is_not_run_unless_it_was_said(folder: Path) -> None:
    ran = folder / "ran"
    (folder / "mine.py").write_text(f"from pathlib import Path\nPath({str(ran)!r}).touch()\nclass Mine: pass\n")
    settings = json.loads((folder / "config.json").read_text())
    settings |= {"model_type": "mine", "auto_map": {"AutoConfig": "mine.Mine", "AutoModel": "mine.Mine"}}
    (folder / "config.json").write_text(json.dumps(settings))
    with pytest.raises(ModelError, match="--trust-remote-code"):
        open_checkpoint(ModelRef(str(folder)), "classification")
    assert not ran.exists()


def test_the_fingerprint_does_not_depend_on_the_place(folder: Path, tmp_path: Path) -> None:
    copied = shutil.copytree(folder, tmp_path / "elsewhere" / "copy")
    assert fingerprint(copied) == fingerprint(folder)


@pytest.mark.parametrize("part", ["config.json", "tokenizer.json", "tokenizer_config.json"])
def test_the_fingerprint_changes_with_configuration_and_tokenizer(folder: Path, part: str) -> None:
    before = fingerprint(folder)
    text = (folder / part).read_text()
    (folder / part).write_text(text.replace("{", '{"x": 1,', 1))
    assert fingerprint(folder) != before


@pytest.mark.parametrize("tensor", ["bert.encoder.layer.0.output.dense.bias", "bert.embeddings.word_embeddings.weight"])
def test_the_fingerprint_changes_with_any_one_tensor(tmp_path: Path, tensor: str) -> None:
    from safetensors.torch import load_file, save_file

    folder = toys.checkpoint(tmp_path / "wide", "bert", vocab_size=40, hidden_size=256, intermediate_size=2048)
    before = fingerprint(folder)
    tensors = load_file(folder / "model.safetensors")
    tensors[tensor] += 1e-3
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    assert fingerprint(folder) != before


def test_other_weights_have_another_fingerprint(folder: Path, tmp_path: Path) -> None:
    assert fingerprint(toys.checkpoint(tmp_path / "other", "bert", seed=1)) != fingerprint(folder)
    assert fingerprint(toys.checkpoint(tmp_path / "same", "bert")) == fingerprint(folder)


def test_an_adapter_beside_the_weights_is_neither_counted_nor_read(folder: Path) -> None:
    before = fingerprint(folder), parameter_count(folder)
    (folder / "adapter_model.safetensors").write_bytes(b"something else")
    assert (fingerprint(folder), parameter_count(folder)) == before
    assert before[1] == sum(p.numel() for p in _body(folder).parameters())


def _body(folder: Path):  # type: ignore[no-untyped-def]
    import transformers

    return transformers.AutoModelForMaskedLM.from_pretrained(folder)
