"""Which weights are overlaid, which are moved where they lie, and what is refused; and bitsandbytes itself."""

from __future__ import annotations

import copy
import json
import warnings
from pathlib import Path

import pytest
import torch
from torch import nn

import foretune
from foretune.errors import ModelError, UsageError
from foretune.testing import toys
from foretune.testing.contracts import TunerContract, logits
from foretune.testing.quantised import Int8Linear, quantised
from foretune.tuners.dynamic_subset import DynamicSubset
from foretune.tuners.subset.model import ATTRIBUTE, subset_of
from foretune.tuners.subset.overlay import OverlayPart, overlays, to_dense
from foretune.tuners.subset.quantised import reader_of


class TestDynamicSubsetOverFloatingWeights(TunerContract):
    tuner = DynamicSubset(density=0.01, backend="adapter")
    networks = (("bert", "sequence"), ("modernbert", "token"), ("llama", "sequence"), ("t5", "sequence"))


def test_auto_overlays_what_is_quantised_and_moves_the_rest_where_it_lies():
    network = toys.network("bert")
    key = "bert.encoder.layer.0.attention.self.key"
    network.set_submodule(key, Int8Linear(network.get_submodule(key)))
    model = DynamicSubset(density=0.02, more=("biases", "norms")).attach(network, toys.fresh(network))
    assert set(overlays(model)) == {key}
    over = [part.name for part in subset_of(model).parts if isinstance(part, OverlayPart)]
    assert over == [f"{key}.weight"]
    assert f"{key}.bias" in {part.name for part in subset_of(model).parts}
    assert not overlays(DynamicSubset(backend="auto").attach(toys.network("bert")))


def test_inplace_on_a_quantised_base_is_refused_and_nothing_is_wrapped():
    network = quantised(toys.network("bert"))
    with pytest.raises(ModelError, match=r"backend=inplace.*query.weight` is quantised \(Int8Linear\).*`backend=adapt"):
        DynamicSubset(backend="inplace").attach(network, toys.fresh(network))
    assert not overlays(network)


@pytest.mark.parametrize(
    ("name", "more", "kind"), [("gpt2", (), "Conv1D"), ("bert", ("norms",), "LayerNorm"), ("bert", ("biases",), "")]
)
def test_adapter_refuses_what_is_no_linear_layer_and_nothing_is_wrapped(name: str, more: tuple, kind: str):
    network = toys.network(name)
    with pytest.raises(ModelError, match=rf"`backend=adapter`.*belongs to a `{kind}.*`backend=auto`"):
        DynamicSubset(backend="adapter", more=more).attach(network, toys.fresh(network))
    assert not overlays(network)


def test_weights_in_a_form_that_nothing_reads_are_refused():
    network = toys.network("bert")
    layer = network.bert.encoder.layer[0].output.dense
    layer.weight = nn.Parameter(torch.zeros(16, 24, dtype=torch.int8), requires_grad=False)
    with pytest.raises(ModelError, match=r"layer.0.output.dense.weight` belongs to a `Linear`.*bitsandbytes"):
        DynamicSubset().attach(network, toys.fresh(network))


def test_a_quantised_head_is_refused_with_how_to_keep_it_out():
    network = toys.network("bert")
    network.classifier = Int8Linear(nn.Linear(16, 4))
    with pytest.raises(ModelError, match=r"`classifier` is quantised \(Int8Linear\).*llm_int8_skip_modules=\['bert.po"):
        DynamicSubset().attach(network, toys.fresh(network))


def test_adapters_of_a_quantised_base_are_switched_and_taken_out_and_the_base_is_given_back():
    batch, tuner = toys.batch(toys.network("bert")), DynamicSubset(density=0.02, targets="qv")
    base = logits(quantised(toys.network("bert")), batch)
    model = foretune.get_peft_model(quantised(toys.network("bert")), tuner)
    train_on(model, batch, tuner)
    first = logits(model.eval(), batch)
    model.add_adapter("other", DynamicSubset(density=0.05, more=("biases",)))
    lying = {name for name, layer in overlays(model).items() if layer.part is not None}
    assert {name.rpartition(".")[2] for name in lying} == {"query", "value"}
    assert torch.equal(logits(model, batch), first)
    model.set_adapter("other")
    train_on(model.train(), batch, tuner)
    second = logits(model.eval(), batch)
    assert not torch.equal(first, second)
    for name, expected in (("default", first), ("other", second)) * 3:
        model.set_adapter(name)
        assert torch.equal(logits(model, batch), expected)
        with model.disable_adapter():
            assert torch.equal(logits(model, batch), base)
    with pytest.raises(ModelError, match="Merge into 16 bits"):
        model.merge_and_unload()
    dense = to_dense(copy.deepcopy(model))
    assert torch.equal(logits(dense, batch), second)
    assert ATTRIBUTE not in vars(dense)
    network = model.unload()
    assert not overlays(network)
    assert torch.equal(logits(network, batch), base)


@pytest.mark.parametrize("backend", ["auto", "adapter"])
def test_a_second_subset_on_a_network_is_refused_before_anything_is_wrapped(backend: str):
    network = toys.network("bert")
    DynamicSubset().attach(network)
    with pytest.raises(UsageError, match="one tuner"):
        DynamicSubset(backend=backend).attach(network)
    assert not overlays(network)


def test_check_18_partitions_of_zero_3_are_refused():
    network = toys.network("bert")
    network.bert.encoder.layer[1].output.dense.weight.ds_id = 7
    with pytest.raises(UsageError, match=r"ZeRO-3 has partitioned `.*layer.1.output.dense.weight`.*Use DDP"):
        DynamicSubset().attach(network, toys.fresh(network))


def test_check_18_flat_parameters_of_fsdp1_are_refused(tmp_path: Path):
    from torch import distributed
    from torch.distributed.fsdp import FullyShardedDataParallel

    distributed.init_process_group("gloo", init_method=f"file://{tmp_path / 'meeting'}", rank=0, world_size=1)
    network = toys.network("bert")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            network.bert.encoder.layer[0] = FullyShardedDataParallel(
                network.bert.encoder.layer[0], device_id=torch.device("cpu")
            )
        with pytest.raises(UsageError, match=r"FSDP1 has flattened `.*layer.0._fsdp_wrapped_module.*Use DDP"):
            DynamicSubset().attach(network, toys.fresh(network))
    finally:
        distributed.destroy_process_group()


def test_check_18_several_processes_are_refused_at_attach_and_before_any_gradient(monkeypatch: pytest.MonkeyPatch):
    model = DynamicSubset().attach(quantised(toys.network("llama", "language")))
    loss = model(**toys.batch(model)).logits.square().sum()
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.distributed, "get_world_size", lambda: 2)
    with pytest.raises(UsageError, match=r"one process, but there are 2"):
        loss.backward()
    network = quantised(toys.network("llama", "language"))
    with pytest.raises(UsageError, match=r"one process, but there are 2"):
        DynamicSubset().attach(network)
    assert not overlays(network)


DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)]
FORMS = {
    "nf4": {"load_in_4bit": True, "bnb_4bit_quant_type": "nf4", "bnb_4bit_use_double_quant": True},
    "fp4": {"load_in_4bit": True, "bnb_4bit_quant_type": "fp4", "bnb_4bit_compute_dtype": torch.bfloat16},
    "int8": {"load_in_8bit": True},
}


@pytest.fixture
def toy(tmp_path: Path) -> Path:
    """A decoder whose matrices fill whole blocks."""
    pytest.importorskip("bitsandbytes")
    return toys.checkpoint(tmp_path / "base", "llama", hidden_size=64, intermediate_size=128, num_attention_heads=4)


def loaded(folder: Path, device: str, form: str) -> nn.Module:
    """The checkpoint in ``folder``, quantised."""
    import transformers

    asked = transformers.BitsAndBytesConfig(**FORMS[form])
    auto = transformers.AutoModelForCausalLM
    return auto.from_pretrained(folder, quantization_config=asked, device_map={"": device})


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("device", DEVICES)
def test_check_13_a_base_quantised_by_bitsandbytes(device: str, form: str, toy: Path, tmp_path: Path):
    base = loaded(toy, device, form)
    base.train(form != "int8")  # in inference on a CPU bitsandbytes repacks 4 bits, and computes otherwise
    tuner, batch = DynamicSubset(density=0.02), {k: v.to(device) for k, v in toys.batch(base).items()}
    untuned = logits(base, batch)
    model = tuner.attach(loaded(toy, device, form))
    before = stored(model)
    train_on(model, batch, tuner)
    assert stored(model) == before
    for layer in overlays(model.eval()).values():
        weight, part = reader_of(layer.base_layer).dense(layer.base_layer), layer.part
        assert torch.equal(part.old, weight.view(-1)[part.index])
        weight.view(-1)[part.index] = part.shadow.to(weight.dtype)
        x = torch.randn(3, layer.in_features, device=device)
        dtype = layer.reader.computes_in(layer.base_layer, x.dtype)
        assert torch.equal(layer(x), nn.functional.linear(x.to(dtype), weight.to(dtype)).to(x.dtype))
    with tuner.disabled(model):
        assert torch.equal(logits(model, batch), untuned)
    tuner.save(model, tmp_path / "delta")
    again = tuner.restore(loaded(toy, device, form), tmp_path / "delta").eval()
    assert torch.equal(logits(again, batch), logits(model, batch))
    config = json.loads((tmp_path / "delta" / "adapter_config.json").read_text(encoding="utf-8"))
    assert config["quantization"]["quant_method"] == "bitsandbytes"
    with pytest.raises(ModelError, match="Merge into 16 bits"):
        tuner.merge(model)
    assert stored(model) == before
    dense = to_dense(model, torch.bfloat16)
    dense.save_pretrained(tmp_path / "dense")
    assert "quantization_config" not in json.loads((tmp_path / "dense" / "config.json").read_text(encoding="utf-8"))
    assert {type(m) for m in dense.modules() if isinstance(m, nn.Linear)} == {nn.Linear}


def test_what_bitsandbytes_has_repacked_for_inference_is_refused(toy: Path):
    base = loaded(toy, "cpu", "nf4")
    for layer in base.modules():
        if isinstance(layer, nn.Linear) and layer.weight.dtype == torch.uint8:
            layer.weight.quant_state.packing_format_for_cpu = True
    with pytest.raises(ModelError, match=r"repacks 4-bit weights.*Load the model again"):
        DynamicSubset().attach(base)
    assert not overlays(base)


def test_transformers_trainer_takes_a_quantised_base_with_a_subset(toy: Path, tmp_path: Path):
    from datasets import Dataset
    from transformers import Trainer, TrainingArguments

    model = foretune.get_peft_model(loaded(toy, "cpu", "nf4"), DynamicSubset(density=0.02))
    before = stored(model)
    ids = toys.batch(model.get_base_model(), (6, 6, 6, 6))["input_ids"].tolist()
    rows = Dataset.from_dict({"input_ids": ids, "labels": ids})
    asked = TrainingArguments(str(tmp_path / "run"), max_steps=2, report_to="none", disable_tqdm=True, use_cpu=True)
    Trainer(model, asked, train_dataset=rows, optimizer_cls_and_kwargs=foretune.dst_optimizer(model, lr=0.01)).train()
    assert stored(model) == before
    assert all(len(layer.part.index) for layer in overlays(model).values())
    model.save_pretrained(tmp_path / "delta")
    again = type(model).from_pretrained(loaded(toy, "cpu", "nf4"), tmp_path / "delta")
    batch = toys.batch(model.get_base_model())
    assert torch.equal(logits(again.eval(), batch), logits(model.eval(), batch))


def train_on(model: nn.Module, batch: dict[str, torch.Tensor], tuner: DynamicSubset) -> None:
    """Three steps, on any device."""
    chosen = [p for p in model.parameters() if p.requires_grad]
    optimizer = tuner.optimizer_for(model, [{"params": chosen, "lr": 1e-2, "weight_decay": 0.0}])
    for _ in range(3):
        model(**batch).logits.float().square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()


def stored(model: nn.Module) -> dict[str, bytes]:
    """Every byte that a quantised layer stores, by name."""
    return {
        f"{name}.{key}": value.cpu().numpy().tobytes()
        for name, layer in overlays(model).items()
        for key, value in layer.base_layer.state_dict().items()
        if isinstance(value, torch.Tensor)
    }
