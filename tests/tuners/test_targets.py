"""What a method acts on is found in the network, and written so that PEFT finds exactly the same."""

from __future__ import annotations

import re

import pytest

from foretune.errors import ModelError
from foretune.testing import toys
from foretune.tuners import IA3, LNTuning, LoRA
from foretune.tuners.heads import head_modules
from foretune.tuners.targets import feedforward_outputs, keys_and_values, linears, norms, written

CASES = [(name, kind) for name in toys.ARCHITECTURES for kind in ("sequence", "token")]
CASES.remove(("gemma3", "token"))  # transformers has no such class


@pytest.mark.parametrize(("name", "kind"), CASES)
@pytest.mark.parametrize("scope", ["all-linear", "attention", "qv"])
def test_peft_wraps_exactly_the_modules_that_were_found(name: str, kind: str, scope: str):
    network = toys.network(name, kind)
    found = linears(network, head_modules(network, toys.fresh(network)), scope)
    model = LoRA(targets=scope).attach(network, toys.fresh(network))  # type: ignore[arg-type]
    assert sorted(model.targeted_module_names) == sorted(found)


@pytest.mark.parametrize("name", toys.ARCHITECTURES)
def test_peft_finds_the_same_norms_and_multipliers(name: str):
    network = toys.network(name)
    heads = head_modules(network, toys.fresh(network))
    expected = sorted(norms(network, heads))
    assert sorted(LNTuning().attach(network, toys.fresh(network)).targeted_module_names) == expected
    network = toys.network(name)
    inner = feedforward_outputs(network, heads)
    expected = sorted({*keys_and_values(network, heads), *inner})
    model = IA3().attach(network, toys.fresh(network))
    assert sorted(model.targeted_module_names) == expected
    from peft.tuners.ia3 import IA3Layer

    base = model.get_base_model()
    assert sorted(n for n, m in base.named_modules() if isinstance(m, IA3Layer) and m.is_feedforward) == sorted(inner)


def test_attention_and_query_value_are_nested_parts_of_all_linear():
    for name in toys.ARCHITECTURES:
        network = toys.network(name)
        wide, middle, narrow = (set(linears(network, (), s)) for s in ("all-linear", "attention", "qv"))
        assert narrow < wide
        assert narrow <= middle < wide


def test_no_target_lies_in_the_head_or_outside_the_layers():
    network = toys.network("bert")
    assert not [name for name in linears(network, ("classifier",)) if "pooler" in name or "classifier" in name]


def test_short_endings_are_preferred_and_a_pattern_stands_for_any_depth():
    network = toys.network("llama")
    assert written(network, linears(network, (), "qv")) == ["q_proj", "v_proj"]
    pattern = written(toys.network("bert"), feedforward_outputs(toys.network("bert"), ()))
    assert isinstance(pattern, str)
    assert re.fullmatch(pattern, "bert.encoder.layer.17.output.dense")
    assert not re.fullmatch(pattern, "bert.encoder.layer.17.attention.output.dense")


def test_modules_of_some_layers_only_are_written_out_one_by_one():
    network = toys.network("bert")
    names = ["bert.encoder.layer.1.output.dense"]
    pattern = written(network, names)
    assert isinstance(pattern, str)
    assert [n for n, _ in network.named_modules() if re.fullmatch(pattern, n)] == names


def test_a_network_without_layers_is_refused():
    from transformers import BertConfig, BertForSequenceClassification

    network = BertForSequenceClassification(
        BertConfig(vocab_size=9, hidden_size=8, num_hidden_layers=0, num_attention_heads=1)
    )
    with pytest.raises(ModelError, match="no linear layer"):
        LoRA().attach(network)


def test_a_fresh_module_that_is_not_there_is_named():
    with pytest.raises(ModelError, match="has no `clasifier`"):
        LoRA().attach(toys.network("bert"), ("clasifier",))
