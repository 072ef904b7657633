"""Adaptive fine-tuning: which weights train, and rates that fall towards the input, read from the optimizer itself."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from foretune.errors import UsageError
from foretune.models.network import quiet
from foretune.records import ModelRef, Part, RunConfig, Schedule
from foretune.tasks import Task
from foretune.testing import toys
from foretune.testing.contracts import logits
from foretune.training.loop import fit
from foretune.training.optimizer import make_optimizer
from foretune.training.prepare import prepare, trainable
from foretune.tuners import Adaptive
from foretune.tuners.adaptive import block_names

DEPTHS = {"bert": 2, "roberta": 2, "distilbert": 2, "modernbert": 2, "llama": 2, "gpt2": 2, "t5": 4, "opt": 3}


def network(name: str):
    if name != "opt":
        return toys.network(name)
    from transformers import OPTConfig, OPTForSequenceClassification

    sizes = {"hidden_size": 16, "ffn_dim": 24, "num_attention_heads": 2, "word_embed_proj_dim": 16}
    config = OPTConfig(vocab_size=40, num_hidden_layers=3, max_position_embeddings=32, pad_token_id=0, **sizes)
    return OPTForSequenceClassification(config).eval()


def rates(tuner: Adaptive, model: torch.nn.Module, lr: float = 1.0) -> dict[str, float]:
    """Parameter name -> peak rate, as the optimizer's own groups have it."""
    parameters = [p for p in model.parameters() if p.requires_grad]
    optimizer = tuner.optimizer_for(model, [{"params": parameters, "peak": lr, "lr": lr, "weight_decay": 0.0}])
    found = {id(p): (group["peak"], group["lr"]) for group in optimizer.param_groups for p in group["params"]}
    assert all(peak == lr for peak, lr in found.values())
    return {name: found[id(p)][0] for name, p in trainable(model).items()}


@pytest.mark.parametrize("name", DEPTHS)
def test_check_7_the_rate_of_block_l_is_lr_times_xi_to_the_distance_from_the_last(name: str):
    depth, xi, lr = DEPTHS[name], 0.5, 0.01
    model = network(name)
    tuner = Adaptive(blocks=depth, rate_decay=xi)
    found = rates(tuner, tuner.attach(model, toys.fresh(model)), lr)
    stack = block_names(model)
    assert len(stack) == depth
    for level, block in enumerate(stack):
        inside = {rate for n, rate in found.items() if n.startswith(f"{block}.")}
        assert inside == {lr * xi ** (depth - 1 - level)}
    outside = {rate for n, rate in found.items() if not any(n.startswith(f"{block}.") for block in stack)}
    assert outside == {lr}


@pytest.mark.parametrize("name", DEPTHS)
def test_check_7_embeddings_and_early_blocks_are_frozen(name: str):
    model = network(name)
    tuner = Adaptive(blocks=1)
    names = set(trainable(tuner.attach(model, toys.fresh(model))))
    last = block_names(model)[-1]
    assert any(n.startswith(f"{last}.") for n in names)
    assert [n for n in names if "embed" in n.lower() or ".wte." in n or ".wpe." in n or "shared" in n] == []
    assert [n for block in block_names(model)[:-1] for n in names if n.startswith(f"{block}.")] == []


@pytest.mark.parametrize(
    ("name", "norm"),
    [
        ("opt", "model.decoder.final_layer_norm"), ("gpt2", "transformer.ln_f"), ("llama", "model.norm"),
        ("t5", "transformer.decoder.final_layer_norm"), ("modernbert", "model.final_norm"),
    ],
)  # fmt: skip
def test_check_7_the_norm_behind_the_last_block_trains_and_no_other_one_does(name: str, norm: str):
    model = network(name)
    names = set(trainable(Adaptive(blocks=1).attach(model, toys.fresh(model))))
    known = (block_names(model)[-1], *toys.fresh(model))
    norms = {n.rpartition(".")[0] for n in names if "norm" in n.lower() or "ln_" in n}
    assert {n for n in norms if not n.startswith(tuple(f"{part}." for part in known))} == {norm}


def test_check_7_the_groups_on_opt_125m_sum_to_14_178_816():
    from transformers import OPTConfig, OPTForSequenceClassification

    with torch.device("meta"), quiet():
        model = OPTForSequenceClassification(OPTConfig(num_labels=2))
    assert sum(p.numel() for p in model.parameters()) == 125_239_296 + 1_536
    tuner = Adaptive(blocks=2)
    chosen = tuner.chosen(model, ("score",))
    sizes = {name: p.numel() for name, p in model.named_parameters()}
    assert sum(sizes[name] for name in chosen) + sizes["score.weight"] == 14_178_816


def run(tmp_path: Path, **options: object) -> RunConfig:
    folder = tmp_path / "bert"
    if not folder.exists():
        toys.checkpoint(folder, "bert")
    ref = Task.from_records(toys.rows("classification")).ref
    schedule = Schedule(steps=6, lr=1e-2, batch_size=8, evaluations=1)
    return RunConfig(ModelRef(str(folder)), ref, Part("adaptive", dict(options)), Part("head"), schedule)


def test_check_7_the_loop_steps_at_these_rates_and_the_frozen_weights_keep_their_bits(tmp_path: Path):
    made = prepare(run(tmp_path, blocks=1, rate_decay=0.5), Task.from_records(toys.rows("classification")))
    bare = made.engine.bare
    before = {n: p.detach().clone() for n, p in bare.named_parameters()}
    fit(made)
    after = dict(bare.named_parameters())
    moved = {n for n in before if not torch.equal(before[n], after[n])}
    assert moved <= set(trainable(bare))
    assert any("encoder.layer.1." in n for n in moved)


def test_check_7_another_decay_gives_another_result(tmp_path: Path):
    losses = []
    for decay in (1.0, 0.1):
        made = prepare(run(tmp_path, blocks=2, rate_decay=decay), Task.from_records(toys.rows("classification")))
        peaks = {group["peak"] for group in make_optimizer(made).param_groups}
        assert {1e-2, 1e-2 * decay} <= peaks
        losses.append(fit(made).curve.of("train", "loss")[1])
    assert losses[0][0] == losses[1][0]
    assert losses[0][-1] != losses[1][-1]


def test_a_language_models_output_tied_to_its_embeddings_stays_frozen():
    model = toys.network("gpt2", "language")
    names = set(trainable(Adaptive(blocks=2).attach(model)))
    assert names
    assert not any("wte" in n or "lm_head" in n for n in names)


def test_what_was_saved_says_how_many_blocks_train_when_it_is_restored(tmp_path: Path):
    model = toys.network("bert")
    made = Adaptive(blocks=1).attach(model, toys.fresh(model))
    Adaptive(blocks=1).save(made, tmp_path)
    other = Adaptive(blocks=2).restore(toys.network("bert"), tmp_path)
    assert set(trainable(other)) == set(trainable(made))
    assert torch.equal(logits(other, toys.batch(model)), logits(made, toys.batch(model)))


@pytest.mark.parametrize("wrong", [{"blocks": 0}, {"rate_decay": 0.0}, {"rate_decay": 1.5}])
def test_options_that_cannot_be_are_refused_with_their_values(wrong: dict[str, float]):
    ((name, value),) = wrong.items()
    with pytest.raises(UsageError, match=rf"{name}={value:g}"):
        Adaptive(**wrong)
