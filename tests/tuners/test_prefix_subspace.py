"""A simplex of prefixes as a user meets it: points, members, collapse, copies, options, precision."""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import pytest

from foretune.errors import UsageError
from foretune.testing import toys
from foretune.testing.contracts import attached, logits, train
from foretune.tuners import PrefixSubspace, PrefixTuning, get_peft_model
from foretune.tuners._peft import without_own_warnings

BERT = ("bert", "sequence")


def drawn(model, rows: int, seed: int = 1):
    import torch

    return model.mixture.law.draw(rows, torch.Generator().manual_seed(seed))


def batch_of(case: tuple[str, str] = BERT):
    return toys.batch(toys.network(*case))


def test_a_point_may_be_given_for_every_row_for_all_rows_or_for_all_layers():
    import torch

    model, batch = attached(PrefixSubspace(length=4), BERT), batch_of()
    one = torch.tensor([0.5, 0.2, 0.3])
    slots = model.mixture.law.slots
    outputs = []
    for alpha in (one, one.expand(slots, 3), one.expand(1, slots, 3), one.expand(3, slots, 3), one.expand(3, 1, 3)):
        with model.at(alpha):
            outputs.append(logits(model, batch))
    assert all(torch.allclose(output, outputs[0], atol=1e-6) for output in outputs)
    assert not torch.allclose(logits(model, batch), outputs[0], atol=1e-5)


@pytest.mark.parametrize(
    ("alpha", "words"),
    [
        ([0.5, 0.5], r"\(rows, 4, 3\).*got \(2,\)"),
        ([[0.5, 0.25, 0.25]] * 3, r"2 layers and 2 linear layers of the head, 3 vertices.*got \(3, 3\)"),
        ([[[[1.0, 0.0, 0.0]]]], r"got \(1, 1, 1, 3\)"),
        ([0.5, 0.5, 0.5], r"sum to 1.*from 1.5 to 1.5"),
        ([1.5, -0.5, 0.0], r"at least 0.*smallest weight of -0.5"),
        ([float("nan"), 1.0, 0.0], "sum to 1"),
        (None, "weights or the name of a point, but got None"),
        ("vertex:3", "`vertex:0` to `vertex:2`.*got `vertex:3`"),
        ("corner", "`midpoint`, `vertex:0`.*got `corner`"),
    ],
    ids=str,
)
def test_what_is_no_point_of_the_simplex_is_refused(alpha, words: str):
    model = attached(PrefixSubspace(length=4), BERT)
    for use in (model.at, model.collapse):
        with pytest.raises(UsageError, match=words):
            use(alpha)


def test_weights_for_another_number_of_rows_are_refused():
    model, batch = attached(PrefixSubspace(length=4), BERT), batch_of()
    with model.at(drawn(model, 2)), pytest.raises(UsageError, match=r"3 rows.*multiple of the 2 rows"):
        logits(model, batch)
    with pytest.raises(UsageError, match="one point, but got weights for 2 rows"):
        model.collapse(drawn(model, 2))
    logits(model, batch)


def test_sampled_gives_members_in_order_repeats_with_its_seed_and_repeats_labels():
    import torch

    model, batch = attached(PrefixSubspace(length=4), BERT), batch_of()
    batch["labels"] = torch.tensor([0, 1, 2])
    outputs = []
    for seed in (5, 5, 6):
        with model.sampled(4, seed):
            outputs.append(model(**batch))
    assert outputs[0].logits.shape == (12, 3)
    assert torch.equal(outputs[0].logits, outputs[1].logits)
    assert not torch.equal(outputs[0].logits, outputs[2].logits)
    expected = torch.nn.functional.cross_entropy(outputs[0].logits, torch.tensor([0, 1, 2] * 4))
    torch.testing.assert_close(outputs[0].loss, expected)
    with pytest.raises(UsageError, match="samples >= 1"), model.sampled(0):
        pass
    assert logits(model, batch).shape == (3, 3)


def test_members_keyed_by_example_do_not_depend_on_how_examples_come_in_batches():
    import torch

    tuner = PrefixSubspace(length=4)
    model, batch = attached(tuner, BERT), batch_of()
    ensemble = tuner.ensemble(model, size=3, samples=2)
    assert ensemble is not None
    with ensemble.at([0, 1], np.arange(3)):
        stacked = logits(model, {name: torch.cat([tensor] * 2) for name, tensor in batch.items()})
    for member in range(2):
        for row in range(3):
            with ensemble.at([member], np.array([row])):
                alone = logits(model, {name: tensor[row : row + 1] for name, tensor in batch.items()})
            torch.testing.assert_close(alone[0], stacked[3 * member + row], atol=1e-6, rtol=0)
    assert tuner.ensemble(attached(PrefixSubspace(length=4, n_vertices=1), BERT), 3, 2) is None


@pytest.mark.parametrize("case", [BERT, ("distilbert", "sequence"), ("gemma3", "sequence"), ("t5", "language")])
@pytest.mark.parametrize("where", ["midpoint", "vertex:2", "weights", "weights of every layer"])
def test_a_collapsed_model_is_that_point_and_an_ordinary_prefix(case, where, tmp_path: Path):
    import torch

    model, batch = attached(PrefixSubspace(length=4), case), batch_of(case)
    points = {"weights": drawn(model, 1)[0, 0], "weights of every layer": drawn(model, 1)[0]}
    point = points.get(where, where)
    with model.at(point):
        expected = logits(model, batch)
    collapsed = copy.deepcopy(model).collapse(point)
    torch.testing.assert_close(logits(collapsed, batch), expected, atol=1e-6, rtol=1e-6)
    assert not [name for name, _ in collapsed.named_parameters() if "simplex" in name]
    collapsed.save_pretrained(tmp_path)
    restored = PrefixTuning().restore(toys.network(*case), tmp_path)
    assert torch.equal(logits(restored, batch), logits(collapsed, batch))
    train(collapsed, batch, PrefixTuning())


@pytest.mark.parametrize("name", ["bert", "llama"])
def test_stock_peft_loads_a_collapsed_model_without_a_warning(name: str, tmp_path: Path):
    import torch
    from peft import PeftModel

    model, batch = attached(PrefixSubspace(length=4), (name, "sequence")), batch_of((name, "sequence"))
    model.collapse("vertex:1").save_pretrained(tmp_path)
    with without_own_warnings():
        stock = PeftModel.from_pretrained(toys.network(name), str(tmp_path)).eval()
    assert torch.equal(logits(stock, batch), logits(model, batch))


def test_a_copy_is_consistent_and_independent():
    import torch

    tuner = PrefixSubspace(length=4, n_vertices=3)
    for case in (BERT, ("deberta-v2", "sequence"), ("gpt2", "language")):
        model, batch = attached(tuner, case), batch_of(case)
        model.train()(**batch)
        other, before = copy.deepcopy(model), logits(model.eval(), batch)
        model.train().mixture.seed(0), other.train().mixture.seed(0)
        assert torch.equal(model(**batch).logits, other(**batch).logits)
        train(other, batch, tuner)
        assert torch.equal(logits(model.eval(), batch), before)
        assert not torch.equal(logits(other.eval(), batch), before)
        with other.at("vertex:0"), other.disable_adapter():
            assert torch.equal(logits(model, batch), before)


def test_a_projection_is_trained_and_dropped_when_it_is_saved(tmp_path: Path):
    import torch
    from peft import PeftModel

    tuner, batch = PrefixSubspace(length=4, prefix_projection=True), batch_of()
    model = attached(tuner, BERT)
    projection = {name for name, p in model.named_parameters() if p.requires_grad and "projection" in name}
    assert len(projection) == 4
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    train(model, batch, tuner)
    assert all(not torch.equal(p, before[name]) for name, p in model.named_parameters() if name in projection)
    expected, alpha = logits(model.eval(), batch), drawn(model, 3)
    with model.at(alpha):
        member = logits(model, batch)
    tuner.save(model, tmp_path)
    with without_own_warnings(), pytest.warns(UserWarning, match="Unexpected keyword arguments"):
        stock = PeftModel.from_pretrained(toys.network("bert"), str(tmp_path)).eval()
    assert torch.equal(logits(stock, batch), expected)
    restored = tuner.restore(toys.network("bert"), tmp_path)
    train(model, batch, tuner)
    model.eval().load_adapter(tmp_path, "default")
    for one in (restored, model):
        assert one.mixture.prefix.projection is None
        torch.testing.assert_close(logits(one, batch), expected, atol=1e-6, rtol=0)
        with one.at(alpha):
            torch.testing.assert_close(logits(one, batch), member, atol=1e-6, rtol=0)
        train(one, batch, tuner)


def test_a_pooler_of_the_checkpoint_is_trained_on_request_and_is_part_of_the_simplex():
    for wanted, layers in ((False, 1), (True, 2)):
        model = PrefixSubspace(length=4, train_pooler=wanted).attach(toys.network("bert"))
        assert model.mixture.law.heads == layers
        assert any("pooler" in name for name, p in model.named_parameters() if p.requires_grad) is wanted


def test_an_ordinary_head_is_left_as_it_is():
    model = PrefixSubspace(length=4, head_subspace=False).attach(toys.network("roberta"))
    assert model.mixture.law.heads == 0
    assert not [name for name, _ in model.named_parameters() if "simplex" in name]


@pytest.mark.parametrize("case", [BERT, ("llama", "sequence"), ("gemma3", "language"), ("t5", "sequence")])
def test_in_a_bf16_network_prefix_and_head_stay_in_fp32(case):
    import torch

    network = toys.network(*case).to(torch.bfloat16)
    model = PrefixSubspace(length=4).attach(network)
    assert {p.dtype for p in model.parameters() if p.requires_grad} == {torch.float32}
    train(model, toys.batch(network), PrefixSubspace())
    with model.eval().at(drawn(model, 3)):
        logits(model, toys.batch(network))


def test_under_autocast_vertices_are_mixed_in_fp32():
    import torch

    model, batch = attached(PrefixSubspace(length=4), BERT), batch_of()
    alpha = drawn(model, 3)
    exact = model.mixture.prefix.mixed(alpha[:, :2])
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(model.mixture.prefix.mixed(alpha[:, :2]), exact)
        with model.at(alpha):
            logits(model, batch)
        train(model, batch, PrefixSubspace())


def test_texts_of_one_observation_share_a_draw():
    import torch

    tuner = PrefixSubspace(length=4)
    model = attached(tuner, BERT).train()
    same = {name: tensor[:1].expand(5, -1) for name, tensor in batch_of().items()}
    tuner.before_pass(model, 0, np.array([2, 3]))
    out = model(**same).logits
    assert torch.allclose(out[0], out[1])
    assert torch.allclose(out[2], out[4])
    assert not torch.allclose(out[1], out[2])
    tuner.before_pass(model, 0, np.array([2, 3]))
    assert torch.equal(model(**same).logits, out)


def test_dropout_of_the_prefix_acts_in_training_alone():
    import torch

    model, batch = attached(PrefixSubspace(length=4, prefix_dropout=0.5), BERT), batch_of()
    assert torch.equal(logits(model, batch), logits(model, batch))
    with model.train().at("midpoint"):
        assert not torch.equal(model(**batch).logits, model(**batch).logits)


def test_vertices_have_a_decay_of_their_own():
    tuner = PrefixSubspace(weight_decay_vertices=0.3)
    model = tuner.attach(toys.network("bert"))
    found = {name: tuner.decay(name, 0.1) for name, p in model.named_parameters() if p.requires_grad}
    assert found.pop("prompt_encoder.default.vertices") == 0.3
    assert {rate for name, rate in found.items() if name.endswith("weight")} == {0.1}
    assert {rate for name, rate in found.items() if name.endswith("bias")} == {0.0}
    assert PrefixTuning().decay("prompt_encoder.default.vertices", 0.1) == 0.0


def test_who_judges_and_who_answers_follows_the_options():
    reader, writer = attached(PrefixSubspace(), BERT), attached(PrefixSubspace(), ("gpt2", "language"))
    assert (PrefixSubspace().dev_members(reader), PrefixSubspace().dev_members(writer)) == (10, 1)
    assert PrefixSubspace(dev_samples=4).dev_members(writer) == 4
    assert PrefixSubspace().answering_members(reader) == 1
    assert PrefixSubspace(predict="ensemble", predict_samples=7).answering_members(reader) == 7


def test_an_ensemble_of_one_prefix_is_refused():
    with pytest.raises(UsageError, match=r'predict="ensemble".*n_vertices=1.*predict="midpoint"'):
        PrefixSubspace(n_vertices=1, predict="ensemble")


def test_pefts_own_kind_of_configuration_makes_the_same_model():
    from foretune.tuners.prefix.config import PrefixSubspaceConfig

    model = get_peft_model(toys.network("bert"), PrefixSubspaceConfig(num_virtual_tokens=4, n_vertices=2), "mine")
    assert (model.active_adapter, model.vertices.shape) == ("mine", (2, 4, 64))
    with pytest.raises(UsageError, match=r"init_weights='zero'.*init_std"):
        PrefixSubspaceConfig(num_virtual_tokens=4, init_weights="zero")
    with pytest.raises(UsageError, match="list of texts"):
        PrefixSubspaceConfig(num_virtual_tokens=4, init="text", init_text="one text")
    with pytest.raises(UsageError, match="num_virtual_tokens >= 1"):
        PrefixSubspaceConfig(n_vertices=2)
