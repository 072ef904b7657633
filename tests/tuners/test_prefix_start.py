"""Where vertices start: apart, as wide as asked for, or at the keys and values of a text."""

from __future__ import annotations

from pathlib import Path

import pytest

from foretune.errors import ModelError, UsageError
from foretune.models.network import quiet
from foretune.testing import toys
from foretune.tuners import PrefixSubspace


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return toys.checkpoint(tmp_path_factory.mktemp("bert"), "bert")


def opened(folder: Path):
    import torch
    from transformers import AutoModelForSequenceClassification

    torch.manual_seed(0)
    with quiet():
        return AutoModelForSequenceClassification.from_pretrained(folder).eval()


def test_vertices_start_at_the_keys_and_values_of_a_text_plus_noise(checkpoint: Path):
    import torch

    one = PrefixSubspace(length=4, init="text", init_text=("the good film was nice",)).attach(opened(checkpoint))
    assert one.config_of_prefix.start_std == 0.02
    spread = (one.vertices - one.vertices.mean(0)).detach().std()
    assert 0.01 < float(spread) < 0.03
    texts = ("the good film was", "a very bad food", "one two three four")
    exact = PrefixSubspace(length=4, init="text", init_text=texts, init_std=0.0).attach(opened(checkpoint))
    torch.testing.assert_close(exact.vertices[0], one.vertices.mean(0), atol=0.05, rtol=0)
    assert len(torch.unique(exact.vertices.detach(), dim=0)) == 3


def test_a_text_that_is_too_short_or_has_no_tokenizer_is_refused(checkpoint: Path):
    text = PrefixSubspace(length=4, init="text", init_text=("good film",))
    with pytest.raises(UsageError, match=r"at least 4 tokens.*`good film` has 2"):
        text.attach(opened(checkpoint))
    with pytest.raises(ModelError, match=r'needs the tokenizer.*init="normal"'):
        text.attach(toys.network("bert"))


def test_texts_that_start_alike_are_refused_where_nothing_else_parts_the_vertices(checkpoint: Path):
    texts = ("the good film was", "the good film was bad", "one two three four")
    with pytest.raises(UsageError, match=r"3 vertices must start apart.*vertices 0 and 1 are equal.*init_std"):
        PrefixSubspace(length=4, init="text", init_text=texts, init_std=0.0).attach(opened(checkpoint))


def test_the_start_is_as_wide_as_the_options_say_and_the_record_says_how_wide(tmp_path: Path):
    import torch

    torch.manual_seed(0)
    for options, std in (
        ({}, 1.0),
        ({"init_std": 0.1}, 0.1),
        ({"init_std": 0.1, "init_scale": "hold_rms"}, 0.1 * 2**0.5),
    ):
        tuner = PrefixSubspace(length=20, **options)
        model = tuner.attach(toys.network("bert"))
        assert float(model.vertices.detach().std()) == pytest.approx(std, rel=0.05)
        model.save_pretrained(tmp_path)
        for saved in (model, tuner.restore(toys.network("bert"), tmp_path)):
            assert saved.config_of_prefix.start_std == pytest.approx(std)
            assert saved.config_of_prefix.init_std == options.get("init_std")


def test_a_start_too_narrow_for_fp32_is_refused():
    with pytest.raises(UsageError, match="vertices 0 and 1 are equal at a start of standard deviation 1e-60"):
        PrefixSubspace(init_std=1e-60).attach(toys.network("bert"))
