"""What a protocol asks for: the same draws and rows for every method, budgets in labels, runs with an identity."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from foretune.comparison.harness import opened
from foretune.comparison.plan import Plan, draw_rows
from foretune.comparison.protocol import Protocol
from foretune.errors import DataError, UsageError
from foretune.objectives import for_kind
from foretune.tasks import Task
from foretune.tasks.keys import row_keys
from foretune.testing import toys
from foretune.training.run import train


def drawn(plan: Plan, shots: int, seed: int):
    task = plan.task("kind")
    return draw_rows(task, plan.drawn(task, shots), seed)


def test_check_1_ten_data_seeds_give_ten_samples_of_exactly_n_per_class_nested_in_n(protocol):
    plan = Plan(protocol(shots=[2, 4, 8], data_seeds=range(10)))
    for seed in range(10):
        sets = [drawn(plan, shots, seed) for shots in (2, 4, 8)]
        for shots, found in zip((2, 4, 8), sets, strict=True):
            labels = found.train["label"].to_pylist()
            assert {label: labels.count(label) for label in set(labels)} == {"good": shots, "bad": shots}
        ids = [set(found.ids["train"]) for found in sets]
        assert ids[0] < ids[1] < ids[2]
    assert len({tuple(drawn(plan, 4, seed).ids["train"]) for seed in range(10)}) == 10


def test_check_1_a_seed_twice_gives_equal_results_and_another_seed_others(protocol):
    cells = opened(protocol(data_seeds=[0, 1]), store="unused")
    jobs = [cells.plan.jobs(cell, (0.02,))[0] for cell in cells.plan.cells("lora", "kind", 4)]
    first, again, other = (train(job.config, task=cells.plan.task("kind"), floors=False) for job in (*jobs[:1], *jobs))
    losses = [record.curve.of("train", "loss")[1] for record in (first, again, other)]
    assert losses[0] == losses[1] != losses[2]
    assert first.sample == again.sample != other.sample


def test_initial_weights_are_nested_in_draws_and_shared_by_methods(protocol):
    """Crossed with draws they would lean all of them one way, and an interval over draws would not know it."""
    plan = Plan(protocol(data_seeds=[0, 1, 2], init_seeds=[10, 11]))
    own = {
        method: [plan.jobs(cell, (0.02,))[0].config.seeds for cell in plan.cells(method, "kind", 4)]
        for method in ("lora", "full")
    }
    assert own["lora"] == own["full"]
    assert [seeds.data for seeds in own["lora"]] == [0, 0, 1, 1, 2, 2]
    assert len({seeds.init for seeds in own["lora"]}) == 6
    assert all(seeds.init == seeds.order == seeds.dropout for seeds in own["lora"])
    plain = Plan(protocol(data_seeds=[0, 7]))
    assert [plain.jobs(cell, (0.02,))[0].config.seeds.init for cell in plain.cells("lora", "kind", 4)] == [0, 7]


def test_check_2_constructing_a_trainer_between_two_draws_changes_neither(protocol, tmp_path: Path):
    from transformers import Trainer, TrainingArguments

    plan = Plan(protocol(data_seeds=range(2)))
    before = [drawn(plan, 4, seed).ids for seed in (0, 1)]
    plan = Plan(protocol(data_seeds=range(2)))
    first = drawn(plan, 4, 0).ids
    arguments = TrainingArguments(output_dir=str(tmp_path), use_cpu=True, report_to=[])
    Trainer(model=torch.nn.Linear(2, 2), args=arguments)
    second = drawn(plan, 4, 1).ids
    assert [first, second] == before
    assert first != second


def test_check_4_no_evaluated_text_is_among_the_rows_that_are_learned_from(protocol, kind, other):
    rows = toys.rows("classification")
    asked = protocol(tasks=[{"source": str(kind), "ood": {"other": str(other)}}])
    plan = Plan(asked)
    task = plan.task("kind")
    assert len(task.splits["train"]) == len(rows)
    for seed in range(5):
        found = drawn(plan, 8, seed)
        held = {*row_keys(found.test), *row_keys(task.ood["other"])}
        assert not held & set(row_keys(found.train))


def test_every_method_has_the_same_draws_steps_and_test_rows(protocol):
    plan = Plan(protocol(methods=["lora", "full", "adaptive"], data_seeds=[3, 4], shots=[2, 4]))
    for shots in (2, 4):
        cells = [plan.cells(name, "kind", shots) for name in ("lora", "full", "adaptive")]
        for seeds in zip(*cells, strict=True):
            configs = [plan.jobs(cell, (1e-3,))[0].config for cell in seeds]
            assert len({config.digest for config in configs}) == 3
            assert len({(str(c.task), c.seeds, c.schedule.steps, c.schedule.batch_size) for c in configs}) == 1


def test_equal_protocols_ask_for_equal_runs(protocol):
    def digests() -> list[str]:
        return [job.digest for job in opened(protocol(), store="unused").known()]

    assert digests() == digests()
    assert len(set(digests())) == len(digests())


def test_shots_in_total_are_shared_out_equally(protocol):
    plan = Plan(protocol(shots=[8], shots_are="total"))
    task = plan.task("kind")
    assert plan.per_class(task, 8) == 4
    assert plan.labels(task, 8) == 8
    with pytest.raises(UsageError, match=r"got 7. Use 6"):
        plan.per_class(task, 7)


def test_dev_rows_are_paid_for_out_of_the_shots_and_only_where_something_is_chosen(protocol):
    for given, dev in (({}, 0), ({"selection": "dev"}, 2), ({"tuning_trials": 2}, 2)):
        found = drawn(Plan(protocol(**given)), 4, 0)
        assert len(found.dev) == dev
        assert len(found.train) + len(found.dev) == 8


def test_a_dev_split_that_nobody_reads_costs_no_labels_though_rates_are_tuned_elsewhere(protocol, kind, other):
    """All rows are used: of the compared task dev would count as labels, on the tuning task rates are chosen by it."""
    tasks = [{"source": str(kind), "options": {"dev": str(other), "test": str(other)}}]
    tuned = [{"source": str(other), "name": "tuned", "options": {"dev": str(kind)}}]
    asked = protocol(tasks=tasks, shots=[0], tuning_tasks=tuned, tuning_trials=2, tuning_seeds=[100])
    plan = Plan(asked)
    assert set(plan.task("kind").splits) == {"train", "test"}
    assert set(plan.task("tuned").splits) == {"train", "dev"}


def test_too_few_rows_for_the_shots_are_refused_before_anything_is_run(protocol):
    with pytest.raises(DataError, match="shots=400"):
        Plan(protocol(shots=[400])).check()


def test_shots_that_leave_no_dev_rows_are_refused_where_something_is_chosen_there(protocol):
    with pytest.raises(UsageError, match="1 shots of `kind` leave none"):
        Plan(protocol(shots=[1], selection="dev")).check()


def test_an_objective_that_does_not_serve_the_kind_is_refused(protocol):
    with pytest.raises(UsageError, match=r"`regression` of the method `full\+regression` serves regression"):
        Plan(protocol(methods=["lora", "full+regression"])).check()


def test_test_rows_are_cut_to_the_same_ones_for_every_seed_and_method(protocol, tmp_path: Path, kind: Path):
    task = {"source": str(kind), "options": {"test": str(kind.parent / "kind.csv")}}
    rows = [{**row, "text": f"a {row['text']} two"} for row in toys.rows("classification")]
    task["options"] = {"test": str(toys.table(tmp_path / "test.csv", rows))}
    tests = [Plan(protocol(tasks=[task], test_rows=10)).task("kind").splits["test"] for _ in range(2)]
    assert len(tests[0]) == 10
    assert tests[0].equals(tests[1])
    assert len(Plan(protocol(tasks=[task])).task("kind").splits["test"]) == len(rows)


def test_test_rows_are_cut_where_they_are_held_out_of_train_too(protocol, kind: Path):
    whole, short = (Plan(protocol(data_seeds=[0, 1], **more)) for more in ({}, {"test_rows": 3}))
    held = [tuple(drawn(short, 4, seed).ids["test"]) for seed in (0, 1)]
    assert held[0] == held[1]
    assert len(held[0]) == 3 < len(drawn(whole, 4, 0).test)
    assert set(held[0]) <= set(drawn(whole, 4, 0).ids["test"])
    learned = {row for shots in (2, 8) for row in drawn(short, shots, 0).ids["train"]}
    assert not learned & set(drawn(whole, 4, 0).ids["test"])
    assert any("3 of" in note for note in short.task("kind").notes)


def test_where_nothing_is_tuned_the_first_rate_of_a_grid_is_used(protocol):
    plan = Plan(protocol(methods=[{"name": "lora", "lr": [1e-3, 1e-2]}], contrasts="none"))
    assert plan.protocol.trials(plan.protocol.method("lora")) == (1e-3,)


def test_steps_by_epochs_are_the_same_for_all_methods_and_bounded():
    asked = Protocol(tasks=["banking77_demo"], methods=["lora", "full"], shots=[2, 8], data_seeds=[0, 1], epochs=40)
    plan = Plan(asked)
    task = plan.task("banking77_demo")
    assert plan.steps(task, 2) == 200
    assert plan.steps(task, 8) == max(200, 40 * -(-8 * len(task.schema.labels) // 16))


def test_the_objective_is_that_of_the_kind_unless_the_method_names_one(protocol):
    plan = Plan(protocol(methods=["lora", "full+head"]))
    task: Task = plan.task("kind")
    made = [plan.objective(each, task).name for each in plan.protocol.methods]
    assert made == [for_kind("classification"), "head"]
