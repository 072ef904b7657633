"""From records to a verdict: the figures are those of ``evaluation``, and nothing is claimed beyond them."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import foretune
from foretune.comparison.answers import read_answers
from foretune.comparison.cells import Cells
from foretune.comparison.evidence import gather, grouped
from foretune.comparison.gaps import gap
from foretune.comparison.harness import opened
from foretune.comparison.tuning import chosen, chosen_rate, merit
from foretune.comparison.verdict import judge
from foretune.comparison.worker import work
from foretune.errors import UsageError
from foretune.evaluation import claims, crossed, mcnemar, over_seeds, paired_t, sign_flip
from foretune.records import Evaluation
from foretune.records.verdict import Verdict
from foretune.report import verdict_tables
from foretune.report.verdict_warnings import warned


@pytest.fixture(scope="module")
def verdict(done: Cells) -> Verdict:
    return judge(done)


def matrix(done: Cells, method: str, split: str = "test") -> np.ndarray:
    task = done.plan.task("kind")
    rows = []
    for cell in done.plan.cells(method, "kind", 4):
        record, _ = done.outcome(cell)
        assert record is not None
        rows.append(read_answers(done.folder(record.digest) / "predictions.parquet", task.schema)[split].correct)
    return np.stack(rows)


def test_it_goes_through_json_unchanged(verdict: Verdict):
    plain = json.loads(json.dumps(verdict.to_json(), allow_nan=False))
    assert Verdict.from_json(plain).to_json() == verdict.to_json()


def test_a_score_has_the_crossed_interval_and_the_one_over_seeds(verdict: Verdict, done: Cells):
    for method in ("lora", "full"):
        cell, table = verdict.cell(method, "kind", 4), matrix(done, method)
        both, over = crossed(table), over_seeds(table.mean(axis=1))
        assert cell.score.value == pytest.approx(both.value) == pytest.approx(table.mean())
        assert (cell.score.n_seeds, cell.score.n_items) == table.shape
        if np.isfinite(both.low):
            assert cell.score.low == pytest.approx(max(0.0, both.low))
        if np.isfinite(over.low):
            assert cell.over_seeds.high == pytest.approx(min(1.0, over.high))


def test_the_contrast_is_the_paired_crossed_difference_adjusted_in_its_family(verdict: Verdict, done: Cells):
    (found,) = [c for c in verdict.contrasts if c.measure == "score"]
    expected = claims({"d": crossed(matrix(done, "lora"), matrix(done, "full"))}, margin=0.01)["d"]
    assert found.difference.value == pytest.approx(expected.difference.value)
    assert found.adjusted_p == pytest.approx(expected.p)
    assert found.kind == expected.kind
    assert found.contrasts == 1
    assert set(found.ratios) == {"seconds", "peak_bytes", "trainable_parameters"}


def test_other_tests_stand_beside_a_contrast_and_claim_nothing(verdict: Verdict, done: Cells):
    (found,) = [c for c in verdict.contrasts if c.measure == "score"]
    first, second = matrix(done, "lora"), matrix(done, "full")
    means = first.mean(axis=1), second.mean(axis=1)
    assert found.others.sign_flip_p == sign_flip(*means).p
    assert found.others.over_seeds.value == pytest.approx(paired_t(*means).value)
    assert found.others.mcnemar_p == tuple(mcnemar(a, b).p for a, b in zip(first, second, strict=True))
    assert found.turned().others.over_seeds.value == -found.others.over_seeds.value
    table = verdict_tables.other_tests(verdict, "kind")
    assert f"of {len(first)}\N{NO-BREAK SPACE}runs" in table.rows[0][-1]
    assert table.columns[-1].name == "McNemar"


def test_every_cell_has_floors_on_the_same_rows(verdict: Verdict):
    for cell in verdict.cells:
        assert set(cell.floors) == {"majority", "tfidf", "embedding"}
        assert all(0 <= floor.value <= 1 for floor in cell.floors.values())
        assert {floor.n_items for floor in cell.floors.values()} == {cell.score.n_items}


def test_the_gap_out_of_domain_has_an_interval_of_both_sets(verdict: Verdict, done: Cells):
    for method in ("lora", "full"):
        (outside,) = verdict.cell(method, "kind", 4).outside
        inside, beyond = matrix(done, method), matrix(done, method, "ood:other")
        assert outside.score.value == pytest.approx(beyond.mean())
        assert outside.gap.value == pytest.approx(inside.mean() - beyond.mean())
        assert outside.chance == 0.5
        labels = {part.name: part.score.value for part in outside.parts}
        assert set(labels) == {"good", "bad"}


def test_the_gap_covers_the_true_one_as_often_as_it_says():
    """Seeds shared by both sets, rows of each by themselves: 95 % intervals, 300 simulated comparisons."""
    from foretune.comparison.evidence import Evidence, Run
    from foretune.comparison.plan import Cell
    from foretune.tasks import Schema

    class Simulated(Evidence):
        tables: dict[str, np.ndarray]

        def means(self, split="test"):
            return {(i, i): float(row.mean()) for i, row in enumerate(self.tables[split])}

        def items(self, split="test"):
            return {(i, i): row for i, row in enumerate(self.tables[split])}

    rng, hits = np.random.default_rng(0), 0
    for _ in range(300):
        seeds = rng.normal(0, 0.2, 6)
        made = Simulated("m", "t", 1, True, "accuracy", Schema("classification", {}, metric="accuracy"), ())
        tables = {
            split: (level + seeds[:, None] + rng.normal(0, 1, (1, n)) + rng.normal(0, 0.6, (6, n)))
            for split, level, n in (("test", 0.6, 200), ("ood:x", 0.2, 100))
        }
        object.__setattr__(made, "tables", tables)
        found = gap(made, "ood:x")
        hits += found.low <= 0.4 <= found.high
    assert 0.92 <= hits / 300 <= 0.99
    assert Run(Cell("m", "t", 1, 0, 0), None).ok is False


def test_nothing_is_missing_and_fronts_have_chances(verdict: Verdict):
    assert verdict.missing == ()
    costs = {"peak_bytes", "seconds", "trainable_parameters", "item_seconds"}
    assert {front.cost for front in verdict.fronts} == costs
    for front in verdict.fronts:
        assert all(0 <= point.probability <= 1 for point in front.points)


def test_a_family_counts_what_was_declared_and_not_what_has_run(protocol, done: Cells, kind: Path, other: Path):
    """Half of a comparison must not claim more than the whole would."""
    tasks = [{"source": str(kind), "ood": {"other": str(other)}}, {"source": str(other), "name": "later"}]
    methods = [*done.plan.protocol.methods, {"name": "head", "lr": 1e-2}]
    asked = protocol(tasks=tasks, shots=[4], data_seeds=[0, 1, 2], steps=12, methods=methods)
    found = judge(opened(asked, store=done.root)).contrasts
    by_measure = {c.measure: c.contrasts for c in found}
    assert by_measure == {"score": 3 * 2, "ood:other": 3}


def test_check_11_rows_that_are_learned_from_and_judged_are_found_in_a_store(
    protocol, kind: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """A draw that gives the test rows back as training and dev rows, as a published comparison had it."""
    from foretune.comparison import plan

    cells = opened(protocol(data_seeds=[0, 1, 2], selection="dev"), store=tmp_path)
    work(cells)
    (clean,) = [c for c in judge(cells).contrasts if c.measure == "score"]
    assert clean.refused is None
    right = plan.draw_rows

    def leaking(task, ref, seed):
        drawn = right(task, ref, seed)
        return replace(drawn, train=drawn.test, dev=drawn.test)

    monkeypatch.setattr(plan, "draw_rows", leaking)
    verdict = judge(cells)
    for cell in verdict.cells:
        assert {"selected_on_test", "eval_text_in_train"} <= {flag.partition(":")[0] for flag in cell.flags}
    (found,) = [c for c in verdict.contrasts if c.measure == "score"]
    assert found.kind == "refused"


def test_an_incomplete_cell_lists_what_is_missing_and_claims_nothing(done: Cells):
    more = replace(done.plan.protocol, data_seeds=(0, 1, 2, 3))
    verdict = judge(opened(more, store=done.root))
    assert {(m.method, m.seeds) for m in verdict.missing} == {("lora", ((3, 3),)), ("full", ((3, 3),))}
    assert {contrast.kind for contrast in verdict.contrasts} == {"refused"}
    assert all("1 of 4 runs" in contrast.refused for contrast in verdict.contrasts)


def test_runs_with_several_initial_weights_count_as_one_draw():
    table = {(0, 0): np.array([1.0, 0.0]), (0, 1): np.array([0.0, 0.0]), (1, 0): np.array([1.0, 1.0])}
    assert grouped(table).tolist() == [[0.5, 0.0], [1.0, 1.0]]
    assert grouped({(0, 0): 1.0, (0, 1): 3.0}).tolist() == [1.0, 3.0]


def test_rates_are_chosen_on_dev_and_test_scores_have_no_say(done: Cells):
    record, _ = done.outcome(done.plan.cells("lora", "kind", 4)[0])

    def scored(dev: float, test: float, loss: float = 1.0):
        evaluations = {"dev": Evaluation(4, {"accuracy": dev, "nll": loss}), "test": Evaluation(4, {"accuracy": test})}
        return replace(record, evaluations=evaluations)

    low, high = scored(0.5, 0.9), scored(0.75, 0.1)
    assert chosen([low, high]) is high
    assert chosen_rate({1e-4: [low, high], 1e-3: [high, high]}) == 1e-3
    assert merit(scored(0.5, 0.9, loss=0.5)) > merit(low)
    assert chosen([replace(high, status="diverged"), low]) is low
    assert chosen([scored(0.5, 0.0), scored(0.5, 1.0)]).evaluations["test"].scores["accuracy"] == 0.0


def test_tuning_on_dev_judges_the_chosen_trial_and_shows_the_expected_best(protocol, tmp_path: Path):
    asked = protocol(methods=[{"name": "lora", "lr": [1e-5, 2e-2]}], tuning_trials=2, contrasts="none", steps=8)
    cells = opened(asked, store=tmp_path)
    work(cells)
    verdict = judge(cells)
    evidence = gather(cells, "lora", "kind", 4)
    for run in evidence.runs:
        assert len(run.trials) == 2
        assert run.record == chosen(run.trials)
    cell = verdict.cell("lora", "kind", 4)
    assert "tuning" in cell.spent.seconds
    assert cell.labels == 8
    (curve,) = verdict.tuning
    assert len(curve.expected) == 2


def test_methods_that_did_not_train_alike_are_told_apart_on_the_page(protocol, tmp_path: Path):
    methods = ["lora", {"name": "full", "schedule": {"steps": 4, "batch_size": 8}}]
    cells = opened(protocol(methods=methods, allow_unequal=True), store=tmp_path)
    work(cells)
    verdict = judge(cells)
    steps, rows = verdict.flags
    assert steps == "unequal_budget: lora 3 steps, full 4 steps"
    assert rows == "unequal_budget: lora 4 rows a batch, full 8 rows a batch"
    (warning,) = [told for told in warned(verdict) if told.name == "unequal_budget"]
    assert "as many steps" in warning.meaning
    assert warning.places == ("lora 3 steps, full 4 steps.", "lora 4 rows a batch, full 8 rows a batch.")


def test_rates_may_be_chosen_on_another_task(protocol, kind: Path, other: Path, tmp_path: Path):
    asked = protocol(
        methods=[{"name": "lora", "lr": [1e-5, 2e-2]}],
        tuning_trials=2,
        tuning_tasks=[str(other)],
        tuning_seeds=[100],
        contrasts="none",
        shots=[4],
    )
    cells = opened(asked, store=tmp_path)
    assert {job.cell.task for job in cells.missing()} == {"other", "kind"}
    assert {job.cell.method for job in cells.missing() if job.cell.task == "kind"} == {"floors"}
    work(cells)
    rate = cells.tuned("lora", 4)
    assert rate in (1e-5, 2e-2)
    record, trials = cells.outcome(cells.plan.cells("lora", "kind", 4)[0])
    assert record.config.schedule.lr == rate
    assert len(trials) == 1
    verdict = judge(cells)
    assert any("chosen on the tuning tasks" in note for note in verdict.notes)
    assert any("8 further labels" in note for note in verdict.notes)
    spent = verdict.cell("lora", "kind", 4).spent
    assert spent.trials == 2
    assert spent.seconds["tuning"] == pytest.approx(sum(r.cost.seconds for r in cells.tuning("lora", 4)))


def test_rows_that_judge_choose_no_rate_under_another_name(protocol, kind: Path, tmp_path: Path):
    again = tmp_path / "renamed.csv"
    again.write_text(kind.read_text())
    tuned = {"tuning_trials": 2, "contrasts": "none"}
    with pytest.raises(UsageError, match=r"rows of `kind` stand in the tuning task `renamed`"):
        opened(protocol(tuning_tasks=[str(again)], **tuned), store=tmp_path)
    around = str(kind.parent / ".." / kind.parent.name / kind.name)
    with pytest.raises(UsageError, match="among `tasks` and `tuning_tasks`"):
        protocol(tuning_tasks=[{"source": around, "name": "around"}], **tuned)


def test_the_public_names_are_there(done: Cells):
    assert foretune.Protocol is type(done.plan.protocol)
    again = foretune.compare(done.plan.protocol, store=done.root, run=False)
    assert again.digest == done.plan.protocol.digest
