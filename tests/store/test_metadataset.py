"""Runs as arrays: nothing is carried forward, failures stay failures, copies are never parted. Checks 9 and 10."""

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from foretune.errors import DataError, UsageError
from foretune.records import Line, MetaRun, MetaTask, ModelCard, RunCollection, TaskCard
from foretune.records.sketch import packed
from foretune.store.grouping import overlap, siblings
from foretune.store.importers import read_peft_comparison, read_taskset
from foretune.store.metadata import from_records
from foretune.store.metadataset import CELLS, folds, metadataset
from foretune.testing.foreign import peft, taskset
from foretune.testing.store_contract import toy_record


def task(name, group=None, **fields):
    return MetaTask(name, name, group or name, fields.pop("metric", "accuracy"), **fields)


def run(name, number=0, values=(0.1, 0.5), steps=(1, 2), status="ok", **fields):
    lines = (Line("dev", "accuracy", steps, values),) if values else ()
    return MetaRun(
        f"{name}/{number}", name, {"lr": 0.1 * (number + 1)}, status, fields.pop("max_steps", 2), lines, **fields
    )


def dataset(tasks, runs):
    return metadataset([RunCollection("made up", tuple(tasks), tuple(runs))])


def test_a_cell_holds_its_last_measurement_and_nothing_is_carried_on():
    steps, values = (0, 1, 7, 10, 11, 55), (0.9, 0.1, 0.2, 0.0, 0.4, 0.5)
    made = dataset([task("a")], [run("a", values=values, steps=steps, max_steps=100)])
    score = made.curves["score"][0]
    assert (score[0], score[1], score[5]) == (0.0, 0.4, 0.5)
    assert np.isnan(score[[2, 3, 4, 6, 7, 8, 9]]).all()
    assert made.start["score"][0] == 0.9
    assert np.isnan(made.curves["train_loss"]).all()


@given(st.integers(1, 400), st.data())
def test_every_measurement_lands_in_the_cell_of_its_fraction(length, data):
    step = data.draw(st.integers(1, length))
    made = dataset([task("a")], [run("a", values=(1.0,), steps=(step,), max_steps=length)])
    (cell,) = np.flatnonzero(~np.isnan(made.curves["score"][0]))
    assert cell / CELLS < step / length + 1e-12
    assert step / length <= (cell + 1) / CELLS + 1e-12


def test_tenths_of_a_taskset_run_are_its_fifth_steps(tmp_path):
    made = read_taskset(taskset(tmp_path))
    curve = metadataset([made]).curves["score"]
    assert np.array_equal(curve[3], made.runs[3].line("dev", "loss").values[5::5])


def test_seconds_are_those_of_training_at_the_measurement(tmp_path):
    made = metadataset([read_peft_comparison(peft(tmp_path))])
    assert made.seconds[0].tolist() == [sum(10 + n for n in range(1, 2 * cell + 1)) for cell in range(1, 11)]


def test_check_10_the_score_of_a_minimised_metric_is_its_smallest_and_the_test_score_is_of_that_step():
    low = task("a", direction="min")
    lines = (Line("dev", "accuracy", (1, 2, 3), (0.5, 0.2, 0.4)), Line("test", "accuracy", (1, 2, 3), (5.0, 6.0, 7.0)))
    made = dataset([low], [replace(run("a", max_steps=3), lines=lines)])
    assert (made.score[0], made.test[0], made.sign[0]) == (0.2, 6.0, -1)
    other = dataset([replace(low, direction="max")], [replace(run("a", max_steps=3), lines=lines)])
    assert (other.score[0], other.test[0], other.sign[0]) == (0.5, 5.0, 1)


def test_without_word_of_its_steps_a_run_is_whole_where_its_last_tenth_was_measured():
    long = {"values": (0.1, 0.5), "max_steps": 100}
    made = dataset([task("a")], [run("a", 0, steps=(50, 91), **long), run("a", 1, steps=(50, 90), **long)])
    assert made.whole.tolist() == [True, False]
    assert np.isnan(made.score).tolist() == [False, True]


def test_where_the_steps_are_told_they_decide_and_an_end_of_its_own_is_one():
    part = {"steps": (5, 10), "max_steps": 100}
    runs = [
        run("a", 0, status="stopped", steps_done=10, **part),
        run("a", 1, status="ok", steps_done=10, **part),
        run("a", 2, status="stopped", steps_done=100, **part),
    ]
    made = dataset([task("a")], runs)
    assert made.whole.tolist() == [False, True, True]
    assert made.reached.tolist() == [0.1, 0.1, 1.0]


def test_check_10_a_failed_run_has_a_status_and_no_score_whatever_it_measured():
    runs = [run("a", n, status=status) for n, status in enumerate(("ok", "stopped", "failed", "diverged", "oom"))]
    made = dataset([task("a")], runs)
    assert np.isnan(made.score).tolist() == [False, False, True, True, True]
    assert made.failed.tolist() == [False, False, True, True, True]
    assert not np.isnan(made.curves["score"]).all(axis=1).any()


def test_check_10_nan_curves_and_a_task_whose_runs_all_failed_are_kept():
    nothing = run("b", values=(math.nan, math.nan))
    made = dataset([task("a"), task("b")], [run("a", status="diverged"), nothing])
    assert made.succeeded.tolist() == [False, False]
    assert [fold.name for fold in folds(made)] == ["a", "b"]


def test_check_10_one_task_leaves_nothing_to_learn_from_and_no_run_is_refused():
    with pytest.raises(DataError, match="1 tasks in 1 groups"):
        list(folds(dataset([task("a")], [run("a")])))
    with pytest.raises(DataError, match="no run to learn from"):
        metadataset([RunCollection("none", (), ())])
    with pytest.raises(UsageError, match="not by `rows`"):
        list(folds(dataset([task("a")], [run("a")]), "rows"))


def test_check_9_siblings_are_on_neither_side():
    tasks = [task("a", "same"), task("copy", "same"), task("c")]
    made = dataset(tasks, [run(name, n) for name in ("a", "copy", "c") for n in range(2)])
    fold = next(iter(folds(made)))
    assert (fold.name, fold.test.tolist()) == ("a", [True, True, False, False, False, False])
    assert fold.train.tolist() == [False, False, False, False, True, True]
    for each in folds(made):
        assert not set(made.groups[each.train]) & set(made.groups[each.test])


def test_families_are_left_out_whole_and_with_their_task():
    def of(family):
        return ModelCard(family, family)

    tasks = [task("x1", "x", model=of("bert")), task("x2", "x", model=of("llama")), task("y", model=of("bert")),
             task("z", model=of("llama"))]  # fmt: skip
    made = dataset(tasks, [run(t.task_id) for t in tasks])
    assert [(f.name, f.train.tolist()) for f in folds(made, "family")] == [
        ("bert", [False, True, False, True]), ("llama", [True, False, True, False]),
    ]  # fmt: skip
    both = {fold.name: fold for fold in folds(made, "task-and-family")}
    assert both["x, bert"].train.tolist() == [False, False, False, True]
    with pytest.raises(DataError, match="--family"):
        list(folds(dataset([task("a"), task("b")], [run("a"), run("b")]), "family"))


def test_what_is_taken_knows_nothing_of_the_rest():
    made = dataset([task("a"), task("b")], [run("a"), run("b"), run("b", 1)])
    part = made.take(made.task == 1)
    assert [t.name for t in part.tasks] == ["b"]
    assert part.task.tolist() == [0, 0]
    assert part.run_ids == ("b/0", "b/1")


SKETCH = tuple(f"{n:012x}" for n in range(0, 2000, 10))


def test_check_9_a_copy_of_the_task_in_the_store_is_grouped_away_and_named():
    mine = task("mine", sketch=SKETCH[:128])
    copy, hashed = task("copy", sketch=SKETCH[10:138]), task("hashed", data_hash="h")
    other = task("other", sketch=tuple(f"{n:012x}" for n in range(5, 1285, 10)))
    made = dataset([copy, other, hashed], [run("copy"), run("other"), run("hashed")])
    left, names = made.without(mine)
    assert (names, left.run_ids) == (("copy",), ("other/0", "hashed/0"))
    assert made.without(replace(mine, data_hash="h", sketch=()))[1] == ("hashed",)
    assert made.without(task("new"))[1] == ()


def test_check_9_a_copy_joins_the_groups_of_what_it_repeats():
    tasks = [task("a", sketch=SKETCH[:20]), task("b", sketch=SKETCH[60:80]), task("both", sketch=SKETCH[10:70])]
    made = dataset(tasks, [run(t.task_id) for t in tasks])
    assert {t.group_key for t in made.tasks} == {"a"}
    assert not siblings(tasks[0], tasks[1])


def test_check_9_what_repeats_a_copy_of_the_task_is_left_out_with_it():
    copy = task("copy", sketch=SKETCH[:60])
    further, other = task("further", sketch=SKETCH[50:110]), task("other", sketch=SKETCH[120:180])
    made = dataset([copy, further, other], [run("copy"), run("further"), run("other")])
    mine = task("mine", sketch=SKETCH[:40])
    assert not siblings(mine, further)
    left, names = made.without(mine)
    assert (names, left.run_ids) == (("copy", "further"), ("other/0",))


@pytest.mark.parametrize("kept", [128, 4096])
def test_check_9_a_sketch_of_an_old_store_is_compared_with_a_new_one_where_both_are_complete(kept):
    every = tuple(f"{n:012x}" for n in range(0, 60_000, 10))
    stored, mine = packed(every[:kept]), packed(every[:2000])
    assert overlap(stored, mine) == 1.0
    assert overlap(stored, packed([f"{n:012x}" for n in range(5, 60_000, 10)])) == 0.0
    assert overlap(stored, packed(every[kept:])) == 0.0


@given(st.sets(st.integers(0, 10**6), min_size=300, max_size=300), st.integers(0, 300))
def test_the_overlap_of_complete_sketches_is_the_share_of_the_smaller_set(numbers, shared):
    every = sorted(numbers)
    first, second = every[:150], every[150 - min(shared, 150) :]
    hashes = [packed(f"{n:012x}" for n in part) for part in (first, second)]
    common = len(set(first) & set(second))
    expected = common / 150 if common >= 2 else 0.0
    assert overlap(*hashes) == pytest.approx(expected)


def test_our_own_runs_become_a_task_per_rows_and_budget():
    one_draw = [toy_record(0), toy_record(1), toy_record(2, "oom")]
    one_draw = [replace(r, config=replace(r.config, seeds=replace(r.config.seeds, data=0))) for r in one_draw]
    records = [*one_draw, toy_record(0, source="other.csv")]
    made = from_records([*records, replace(records[0], status="running")])
    assert [r.status for r in made.runs] == ["ok", "oom", "ok"]
    made = from_records(records)
    assert [t.name for t in made.tasks] == ["toy", "toy"]
    assert [run.status for run in made.runs] == ["ok", "ok", "oom", "ok"]
    first = made.runs[0]
    assert first.line("dev", "accuracy").seconds == (2.0,)
    assert first.line("test", "accuracy").values == (0.8,)
    assert "evaluations" not in first.config
    assert first.config_id == made.runs[1].config_id
    assert made.tasks[0].rows["train"] == 12
    assert metadataset([made]).cost["train_seconds"].tolist()[:2] == [2.0, 2.0]


def test_a_record_of_floors_alone_is_no_run_to_learn_from():
    record = toy_record(0)
    floors = replace(record, evaluations={}, floors={"majority": dict(record.evaluations)})
    assert from_records([floors]).runs == ()
    assert len(from_records([record]).runs) == 1


def test_a_card_has_a_hash_that_its_name_does_not_change_and_its_features_do():
    card = TaskCard("a", "classification", features={"words_mean": 3.0})
    assert replace(card, name="b").digest == card.digest
    assert replace(card, features={"words_mean": 4.0}).digest != card.digest
    assert replace(card, version=2).digest != card.digest
