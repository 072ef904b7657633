"""Acceptance checks 10 to 16 of prefix subspaces: saving, padding, positions, checkpointing, writing, regulariser."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest

from foretune.errors import UsageError
from foretune.testing import toys
from foretune.testing.contracts import attached, logits
from foretune.tuners import PrefixSubspace, PrefixTuning, Tuner

EVERY = (
    *((name, "sequence") for name in toys.ARCHITECTURES),
    *((name, "token") for name in ("bert", "t5")),
    *((name, "language") for name in ("llama", "gemma3", "t5")),
)
PER_TOKEN = (
    *((name, "token") for name in (*toys.ENCODERS, "t5")),
    *((name, "language") for name in toys.DECODERS),
)
served = pytest.mark.parametrize("served", EVERY, ids="-".join)


def close(found, expected) -> None:
    """Equal within 1e-6, absolute up to 1 and relative above: T5's toy has such logits."""
    import torch

    torch.testing.assert_close(found, expected, atol=1e-6, rtol=1e-6)


def gradients(model, batch, passes: int = 1):
    """Of a loss over ``passes`` passes, all computed before the one backward pass; by name."""
    import torch

    model.mixture.seed(3)
    parts = []
    for _ in range(passes):
        rows = model(**batch).logits.flatten(0, -2)
        parts.append(torch.nn.functional.cross_entropy(rows, torch.zeros(len(rows), dtype=torch.long)))
    model.zero_grad()
    sum(parts).backward()
    return {name: parameter.grad for name, parameter in model.named_parameters() if parameter.requires_grad}


@served
def test_check_07_10_what_is_loaded_has_the_vertices_the_head_and_samples(served, tmp_path: Path):
    import torch

    from foretune.tuners.prefix.model import PrefixModel

    model, batch = attached(PrefixSubspace(length=4), served), toys.batch(toys.network(*served))
    model.save_pretrained(tmp_path)
    loaded = PrefixModel.from_pretrained(toys.network(*served, seed=0), tmp_path)
    trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
    found = {name: p for name, p in loaded.named_parameters() if p.requires_grad}
    assert found.keys() == trained.keys()
    assert all(torch.equal(found[name], trained[name]) for name in trained)
    outputs = []
    for one in (model, loaded):
        with one.sampled(4, seed=3):
            outputs.append(logits(one, batch))
        one.train().mixture.seed(5)
        outputs.append(one(**batch).logits)
    assert torch.equal(outputs[0], outputs[2])
    assert torch.equal(outputs[1], outputs[3])
    assert not torch.equal(loaded(**batch).logits, outputs[3])


@pytest.mark.parametrize("case", PER_TOKEN, ids="-".join)
def test_check_07_11_padding_on_either_side_changes_nothing(case):
    import torch
    from torch.nn.functional import pad

    model = attached(PrefixSubspace(length=4), case)
    batch = toys.batch(toys.network(*case), (6, 6, 6))
    alpha = model.mixture.law.draw(3, torch.Generator().manual_seed(1))
    ids, ones = batch["input_ids"], batch["attention_mask"]
    own = case[0] in ("roberta", "deberta-v2", "t5")  # these tell a text's positions from its mask, or need none
    positions = {} if own else {"position_ids": torch.arange(6).expand(3, -1)}
    with model.at(alpha):
        expected = logits(model, batch)
        close(logits(model, {"input_ids": ids}), expected)
        for sides, rows in (((0, 3), slice(0, 6)), ((3, 0), slice(3, 9))):
            padded = {"input_ids": pad(ids, sides), "attention_mask": pad(ones, sides)}
            padded |= {name: pad(tensor, sides) for name, tensor in positions.items()}
            close(logits(model, padded)[:, rows], expected)


@pytest.mark.parametrize(("name", "usable"), [("bert", 32), ("gpt2", 32), ("roberta", 31), ("distilbert", 32)])
@pytest.mark.parametrize("tuner", [PrefixTuning(length=5), PrefixSubspace(length=5)], ids=lambda t: t.name)
def test_check_07_12_a_text_too_long_by_one_is_refused_with_both_numbers(tuner: Tuner, name: str, usable: int):
    network = toys.network(name, "token")
    model = tuner.attach(network).eval()
    logits(model, toys.batch(network, (usable - 5,)))
    words = rf"{usable} positions, but got {usable - 4} tokens and 5 virtual tokens of `{tuner.name}`.*{usable - 5} or"
    with pytest.raises(UsageError, match=words):
        logits(model, toys.batch(network, (usable - 4,)))


@served
@pytest.mark.parametrize("passes", [1, 2])
def test_check_07_13_checkpointing_gives_the_same_gradients(served, passes: int):
    import torch

    network = toys.network(*served)
    batch, tuner = toys.batch(network), PrefixSubspace(length=4)
    expected = gradients(attached(tuner, served).train(), batch, passes)
    later = attached(tuner, served).train()
    later.get_base_model().activation_checkpointing_enable()
    network.activation_checkpointing_enable()
    torch.manual_seed(7)
    before = tuner.attach(network, toys.fresh(network)).train()
    for model in (later, before):
        found = gradients(model, batch, passes)
        assert all(
            vars(m)["_gradient_checkpointing_func"] for m in model.modules() if "gradient_checkpointing" in vars(m)
        )
        for name, value in expected.items():
            assert found[name] is not None, name
            torch.testing.assert_close(found[name], value, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("keywords", [{"use_reentrant": True}, {"preserve_rng_state": True}], ids=str)
def test_check_07_13_reentrant_checkpointing_is_refused(keywords):
    network = toys.network("bert")
    model = PrefixSubspace(length=4).attach(network).train()
    network.activation_checkpointing_enable(keywords)
    with pytest.raises(UsageError, match=r"reentrant.*activation_checkpointing_enable\(.*False"):
        model(**toys.batch(network))
    model.eval()(**toys.batch(network))


@served
def test_check_07_14_without_the_adapter_the_base_answers_bit_for_bit(served):
    import torch

    model, base = attached(PrefixSubspace(length=4), served), toys.network(*served)
    batch = toys.batch(base)
    before = logits(model, batch)
    for training in (False, True):
        model.train(training)
        with model.disable_adapter():
            assert torch.equal(logits(model, batch), logits(base, batch))
    assert torch.equal(logits(model.eval(), batch), before)


GREEDY = {"max_new_tokens": 6, "do_sample": False, "pad_token_id": 0, "eos_token_id": None}


def writer(name: str):
    """A language model whose output depends on everything, and weights for three texts."""
    import torch

    network = toys.loud(toys.network(name, "language"), 1.0 if name == "t5" else 8.0)
    torch.manual_seed(7)
    model = PrefixSubspace(length=4, init_std=3.0).attach(network).eval()
    return model, model.mixture.law.draw(3, torch.Generator().manual_seed(1))


def texts():
    """Three texts of 5, 3 and 4 tokens, padded on the left."""
    import torch

    ids = torch.tensor([[5, 9, 3, 30, 8], [0, 0, 7, 31, 12], [0, 4, 21, 17, 9]])
    return {"input_ids": ids, "attention_mask": (ids != 0).long()}


@pytest.mark.parametrize("name", toys.DECODERS)
def test_check_07_15_greedy_writing_is_the_teacher_forced_argmax_under_fixed_weights(name: str):
    import torch

    model, alpha = writer(name)
    batch = texts()
    with model.at(alpha):
        written = model.generate(**batch, **GREEDY)
    for row, length in enumerate((5, 3, 4)):
        whole = written[row : row + 1, 5 - length :]
        with model.at(alpha[row : row + 1]):
            best = logits(model, {"input_ids": whole, "attention_mask": torch.ones_like(whole)}).argmax(-1)
        assert torch.equal(best[0, length - 1 : -1], whole[0, length:])
    assert not torch.equal(model.generate(**batch, **GREEDY), written)


def test_check_07_15_an_encoder_decoder_writes_what_its_decoder_would_have_chosen():
    import torch

    model, alpha = writer("t5")
    batch = toys.batch(toys.network("t5"))
    with model.at(alpha):
        written = model.generate(**batch, **GREEDY)
        best = logits(model, {**batch, "decoder_input_ids": written}).argmax(-1)
    assert torch.equal(best[:, :-1], written[:, 1:])
    assert not torch.equal(model.generate(**batch, **GREEDY), written)


@pytest.mark.parametrize("name", [*toys.DECODERS, "t5"])
def test_check_07_15_beams_share_the_weights_of_their_prompt(name: str):
    import torch

    model, alpha = writer(name)
    batch, settings = texts(), GREEDY | {"num_beams": 2, "num_return_sequences": 2}
    with model.at(alpha):
        together = model.generate(**batch, **settings)
    for row in range(3):
        with model.at(alpha[row : row + 1]):
            alone = model.generate(**{key: value[row : row + 1] for key, value in batch.items()}, **settings)
        assert torch.equal(together[2 * row : 2 * row + 2], alone)


def test_check_07_15_a_text_is_written_at_the_midpoint_unless_told_otherwise_even_in_training_mode():
    import torch

    model, _ = writer("llama")
    with model.at("midpoint"):
        expected = model.generate(**texts(), **GREEDY)
    assert torch.equal(model.generate(**texts(), **GREEDY), expected)
    assert torch.equal(model.train().generate(**texts(), **GREEDY), expected)
    with model.eval().sampled(2, seed=0):
        members = model.generate(**texts(), **GREEDY)
    assert members.shape == (6, 11)
    assert not torch.equal(members[:3], members[3:])


def test_check_07_16_the_regulariser_is_the_mean_squared_cosine():
    import torch

    from foretune.tuners.prefix.simplex import diversity

    def of(*rows):
        return float(diversity(torch.tensor(rows, dtype=torch.float32)))

    assert of([1, 2, 2], [2, 0, 1]) == pytest.approx((4 / (3 * 5**0.5)) ** 2, abs=1e-7)
    assert of([1, 0, 0], [0, 3, 0]) == 0.0
    assert of([1, 2, 3], [-2, -4, -6]) == pytest.approx(1.0, abs=1e-6)
    assert of([1, 0, 0], [1, 0, 0], [0, 1, 0]) == pytest.approx(1 / 3, abs=1e-6)


def test_check_07_16_without_beta_the_loss_has_no_further_node_and_with_it_the_term():
    import torch

    batch = toys.batch(toys.network("bert"))
    batch["labels"] = torch.tensor([0, 1, 2])
    plain, driven = (attached(PrefixSubspace(length=4, beta=beta), ("bert", "sequence")) for beta in (0.0, 2.0))
    assert plain.penalty is None
    assert PrefixSubspace().penalty(plain) is None
    losses = []
    for model in (plain, driven):
        model.train().mixture.seed(0)
        losses.append(model(**batch).loss)
    assert losses[0].grad_fn.name() == "NllLossBackward0"
    torch.testing.assert_close(losses[1] - losses[0], driven.penalty)
    driven.mixture.seed(0)
    assert torch.equal(driven(**batch, return_dict=False)[0], losses[1])
    assert torch.equal(driven.eval()(**batch).loss, copy.deepcopy(plain).eval()(**batch).loss)
