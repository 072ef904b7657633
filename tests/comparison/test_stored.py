"""Flags on stored runs: what a comparison says of its cells is said of the same runs when nobody compares them."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from foretune.comparison.cells import Cells
from foretune.comparison.stored import NOT_SEEN, checked
from foretune.comparison.verdict import judge
from foretune.records import RunRecord
from foretune.store import JournalStore


@pytest.fixture
def records(done: Cells) -> list[RunRecord]:
    latest = {record.digest: record for record in done.store}
    return sorted(latest.values(), key=lambda record: record.started)


@pytest.fixture
def store(done: Cells, tmp_path: Path) -> Path:
    """A copy that may be spoilt."""
    return Path(shutil.copytree(done.root, tmp_path / "store"))


def groups_of(records, store, **changes):
    return {group.records[0].config.tuner.name: group for group in checked(records, store, **changes)}


def test_check_11_stored_runs_raise_the_flags_of_the_cells_that_they_are(records, done):
    cells = {cell.method: cell for cell in judge(done).cells}
    found = groups_of(records, done.root)
    assert set(found) == set(cells)
    for name, group in found.items():
        assert len(group.records) == group.answered == 3
        seen = [flag for flag in cells[name].flags if not flag.startswith(NOT_SEEN)]
        assert list(group.flags) == seen


def test_check_11_answers_that_repeat_are_found_in_the_store(records, store):
    runs = [record for record in records if record.config.tuner.name == "lora"]
    for record in runs[1:]:
        shutil.copy(store / "cells" / runs[0].digest / "predictions.parquet", store / "cells" / record.digest)
    flags = groups_of(records, store)["lora"].flags
    assert "replicated_runs: 3 runs hold 1 different sets of answers" in flags[0]


@pytest.mark.parametrize(
    ("spoilt", "flag"),
    [({"sample": "one"}, "same_sample"), ({"initial_hash": "one"}, "same_init"), ({"status": "diverged"}, "nan_loss")],
)
def test_check_11_what_a_record_says_is_found_without_answers(records, tmp_path, spoilt, flag):
    group = groups_of([replace(record, **spoilt) for record in records], tmp_path)["full"]
    assert group.answered == 0
    assert [each.partition(":")[0] for each in group.flags] == [flag]


def test_labels_beyond_the_declared_ones_are_found(records, tmp_path):
    greedy = [replace(r, card=replace(r.card, rows={**r.card.rows, "dev": 400})) for r in records]
    assert any("label_budget_exceeded" in flag for flag in groups_of(greedy, tmp_path)["lora"].flags)


def test_methods_that_were_tuned_unequally_are_told(records, tmp_path):
    def at(record, lr):
        return replace(record, config=replace(record.config, schedule=replace(record.config.schedule, lr=lr)))

    more = [at(record, lr) for record in records if record.config.tuner.name == "lora" for lr in (1e-4, 2e-4)]
    found = checked([*records, *more], tmp_path)
    assert len(found) == 4
    told = {flag for group in found for flag in group.flags if "unequal" in flag}
    assert told == {
        "unequal_tuning: 3 trials, other methods have 1",
        "unequal_tuning: 1 trials, other methods have 3",
    }


def test_a_run_folder_elsewhere_has_the_answers(records, done, tmp_path):
    given = {record.digest: done.folder(record.digest) for record in records}
    assert all(group.answered == 3 for group in checked(records, tmp_path, given))


def test_floors_are_no_method(done):
    named = {record.config.tuner.name for record in JournalStore(done.root)}
    assert "floors" in named
    assert "floors" not in groups_of(JournalStore(done.root), done.root)
