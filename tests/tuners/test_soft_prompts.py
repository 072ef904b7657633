"""Stock prefix and prompt tuning fail in silence in known ways; here each is an error, or works."""

from __future__ import annotations

import pytest

from foretune.errors import ModelError, UsageError
from foretune.testing import toys
from foretune.testing.contracts import logits
from foretune.tuners import PrefixTuning, PromptTuning, Tuner, check_length, positions
from foretune.tuners.soft_prompts import require_reach


@pytest.mark.parametrize("name", ["bert", "roberta", "gpt2", "llama"])
def test_checkpointing_switched_on_before_is_refused(name: str):
    network = toys.network(name)
    network.activation_checkpointing_enable()
    with pytest.raises(UsageError, match="prefix would be dropped"):
        PrefixTuning().attach(network)


@pytest.mark.parametrize("name", ["bert", "roberta", "gpt2", "llama"])
def test_checkpointing_switched_on_later_is_refused_at_the_next_step(name: str):
    network = toys.network(name)
    model = PrefixTuning(length=2).attach(network).train()
    model(**toys.batch(network))
    network.activation_checkpointing_enable()
    with pytest.raises(UsageError, match="prefix would be dropped"):
        model(**toys.batch(network))


def test_without_the_guard_checkpointing_would_lose_the_prefix():
    """Why the guard exists: if this fails, PEFT or transformers mended it and the guard may go."""
    import torch

    network = toys.network("bert")
    model = PrefixTuning(length=2).attach(network).train()
    model._forward_pre_hooks.clear()
    network.activation_checkpointing_enable()
    out = model(**toys.batch(network, (6, 6))).logits.sum()
    vectors = model.prompt_encoder["default"].embedding.weight
    assert torch.autograd.grad(out, vectors, allow_unused=True)[0] is None


@pytest.mark.parametrize("option", ["output_hidden_states", "output_attentions"])
def test_extra_outputs_are_refused_where_peft_would_pool_the_wrong_one(option: str):
    network = toys.network("roberta")
    model = PrefixTuning(length=2).attach(network)
    with pytest.raises(UsageError, match=option):
        model(**toys.batch(network), **{option: True})
    assert PrefixTuning(length=2).attach(toys.network("bert"))(
        **toys.batch(network), **{option: True}
    ).logits.shape == (3, 3)


@pytest.mark.parametrize(("name", "usable"), [("bert", 32), ("gpt2", 32), ("roberta", 31), ("distilbert", 32)])
@pytest.mark.parametrize("tuner", [PromptTuning(length=5), PrefixTuning(length=5)], ids=lambda t: t.name)
def test_a_text_too_long_by_one_is_refused_with_both_numbers(name: str, usable: int, tuner: Tuner):
    if (name, tuner.name) == ("distilbert", "prefix-tuning"):
        return
    network = toys.network(name, "token")
    model = tuner.attach(network).eval()
    assert positions(model) == usable
    longest = usable - 5
    logits(model, toys.batch(network, (longest,)))
    check_length(tuner, model, longest)
    words = rf"{usable} positions, but got {longest + 1} tokens and 5 virtual tokens.*{longest} or less"
    with pytest.raises(UsageError, match=words):
        logits(model, toys.batch(network, (longest + 1,)))
    with pytest.raises(UsageError, match=words):
        check_length(tuner, model, longest + 1)


def test_writing_beyond_the_last_position_is_refused():
    network = toys.network("gpt2", "language")
    model = PrefixTuning(length=5).attach(network).eval()
    batch = toys.batch(network, (20, 20))
    with pytest.raises(UsageError, match="32 positions"):
        model.generate(**batch, max_new_tokens=10, min_new_tokens=10, do_sample=False, pad_token_id=0)


def test_relative_positions_have_no_limit():
    assert positions(toys.network("t5")) is None
    assert positions(toys.network("deberta-v2")) is None
    assert positions(toys.network("llama")) == 32


@pytest.mark.parametrize("tuner", [PromptTuning(length=4), PrefixTuning(length=4)], ids=lambda t: t.name)
@pytest.mark.parametrize("name", toys.DECODERS)
def test_what_is_written_does_not_depend_on_padding(tuner: Tuner, name: str):
    import torch

    network = toys.network(name, "language")
    with torch.no_grad():
        for parameter in network.parameters():
            if parameter.dim() > 1:
                parameter.mul_(10)
    torch.manual_seed(0)
    model = tuner.attach(network).eval()
    text = toys.batch(network, (5,), seed=1)["input_ids"]
    settings = {"max_new_tokens": 4, "do_sample": False, "pad_token_id": 0, "eos_token_id": None}
    settings |= {"output_logits": True, "return_dict_in_generate": True}
    padded = torch.nn.functional.pad(text, (3, 0))
    mask = torch.nn.functional.pad(torch.ones_like(text), (3, 0))
    plain = model.generate(input_ids=text, attention_mask=torch.ones_like(text), **settings)
    shifted = model.generate(input_ids=padded, attention_mask=mask, **settings)
    whole = logits(model, {"input_ids": plain.sequences, "attention_mask": torch.ones_like(plain.sequences)})
    for step in range(4):
        expected = whole[:, whole.shape[1] - 5 + step]
        torch.testing.assert_close(plain.logits[step], expected, atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(shifted.logits[step], expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("name", ["llama", "t5"])
def test_a_disabled_model_writes_what_the_base_writes(name: str):
    import torch

    base = toys.network(name, "language")
    batch = {k: v for k, v in toys.batch(base, (5, 5)).items() if k != "decoder_input_ids"}
    settings = {"max_new_tokens": 4, "do_sample": False, "pad_token_id": 0}
    tuner = PromptTuning(length=4)
    model = tuner.attach(toys.network(name, "language")).eval()
    with tuner.disabled(model):
        assert torch.equal(model.generate(**batch, **settings), base.generate(**batch, **settings))
    model.generate(**batch, **settings)


def test_a_sliding_window_shorter_than_text_and_prefix_is_a_warning():
    from transformers import AutoModelForCausalLM, MistralConfig

    config = MistralConfig(
        vocab_size=40, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, num_key_value_heads=1, head_dim=8,
        intermediate_size=24, sliding_window=8, pad_token_id=0,
    )  # fmt: skip
    network = AutoModelForCausalLM.from_config(config)
    model = PrefixTuning(length=3).attach(network).eval()
    logits(model, toys.batch(network, (5,)))
    with pytest.warns(UserWarning, match=r"window of 8 tokens.*prefix of 3.*got 6 tokens.*length of 5"):
        logits(model, toys.batch(network, (6,)))


def test_labels_for_per_token_logits_with_extra_rows_are_refused():
    network = toys.network("bert", "token")
    model = PromptTuning(length=3).attach(network)
    batch = toys.batch(network)
    with pytest.raises(UsageError, match="3 positions in front"):
        model(**batch, labels=batch["input_ids"])


def test_a_masked_language_model_is_refused_by_name():
    from transformers import AutoModelForMaskedLM

    network = AutoModelForMaskedLM.from_config(toys.config("bert"))
    for tuner in (PromptTuning(), PrefixTuning()):
        with pytest.raises(ModelError, match="BertForMaskedLM"):
            tuner.attach(network)


def test_vectors_that_do_not_reach_the_logits_are_an_error_whatever_the_class_is_called():
    network = toys.network("bert")
    model = PrefixTuning(length=2).attach(network)
    forward = network.bert.forward
    network.bert.forward = lambda past_key_values=None, attention_mask=None, **inputs: forward(**inputs)
    with pytest.raises(ModelError, match=r"BertForSequenceClassification.*do not depend"):
        require_reach("prefix-tuning", model)


def test_a_small_start_is_near_the_base_and_no_two_virtual_tokens_are_equal():
    import torch

    network = toys.network("bert")
    vectors = PrefixTuning(length=4, init="small").attach(network).prompt_encoder["default"].embedding.weight
    assert 0.01 < float(vectors.detach().std()) < 0.03
    assert len(torch.unique(vectors.detach(), dim=0)) == 4


def test_attaching_leaves_training_and_evaluation_modes_as_they_were():
    network = toys.network("bert", dropout=0.5).train()
    network.bert.pooler.eval()
    model = PrefixTuning(length=2).attach(network)
    assert model.training
    assert network.bert.encoder.training
    assert not network.bert.pooler.training
