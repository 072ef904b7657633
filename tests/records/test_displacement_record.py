"""Displacement: its sums, and its way through JSON as part of a record."""

from __future__ import annotations

import json
import math
from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from foretune.records import Displacement, ModelRef, Part, RunConfig, RunRecord, Schedule, Share, Spread, TaskRef

BASE = RunConfig(ModelRef("m"), TaskRef("train.csv", "classification"), Part("any"), Part("head"), Schedule(10))
COUNT = st.integers(0, 10**12)
SPREADS = st.none() | st.builds(Spread, COUNT, COUNT, COUNT)


@st.composite
def displacements(draw: st.DrawFn) -> Displacement:
    rows, columns, bins = draw(st.integers(1, 4)), draw(st.integers(1, 3)), draw(st.integers(0, 5))

    def grid(numbers: st.SearchStrategy) -> tuple:
        return tuple(tuple(draw(numbers) for _ in range(columns)) for _ in range(rows))

    return Displacement(
        layers=tuple(f"layer.{i}" for i in range(rows)),
        kinds=tuple(f"kind {j}" for j in range(columns)),
        weights=grid(COUNT),
        chosen=grid(COUNT),
        moved=grid(st.floats(0, 1e6)),
        tensors=draw(COUNT),
        silos=draw(COUNT),
        first_bin=draw(st.integers(-200, 200)),
        counts=tuple(draw(COUNT) for _ in range(bins)),
        lost=tuple(draw(COUNT) for _ in range(bins)),
        at_base=draw(COUNT),
        rows=draw(SPREADS),
        columns=draw(SPREADS),
    )


@given(displacements())
def test_a_displacement_is_read_as_it_was_written(found: Displacement) -> None:
    record = RunRecord(BASE, "ok", displacement=found)
    text = json.dumps(record.to_json(), allow_nan=False)
    assert RunRecord.from_json(json.loads(text)) == record


@given(displacements())
def test_layers_and_kinds_add_up_to_the_same_whole(found: Displacement) -> None:
    for shares in (found.by_layer, found.by_kind):
        assert sum(share.weights for share in shares) == found.total.weights
        assert sum(share.chosen for share in shares) == found.total.chosen
        assert math.isclose(sum(share.moved for share in shares), found.total.moved, rel_tol=1e-9)
    assert [share.name for share in found.by_layer] == list(found.layers)
    assert [share.name for share in found.by_kind] == list(found.kinds)


def test_a_movement_that_is_no_number_stays_none() -> None:
    grid = {"weights": ((4,),), "chosen": ((2,),), "tensors": 1, "silos": 1, "first_bin": 0}
    found = Displacement(("h.0",), ("q",), moved=((math.nan,),), counts=(2,), lost=(0,), **grid)
    plain = json.loads(json.dumps(RunRecord(BASE, "ok", displacement=found).to_json(), allow_nan=False))
    again = RunRecord.from_json(plain).displacement
    assert again is not None
    assert math.isnan(again.moved[0][0])
    assert replace(again, moved=found.moved) == found


def test_a_record_from_before_displacements_is_read_and_written_as_it_was() -> None:
    plain = RunRecord(BASE, "ok").to_json()
    assert "displacement" not in plain
    again = RunRecord.from_json(plain)
    assert again.displacement is None
    assert again.to_json() == plain


def test_a_large_model_takes_a_few_kilobytes() -> None:
    layers, kinds = tuple(f"model.layers.{i}" for i in range(80)), tuple(f"self_attn.{c}_proj" for c in "abcdefg")
    grid = tuple(tuple(1_000_000 + i for _ in kinds) for i in range(80))
    moved = tuple(tuple(0.123456 for _ in kinds) for _ in range(80))
    counts = (100_000,) * 30
    found = Displacement(layers, kinds, grid, grid, moved, 560, 560, -40, counts, counts)
    assert len(json.dumps(RunRecord(BASE, "ok", displacement=found).to_json()["displacement"])) < 20_000


def test_what_is_empty_has_neither_density_nor_mean() -> None:
    empty = Share("q", 0, 0, 0.0)
    assert math.isnan(empty.density)
    assert math.isnan(empty.mean)
