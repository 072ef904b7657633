"""Check 11: each fault of a published comparison, as a synthetic result set, raises its flag and forbids its claim."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
import pytest

from foretune.comparison.answers import Answers
from foretune.comparison.contrasts import Side, compare
from foretune.comparison.evidence import Evidence, Run
from foretune.comparison.flags import FORBIDDING, RunFacts, forbids, raised
from foretune.comparison.plan import Cell
from foretune.records import Evaluation, ModelRef, Part, RunConfig, RunRecord, Schedule, Seeds, TaskRef
from foretune.records.verdict import CellResult
from foretune.tasks import Schema

COLA = ("acceptable",) * 719 + ("unacceptable",) * 324
HANS = ("entailment",) * 500 + ("non-entailment",) * 500


def answered(labels: tuple[str, ...], right: int, seed: int = 0) -> Answers:
    """``right`` of the rows answered rightly, which ones by ``seed``."""
    order = np.random.default_rng(seed).permutation(len(labels))
    other = {label: next(x for x in sorted(set(labels)) if x != label) for label in set(labels)}
    wrong = set(order[right:].tolist())
    given = tuple(other[label] if i in wrong else label for i, label in enumerate(labels))
    return Answers(tuple(range(len(labels))), labels, given, hashlib.sha256(repr(given).encode()).hexdigest())


def constant(labels: tuple[str, ...], label: str) -> Answers:
    return Answers(tuple(range(len(labels))), labels, (label,) * len(labels), label)


def facts(answers: list[Answers], **fields: Any) -> list[RunFacts]:
    start = [
        {"sample": f"sample {i}", "start": f"start {i}", "data_seed": i, "init_seed": i} for i in range(len(answers))
    ]
    return [
        RunFacts(
            f"run {i}",
            {"test": found},
            **{**start[i], **{k: v[i] if isinstance(v, list) else v for k, v in fields.items()}},
        )
        for i, found in enumerate(answers)
    ]


def names(flags: tuple[str, ...]) -> list[str]:
    return [flag.partition(":")[0] for flag in flags]


def good(n: int = 10) -> list[Answers]:
    return [answered(COLA, 850 + 5 * i, seed=i) for i in range(n)]


def test_runs_without_a_fault_raise_no_flag():
    assert raised(facts(good()), budget=32) == ()


def test_check_11_ten_runs_of_which_two_are_distinct():
    first, rest = answered(COLA, 600, seed=1), answered(COLA, 610, seed=2)
    flags = raised(facts([first, *[rest] * 9], sample=["a", *["b"] * 9], start=["x", *["y"] * 9]), budget=32)
    assert {"replicated_runs", "same_sample", "same_init"} <= set(names(flags))
    assert "10 runs hold 2 different sets" in flags[0]


@pytest.mark.parametrize("accuracy", [0.418, 0.55, 0.641, 0.689])
def test_check_11_cells_below_the_majority(accuracy: float):
    runs = [answered(COLA, round(accuracy * 1043) - i, seed=i) for i in range(10)]
    assert "at_or_below_majority" in names(raised(facts(runs)))


def test_check_11_a_score_that_is_above_the_majority_by_chance_is_told_apart():
    runs = [answered(COLA, 740 + 60 * (-1) ** i, seed=i) for i in range(4)]
    assert names(raised(facts(runs))) == ["majority_not_excluded"]


def test_check_11_a_constant_classifier_at_719_of_1043():
    flags = raised(facts([*good(9), constant(COLA, "acceptable")]))
    assert "constant_prediction: 1 of 10 runs give one answer to every row (`acceptable`: 1)" in flags
    assert sum(constant(COLA, "acceptable").correct) == 719


def test_check_11_hans_at_fifty_per_cent():
    runs = facts(good())
    outside = [answered(HANS, 500 + 8 * (-1) ** i, seed=i) for i in range(10)]
    runs = [RunFacts(r.name, {**r.answers, "ood:hans": o}) for r, o in zip(runs, outside, strict=True)]
    flag = next(f for f in raised(runs) if f.startswith("ood_at_chance"))
    assert "hans" in flag
    assert "0.500" in flag


def test_an_out_of_domain_score_above_chance_raises_nothing():
    runs = [
        RunFacts(r.name, {**r.answers, "ood:hans": answered(HANS, 800 + i, seed=i)}, f"{i}", f"{i}", i, i)
        for i, r in enumerate(facts(good()))
    ]
    assert raised(runs) == ()


@pytest.mark.parametrize(
    ("fields", "flag"),
    [
        ({"chosen_on_test": 12}, "selected_on_test"), ({"leaked": 18}, "eval_text_in_train"),
        ({"labels": 261_802}, "label_budget_exceeded"), ({"finite": [True] * 9 + [False]}, "nan_loss"),
        ({"trials": 1}, "unequal_tuning"),
    ],
)  # fmt: skip
def test_check_11_the_other_faults_raise_their_flags(fields: dict[str, Any], flag: str):
    assert names(raised(facts(good(), **fields), budget=256, trials=8 if flag == "unequal_tuning" else None)) == [flag]


def test_equal_samples_are_no_fault_where_they_are_all_rows_there_are():
    flags = raised(facts(good(), sample="all"), budget=None)
    assert names(flags) == ["same_sample"]
    assert forbids(flags) is None
    assert forbids(raised(facts(good(), sample="all"), budget=32)) is not None


def test_a_method_without_random_weights_may_start_the_same_every_time():
    assert raised(facts(good(), start="same"), draws_start=False) == ()


def test_one_init_seed_gives_every_draw_initial_weights_of_its_own():
    assert raised(facts(good(), init_seed=0)) == ()
    assert names(raised(facts(good(), init_seed=0, start="same"))) == ["same_init"]


def test_equal_answers_of_one_draw_are_a_fault_where_something_is_trained():
    """Two orders of two demonstrations may be the same order; two trainings are never the same training."""
    each = [good(2)[0]] * 2 + [good(2)[1]] * 2
    runs = facts(each, data_seed=[0, 0, 1, 1], init_seed=[10, 11, 10, 11])
    assert names(raised(runs)) == ["replicated_runs"]
    assert raised(runs, trained=False, draws_start=False) == ()
    across = facts([good(1)[0]] * 2, init_seed=10)
    assert names(raised(across, trained=False, draws_start=False)) == ["replicated_runs"]


def test_runs_of_one_draw_are_named_as_such():
    runs = facts(good(4), data_seed=0, sample="one")
    assert names(raised(runs)) == ["one_draw"]
    assert forbids(raised(runs)) is None


SCHEMA = Schema("classification", {}, labels=("acceptable", "unacceptable"), metric="accuracy")


def side(method: str, answers: list[Answers], flags: tuple[str, ...] = ()) -> Side:
    """A cell as it would be read from a store."""
    runs = []
    for seed, found in enumerate(answers):
        config = RunConfig(
            ModelRef("m"), TaskRef("cola", "classification"), Part(method), Part("head"), Schedule(1), Seeds.all(seed)
        )
        scores = {"accuracy": float(found.correct.mean())}
        record = RunRecord(config, "ok", evaluations={"test": Evaluation(len(found.row), scores)})
        runs.append(Run(Cell(method, "cola", 16, seed, seed), record, (record,), {"test": found}))
    evidence = Evidence(method, "cola", 16, True, "accuracy", SCHEMA, tuple(runs))
    return Side(evidence, CellResult(method, "cola", 16, 32, "accuracy", True, (), flags=flags))


def contrast(first: Side, second: Side):
    sides = {(s.evidence.method, "cola", 16): s for s in (first, second)}
    pair = (first.evidence.method, second.evidence.method)
    (found,) = compare(sides, [pair], [("cola", 16)], margin=0.01, alpha=0.05)
    return found


def test_check_11_distillation_beats_vanilla_is_refused_for_what_was_counted():
    better, worse = [answered(COLA, 900, seed=i) for i in range(10)], [answered(COLA, 800, seed=i) for i in range(10)]
    assert contrast(side("cd", better), side("vanilla", worse)).kind == "better"
    flags = raised(facts(better, labels=261_802, chosen_on_test=1000), budget=256)
    found = contrast(side("cd", better, flags), side("vanilla", worse))
    assert found.kind == "refused"
    assert found.refused.startswith("cd: selected_on_test")


def test_check_11_distillation_below_vanilla_is_no_win_for_distillation():
    worse, better = [answered(COLA, 760, seed=i) for i in range(10)], [answered(COLA, 870, seed=i) for i in range(10)]
    assert contrast(side("cd", worse), side("vanilla", better)).kind == "worse"


def test_every_forbidding_flag_forbids():
    for name in FORBIDDING:
        assert forbids(("constant_prediction: x", f"{name}: figures")) == f"{name}: figures"
    assert forbids(("constant_prediction: x", "unequal_tuning: y")) is None


def test_a_run_without_a_score_forbids_a_claim_over_the_rest():
    first, second = side("a", good()), side("b", good())
    last = first.evidence.runs[-1]
    lost = Run(last.cell, RunRecord(last.record.config, "diverged"), (), {})
    broken = Side(Evidence("a", "cola", 16, True, "accuracy", SCHEMA, (*first.evidence.runs[:-1], lost)), first.cell)
    found = contrast(broken, second)
    assert found.kind == "refused"
    assert "1 of 10 runs of a have no score" in found.refused


def test_a_single_common_seed_is_a_number_without_a_claim():
    found = contrast(side("a", good(1)), side("b", good(1)))
    assert found.kind == "refused"
    assert found.single_seed
    assert found.difference.value == pytest.approx(0.0)
