"""Gradients that are looked at and freed in the backward pass: how much of them lives, and what cannot be done so."""

from __future__ import annotations

import pytest
import torch

from foretune.errors import DivergedError, UsageError
from foretune.testing import toys
from foretune.tuners.dynamic_subset import DynamicSubset
from foretune.tuners.subset.model import dst_optimizer, subset_of


def attached(**options: object) -> torch.nn.Module:
    network = toys.network("bert")
    return DynamicSubset(density=0.05, **options).attach(network, toys.fresh(network))


def optimizer_of(model: torch.nn.Module, **options: object) -> torch.optim.Optimizer:
    kind, settings = dst_optimizer(model, lr=0.01, **options)
    return kind([{"params": [p for p in model.parameters() if p.requires_grad]}], **settings)


def backward(model: torch.nn.Module) -> None:
    model(**toys.batch(model)).logits.square().sum().backward()


def test_check_10_never_more_than_the_largest_gradient_lives():
    model = attached()
    parts = [part.parameter for part in subset_of(model).parts]
    alive: list[int] = []
    for parameter in parts:
        parameter.register_post_accumulate_grad_hook(
            lambda _: alive.append(sum(p.grad.nbytes for p in parts if p.grad is not None))
        )
    optimizer = optimizer_of(model, free=True)
    backward(model)
    assert len(alive) == len(parts)
    assert max(alive) == max(p.nbytes for p in parts) < sum(p.nbytes for p in parts)
    assert all(p.grad is None for p in parts)
    before = [p.detach().clone() for p in parts]
    optimizer.step()
    assert not all(torch.equal(p, old) for p, old in zip(parts, before, strict=True))


def test_check_10_no_tensor_of_a_weights_shape_is_kept_for_the_backward_pass_beside_the_weights():
    model = attached()
    optimizer = optimizer_of(model, free=True)
    weights = {parameter.data_ptr() for parameter in model.parameters()}
    shapes = {tuple(part.parameter.shape) for part in subset_of(model).parts}
    copies: list[torch.Tensor] = []

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        if {tuple(tensor.shape), tuple(tensor.t().shape) if tensor.dim() == 2 else ()} & shapes:
            copies.extend([tensor] if tensor.data_ptr() not in weights else [])
        return tensor

    for _ in range(2):
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            loss = model(**toys.batch(model)).logits.square().sum()
        loss.backward()
        optimizer.step()
    assert not copies


def test_check_18_a_second_pass_before_the_step_is_refused():
    model = attached()
    optimizer = optimizer_of(model, free=True)
    backward(model)
    with pytest.raises(UsageError, match=r"cannot be accumulated.*`free=False`"):
        backward(model)
    optimizer.step()


def test_check_18_silos_of_several_tensors_are_refused():
    with pytest.raises(UsageError, match=r"every silo is one tensor.*Use `silo=tensor`"):
        optimizer_of(attached(silo="layer"), free=True)


@pytest.mark.parametrize("rule", ["adamw", "sgd"])
def test_check_18_freeing_is_refused_where_it_would_lose_the_clipping_in_silence(rule: str):
    """A norm is taken of what gradients there are: of a subset's, freed, there are none, and nothing would be said."""
    model = attached(optimizer=rule)
    with pytest.raises(UsageError, match=rf"gone before `clip_grad_norm_`.*`{rule}` does not limit.*`unclipped=True`"):
        optimizer_of(model, free=True)
    optimizer = optimizer_of(model, free=True, unclipped=True)
    backward(model)
    parts = [part.parameter for part in subset_of(model).parts]
    assert float(torch.nn.utils.clip_grad_norm_(parts, 1e-9)) == 0.0
    before = [p.detach().clone() for p in parts]
    optimizer.step()
    assert not all(torch.equal(p, old) for p, old in zip(parts, before, strict=True))


def test_a_spoiled_gradient_is_an_error_in_the_backward_pass_and_moves_nothing():
    model = attached()
    optimizer = optimizer_of(model, free=True)
    before = [part.weight.clone() for part in subset_of(model).parts]
    with pytest.raises(DivergedError, match="finite"):
        (model(**toys.batch(model)).logits.square().sum() * float("nan")).backward()
    assert all(torch.equal(part.weight, old) for part, old in zip(subset_of(model).parts, before, strict=True))
    del optimizer


def test_the_hooks_go_with_the_optimizer():
    model = attached()
    optimizer = optimizer_of(model, free=True)
    del optimizer
    backward(model)
    assert all(part.parameter.grad is not None for part in subset_of(model).parts)
