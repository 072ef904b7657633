"""The record of a comparison: what may be claimed follows from its figures, and it survives its JSON."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from foretune.records import CellResult, CellRun, Contrast, Measured, MissingCell, Spent, Verdict
from foretune.records.plain import built

NUMBERS = st.floats(allow_nan=True, allow_infinity=False, width=32)
MAYBE = st.none() | st.integers(1, 50)
TEXTS = st.text(max_size=12)
MEASURED = st.builds(Measured, NUMBERS, NUMBERS, NUMBERS, TEXTS, n_seeds=MAYBE, n_items=MAYBE)
RUNS = st.lists(st.builds(CellRun, st.integers(), st.integers(), TEXTS, st.none() | NUMBERS), max_size=3).map(tuple)
SPENT = st.builds(Spent, st.none() | NUMBERS, seconds=st.dictionaries(TEXTS, NUMBERS, max_size=2))
CELLS = st.builds(
    CellResult,
    *(TEXTS, TEXTS, st.integers(), st.integers(), TEXTS, st.booleans(), RUNS),
    score=st.none() | MEASURED,
    floors=st.dictionaries(TEXTS, MEASURED, max_size=2),
    spent=SPENT,
    flags=st.lists(TEXTS, max_size=2).map(tuple),
)
CONTRASTS = st.builds(
    Contrast, *(TEXTS, TEXTS, TEXTS, st.none() | st.integers(), MEASURED, NUMBERS, NUMBERS, st.integers(1), NUMBERS)
)


def contrast(**changes) -> Contrast:
    found = Measured(0.03, 0.01, 0.05, "crossed", n_seeds=5, n_items=500)
    base = Contrast("lora", "full", "cola", 16, found, 0.001, 0.004, 6, 0.02, margin=0.01, equivalence_p=0.9)
    return replace(base, **changes)


@given(st.lists(CELLS, max_size=2), st.lists(CONTRASTS, max_size=2), st.lists(TEXTS, max_size=2))
def test_a_verdict_comes_back_from_its_json(cells, contrasts, flags):
    verdict = Verdict(
        *("d", "yaml", "model", "now", ("lora",), ("cola",), (16,), tuple(cells), tuple(contrasts)),
        flags=tuple(flags),
        missing=(MissingCell("lora", "cola", 16, ((0, 1), (2, 3))),),
    )
    text = json.dumps(verdict.to_json(), allow_nan=False)
    again = Verdict.from_json(json.loads(text))
    assert json.dumps(again.to_json(), allow_nan=False) == text
    assert again.missing == verdict.missing


@pytest.mark.parametrize(
    ("changes", "kind"),
    [
        ({}, "better"),
        ({"difference": Measured(-0.03, -0.05, -0.01, n_seeds=5)}, "worse"),
        ({"difference": Measured(0.03, -0.001, 0.06, n_seeds=5)}, "undecided"),
        ({"difference": Measured(0.03, 0.0, 0.06, n_seeds=5)}, "undecided"),
        ({"adjusted_p": 0.06}, "undecided"),
        ({"adjusted_p": math.nan}, "undecided"),
        ({"difference": Measured(0.03)}, "undecided"),
        ({"difference": Measured(0.001, -0.004, 0.006), "adjusted_p": 0.7, "equivalence_p": 0.01}, "equivalent"),
        ({"difference": Measured(0.001, -0.004, 0.006), "equivalence_p": 0.01, "margin": None}, "undecided"),
        ({"refused": "the runs are copies"}, "refused"),
        ({"difference": Measured(0.03, 0.01, 0.05, n_seeds=1)}, "refused"),
    ],
)
def test_what_may_be_claimed_follows_from_the_figures(changes, kind):
    assert contrast(**changes).kind == kind


def test_a_claim_cannot_be_written_into_the_file():
    verdict = Verdict("d", "y", "m", "t", ("lora",), ("cola",), (16,), (), (contrast(),))
    plain = verdict.to_json()
    plain["contrasts"][0]["kind"] = "better"
    with pytest.raises(ValueError, match="unknown field `kind`"):
        Verdict.from_json(plain)


@pytest.mark.parametrize(
    ("plain", "says"),
    [
        ({}, "misses `cells`, `created`, `digest`"),
        ([], r"\[\] is no Verdict"),
        (None, "None is no Verdict"),
        ({"format": 2}, "its format is 2, this foretune reads 1"),
    ],
)
def test_what_is_no_verdict_is_refused(plain, says):
    with pytest.raises((TypeError, ValueError), match=says):
        Verdict.from_json(plain)


@pytest.mark.parametrize(
    ("kind", "plain"),
    [(int, 1.5), (int, True), (float, "1"), (str, 1), (tuple[int, ...], [1, "2"]), (tuple[int, int], [1]), (bool, 1)],
)
def test_a_value_of_another_type_is_refused(kind, plain):
    with pytest.raises((TypeError, ValueError)):
        built(kind, plain)


def test_a_cell_is_found_by_its_name():
    cell = CellResult("lora", "cola", 16, 32, "accuracy", True, (CellRun(0, 0, "ok", 0.5), CellRun(1, 0, "oom")))
    verdict = Verdict("d", "y", "m", "t", ("lora",), ("cola",), (16,), (cell,))
    assert verdict.cell("lora", "cola", 16) is cell
    assert verdict.cell("lora", "cola", 32) is None
    assert [run.status for run in cell.failed] == ["oom"]
