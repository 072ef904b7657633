"""What ``foretune.compare`` returns can be asked: tables, contrasts in either direction, a page."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import foretune
from foretune.errors import UsageError
from foretune.pipeline import Comparison
from foretune.records import Contrast, Measured
from foretune.records.verdict import CellResult, CellRun, Verdict
from foretune.report import comparison_page
from foretune.testing import toys


def cell(method: str, task: str, metric: str, value: float) -> CellResult:
    runs = tuple(CellRun(i, i, "ok", value) for i in range(3))
    score = Measured(value, value - 0.1, value + 0.1, n_seeds=3, n_items=50)
    return CellResult(method, task, 8, 16, metric, True, runs, score, floors={"majority": Measured(0.5)})


def contrast(task: str, measure: str = "score") -> Contrast:
    found = Measured(0.2, 0.05, 0.35, n_seeds=3)
    return Contrast("lora", "full", task, 8, found, 0.01, 0.02, 2, 0.1, measure=measure, ratios={"seconds": 0.5})


@pytest.fixture
def made() -> Comparison:
    tasks = {"films": "accuracy", "grammar": "mcc"}
    verdict = Verdict(
        *("d1", "tasks: []", "tiny", "2026-11-21", ("lora", "full", "head"), tuple(tasks), (8,)),
        cells=tuple(cell(m, t, metric, 0.7) for t, metric in tasks.items() for m in ("lora", "full", "head")),
        contrasts=(contrast("films"), contrast("grammar"), contrast("films", "ood:shops")),
    )
    return Comparison.of(verdict)


def test_a_table_shows_the_tasks_of_a_metric_with_their_floors(made: Comparison):
    table = made.table("accuracy")
    assert "films" in table
    assert "grammar" not in table
    assert "floor: majority" in table.lower() or "floor: " in table
    assert "grammar" in made.table()
    assert made.table(task="films") == table


def test_a_contrast_may_be_asked_in_either_direction(made: Comparison):
    (there,) = made.contrast("lora", "full", task="films")
    (back,) = made.contrast("full", "lora", task="films")
    assert (there.difference.value, there.kind) == (0.2, "better")
    assert (back.first, back.difference.low, back.difference.high, back.kind) == ("full", -0.35, -0.05, "worse")
    assert back.ratios["seconds"] == 2.0
    assert back.turned() == there
    assert len(made.contrast("lora", "full")) == 2
    assert len(made.contrast("lora", "full", measure="ood:shops")) == 1


@pytest.mark.parametrize(
    ("ask", "message"),
    [
        (lambda c: c.table("acuracy"), "Did you mean `accuracy`"),
        (lambda c: c.table("mcc", task="films"), "judged by accuracy, not by mcc"),
        (lambda c: c.table(task="film"), "Did you mean `films`"),
        (lambda c: c.contrast("lora", "ful"), "Did you mean `full`"),
        (lambda c: c.contrast("lora", "head"), "declared before the first run"),
        (lambda c: c.contrast("lora", "full", shots=16), "score on films with 8 shots"),
    ],
)
def test_what_is_not_there_is_answered_with_what_is(made: Comparison, ask, message: str):
    with pytest.raises(UsageError, match=message):
        ask(made)


def test_a_report_is_one_page_or_a_folder(made: Comparison, tmp_path: Path):
    (page,) = made.report(tmp_path / "report.html")
    assert page.read_text(encoding="utf-8") == comparison_page.render(made)
    assert len(list(tmp_path.iterdir())) == 1
    assert {path.name for path in made.report(tmp_path / "all")} >= {"comparison.html", "verdict.json", "tables.csv"}
    assert comparison_page.read(tmp_path / "all").to_json() == made.to_json()


def test_compare_returns_it(tmp_path: Path):
    """With nothing run: the verdict lists what is missing, and can be asked as any other."""
    lines = [json.dumps(row) for row in toys.rows("classification")]
    (tmp_path / "kind.jsonl").write_text("\n".join(lines), encoding="utf-8")
    protocol = foretune.Protocol(
        tasks=[str(tmp_path / "kind.jsonl")],
        methods=["lora", "full"],
        model=str(toys.checkpoint(tmp_path / "bert", "bert")),
        shots=[4],
        data_seeds=[0, 1],
    )
    found = foretune.compare(protocol, store=tmp_path / "store", run=False)
    assert isinstance(found, foretune.Comparison)
    assert {lost.method for lost in found.missing} == {"lora", "full"}
    assert "missing" in found.table()
