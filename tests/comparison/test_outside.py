"""Out of domain by label and by group: a mean of one half may be 100 % of one part and nothing of the other."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv as pc
import pyarrow.parquet as pq
import pytest

from foretune.comparison.cells import Cells
from foretune.comparison.evidence import gather
from foretune.comparison.harness import opened
from foretune.comparison.outside import outside, parts
from foretune.comparison.verdict import judge
from foretune.comparison.worker import work
from foretune.evaluation import crossed, wilson
from foretune.report import comparison_page, verdict_tables
from foretune.testing import toys

SHOPS = ("north", "south", "east")


@pytest.fixture(scope="module")
def shops(tmp_path_factory: pytest.TempPathFactory) -> Path:
    rows = [
        {**row, "text": f"two {row['text']} it", "shop": SHOPS[i % 3]}
        for i, row in enumerate(toys.rows("classification"))
    ]
    path = tmp_path_factory.mktemp("data") / "shops.csv"
    pc.write_csv(pa.Table.from_pylist(rows), path)
    return path


@pytest.fixture(scope="module")
def cells(protocol, kind: Path, shops: Path, tmp_path_factory: pytest.TempPathFactory) -> Cells:
    task = {"source": str(kind), "ood": {"shops": str(shops)}, "options": {"group": "shop"}}
    asked = protocol(tasks=[task], methods=[{"name": "lora", "lr": 2e-2}], steps=8, contrasts="none")
    made = opened(asked, store=tmp_path_factory.mktemp("store"))
    work(made)
    return made


def test_scores_are_told_by_label_and_by_group_with_the_crossed_interval(cells: Cells):
    (cell,) = judge(cells).cells
    (found,) = cell.outside
    assert [(part.kind, part.name) for part in found.parts] == [
        *(("label", name) for name in ("bad", "good")),
        *(("shop", name) for name in sorted(SHOPS)),
    ]
    evidence = gather(cells, "lora", "kind", 4)
    table = np.stack([run.answers["ood:shops"].correct for run in evidence.runs])
    groups = np.array(cells.plan.task("kind").ood["shops"]["group"].to_pylist())
    for part in found.parts[2:]:
        own = table[:, groups == part.name]
        assert part.score.value == pytest.approx(own.mean())
        assert part.score.n_items == own.shape[1]
        if np.isfinite(crossed(own).low):
            assert part.score.low == pytest.approx(max(0.0, crossed(own).low))


def test_rows_of_other_groups_leave_a_group_s_score_alone(cells: Cells, tmp_path: Path):
    evidence = gather(cells, "lora", "kind", 4)
    table = cells.plan.task("kind").ood["shops"]
    north = np.array(table["group"].to_pylist()) == "north"
    wrong = {"good": "bad", "bad": "good"}

    def answered(answers, right: bool):
        given = tuple(y if n and right else wrong[y] for y, n in zip(answers.label, north, strict=True))
        return replace(answers, prediction=given)

    runs = tuple(
        replace(r, answers={**r.answers, "ood:shops": answered(r.answers["ood:shops"], True)}) for r in evidence.runs
    )
    found = {p.name: p.score.value for p in parts(replace(evidence, runs=runs), "ood:shops", table) if p.kind == "shop"}
    assert found == {"north": 1.0, "south": 0.0, "east": 0.0}


def test_a_constant_classifier_is_named_and_has_all_of_one_label_and_nothing_of_the_other(cells: Cells):
    evidence, task = gather(cells, "lora", "kind", 4), cells.plan.task("kind")
    runs = tuple(
        replace(run, answers={s: replace(a, prediction=("good",) * len(a.row)) for s, a in run.answers.items()})
        for run in evidence.runs
    )
    found = outside(replace(evidence, runs=runs), "ood:shops", task)
    assert found.constant == "good"
    assert [part.score.value for part in found.parts if part.kind == "label"] == [0.0, 1.0]


def test_a_lone_run_has_wilson_s_interval_on_every_part(cells: Cells):
    evidence = gather(cells, "lora", "kind", 4)
    alone = replace(evidence, runs=evidence.runs[:1])
    for part in parts(alone, "ood:shops", cells.plan.task("kind").ood["shops"]):
        n = part.score.n_items
        assert (part.score.low, part.score.high) == wilson(round(part.score.value * n), n)


def test_rows_that_are_not_those_of_the_set_get_no_groups(cells: Cells):
    """Predictions that were written for other rows are never split by the groups of these."""
    evidence, table = gather(cells, "lora", "kind", 4), cells.plan.task("kind").ood["shops"]
    moved = table.set_column(0, "row", pa.array([row + 1 for row in table["row"].to_pylist()]))
    assert {part.kind for part in parts(evidence, "ood:shops", moved)} == {"label"}


def test_groups_reach_the_tables_and_the_page(cells: Cells):
    verdict = judge(cells)
    (made,) = verdict_tables.parts(verdict)
    assert [column.name for column in made.columns][-3:] == [f"shop: {name}" for name in sorted(SHOPS)]
    page = comparison_page.render(verdict)
    assert "shop: south" in page


def test_naming_groups_afterwards_runs_nothing_again(cells: Cells, protocol, kind: Path, shops: Path):
    plain = protocol(
        tasks=[{"source": str(kind), "ood": {"shops": str(shops)}}],
        methods=[{"name": "lora", "lr": 2e-2}],
        steps=8,
        contrasts="none",
    )
    assert opened(plain, store=cells.root).missing() == []
    assert pq.read_schema(next(cells.root.glob("cells/*/predictions.parquet"))).names.count("group") == 0
