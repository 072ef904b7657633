"""The null tuner trains nothing, saves nothing, and refuses what would stay random."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from foretune.errors import ModelError
from foretune.testing import toys
from foretune.tuners import Frozen, get_peft_model

WRITING = ("llama", "gpt2", "t5")


@pytest.mark.parametrize("name", WRITING)
@torch.no_grad()
def test_a_frozen_model_is_the_base_before_and_after_its_folder(name: str, tmp_path: Path) -> None:
    tuner, base = Frozen(), toys.network(name, "language")
    expected = base(**toys.batch(base)).logits
    model = tuner.attach(toys.network(name, "language"))
    assert [n for n, p in model.named_parameters() if p.requires_grad] == []
    assert tuner.size(model) == 0
    tuner.save(model, tmp_path)
    restored = tuner.restore(toys.network(name, "language"), tmp_path)
    with tuner.disabled(restored) as network:
        assert torch.equal(network(**toys.batch(base)).logits, expected)
    assert torch.equal(tuner.merge(restored)(**toys.batch(base)).logits, expected)


@pytest.mark.parametrize("kind", ["sequence", "token"])
def test_a_head_that_would_stay_random_is_refused(kind: str) -> None:
    network = toys.network("bert", kind)
    with pytest.raises(ModelError, match=r"`frozen` trains nothing.*classifier.*--objective pattern"):
        Frozen().attach(network, toys.fresh(network))
    with pytest.raises(ModelError, match="`frozen` trains nothing"):
        get_peft_model(network, "frozen")
