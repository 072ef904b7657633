"""The order of the examples: every epoch holds each once, and a step's examples follow from the seed and the step."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from foretune.training.batches import Order, by_length, micro_batches, share

LENGTHS = st.lists(st.integers(1, 200), min_size=1, max_size=150).map(np.array)
SIZES, SEEDS = st.integers(1, 40), st.integers(0, 2**63 - 1)


@given(LENGTHS, SIZES, SEEDS, st.integers(0, 3))
def test_every_epoch_holds_each_example_once(lengths: np.ndarray, size: int, seed: int, epoch: int) -> None:
    order = Order(lengths, size, seed)
    steps = [order.step(epoch * order.per_epoch + i) for i in range(order.per_epoch)]
    assert sorted(np.concatenate(steps).tolist()) == list(range(len(lengths)))
    assert sorted(map(len, steps))[1:] == [min(size, len(lengths))] * (order.per_epoch - 1)


@given(LENGTHS, SIZES, SEEDS, st.lists(st.integers(0, 200), min_size=1, max_size=8))
def test_a_step_does_not_depend_on_which_were_asked_before(
    lengths: np.ndarray, size: int, seed: int, asked: list[int]
) -> None:
    order = Order(lengths, size, seed)
    found = {step: order.step(step).tolist() for step in asked}
    for step, rows in found.items():
        assert Order(lengths, size, seed).step(step).tolist() == rows


def test_another_seed_and_another_epoch_give_another_order() -> None:
    lengths = np.arange(100) % 7
    steps = {seed: [Order(lengths, 10, seed).step(i).tolist() for i in range(20)] for seed in (0, 1)}
    assert steps[0] != steps[1]
    assert steps[0][:10] != steps[0][10:]


def test_similar_lengths_run_together() -> None:
    lengths = np.random.Generator(np.random.PCG64(0)).integers(1, 100, 1000)
    order = Order(lengths, 16, 0)
    batches = [lengths[order.step(i)] for i in range(order.per_epoch)]
    padded = sum(int(b.max()) * len(b) for b in batches)
    shuffled = np.random.Generator(np.random.PCG64(1)).permutation(lengths)
    plain = sum(int(shuffled[i : i + 16].max()) * len(shuffled[i : i + 16]) for i in range(0, 1000, 16))
    assert padded < 0.7 * plain


@given(LENGTHS, st.integers(1, 64), st.integers(1, 4000))
def test_evaluation_batches_hold_each_row_once_within_their_bounds(lengths: np.ndarray, rows: int, tokens: int) -> None:
    batches = list(by_length(lengths, rows, tokens))
    assert sorted(np.concatenate(batches).tolist()) == list(range(len(lengths)))
    for batch in batches:
        assert len(batch) <= rows
        assert len(batch) == 1 or len(batch) * int(lengths[batch].max()) <= tokens


@given(st.integers(0, 50), st.integers(1, 8))
def test_the_shares_of_all_processes_are_the_batch(n: int, world: int) -> None:
    shares = [share(np.arange(n), rank, world) for rank in range(world)]
    assert np.concatenate(shares).tolist() == list(range(n))
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


@given(st.integers(0, 50), st.one_of(st.none(), st.integers(1, 60)))
def test_micro_batches_are_the_batch_in_pieces(n: int, size: int | None) -> None:
    pieces = micro_batches(np.arange(n), size)
    assert np.concatenate(pieces).tolist() == list(range(n))
    assert all(len(piece) <= (size or n) for piece in pieces)
