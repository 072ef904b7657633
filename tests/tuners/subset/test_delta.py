"""Files of a delta that are cut off, spoiled or of another base: one sentence each, and nothing is applied."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

import foretune
from foretune.errors import ForetuneError
from foretune.testing import toys
from foretune.tuners.dynamic_subset import DynamicSubset
from foretune.tuners.subset.delta import CONFIG, WEIGHTS
from foretune.tuners.subset.model import ATTRIBUTE, dst_optimizer, subset_of

Tensors = dict[str, torch.Tensor]


def attached(name: str = "bert", **options: Any) -> torch.nn.Module:
    network = toys.network(name)
    return DynamicSubset(**{"density": 0.05, **options}).attach(network, toys.fresh(network))


def trained(model: torch.nn.Module, seed: int = 0) -> torch.nn.Module:
    kind, settings = dst_optimizer(model, lr=0.01)
    optimizer = kind([{"params": [p for p in model.parameters() if p.requires_grad]}], **settings)
    model(**toys.batch(model, seed=seed)).logits.square().sum().backward()
    optimizer.step()
    optimizer.zero_grad()
    return model


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("delta")
    DynamicSubset(density=0.05).save(trained(attached()), folder)
    return folder


def edit(folder: Path, change: Callable[[Tensors, str], Any]) -> None:
    """``change(tensors, name)`` of the last tensor tuned."""
    tensors = load_file(folder / WEIGHTS)
    change(tensors, sorted(key for key in tensors if key.endswith(".dst_values"))[-1].removesuffix(".dst_values"))
    save_file(tensors, folder / WEIGHTS)


def settle(folder: Path, **values: Any) -> None:
    config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
    config |= {key: value(config[key]) if callable(value) else value for key, value in values.items()}
    (folder / CONFIG).write_text(json.dumps(config), encoding="utf-8")


def spoil(tensors: Tensors, key: str) -> None:
    tensors[key].view(-1)[-1] = torch.nan


def add_a_place(tensors: Tensors, name: str) -> None:
    """One more than the budget, with the base's own bits, so that nothing else is wrong."""
    base = dict(toys.network("bert").named_parameters())[name].detach().view(-1)
    index = tensors[f"{name}.dst_indices"]
    free = next(i for i in range(int(index[-1]) + 1) if i not in index.tolist())
    places, order = torch.cat([index, index.new_tensor([free])]).sort()
    tensors[f"{name}.dst_indices"] = places
    tensors[f"{name}.dst_values"] = torch.cat([tensors[f"{name}.dst_values"], torch.ones(1)])[order].contiguous()
    tensors[f"{name}.dst_base"] = base[places.long()].clone()


def floats(tensors: Tensors, name: str) -> None:
    tensors[f"{name}.dst_indices"] = tensors[f"{name}.dst_indices"].float()


def other_base(tensors: Tensors, name: str) -> None:
    tensors[f"{name}.dst_base"] += 1


def half(tensors: Tensors, name: str) -> None:
    tensors[f"{name}.dst_values"] = tensors[f"{name}.dst_values"].half()


HARMS: dict[str, tuple[Callable[[Path], Any], str]] = {
    "truncated": (lambda f: (f / WEIGHTS).write_bytes((f / WEIGHTS).read_bytes()[:-100]), "cannot be read"),
    "empty": (lambda f: (f / WEIGHTS).write_bytes(b""), "cannot be read"),
    "absent": (lambda f: (f / WEIGHTS).unlink(), "cannot be read"),
    "head not a number": (
        lambda f: edit(f, lambda t, _: spoil(t, "classifier.weight")),
        "of the head must hold finite",
    ),
    "value not a number": (lambda f: edit(f, lambda t, n: spoil(t, f"{n}.dst_values")), "one finite fp32 value"),
    "values in half": (lambda f: edit(f, half), "one finite fp32 value"),
    "one more place": (lambda f: edit(f, add_a_place), r"at most \d+ weights may be away.*it holds \d+"),
    "places that are no integers": (lambda f: edit(f, floats), "must be whole numbers that rise"),
    "another base kept": (lambda f: edit(f, other_base), "keeps of the base of `.*` is not what this base holds"),
    "a tensor missing": (lambda f: edit(f, lambda t, n: t.pop(f"{n}.dst_base")), "dst_base` is missing"),
    "no object": (lambda f: (f / CONFIG).write_text("[]"), "not a readable adapter configuration"),
    "no json": (lambda f: (f / CONFIG).write_text('{"peft_type": "DST"'), "not a readable adapter configuration"),
    "no settings": (lambda f: settle(f, settings=[]), "delta of `dynamic-subset`|`settings` in .* must be options"),
    "an unknown option": (lambda f: settle(f, settings=lambda s: s | {"dense": 1}), "`dense` is not an option"),
    "an option of another kind": (lambda f: settle(f, settings=lambda s: s | {"density": "x"}), "`density` of"),
    "heads that are no list": (lambda f: settle(f, heads=3), "`heads` in .* must be a list of names, but it is 3"),
    "a head that is not there": (lambda f: settle(f, heads=["nose"]), "no `nose`"),
    "shapes that are no lists": (lambda f: settle(f, tensors={"a": 1}), "`tensors` in .* must be shapes by name"),
    "no hash": (lambda f: settle(f, base_hash=None), "`base_hash` in .* must be text"),
    "a format in words": (lambda f: settle(f, format="new"), "`format` in .* must be a number"),
}


@pytest.mark.parametrize("how", HARMS)
def test_a_broken_delta_is_refused_in_one_sentence_and_nothing_is_applied(how: str, saved: Path, tmp_path: Path):
    folder = Path(shutil.copytree(saved, tmp_path / "copy"))
    harm, says = HARMS[how]
    harm(folder)
    for restore in (DynamicSubset().restore, foretune.SubsetModel.from_pretrained):
        network = toys.network("bert")
        before = {name: p.detach().clone() for name, p in network.named_parameters()}
        with pytest.raises(ForetuneError, match=says) as told:
            restore(network, folder)
        assert "\n" not in str(told.value)
        assert ATTRIBUTE not in vars(network)
        assert all(torch.equal(p, before[name]) for name, p in network.named_parameters())
    DynamicSubset().restore(network, saved)


def test_a_refused_delta_leaves_the_network_free_for_another(saved: Path, tmp_path: Path):
    network, flags = toys.network("bert"), [p.requires_grad for p in toys.network("bert").parameters()]
    folder = Path(shutil.copytree(saved, tmp_path / "copy"))
    edit(folder, floats)
    with pytest.raises(ForetuneError):
        DynamicSubset().restore(network, folder)
    assert [p.requires_grad for p in network.parameters()] == flags
    assert all(part.index.numel() for part in subset_of(DynamicSubset().restore(network, saved)).parts)


def test_a_sum_of_adapters_and_a_control_that_resets_nothing_hold_more_and_come_back(tmp_path: Path):
    """Of 384 weights 5 % and 0.1 % with a least budget of one each: 19 and 1, where the sum's own share is 19."""
    model = foretune.get_peft_model(toys.network("bert"), DynamicSubset(density=0.05))
    model.add_adapter("few", DynamicSubset(density=0.001))
    for seed, name in enumerate(("default", "few")):
        model.set_adapter(name)
        trained(model, seed)
    model.add_weighted_adapter(["default", "few"], [1.0, 1.0], "both", overlap="first")
    model.save_pretrained(tmp_path, selected_adapters=["both"])
    again = foretune.SubsetModel.from_pretrained(toys.network("bert"), tmp_path / "both", adapter_name="both")
    silos = subset_of(again).silos
    assert any(silo.chosen > silo.k for silo in silos)
    left = attached(reset=False)
    for _ in range(3):
        trained(left)
    assert any(silo.chosen > silo.k for silo in subset_of(left).silos)
    DynamicSubset(density=0.05, reset=False).save(left, tmp_path / "left")
    restored = DynamicSubset().restore(toys.network("bert"), tmp_path / "left")
    assert all(torch.equal(a, b) for a, b in zip(left.parameters(), restored.parameters(), strict=True))
