"""The experiment in `experiments/comparison`: what is frozen there are protocols that foretune runs, and fair ones."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from experiments.comparison.run import Design, rate_name, recorded
from experiments.comparison.tasks import LABELLED, ORDER, POOLS
from foretune.comparison import Protocol, read_protocol

FOLDER = Path(__file__).parents[2] / "experiments" / "comparison"


@pytest.fixture
def design(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Design:
    for name in (*LABELLED, *POOLS, ORDER):
        (tmp_path / name).touch()
    monkeypatch.chdir(tmp_path)
    return Design.read()


@pytest.fixture
def parts(design: Design) -> dict[str, Protocol]:
    rates = {rate_name(p.model.name, m.name): m.lr[0] for p in design.tuning() for m in p.methods}
    return {name: design.part(name, rates) for name in design.parts}


def test_no_rate_is_chosen_on_a_task_or_a_draw_that_is_compared(design: Design, parts: dict[str, Protocol]):
    compared = {task.source for part in parts.values() for task in part.tasks}
    draws = {seed for part in parts.values() for seed in part.data_seeds}
    for tuning in design.tuning():
        assert not compared & {task.source for task in tuning.tasks}
        assert not draws & set(tuning.data_seeds)
        assert {len(tuning.trials(method)) for method in tuning.methods} == {tuning.tuning_trials}


def test_every_part_has_five_draws_declared_contrasts_and_a_margin(parts: dict[str, Protocol]):
    for part in parts.values():
        assert len(part.data_seeds) >= 5
        assert part.pairs
        assert part.margin


def test_fewer_draws_are_the_same_runs_and_one_draw_claims_nothing(design: Design, parts: dict[str, Protocol]):
    rates = {rate_name(part.model.name, m.name): m.lr[0] for part in parts.values() for m in part.methods if m.lr}
    for name, whole in parts.items():
        few, one = design.part(name, rates, 3), design.part(name, rates, 1)
        assert few.seeds == whole.seeds[: len(few.seeds)]
        assert few.methods == whole.methods == one.methods
        assert not one.pairs


def test_rates_that_were_measured_elsewhere_are_taken_whole_or_not_at_all(design: Design, tmp_path: Path):
    path = tmp_path / "rates.jsonl"
    rows = [
        {"method": rate_name(p.model.name, m.name), "rate": lr, "dev_nll": [n, n + 0.5], "chosen": n == 0}
        for p in list(design.tuning())[::2]
        for m in p.methods
        for n, lr in enumerate(m.lr)
    ]

    def written(kept, protocol=design.digest):
        path.write_text("".join(json.dumps({**row, "protocol": protocol}) + "\n" for row in kept))
        return recorded(design, path)

    assert recorded(design, path) == {}
    found = written(rows)
    assert set(found) == {row["method"] for row in rows}
    assert found["demo: full"] == [{3e-5: 0, 1e-4: 1, 3e-4: 2}, {3e-5: 0.5, 1e-4: 1.5, 3e-4: 2.5}]
    assert written(rows, "another") == {}
    assert written([row for row in rows if row["method"] != "demo: full"]) == {}
    assert written([{**row, "chosen": False} for row in rows]) == {}


@pytest.mark.parametrize("name", sorted(path.name for path in FOLDER.glob("published_*.yaml")))
def test_what_is_listed_to_be_run_elsewhere_is_a_protocol_with_ten_draws(name: str):
    assert len(read_protocol(FOLDER / name).data_seeds) == 10
