"""Contracts: what every plug-in must do, as tests that a plug-in inherits.

One class per plug point. A tuner from another package proves itself in three lines::

    class TestMine(TunerContract):
        tuner = Mine(rank=2)
        networks = (("bert", "sequence"), ("llama", "language"))
"""

from __future__ import annotations

import copy
import random
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import pytest

from foretune.errors import ModelError
from foretune.records import Part, Real
from foretune.testing import toys
from foretune.tuners import make
from foretune.tuners.base import Tuner

if TYPE_CHECKING:
    import torch
    from torch import nn
    from transformers import PreTrainedModel

SEED = 7


class TunerContract:
    """Only mine trains, save = load, disabled = base, the seed repeats, options survive a record, merged = unmerged.

    Attributes:
        tuner: what is tested.
        networks: (architecture, kind) of the toys that it serves; see ``toys.network``.
        head_copies: how many of each weight of the head the method trains, at most.
        refused: (architecture, kind) of those it must refuse with a ``ModelError`` that names the tuner and the class.
    """

    tuner: ClassVar[Tuner]
    networks: ClassVar[Sequence[tuple[str, str]]]
    refused: ClassVar[Sequence[tuple[str, str]]] = ()
    head_copies: ClassVar[int] = 1

    def pytest_generate_tests(self, metafunc: pytest.Metafunc) -> None:
        """Run each test that takes ``served`` once per network."""
        if "served" in metafunc.fixturenames:
            ids = ["-".join(case) for case in self.networks]
            metafunc.parametrize("served", self.networks, ids=ids, scope="class")

    def attached(self, served: tuple[str, str]) -> nn.Module:
        """A toy with the tuner on it, in evaluation mode, always from the same seed."""
        return attached(self.tuner, served)

    def trained(self, served: tuple[str, str]) -> nn.Module:
        """The same after three steps."""
        return copy.deepcopy(trained(self.tuner, served))

    def test_only_what_the_method_trains_changes(self, served: tuple[str, str]) -> None:
        import torch

        network = toys.network(*served)
        before = {id(p): p.detach().clone() for p in network.parameters()}
        model = self.tuner.attach(network, toys.fresh(network))
        trainable = {name: p for name, p in model.named_parameters() if p.requires_grad}
        start = {name: p.detach().clone() for name, p in trainable.items()}
        train(model, toys.batch(network), self.tuner)
        frozen = [p for p in model.parameters() if not p.requires_grad]
        assert all(torch.equal(p, before[id(p)]) for p in frozen if id(p) in before)
        assert any(not torch.equal(p, start[name]) for name, p in trainable.items())

    def test_the_fresh_head_is_trained(self, served: tuple[str, str]) -> None:
        network = toys.network(*served)
        fresh = toys.fresh(network)
        size = sum(p.numel() for name in fresh for p in network.get_submodule(name).parameters())
        model = self.tuner.attach(network, fresh)
        inside = [p for name, p in model.named_parameters() if p.requires_grad and any(f"{f}." in name for f in fresh)]
        assert size <= sum(p.numel() for p in inside) <= size * self.head_copies

    def test_saved_and_restored_outputs_are_equal_bit_for_bit(self, served: tuple[str, str], tmp_path: Path) -> None:
        import torch

        model, batch = self.trained(served), toys.batch(toys.network(*served))
        expected = logits(model, batch)
        self.tuner.save(model, tmp_path / "one")
        other = toys.network(*served)
        for name in toys.fresh(other):
            for parameter in other.get_submodule(name).parameters():
                torch.nn.init.normal_(parameter)
        restored = self.tuner.restore(other, tmp_path / "one").eval()
        assert torch.equal(logits(restored, batch), expected)
        assert trainable_names(restored) == trainable_names(model)
        self.tuner.save(restored, tmp_path / "two")
        one, two = ({p.name: p.read_bytes() for p in (tmp_path / name).iterdir()} for name in ("one", "two"))
        assert one == two
        assert {Path(name).suffix for name in one} <= {".json", ".safetensors"}

    def test_disabled_is_the_base_bit_for_bit(self, served: tuple[str, str]) -> None:
        import torch

        model, base = self.trained(served), toys.network(*served)
        batch = toys.batch(base)
        if not self.tuner.reversible:
            with pytest.raises(ModelError, match=self.tuner.name), self.tuner.disabled(model):
                pass
            return
        before, names = logits(model, batch), trainable_names(model)
        with self.tuner.disabled(model) as network:
            assert torch.equal(logits(network, batch), logits(base, batch))
            assert torch.equal(logits(model, batch), logits(base, batch))
        assert torch.equal(logits(model, batch), before)
        assert trainable_names(model) == names

    def test_the_same_seed_gives_the_same_start(self, served: tuple[str, str]) -> None:
        import torch

        first, second = (dict(self.attached(served).named_parameters()) for _ in range(2))
        assert all(torch.equal(first[name], second[name]) for name in first)

    def test_merged_equals_unmerged(self, served: tuple[str, str]) -> None:
        import torch
        from transformers import PreTrainedModel

        model, batch = self.trained(served), toys.batch(toys.network(*served))
        if not self.tuner.mergeable:
            with pytest.raises(ModelError, match=self.tuner.name):
                self.tuner.merge(model)
            return
        expected = logits(model, batch)
        merged = self.tuner.merge(model)
        assert isinstance(merged, PreTrainedModel)
        assert set(merged.state_dict()) == set(toys.network(*served).state_dict())
        torch.testing.assert_close(logits(merged, batch), expected, atol=1e-5, rtol=1e-5)

    def test_virtual_tokens_are_the_extra_rows_or_none(self, served: tuple[str, str]) -> None:
        model, batch = self.trained(served), toys.batch(toys.network(*served))
        out = logits(model, batch)
        if served[1] == "token" or (served[1] == "language" and "decoder_input_ids" not in batch):
            assert out.shape[1] - batch["input_ids"].shape[1] in (0, self.tuner.virtual_tokens(model))

    def test_padding_on_the_right_changes_nothing(self, served: tuple[str, str]) -> None:
        import torch

        model, base = self.trained(served), toys.network(*served)
        short, long = (toys.batch(base, (6, 4, 5), width=width) for width in (6, 9))
        torch.testing.assert_close(text_logits(model, long), text_logits(model, short), atol=1e-5, rtol=1e-5)

    def test_an_architecture_that_is_not_served_is_refused_by_name(self) -> None:
        for unserved in self.refused:
            network = toys.network(*unserved)
            with pytest.raises(ModelError) as caught:
                self.tuner.attach(network, toys.fresh(network))
            assert self.tuner.name in str(caught.value)
            assert type(network).__name__ in str(caught.value)

    def test_options_survive_a_record(self) -> None:
        part = self.tuner.part
        assert make(Part(part.name, dict(part.options))) == self.tuner

    def test_every_point_of_the_space_can_be_made(self) -> None:
        rng = random.Random(SEED)
        for _ in range(20):
            point = self.tuner.space.sample(rng)
            assert point.pop("lr") > 0
            assert make(Part(self.tuner.name, point)).name == self.tuner.name

    def test_the_default_rate_lies_in_the_space(self) -> None:
        rates = self.tuner.space.dimensions["lr"]
        assert isinstance(rates, Real)
        assert self.tuner.lr in rates
        options = {k: v for k, v in self.tuner.part.options.items() if k in self.tuner.space.dimensions}
        assert options in self.tuner.space


def attached(tuner: Tuner, served: tuple[str, str]) -> nn.Module:
    """See ``TunerContract.attached``."""
    import torch

    network = toys.network(*served)
    torch.manual_seed(SEED)
    return tuner.attach(network, toys.fresh(network)).eval()


@lru_cache(maxsize=1)
def trained(tuner: Tuner, served: tuple[str, str]) -> nn.Module:
    """See ``TunerContract.trained``; kept while the tests of one network run, so copy it before use."""
    model = attached(tuner, served)
    train(model, toys.batch(toys.network(*served)), tuner)
    return model.eval()


def logits(model: nn.Module | PreTrainedModel, batch: Mapping[str, torch.Tensor]) -> torch.Tensor:
    """One pass without gradients."""
    import torch

    with torch.no_grad():
        out: torch.Tensor = model(**batch).logits
    return out


def text_logits(model: nn.Module, batch: Mapping[str, torch.Tensor]) -> torch.Tensor:
    """The logits that belong to real tokens (or to pooled texts, or to the decoder), as rows."""
    out = logits(model, batch)
    if out.dim() == 2 or "decoder_input_ids" in batch:
        return out.flatten(0, -2)
    return out[:, -batch["input_ids"].shape[1] :][batch["attention_mask"].bool()]


def train(model: nn.Module, batch: Mapping[str, torch.Tensor], tuner: Tuner, steps: int = 3) -> None:
    """The tuner's optimizer on an arbitrary loss over the logits; every trainable parameter must be reachable."""
    import torch

    model.train()
    parameters = [p for p in model.parameters() if p.requires_grad]
    optimizer = tuner.optimizer_for(model, [{"params": parameters, "lr": 1e-2, "weight_decay": 0.01}])
    for step in range(1, steps + 1):
        rows = model(**batch).logits.flatten(0, -2)
        loss = torch.nn.functional.cross_entropy(rows, torch.zeros(len(rows), dtype=torch.long))
        loss.backward()
        optimizer.step()
        tuner.after_step(model, step)
        optimizer.zero_grad()


def trainable_names(model: nn.Module) -> set[str]:
    """Names of the parameters that require gradients."""
    return {name for name, p in model.named_parameters() if p.requires_grad}
