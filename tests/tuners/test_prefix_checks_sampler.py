"""Acceptance checks 17 to 20 of prefix subspaces: how points of the simplex are drawn."""

from __future__ import annotations

import pytest

from foretune.testing import toys
from foretune.testing.contracts import attached
from foretune.tuners import PrefixSubspace, PrefixTuning, get_peft_model

N = 6


def seeded(seed: int):
    import torch

    return torch.Generator().manual_seed(seed)


def test_check_07_17_shapes_are_rows_slots_vertices_and_rows_sum_to_one():
    from foretune.tuners.prefix.mixture import Law
    from foretune.tuners.prefix.simplex import uniform

    law = Law(n=N, layers=12, heads=1)
    alpha = law.draw(50, seeded(0))
    assert alpha[:, : law.prefix_slots].shape == (50, 12, N)
    assert alpha[:, law.prefix_slots].shape == (50, N)
    for points in (alpha, uniform((10_000,), N, seeded(1))):
        assert float((points.double().sum(-1) - 1).abs().max()) <= 1.2e-7
        assert float(points.min()) >= 0


def test_check_07_18_draws_are_uniform_on_the_simplex():
    import torch
    from scipy.stats import kstest

    from foretune.tuners.prefix.simplex import uniform

    draws = uniform((200_000,), N, seeded(0)).double()
    assert float((draws.mean(0) - 1 / N).abs().max()) < 1e-3
    found = torch.cov(draws.T)
    variance, covariance = (N - 1) / (N**2 * (N + 1)), -1 / (N**2 * (N + 1))
    diagonal = found.diagonal()
    others = found[~torch.eye(N, dtype=torch.bool)]
    assert float((diagonal / variance - 1).abs().max()) < 0.02
    assert abs(float(others.mean()) / covariance - 1) < 0.02
    assert float((draws.square().sum(-1).mean() / (2 / (N + 1)) - 1).abs()) < 0.02
    statistic = kstest(draws[:, 0].numpy(), lambda x: 1 - (1 - x) ** (N - 1)).statistic
    assert len(draws) ** 0.5 * statistic < 1.36


@pytest.mark.parametrize("wrong", ["softmax of normals", "normalised uniforms"])
def test_check_07_18_would_find_a_sampler_that_only_looks_right(wrong: str):
    import torch
    from scipy.stats import kstest

    if wrong == "softmax of normals":
        draws = torch.randn(200_000, N, generator=seeded(0)).softmax(-1)
    else:
        draws = torch.rand(200_000, N, generator=seeded(0))
        draws = draws / draws.sum(-1, keepdim=True)
    statistic = kstest(draws[:, 0].double().numpy(), lambda x: 1 - (1 - x) ** (N - 1)).statistic
    assert len(draws) ** 0.5 * statistic > 5


def test_check_07_19_draws_of_texts_and_layers_do_not_depend_on_one_another():
    import torch

    from foretune.tuners.prefix.mixture import Law

    rows = 4000
    first = Law(n=N, layers=4, heads=2, kv_shared=False).draw(rows, seeded(0))[..., 0]
    layers = torch.corrcoef(first.T) - torch.eye(first.shape[1])
    texts = torch.corrcoef(torch.stack([first[:-1, 0], first[1:, 0]]))[0, 1]
    assert float(layers.abs().max()) < 3 / rows**0.5
    assert abs(float(texts)) < 3 / rows**0.5


def test_the_law_says_who_shares_a_draw():
    import torch

    from foretune.tuners.prefix.mixture import Law

    def all_equal(points):
        return torch.equal(points, points[:1].expand_as(points))

    batch = Law(n=3, layers=4, heads=2, observation=False).draw(5, seeded(0))
    assert all_equal(batch)
    assert not all_equal(batch[0])
    layers = Law(n=3, layers=4, heads=2, layerwise=False).draw(5, seeded(0))
    assert all_equal(layers[0, :4])
    assert not all_equal(layers[0, 3:])
    both = Law(n=3, layers=4, layerwise=False, kv_shared=False).draw(5, seeded(0))
    assert both.shape == (5, 8, 3)
    assert all_equal(both[0, ::2])
    assert all_equal(both[0, 1::2])
    assert not all_equal(both[0, :2])


def after_a_pass(model, batch):
    """torch's global generator after a training pass from seed 0."""
    import torch

    torch.manual_seed(0)
    model.train()(**batch)
    return torch.get_rng_state()


@pytest.mark.parametrize("name", ["bert", "gpt2", "llama"])
def test_check_07_20_the_global_generator_is_left_where_plain_prefix_tuning_leaves_it(name: str):
    import torch
    from peft import PrefixTuningConfig

    def network():
        return toys.network(name, dropout=0.3)

    batch = toys.batch(network())
    stock = get_peft_model(network(), PrefixTuningConfig(task_type="SEQ_CLS", num_virtual_tokens=4))
    expected = after_a_pass(stock, batch)
    for tuner in (PrefixTuning(length=4), PrefixSubspace(length=4), PrefixSubspace(length=4, per="batch")):
        assert torch.equal(after_a_pass(tuner.attach(network()), batch), expected)


def test_check_07_20_the_same_seed_gives_the_same_weights():
    import torch

    batch = toys.batch(toys.network("bert"))
    model = attached(PrefixSubspace(length=4), ("bert", "sequence")).train()
    outputs = []
    for seed in (3, 3, 4):
        model.mixture.seed(seed)
        outputs.append(model(**batch).logits)
    assert torch.equal(outputs[0], outputs[1])
    assert not torch.equal(outputs[0], outputs[2])
    assert not torch.equal(outputs[0], model(**batch).logits)
