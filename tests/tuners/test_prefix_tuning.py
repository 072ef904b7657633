"""A prefix inside the attention: what stock prefix tuning loses or forbids works here, or is refused by name."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest

from foretune.errors import ForetuneError, ModelError, UsageError
from foretune.testing import toys
from foretune.testing.contracts import attached, logits, train
from foretune.tuners import PrefixSubspace, PrefixTuning, get_peft_model


def test_stock_prefix_tuning_loses_its_prefix_under_checkpointing():
    """Why it is not used: if this fails, PEFT or transformers mended it."""
    import torch
    from peft import PrefixTuningConfig

    network = toys.network("bert")
    model = get_peft_model(network, PrefixTuningConfig(task_type="SEQ_CLS", num_virtual_tokens=2)).train()
    network.activation_checkpointing_enable()
    out = model(**toys.batch(network, (6, 6))).logits.sum()
    vectors = model.prompt_encoder["default"].embedding.weight
    assert torch.autograd.grad(out, vectors, allow_unused=True)[0] is None


@pytest.mark.parametrize("name", ["bert", "llama", "t5"])
def test_checkpointing_may_be_switched_off_and_on_again(name: str):
    import torch

    network = toys.network(name)
    model, batch = PrefixTuning(length=2).attach(network).train(), toys.batch(network)

    def gradient():
        return torch.autograd.grad(model(**batch).logits.sum(), model.mixture.prefix.vertices)[0]

    expected = gradient()
    for switch in (network.activation_checkpointing_enable, network.activation_checkpointing_disable) * 2:
        switch()
        torch.testing.assert_close(gradient(), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", ["roberta", "llama", "deberta-v2", "t5"])
def test_hidden_states_and_attentions_are_given_as_the_base_gives_them(name: str):
    import torch

    network = toys.network(name)
    model, batch = PrefixTuning(length=2).attach(network).eval(), toys.batch(network)
    plain = logits(model, batch)
    with torch.no_grad():
        out = model(**batch, output_hidden_states=True)
    assert torch.equal(out.logits, plain)
    states = out.decoder_hidden_states if name == "t5" else out.hidden_states
    assert [state.shape for state in states] == [(3, 6, 16)] * 3


@pytest.mark.parametrize("name", toys.ARCHITECTURES)
def test_eager_attention_computes_the_same_as_sdpa(name: str):
    import torch

    tuner, outputs = PrefixSubspace(length=4), []
    for implementation in ("eager",) if name == "deberta-v2" else ("sdpa", "eager"):
        network = toys.network(name)
        network.set_attn_implementation(implementation)
        torch.manual_seed(7)
        model = tuner.attach(network).eval()
        outputs.append(logits(model, batch := toys.batch(network)))
        with model.disable_adapter():
            torch.testing.assert_close(logits(model, batch), logits(toys.network(name), batch), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(outputs[0], outputs[-1], atol=1e-5, rtol=1e-5)


def test_attentions_show_the_prefix_in_front():
    network = toys.network("bert")
    network.set_attn_implementation("eager")
    out = PrefixTuning(length=2).attach(network)(**toys.batch(network), output_attentions=True)
    assert [weights.shape for weights in out.attentions] == [(3, 2, 6, 8)] * 2


@pytest.mark.parametrize("name", ["bert", "roberta", "gpt2", "distilbert"])
def test_without_shift_no_position_is_lost(name: str):
    import torch

    network = toys.network(name, "token")
    usable = 31 if name == "roberta" else 32
    batch = toys.batch(network, (usable,))
    outputs = []
    for mode in ("shift", "no_shift"):
        tuner = PrefixTuning(length=5, position_mode=mode)
        torch.manual_seed(0)
        model = tuner.attach(toys.network(name, "token")).eval()
        assert tuner.virtual_tokens(model) == (5 if mode == "shift" else 0)
        outputs.append(logits(model, toys.batch(network, (9,))))
    assert not torch.equal(*outputs)
    logits(model, batch)


@pytest.mark.parametrize("name", ["bert", "roberta", "gpt2", "llama"])
def test_shifted_positions_are_those_that_the_text_would_have_behind_a_prefix(name: str):
    import torch

    network = toys.network(name, "token" if name in toys.ENCODERS else "language")
    torch.manual_seed(0)
    still = PrefixTuning(length=4, position_mode="no_shift").attach(copy.deepcopy(network)).eval()
    torch.manual_seed(0)
    shifted = PrefixTuning(length=4).attach(network).eval()
    batch = toys.batch(network, (6, 6))
    first = 1 if name == "roberta" else 0
    moved = {**batch, "position_ids": torch.arange(6).expand(2, -1) + 4 + first}
    expected = logits(shifted, batch)
    torch.testing.assert_close(logits(still, moved), expected, atol=1e-6, rtol=0)


def test_a_sliding_window_never_hides_the_prefix():
    import torch

    network = toys.loud(toys.network("gemma3", "language"), 5.0)
    torch.manual_seed(0)
    model = PrefixTuning(length=4).attach(network).eval()
    batch = toys.batch(network, (20,))
    before = logits(model, batch)
    with torch.no_grad():
        first = model.mixture.prefix.vertices.view(1, 4, 2, -1)[:, :, 0]
        first.copy_(torch.randn_like(first))
    changed = (logits(model, batch) - before).abs().amax(-1)[0]
    assert bool((changed > 1e-4).all())


def test_a_prefix_made_of_a_text_is_that_text_in_the_cache(tmp_path: Path):
    import torch
    from transformers import AutoModelForCausalLM

    folder = toys.checkpoint(tmp_path, "llama")
    base = AutoModelForCausalLM.from_pretrained(folder).eval()
    tuner = PrefixSubspace(length=4, n_vertices=1, init="text", init_text=("the good film was nice",), init_std=0.0)
    model = tuner.attach(AutoModelForCausalLM.from_pretrained(folder)).eval()
    ids = toys.tokenizer("llama")("the good film was", return_tensors="pt", add_special_tokens=False)["input_ids"]
    rest = torch.tensor([[12, 3, 9]])
    whole = logits(base, {"input_ids": torch.cat([ids, rest], 1)})
    torch.testing.assert_close(logits(model, {"input_ids": rest}), whole[:, 4:], atol=1e-5, rtol=1e-5)


def test_a_small_start_is_near_the_base_and_no_two_virtual_tokens_are_equal():
    import torch

    vectors = PrefixTuning(length=4, init="small").attach(toys.network("bert")).vertices[0].detach()
    assert 0.01 < float(vectors.std()) < 0.03
    assert len(torch.unique(vectors, dim=0)) == 4


def test_a_prefix_longer_than_the_positions_is_refused_when_it_is_attached():
    for tuner in (PrefixTuning(length=32), PrefixSubspace(length=40)):
        words = rf"32 positions.*{tuner.length} virtual tokens of `{tuner.name}`.*fewer than 32 virtual tokens"
        with pytest.raises(UsageError, match=words):
            tuner.attach(toys.network("bert"))
    PrefixTuning(length=40, position_mode="no_shift").attach(toys.network("bert"))


SIZES = {"vocab_size": 40, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24}


def xlnet():
    from transformers import XLNetConfig, XLNetForSequenceClassification

    return XLNetForSequenceClassification(XLNetConfig(vocab_size=40, d_model=16, n_layer=2, n_head=2, d_inner=24))


def mpnet():
    from transformers import MPNetConfig, MPNetForSequenceClassification

    return MPNetForSequenceClassification(MPNetConfig(**SIZES))


def albert():
    from transformers import AlbertConfig, AlbertForSequenceClassification

    return AlbertForSequenceClassification(AlbertConfig(**SIZES, embedding_size=8))


def vit():
    from transformers import ViTConfig, ViTForImageClassification

    return ViTForImageClassification(ViTConfig(**{**SIZES, "image_size": 8, "patch_size": 4}))


def masked():
    from transformers import AutoModelForMaskedLM

    return AutoModelForMaskedLM.from_config(toys.config("bert"))


def flash():
    network = toys.network("llama")
    network.config._attn_implementation_internal = "flash_attention_2"
    return network


def bart():
    from transformers import BartConfig, BartForSequenceClassification

    return BartForSequenceClassification(
        BartConfig(
            vocab_size=40, d_model=16, encoder_layers=1, decoder_layers=1, encoder_attention_heads=2,
            decoder_attention_heads=2, encoder_ffn_dim=24, decoder_ffn_dim=24, max_position_embeddings=32,
            pad_token_id=0, bos_token_id=1, eos_token_id=1, decoder_start_token_id=1,
        )
    )  # fmt: skip


@pytest.mark.parametrize(
    ("made", "words"),
    [
        (xlnet, "XLNetForSequenceClassification.*Use `lora`"),
        (mpnet, "MPNetForSequenceClassification.*Use `lora`"),
        (albert, "AlbertForSequenceClassification.*share one attention.*Use `lora`"),
        (vit, "ViTForImageClassification.*Use `lora`"),
        (masked, "BertForMaskedLM.*Use `lora`"),
        (flash, 'LlamaForSequenceClassification.*`flash_attention_2`.*attn_implementation="sdpa"'),
        (bart, 'BartForSequenceClassification.*cannot be shifted.*position_mode="no_shift"'),
    ],
    ids=lambda value: value.__name__ if callable(value) else "",
)
@pytest.mark.parametrize("tuner", [PrefixTuning(length=2), PrefixSubspace(length=2)], ids=lambda t: t.name)
def test_what_cannot_be_served_is_refused_by_name_with_the_way_out(made, words: str, tuner):
    with pytest.raises(ModelError, match=f"`{tuner.name}`.*{words}"):
        tuner.attach(made())


def test_bart_is_served_where_its_positions_are_left_alone():
    import torch

    network = bart().eval()
    model = PrefixSubspace(length=2, position_mode="no_shift").attach(network).eval()
    assert model.mixture.law.layers == 2
    before = logits(model, batch := toys.batch(network))
    with model.at("vertex:1"):
        assert not torch.equal(logits(model, batch), before)


def test_a_prefix_that_does_not_reach_the_logits_is_an_error_whatever_the_class_is_called():
    network = toys.network("bert")
    forward = network.bert.forward
    network.bert.forward = lambda *args, **inputs: _emptied(forward(*args, **inputs))
    with pytest.raises(ModelError, match=r"`prefix-tuning`.*BertForSequence.*do not depend on the prefix"):
        PrefixTuning(length=2).attach(network)


def _emptied(output):
    output.pooler_output = output.pooler_output * 0
    return output


def test_vertices_without_a_gradient_are_named_after_the_first_step():
    tuner = PrefixSubspace(length=2)
    model, batch = attached(tuner, ("bert", "sequence")), toys.batch(toys.network("bert"))
    train(model, batch, tuner, steps=1)
    gradient = model.mixture.prefix.vertices.grad = model.vertices.detach().clone()
    gradient[1] = 0
    with pytest.raises(ModelError, match=r"All 3 vertices.*vertex 1 had none"):
        tuner.after_step(model, 1)
    tuner.after_step(model, 2)
    model.mixture.prefix.vertices.grad = None
    with pytest.raises(ForetuneError, match="vertex 0, vertex 1, vertex 2 had none"):
        tuner.after_step(model, 1)
