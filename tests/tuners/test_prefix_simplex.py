"""Properties of points and mixtures that hold for all sizes and values."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

sizes = st.integers(1, 6)
seeds = st.integers(0, 2**16)
quick = settings(max_examples=30, deadline=None)


def seeded(seed: int):
    import torch

    return torch.Generator().manual_seed(seed)


def normal(*shape: int, seed: int):
    import torch

    return torch.randn(*shape, generator=seeded(seed))


@quick
@given(rows=sizes, slots=sizes, n=sizes, seed=seeds)
def test_points_lie_on_the_simplex_and_repeat_with_their_seed(rows: int, slots: int, n: int, seed: int):
    import torch

    from foretune.tuners.prefix.simplex import uniform

    points = uniform((rows, slots), n, seeded(seed))
    assert points.shape == (rows, slots, n)
    assert bool((points >= 0).all())
    assert float((points.double().sum(-1) - 1).abs().max()) <= 1.2e-7
    assert torch.equal(points, uniform((rows, slots), n, seeded(seed)))


@quick
@given(rows=sizes, n=sizes, width=sizes, seed=seeds)
def test_a_mixture_is_convex_blind_to_order_and_exact_at_corners(rows: int, n: int, width: int, seed: int):
    import torch

    from foretune.tuners.prefix.simplex import mix, uniform

    alpha, vertices = uniform((rows,), n, seeded(seed)), normal(n, width, seed=seed)
    mixed = mix(alpha, vertices)
    assert bool((mixed <= vertices.max(0).values + 1e-6).all())
    assert bool((mixed >= vertices.min(0).values - 1e-6).all())
    order = torch.randperm(n, generator=seeded(seed))
    torch.testing.assert_close(mix(alpha[:, order], vertices[order]), mixed, atol=1e-6, rtol=1e-6)
    assert torch.equal(mix(torch.eye(n), vertices), vertices)
    for row in range(rows):
        torch.testing.assert_close(mix(alpha[row : row + 1], vertices)[0], mixed[row], atol=1e-6, rtol=1e-6)


@quick
@given(rows=sizes, n=sizes, layers=sizes, heads=st.integers(0, 3), seed=seeds, flags=st.tuples(*[st.booleans()] * 3))
def test_every_law_draws_points_of_its_own_shape(rows: int, n: int, layers: int, heads: int, seed: int, flags):
    import torch

    from foretune.tuners.prefix.mixture import Law

    law = Law(n, layers, heads, *flags)
    alpha = law.draw(rows, seeded(seed))
    assert alpha.shape == (rows, law.slots, n)
    assert float((alpha.double().sum(-1) - 1).abs().max()) <= 1.2e-7
    if n > 1:
        assert torch.equal(law.point(alpha), alpha)
    assert law.point([1 / n] * n) is None


@quick
@given(n=st.integers(2, 6), length=sizes, layers=sizes, heads=sizes, width=sizes, seed=seeds, shared=st.booleans())
def test_a_mixed_prefix_is_the_mixture_of_plain_prefixes_layer_by_layer(
    n: int, length: int, layers: int, heads: int, width: int, seed: int, shared: bool
):
    import torch

    from foretune.tuners.prefix.mixture import Law
    from foretune.tuners.prefix.simplex import Prefix

    prefix = Prefix(normal(n, length, layers * 2 * heads * width, seed=seed), (layers, heads, width))
    alpha = Law(n, layers, kv_shared=shared).draw(3, seeded(seed))
    found = prefix.mixed(alpha)
    plain = prefix.vertices.view(n, length, layers, 2, heads, width)
    for layer in range(layers):
        for kind in range(2):
            weights = alpha[:, layer if shared else 2 * layer + kind]
            expected = torch.einsum("bi,iphw->bhpw", weights, plain[:, :, layer, kind])
            torch.testing.assert_close(found[layer, kind], expected, atol=1e-5, rtol=1e-5)
    one_hot = torch.eye(n)[:, None].expand(n, alpha.shape[1], n)
    assert torch.equal(prefix.mixed(one_hot), prefix.by_layer(prefix.vertices))
    assert torch.equal(prefix.midpoint, prefix.vertices.mean(0))


@quick
@given(n=st.integers(2, 6), inputs=sizes, outputs=sizes, rows=sizes, seed=seeds, bias=st.booleans())
def test_a_mixed_linear_layer_is_the_layer_with_mixed_weights(
    n: int, inputs: int, outputs: int, rows: int, seed: int, bias: bool
):
    import torch
    from torch import nn

    from foretune.tuners.prefix.mixture import Law, Mixture
    from foretune.tuners.prefix.simplex import Prefix, SimplexLinear

    torch.manual_seed(seed)
    layers = [nn.Linear(inputs, outputs, bias) for _ in range(n)]
    mixture = Mixture(Prefix(normal(n, 1, 4, seed=seed), (1, 1, 2)), Law(n, 1, 1), 0.0, 0)
    head = SimplexLinear(layers, mixture, 0)
    x = normal(rows, 2, inputs, seed=seed)
    alpha = mixture.law.draw(rows, seeded(seed))
    with mixture.at(alpha):
        found = head(x)
    for row in range(rows):
        expected = head.at(alpha[row, 1])(x[row])
        torch.testing.assert_close(found[row], expected, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(head(x), head.at(None)(x), atol=1e-6, rtol=0)
    for i in range(n):
        with mixture.at(torch.eye(n)[i].expand(1, 2, n)):
            assert torch.equal(head(x), layers[i](x))


@pytest.mark.parametrize("rows", [1, 2, 4])
def test_rows_that_beams_made_share_the_point_of_their_text(rows: int):
    import torch

    from foretune.tuners.prefix.mixture import Law, Mixture
    from foretune.tuners.prefix.simplex import Prefix

    prefix = Prefix(normal(3, 2, 4, seed=0), (1, 1, 2))
    mixture = Mixture(prefix, Law(3, 1), 0.0, 0)
    alpha = mixture.law.draw(rows, seeded(0))
    with mixture.at(alpha):
        keys, values = mixture.keys_values(0, 4, torch.zeros(()))
    expected = prefix.mixed(alpha.repeat_interleave(4 // rows, 0))
    assert torch.equal(torch.stack([keys, values]), expected[0])
