"""Folders of a subset under PEFT: what stock calls load, what they refuse, and the way to formats without foretune."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import peft
import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file, save_file

import foretune
from foretune.errors import ModelError, UsageError
from foretune.testing import toys
from foretune.testing.contracts import logits
from foretune.tuners import _peft
from foretune.tuners.dynamic_subset import DynamicSubset, StaticSubset
from foretune.tuners.subset import peft_model
from foretune.tuners.subset.adapters import Adapters
from foretune.tuners.subset.config import TYPE, SubsetConfig

pytestmark = [  # stock PEFT's own
    pytest.mark.filterwarnings("ignore:Sparse invariant checks are implicitly disabled:UserWarning"),
    pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning"),
]

WEIGHTS = "adapter_model.safetensors"


def tuned(density: float = 0.05, steps: int = 3) -> foretune.SubsetModel:
    model = foretune.get_peft_model(toys.network("bert"), DynamicSubset(density=density))
    kind, settings = foretune.dst_optimizer(model, lr=0.01)
    optimizer = kind([{"params": [p for p in model.parameters() if p.requires_grad]}], **settings)
    for _ in range(steps):
        model(**toys.batch(model.get_base_model())).logits.square().sum().backward()
        optimizer.step()
        optimizer.zero_grad()
    return model.eval()


def bits(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: p.detach().clone() for name, p in model.named_parameters()}


def same(model: torch.nn.Module, wanted: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(p, wanted[name]) for name, p in model.named_parameters())


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("saved")
    tuned().save_pretrained(folder)
    return folder


def test_check_17_stock_calls_give_a_subset_model_and_a_frozen_one_unless_it_is_to_be_trained(saved: Path) -> None:
    wanted = bits(tuned())
    model = PeftModel.from_pretrained(toys.network("bert"), str(saved))
    assert type(model) is foretune.SubsetModel
    assert same(model, wanted)
    assert not model.training
    assert not any(p.requires_grad for p in model.parameters())
    assert peft.PeftConfig.from_pretrained(str(saved)).tuner == DynamicSubset(density=0.05)
    again = PeftModel.from_pretrained(toys.network("bert"), str(saved), is_trainable=True)
    assert any(p.requires_grad for p in again.parameters())
    made = peft.get_peft_model(toys.network("bert"), SubsetConfig.of(DynamicSubset(), ["classifier"]))
    assert type(made) is foretune.SubsetModel


def test_check_17_registration_is_idempotent_and_leaves_pefts_own_methods_alone() -> None:
    script = """
import peft, inspect
from peft import mapping, auto
kept = {n: v for c in (peft.PeftModel, peft.PeftConfig, peft.PeftType) for n, v in vars(c).items() if callable(v)}
names, tables = list(peft.PeftType), [dict(t) for t in (mapping.PEFT_TYPE_TO_CONFIG_MAPPING,
    mapping.PEFT_TYPE_TO_TUNER_MAPPING, mapping.PEFT_TYPE_TO_PREFIX_MAPPING, auto.MODEL_TYPE_TO_PEFT_MODEL_MAPPING)]
get, load = peft.get_peft_model, peft.utils.load_peft_weights
import foretune
from foretune import SubsetModel
from foretune.tuners.subset import peft_model
from foretune.tuners import _peft
for _ in range(2):
    _peft.register("DST", peft_model.SubsetConfig, peft_model.Adapters, SubsetModel)
now = {n: v for c in (peft.PeftModel, peft.PeftConfig, peft.PeftType) for n, v in vars(c).items() if callable(v)}
assert {n: v for n, v in now.items() if n != "DST"} == kept
assert [*names, "DST"] == list(peft.PeftType) and peft.PeftType("DST") is peft.PeftType.DST == "DST"
after = [mapping.PEFT_TYPE_TO_CONFIG_MAPPING, mapping.PEFT_TYPE_TO_TUNER_MAPPING,
    mapping.PEFT_TYPE_TO_PREFIX_MAPPING, auto.MODEL_TYPE_TO_PEFT_MODEL_MAPPING]
assert [{k: v for k, v in t.items() if k != "DST"} for t in after] == tables
assert (peft.get_peft_model, peft.utils.load_peft_weights) == (get, load)
"""
    subprocess.run([sys.executable, "-c", script], check=True)


def test_a_name_that_another_library_has_taken_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(peft.PEFT_TYPE_TO_CONFIG_MAPPING, TYPE, peft.LoraConfig)
    with pytest.raises(UsageError, match=r"`DST` is that of `peft\.tuners"):
        _peft.register(TYPE, SubsetConfig, Adapters, peft_model.SubsetModel)


def test_check_17_without_foretune_the_readme_shows_the_way_and_its_exports_load(tmp_path: Path) -> None:
    model = tuned()
    batch = toys.batch(model.get_base_model())
    before = bits(model)
    model.save_pretrained(tmp_path / "native")
    for form in ("supertuning", "shira", "lora"):
        model.export_to(form, tmp_path / form, tolerance=1e-3)
    model.export_to("full", tmp_path / "full")
    assert same(model, before)
    toys.network("bert").save_pretrained(tmp_path / "base")
    save_file(dict(batch.items()), tmp_path / "batch.safetensors")
    script = f"""
import sys, warnings
warnings.simplefilter("ignore")
from pathlib import Path
import torch
from peft import PeftModel
from safetensors.torch import load_file, save_file
from transformers import AutoModelForSequenceClassification as Auto
home = Path({str(tmp_path)!r})
batch = load_file(home / "batch.safetensors")
def base():
    return Auto.from_pretrained(home / "base")
try:
    PeftModel.from_pretrained(base(), str(home / "native"))
    said = "nothing"
except KeyError as error:
    said = str(error)
made = {{f: PeftModel.from_pretrained(base(), str(home / f)).eval() for f in ("supertuning", "shira", "lora")}}
made["full"] = Auto.from_pretrained(home / "full")
with torch.inference_mode():
    save_file({{f: m(**batch).logits for f, m in made.items()}}, home / "answers.safetensors")
assert "foretune" not in sys.modules
print(said)
"""
    done = subprocess.run([sys.executable, "-P", "-c", script], check=True, capture_output=True, text=True)
    readme = (tmp_path / "native" / "README.md").read_text(encoding="utf-8")
    assert f"KeyError: {done.stdout.strip()}" in readme
    assert done.stdout.strip() == "'DST'"
    assert 'export_to("supertuning"' in readme
    wanted, answers = logits(model, batch), load_file(tmp_path / "answers.safetensors")
    assert torch.equal(answers.pop("full"), wanted)
    for form, found in answers.items():
        torch.testing.assert_close(found, wanted, rtol=0, atol=1e-6, msg=form)
        assert "PeftModel.from_pretrained" in (tmp_path / form / "README.md").read_text(encoding="utf-8")
    assert not torch.allclose(logits(toys.network("bert"), batch), wanted, atol=1e-4)


def harm(folder: Path, how: str) -> None:
    path = folder / WEIGHTS
    if how == "truncated":
        path.write_bytes(path.read_bytes()[:-100])
        return
    if how == "no file":
        path.unlink()
        return
    if how in ("base", "shape"):
        config = json.loads((folder / "adapter_config.json").read_text(encoding="utf-8"))
        if how == "base":
            config["base_hash"] = "0" * 16
        else:
            config["tensors"][max(config["tensors"])] = [3, 4]
        (folder / "adapter_config.json").write_text(json.dumps(config), encoding="utf-8")
        return
    tensors = load_file(path)
    last = [key for key in sorted(tensors) if key.endswith(".dst_values")][-1]
    tensors[last][-1] = float("nan")
    save_file(tensors, path)


@pytest.mark.parametrize(
    ("how", "says"),
    [
        ("truncated", "cannot be read"),
        ("no file", "cannot be read"),
        ("nan", "spoiled"),
        ("base", "hash 0"),
        ("shape", r"is \[3, 4\] there, \[16, 24\] here"),
    ],
)
def test_a_spoiled_folder_is_never_applied_in_part_whatever_call_loads_it(
    how: str, says: str, saved: Path, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(saved, tmp_path / "copy"))
    harm(folder, how)
    model = tuned(steps=1)
    before = bits(model)
    for name in ("default", "new"):
        with pytest.raises(ModelError, match=says):
            model.load_adapter(folder, name)
        assert same(model, before)
        assert list(model.peft_config) == ["default"]
    for call in (foretune.SubsetModel.from_pretrained, PeftModel.from_pretrained):
        network = toys.network("bert")
        base = bits(network)
        with pytest.raises(ModelError, match=says):
            call(network, str(folder))
        assert same(network, base)
        assert call(network, str(saved)) is not None


def test_a_folder_of_other_options_or_of_another_kind_is_refused(saved: Path, tmp_path: Path) -> None:
    model = foretune.get_peft_model(toys.network("bert"), StaticSubset(density=0.05))
    with pytest.raises(ModelError, match=r"DynamicSubset\(.*`default` is StaticSubset\(.*a name of its own"):
        model.load_adapter(saved, "default")
    model.load_adapter(saved, "second")
    foretune.get_peft_model(toys.network("bert"), "lora").save_pretrained(tmp_path)
    with pytest.raises(ModelError, match="it is LORA"):
        model.load_adapter(tmp_path, "third")
    (tmp_path / "adapter_config.json").write_text('{"peft_type": "DST", "settings": {}}', encoding="utf-8")
    with pytest.raises(ModelError, match="lacks `heads`"):
        model.load_adapter(tmp_path, "third")
    with pytest.raises(ModelError, match="not a readable adapter"):
        foretune.SubsetModel.from_pretrained(toys.network("bert"), tmp_path / "nowhere")
    assert list(model.peft_config) == ["default", "second"]


def test_a_subfolder_is_read_and_a_pickle_is_not_written(saved: Path, tmp_path: Path) -> None:
    model = foretune.SubsetModel.from_pretrained(toys.network("bert"), saved.parent, subfolder=saved.name)
    assert same(model, bits(tuned()))
    with pytest.raises(UsageError, match="safetensors alone"):
        model.save_pretrained(tmp_path / "out", safe_serialization=False)
    with pytest.raises(UsageError, match="no adapter `other`"):
        model.save_pretrained(tmp_path / "out", selected_adapters=["other"])
    model.save_pretrained(tmp_path / "out", is_main_process=False)
    assert not (tmp_path / "out").exists()


def test_lora_says_what_it_loses_and_the_refusal_names_a_rank_that_would_do(tmp_path: Path) -> None:
    model = tuned(density=0.3)
    before, batch = bits(model), toys.batch(model.get_base_model())
    with pytest.raises(ModelError, match=r"may lose 0.2 .* rank 2 loses 0\.\d+ .*Use rank (\d+) or more") as refused:
        model.export_to("lora", tmp_path / "out", rank=2, tolerance=0.2)
    assert not (tmp_path / "out").exists()
    assert same(model, before)
    rank = int(str(refused.value).partition("Use rank ")[2].split()[0])
    with pytest.raises(ModelError, match=f"rank {rank - 1} loses"):
        model.export_to("lora", tmp_path / "out", rank=rank - 1, tolerance=0.2)
    fit = model.export_to("lora", tmp_path / "out", rank=rank, tolerance=0.2, probe=batch)
    loaded = PeftModel.from_pretrained(toys.network("bert"), str(tmp_path / "out")).eval()
    assert fit.outputs == pytest.approx(float((logits(loaded, batch) - logits(model, batch)).abs().max()), rel=1e-3)
    merged, lost, whole = dict(_peft.merge(loaded).named_parameters()), 0.0, 0.0
    base = bits(toys.network("bert"))
    for name, error in fit.by_matrix.items():
        key = f"{name}.weight"
        delta = before[f"base_model.model.{key}"] - base[key]
        off = float((merged[key] - base[key] - delta).square().sum())
        assert error == pytest.approx((off / float(delta.square().sum())) ** 0.5, rel=1e-3)
        lost, whole = lost + off, whole + float(delta.square().sum())
    assert fit.relative_error == pytest.approx((lost / whole) ** 0.5, rel=1e-3)
    assert 0 < fit.relative_error <= 0.2
    page = (tmp_path / "out" / "README.md").read_text(encoding="utf-8")
    assert f"Rank {rank} loses {fit.relative_error:.2g} of the change of {fit.weights} weights" in page
    assert f"differ by up to {fit.outputs:.3g}" in page
    assert page.count("| `bert.") == len(fit.by_matrix)


@pytest.mark.parametrize("name", ["gpt2", "llama"])
def test_lora_of_full_rank_is_the_subset_on_transposed_maps_too(name: str, tmp_path: Path) -> None:
    network = toys.network(name, "language")
    model = foretune.get_peft_model(network, StaticSubset(density=0.2, k_min=2))
    kind, settings = foretune.dst_optimizer(model, lr=0.05)
    batch = toys.batch(network)
    optimizer = kind([{"params": [p for p in model.parameters() if p.requires_grad]}], **settings)
    model(**batch).logits.square().sum().backward()
    optimizer.step()
    fit = model.export_to("lora", tmp_path, rank=16, tolerance=1e-5)
    loaded = PeftModel.from_pretrained(toys.network(name, "language"), str(tmp_path)).eval()
    torch.testing.assert_close(logits(loaded, batch), logits(model.eval(), batch), rtol=0, atol=1e-5)
    assert not torch.allclose(logits(toys.network(name, "language"), batch), logits(model, batch), atol=1e-4)
    assert fit.parameters == sum(p.numel() for n, p in loaded.named_parameters() if "lora_" in n)


def test_an_export_that_cannot_be_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    model = tuned()
    (tmp_path / "mine").touch()
    with pytest.raises(UsageError, match="holds something already"):
        model.export_to("full", tmp_path)
    with pytest.raises(UsageError, match="one of supertuning, shira, full, lora, but got 'peft'"):
        model.export_to("peft", tmp_path / "out")
    with pytest.raises(UsageError, match="no adapter `other`"):
        model.export_to("full", tmp_path / "out", adapter_name="other")
    with pytest.raises(UsageError, match="rank=0"):
        model.export_to("lora", tmp_path / "out", rank=0)
    norms = foretune.get_peft_model(toys.network("bert"), DynamicSubset(more=("norms",), density=0.1))
    kind, settings = foretune.dst_optimizer(norms)
    optimizer = kind([{"params": [p for p in norms.parameters() if p.requires_grad]}], **settings)
    norms(**toys.batch(model.get_base_model())).logits.square().sum().backward()
    optimizer.step()
    with pytest.raises(ModelError, match=r"LayerNorm.weight`, in a `LayerNorm`.*`full`"):
        norms.export_to("lora", tmp_path / "out")
    with pytest.raises(ModelError, match="No weight is away"):
        foretune.get_peft_model(toys.network("bert"), DynamicSubset()).export_to("lora", tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]


def test_transformers_own_loading_of_adapters_is_refused_in_words(saved: Path) -> None:
    with pytest.raises(ValueError, match="Please use `get_peft_model`"):
        toys.network("bert").load_adapter(str(saved))
