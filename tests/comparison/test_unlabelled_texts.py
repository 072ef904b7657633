"""Texts without labels in a comparison: a stage before the task, a student's pool, and what is held apart."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from foretune.comparison import Protocol
from foretune.comparison.accounting import learning_seconds
from foretune.comparison.cells import Cells
from foretune.comparison.evidence import gather
from foretune.comparison.harness import opened
from foretune.comparison.verdict import judge
from foretune.comparison.worker import work
from foretune.errors import DataError, UsageError
from foretune.evaluation import over_seeds
from foretune.records.verdict import Verdict
from foretune.report import comparison_page, table_files, verdict_tables
from foretune.testing import toys

OPTIONS = {"pattern": "{text} {answer}", "words": {"good": "good", "bad": "bad"}}


def written(path: Path, lines: list[str]) -> Path:
    path.write_text("\n".join(lines), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A decoder and three files of texts; those to learn from repeat all rows of the task."""
    made = tmp_path_factory.mktemp("texts")
    toys.checkpoint(made / "llama", "llama", max_position_embeddings=256)
    mine = [row["text"] for row in toys.rows("classification")]
    written(made / "stage.txt", [*mine, *(f"three {a} film was {b}" for a in toys.WORDS[:5] for b in toys.WORDS[:5])])
    written(made / "pool.txt", [*mine, *(f"two {word} it of food" for word in toys.WORDS)])
    written(made / "held.txt", [f"one {a} and {b} of it" for a in toys.WORDS[:5] for b in toys.WORDS[5:10]])
    return made


@pytest.fixture(scope="module")
def asked(protocol, folder: Path) -> Protocol:
    pretrain = {"source": str(folder / "stage.txt"), "steps": 3}
    pool = {**OPTIONS, "demonstrations": 2, "sets": 1, "texts": str(folder / "pool.txt")}
    return protocol(
        model=str(folder / "llama"),
        methods=[
            {"name": "pattern", "objective_options": OPTIONS},
            {"name": "after-texts", "tuner": "full", "objective": "pattern", "objective_options": OPTIONS,
             "pretrain": pretrain},
            {"name": "distillation", "objective_options": pool},
            {"name": "zero-shot", "objective_options": OPTIONS},
            "lora",
        ],
        forgetting={"source": str(folder / "held.txt"), "rows": 10},
        contrasts=[["pattern", "after-texts"]],
    )  # fmt: skip


@pytest.fixture(scope="module")
def cells(asked: Protocol, tmp_path_factory: pytest.TempPathFactory) -> Cells:
    store, elsewhere = tmp_path_factory.mktemp("store"), tmp_path_factory.mktemp("remembered")
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("FORETUNE_STORE", str(elsewhere))
        made = opened(asked, store=store)
        work(made)
    assert not list(elsewhere.iterdir())  # stages and teachers' answers belong to the comparison
    assert {"pretrained", "teachers"} <= {path.name for path in store.iterdir()}
    return made


@pytest.fixture(scope="module")
def verdict(cells: Cells) -> Verdict:
    return judge(cells)


def test_every_run_ends_well_and_costs_no_label_beyond_its_own(verdict: Verdict):
    assert {run.status for cell in verdict.cells for run in cell.runs} == {"ok"}
    assert {cell.labels for cell in verdict.cells} == {0, 8}


def test_a_stage_is_made_once_from_texts_that_judge_nothing_and_counts_in_every_run(cells: Cells, verdict: Verdict):
    records = [run.record for run in gather(cells, "after-texts", "kind", 4).runs]
    assert len({record.stage.digest for record in records}) == 1
    assert [record.stage.reused for record in records].count(False) == 1
    assert records[0].stage.left_out == records[0].evaluations["test"].n
    spent, plain = (verdict.cell(name, "kind", 4).spent for name in ("after-texts", "pattern"))
    assert spent.seconds["pretraining"] == pytest.approx(records[0].stage.cost.seconds)
    assert spent.tokens == pytest.approx(plain.tokens + records[0].stage.cost.tokens)
    assert spent.learning_seconds == pytest.approx(np.mean([learning_seconds(record) for record in records]))
    assert "pretraining" not in plain.seconds
    (ratio,) = [c.ratios["seconds"] for c in verdict.contrasts]
    assert ratio == pytest.approx(plain.learning_seconds / spent.learning_seconds)


def test_a_student_learns_from_the_pool_without_its_rows_that_judge(cells: Cells, verdict: Verdict):
    (record, *_) = (run.record for run in gather(cells, "distillation", "kind", 4).runs)
    assert record.config.objective.options["fingerprint"]
    assert record.teaching.left_out > 0
    assert record.teaching.texts == len(toys.WORDS) + 48 - record.teaching.left_out
    spent = verdict.cell("distillation", "kind", 4).spent
    assert spent.seconds["teacher"] > 0
    assert spent.tokens > record.cost.tokens


def test_forgetting_is_the_mean_rise_with_its_interval_of_what_keeps_its_own_head(cells: Cells, verdict: Verdict):
    found = {cell.method: cell.forgetting for cell in verdict.cells}
    assert {name for name, rise in found.items() if rise is None} == {"zero-shot", "lora"}
    rises = np.array([run.record.forgetting.rise for run in gather(cells, "pattern", "kind", 4).runs])
    expected = over_seeds(rises)
    assert found["pattern"].value == pytest.approx(rises.mean())
    assert (found["pattern"].low, found["pattern"].high) == pytest.approx((expected.low, expected.high))


def test_forgetting_and_what_it_was_measured_on_reach_tables_page_and_csv(verdict: Verdict):
    table = verdict_tables.details(verdict, "kind")
    at = [column.name for column in table.columns].index("Forgetting, nats per token")
    assert {bool(row[at].strip("–")) for row in table.rows} == {True, False}
    page = comparison_page.render(verdict)
    assert "nats per token" in page
    assert "forgetting is the rise of the loss on 10 texts" in page
    times = [column.name for column in verdict_tables.times(verdict, "kind").columns]
    assert {"Stage before", "Teacher"} <= set(times)
    assert "forgetting" in {line.split(",")[0] for line in table_files.as_csv(verdict).splitlines()}


def test_a_file_that_changes_is_another_run(asked: Protocol, cells: Cells, folder: Path, tmp_path: Path):
    more = written(tmp_path / "more.txt", [*(folder / "held.txt").read_text().splitlines(), "one two three of it"])
    again = replace(asked, forgetting=replace(asked.forgetting, source=str(more)))
    missing = {job.cell.method for job in opened(again, store=cells.root).missing()}
    assert missing == {"pattern", "after-texts", "distillation"}
    moved = written(tmp_path / "moved.txt", (folder / "held.txt").read_text().splitlines())
    again = replace(asked, forgetting=replace(asked.forgetting, source=str(moved)))
    assert opened(again, store=cells.root).missing() == []


def test_what_is_not_asked_for_leaves_protocols_and_their_digests_as_they_were(protocol):
    plain = protocol().to_json()
    assert "forgetting" not in plain
    assert all("pretrain" not in method for method in plain["methods"])


def test_yaml_says_it_and_reads_it_back(asked: Protocol):
    again = Protocol.from_yaml(asked.to_yaml())
    assert again == asked
    assert again.method("after-texts").pretrain.steps == 3


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"forgetting": {"source": "held.txt", "rows": 0}}, "must be at least 1, but got 0"),
        ({"forgetting": {"rows": 5}}, "source"),
        ({"methods": [{"name": "lora", "pretrain": {"source": "a.txt", "lr": -1}}]}, "must be above 0, but got -1"),
        ({"methods": [{"name": "lora", "pretrain": {"source": "a.txt", "step": 1}}]}, "step"),
    ],
)
def test_what_makes_no_sense_is_refused(protocol, change, message):
    with pytest.raises(UsageError, match=message):
        protocol(contrasts="none", **change)


@pytest.mark.parametrize("learner", ["stage", "pool"])
def test_held_texts_that_a_method_learns_from_are_refused(protocol, folder: Path, learner: str):
    source = str(folder / "stage.txt")
    options = {"pretrain": {"source": source}} if learner == "stage" else {"objective_options": {"texts": source}}
    with pytest.raises(UsageError, match=f"`distillation` learns from `{source}` too"):
        protocol(methods=[{"name": "distillation", **options}], forgetting={"source": source}, contrasts="none")


def test_a_file_that_is_not_there_is_refused_before_anything_runs(asked: Protocol, tmp_path: Path):
    gone = replace(asked, forgetting=replace(asked.forgetting, source=str(tmp_path / "gone.txt")))
    with pytest.raises(DataError, match=r"gone\.txt"):
        opened(gone, store=tmp_path)
