"""Ragged: sequences of any lengths come back as they went in."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from foretune.objectives.base import Encoded, Ragged, pad

SEQUENCES = st.lists(st.lists(st.integers(0, 2**31 - 1), max_size=6), max_size=12)


@given(SEQUENCES)
def test_what_goes_in_comes_out(sequences: list[list[int]]) -> None:
    ragged = Ragged.of(sequences)
    assert [ragged[i].tolist() for i in range(len(ragged))] == sequences
    assert ragged.lengths.tolist() == [len(s) for s in sequences]
    assert ragged.values.dtype == np.int32


@given(st.lists(SEQUENCES, max_size=4))
def test_joining_parts_is_packing_the_whole(parts: list[list[list[int]]]) -> None:
    joined = Ragged.join([Ragged.of(part) for part in parts])
    whole = Ragged.of([sequence for part in parts for sequence in part])
    np.testing.assert_array_equal(joined.values, whole.values)
    np.testing.assert_array_equal(joined.offsets, whole.offsets)


@given(SEQUENCES.filter(bool), st.booleans())
def test_padding_keeps_every_sequence_at_its_side(sequences: list[list[int]], left: bool) -> None:
    padded = pad([np.array(s, np.int64) for s in sequences], -1, left=left)
    width = max(len(s) for s in sequences)
    assert padded.shape == (len(sequences), width)
    for row, sequence in zip(padded.tolist(), sequences, strict=True):
        filling = [-1] * (width - len(sequence))
        assert row == (filling + sequence if left else sequence + filling)


@given(st.lists(st.lists(st.integers(1, 9), min_size=1, max_size=4), min_size=1, max_size=8))
def test_an_example_is_as_long_as_its_longest_candidate_and_as_large_as_all(counts: list[list[int]]) -> None:
    tokens = Ragged.of([[0] * n for row in counts for n in row])
    encoded = Encoded(tokens, np.cumsum([0, *map(len, counts)]), limit=9)
    assert encoded.lengths.tolist() == [max(row) for row in counts]
    assert encoded.sizes.tolist() == [sum(row) for row in counts]


@pytest.mark.parametrize("joined", [True, False])
def test_a_response_counts_towards_length_where_it_shares_the_sequence(joined: bool) -> None:
    encoded = Encoded(
        Ragged.of([[0] * 5, [0] * 2]), np.arange(3), limit=8, responses=Ragged.of([[0] * 4, [0] * 3]), joined=joined
    )
    assert encoded.lengths.tolist() == ([8, 5] if joined else [5, 3])
    assert encoded.sizes.tolist() == ([8, 5] if joined else [9, 5])
