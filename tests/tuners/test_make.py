"""Names and options: what is accepted, what is refused, and what the refusal says."""

from __future__ import annotations

import subprocess
import sys

import pytest

from foretune.errors import UsageError
from foretune.records import Part
from foretune.testing import toys
from foretune.tuners import TUNERS, LoRA, Tuner, _peft, get_peft_model, make


def test_names_and_spaces_load_no_torch():
    code = "import foretune.tuners as t, sys; [k.space for k in t.TUNERS.values()]; print('torch' in sys.modules)"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "False"


def test_the_published_names_are_all_there():
    assert list(TUNERS) == [
        "full",
        "adaptive",
        "head",
        "bitfit",
        "ln-tuning",
        "lora",
        "rslora",
        "dora",
        "ia3",
        "prompt-tuning",
        "prefix-tuning",
        "prefix-subspace",
        "dynamic-subset",
        "static-subset",
        "frozen",
    ]


@pytest.mark.parametrize(
    ("part", "words"),
    [
        (Part("lroa"), ["`lroa` is not a tuner", "Did you mean `lora`?"]),
        (Part("lora", {"rnak": 4}), ["`rnak` is not an option of `lora`", "Did you mean `rank`?", "alpha"]),
        (Part("ia3", {"rank": 4}), ["`rank` is not an option of `ia3`", "It has none."]),
        (Part("lora", {"rank": "8"}), ["`rank` of `lora`", "integer", "'8'"]),
        (Part("lora", {"rank": True}), ["`rank` of `lora`", "integer"]),
        (Part("lora", {"rank": 0}), ["`rank >= 1`", "rank=0"]),
        (Part("lora", {"dropout": 1.0}), ["dropout < 1", "dropout=1"]),
        (Part("lora", {"targets": "mlp"}), ["`targets` of `lora`", "'all-linear'", "'mlp'"]),
        (Part("lora", {"rank": object()}), ["plain numbers and text"]),
        (Part("prefix-tuning", {"length": 0}), ["`length >= 1`", "length=0"]),
        (Part("prefix-subspace", {"n_vertices": 0}), ["`n_vertices >= 1`", "n_vertices=0"]),
        (Part("prefix-subspace", {"init_std": 0.0}), ["3 vertices must start apart", "init_std=0", "above 0"]),
        (Part("prefix-subspace", {"init": "text", "init_text": ["a"], "init_std": 0.0}), ["3 vertices", "1 different"]),
        (Part("prefix-subspace", {"init": "text", "init_text": ["a", "b"]}), ["one per vertex (3)", "got 2"]),
        (Part("prefix-subspace", {"init_text": ["a"]}), ['init="text" only', "1 texts"]),
        (Part("prefix-subspace", {"init_std": -1.0}), ["`init_std >= 0`", "init_std=-1.0"]),
        (Part("prefix-subspace", {"beta": -1.0}), ["`beta >= 0`", "beta=-1.0"]),
        (Part("prefix-subspace", {"prefix_dropout": 1.0}), ["0 <= prefix_dropout < 1", "prefix_dropout=1.0"]),
        (Part("prefix-subspace", {"per": "layer"}), ["`per` of `prefix-subspace`", "'observation'", "'layer'"]),
        (Part("prefix-subspace", {"dev_samples": 0}), ["`dev_samples >= 1`", "dev_samples=0"]),
        (Part("prefix-subspace", {"predict_samples": 0}), ["`predict_samples >= 1`", "predict_samples=0"]),
        (Part("prefix-subspace", {"weight_decay_vertices": -1.0}), ["`weight_decay_vertices >= 0`", "-1.0"]),
        (Part("prompt-tuning", {"init": "zero"}), ["`init` of `prompt-tuning`", "'vocabulary'"]),
    ],
    ids=lambda value: f"{value.name}-{'-'.join(value.options)}" if isinstance(value, Part) else "",
)
def test_a_wrong_name_option_or_value_is_refused_with_the_way_out(part: Part, words: list[str]):
    with pytest.raises(UsageError) as caught:
        make(part)
    assert all(word in str(caught.value) for word in words), str(caught.value)


def test_a_whole_number_serves_where_a_fraction_is_meant():
    assert make(Part("lora", {"alpha": 32})) == LoRA(alpha=32.0)


@pytest.mark.parametrize("installed", ["0.20.0", "0.22.0", "1.0.0"])
def test_an_untested_peft_is_named_with_the_command_that_helps(installed: str):
    with pytest.raises(UsageError, match=rf"{installed}.*pip install"):
        _peft.require_tested(installed)


@pytest.mark.parametrize("tuner", ["lora", LoRA(rank=2)], ids=["name", "tuner"])
def test_get_peft_model_takes_a_name_or_a_tuner_and_trains_the_head_beside_it(tuner: str | Tuner):
    model = get_peft_model(toys.network("distilbert"), tuner)
    trained = {name for name, p in model.named_parameters() if p.requires_grad}
    assert {name.split(".modules_to_save")[0].rpartition(".")[2] for name in trained if "modules_to_save" in name} == {
        "pre_classifier",
        "classifier",
    }


def test_get_peft_model_passes_on_a_configuration_of_pefts_own():
    from peft import LoraConfig

    model = get_peft_model(toys.network("llama", "language"), LoraConfig(task_type="CAUSAL_LM", r=3), "mine")
    assert model.peft_config["mine"].r == 3


def test_get_peft_model_gives_the_adapter_the_name_that_was_asked_for():
    assert list(get_peft_model(toys.network("bert"), "lora", "mine").peft_config) == ["mine"]
    with pytest.raises(UsageError, match="takes no adapter name, but got `mine`"):
        get_peft_model(toys.network("bert"), "bitfit", "mine")


def test_get_peft_model_refuses_anything_else():
    with pytest.raises(UsageError, match="got int"):
        get_peft_model(toys.network("bert"), 3)  # type: ignore[arg-type]


def test_a_second_tuner_on_one_network_is_refused():
    network = toys.network("bert")
    LoRA().attach(network)
    with pytest.raises(UsageError, match="adapter already"):
        LoRA().attach(network)
