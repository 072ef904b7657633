"""Stock prompt tuning fails in silence in known ways; here each is an error, or works."""

from __future__ import annotations

import pytest

from foretune.errors import ModelError, UsageError
from foretune.testing import toys
from foretune.testing.contracts import logits
from foretune.tuners import PrefixTuning, PromptTuning, Tuner
from foretune.tuners.prompt_tuning import require_reach


@pytest.mark.parametrize(("name", "usable"), [("bert", 32), ("gpt2", 32), ("roberta", 31), ("distilbert", 32)])
@pytest.mark.parametrize("tuner", [PromptTuning(length=5), PrefixTuning(length=5)], ids=lambda t: t.name)
def test_a_text_too_long_by_one_is_refused_with_both_numbers(name: str, usable: int, tuner: Tuner):
    network = toys.network(name, "token")
    model = tuner.attach(network).eval()
    longest = usable - 5
    logits(model, toys.batch(network, (longest,)))
    words = rf"{usable} positions, but got {longest + 1} tokens and 5 virtual tokens.*{longest} or less"
    with pytest.raises(UsageError, match=words):
        logits(model, toys.batch(network, (longest + 1,)))


@pytest.mark.parametrize("tuner", [PromptTuning(length=5), PrefixTuning(length=5)], ids=lambda t: t.name)
def test_writing_beyond_the_last_position_is_refused(tuner: Tuner):
    network = toys.network("gpt2", "language")
    model = tuner.attach(network).eval()
    batch = toys.batch(network, (20, 20))
    settings = {"do_sample": False, "pad_token_id": 0, "eos_token_id": None}
    model.generate(**batch, max_new_tokens=8, **settings)
    with pytest.raises(UsageError, match=r"32 positions.*28 tokens and 5 virtual tokens.*27 or less"):
        model.generate(**batch, max_new_tokens=9, **settings)


@pytest.mark.parametrize(
    ("tuner", "name"),
    [
        *((PrefixTuning(length=4), name) for name in toys.DECODERS),
        *((PromptTuning(length=4), name) for name in ("llama", "qwen3", "gpt2")),  # a window counts padding as tokens
    ],
    ids=lambda value: value if isinstance(value, str) else value.name,
)
def test_what_is_written_does_not_depend_on_padding(tuner: Tuner, name: str):
    import torch

    network = toys.loud(toys.network(name, "language"))
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


@pytest.mark.parametrize("tuner", [PromptTuning(length=4), PrefixTuning(length=4)], ids=lambda t: t.name)
@pytest.mark.parametrize("name", ["llama", "t5"])
def test_a_disabled_model_writes_what_the_base_writes(name: str, tuner: Tuner):
    import torch

    base = toys.network(name, "language")
    batch = {k: v for k, v in toys.batch(base, (5, 5)).items() if k != "decoder_input_ids"}
    settings = {"max_new_tokens": 4, "do_sample": False, "pad_token_id": 0}
    model = tuner.attach(toys.network(name, "language")).eval()
    with tuner.disabled(model):
        assert torch.equal(model.generate(**batch, **settings), base.generate(**batch, **settings))
    model.generate(**batch, **settings)


def test_labels_for_per_token_logits_with_extra_rows_are_refused():
    network = toys.network("bert", "token")
    model = PromptTuning(length=3).attach(network)
    batch = toys.batch(network)
    with pytest.raises(UsageError, match="3 positions in front"):
        model(**batch, labels=batch["input_ids"])


def test_vectors_that_do_not_reach_the_logits_are_an_error_whatever_the_class_is_called():
    network = toys.network("bert")
    model = PromptTuning(length=2).attach(network)
    forward = network.bert.forward
    network.bert.forward = lambda ids, inputs_embeds=None, **inputs: forward(
        inputs_embeds=inputs_embeds.detach(), attention_mask=inputs["attention_mask"]
    )
    with pytest.raises(ModelError, match=r"BertForSequenceClassification.*do not depend"):
        require_reach("prompt-tuning", model)


@pytest.mark.parametrize("tuner", [PromptTuning(length=2), PrefixTuning(length=2)], ids=lambda t: t.name)
def test_attaching_leaves_training_and_evaluation_modes_as_they_were(tuner: Tuner):
    network = toys.network("bert", dropout=0.5).train()
    network.bert.pooler.eval()
    model = tuner.attach(network)
    assert model.training
    assert network.bert.encoder.training
    assert not network.bert.pooler.training
