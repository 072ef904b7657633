"""Runs of other projects: what they say is kept, what they leave unsaid is not made up. Acceptance check 1."""

import math
import os
from pathlib import Path

import pytest

from foretune.errors import DataError, UsageError
from foretune.store.importers import Columns, read_peft_comparison, read_qtt, read_table, read_taskset, write_qtt
from foretune.testing.foreign import peft, qtt, taskset

CONFIG = ["lr,opt", "0.1,adam", "0.01,adam", "0.001,sgd"]


def said(collection):
    return {run.run_id: run for run in collection.runs}


def test_check_1_taskset_has_every_task_run_step_and_split_in_one_order(tmp_path):
    made = read_taskset(taskset(tmp_path, broken={"Fixed_imdb_patch32_GRU64_avg_bs128": 2}))
    assert [task.name for task in made.tasks] == [
        "Fixed_imdb_patch128_LSTM128_bs64",
        "Fixed_imdb_patch32_GRU64_avg_bs128",
    ]
    assert [(task.direction, task.family) for task in made.tasks] == [("min", "lstm"), ("min", "gru")]
    first, second = ([run for run in made.runs if run.task_id == task.task_id] for task in made.tasks)
    assert [run.config_id for run in first] == [run.config_id for run in second]
    assert [run.status for run in second] == ["diverged"] * 2 + ["ok"] * 4
    assert {(line.split, len(line.steps)) for run in made.runs for line in run.lines} == {
        ("train", 51), ("dev", 51), ("test", 51),
    }  # fmt: skip
    assert second[0].line("dev", "loss").values[-1] == 1e34


def test_a_file_that_is_no_taskset_is_named_with_the_run(tmp_path):
    (tmp_path / "a.json").write_text('[{"hp": {"lr": 0.1}, "train": {"loss": [1]}}]')
    with pytest.raises(DataError, match=r"a\.json`, run 0, must have `hp` and a list `loss`.*valid"):
        read_taskset(tmp_path)
    with pytest.raises(DataError, match="holds no TaskSet task"):
        read_taskset(tmp_path / "nowhere")


def test_check_1_peft_seconds_are_the_sum_of_the_records_and_low_scores_stay_ok(tmp_path):
    peft(tmp_path, accuracy=0.01)
    peft(tmp_path, None, 0.3)
    made = read_peft_comparison(peft(tmp_path, "IA3", 0.2, status="failed"))
    runs = said(made)
    low = runs["LORA/0.01"]
    assert low.status == "ok"
    assert low.cost["train_seconds"] == sum(10 + n for n in range(1, 21))
    assert low.line("dev", "accuracy").steps == tuple(range(250, 5001, 250))
    assert low.line("dev", "accuracy").seconds[-1] == low.cost["train_seconds"]
    assert low.line("test", "accuracy").values == (0.01,)
    assert low.config["method"] == "lora"
    assert low.config["method.target_modules"] == "q_proj+v_proj"
    assert runs["None/0.3"].config["method"] == "full"
    assert (runs["IA3/0.2"].status, runs["IA3/0.2"].lines, runs["IA3/0.2"].error) == ("failed", (), "no memory")
    assert (made.tasks[0].family, made.tasks[0].model.parameters) == ("llama", 105)


def test_check_1_zero_curves_fail_padded_tails_are_cut_and_constant_columns_told(tmp_path):
    curve = ["1,2,3,4,5", "0,0,0,0,0", "0.1,0.2,0.3,0.3,0.3", "0.1,0.2,0.2,,"]
    config = ["lr,opt,batch", "0.1,adam,8", "0.01,adam,8", "0.001,sgd,8"]
    made = read_qtt(qtt(tmp_path, curve, config, cost=["cost", "1.5", "2.5", ""]))
    zero, padded, stopped = made.runs
    assert (zero.status, zero.lines) == ("failed", ())
    assert (padded.status, padded.lines[0].values, padded.lines[0].steps) == ("stopped", (0.1, 0.2, 0.3), (1, 2, 3))
    assert (stopped.status, stopped.lines[0].values) == ("stopped", (0.1, 0.2, 0.2))
    assert [run.cost for run in made.runs] == [{"seconds": 1.5}, {"seconds": 2.5}, {}]
    assert {run.max_steps for run in made.runs} == {5}
    assert any("batch = 8" in note and "opt" not in note for note in made.notes)
    assert any("1 of 3 runs have no score" in note for note in made.notes)


def test_check_1_minimised_curves_keep_their_sign(tmp_path):
    folder = qtt(tmp_path, ["1,2", "-3,-2", "3,2", "1,-1"], CONFIG)
    made = read_qtt(folder, Columns(minimise=True))
    assert [run.lines[0].values for run in made.runs] == [(-3.0, -2.0), (3.0, 2.0), (1.0, -1.0)]
    assert {task.direction for task in made.tasks} == {"min"}


def test_a_score_of_zero_within_a_curve_is_a_score(tmp_path):
    made = read_qtt(qtt(tmp_path, ["1,2,3", "0,0,0.1", "0.1,0,0", "0.1,,0.3"], CONFIG))
    assert [run.lines[0].values for run in made.runs] == [(0.0, 0.0, 0.1), (0.1, 0.0, 0.0), (0.1, 0.3)]
    assert {run.status for run in made.runs} == {"ok"}


def test_equal_meta_features_are_one_task_and_a_named_column_decides_instead(tmp_path):
    meta = ["classes,name", "2,a", "3,b", "2,a"]
    folder = qtt(tmp_path, ["1", "0.1", "0.2", "0.3"], CONFIG, meta)
    made = read_qtt(folder)
    assert [run.task_id == made.runs[0].task_id for run in made.runs] == [True, False, True]
    assert made.tasks[0].features == {"classes": 2.0}
    named = read_qtt(folder, Columns(task="name", family="opt"))
    assert [(task.name, task.family) for task in named.tasks] == [("a", "adam"), ("b", "adam"), ("a", "sgd")]
    assert all("opt" not in run.config for run in named.runs)
    with pytest.raises(UsageError, match=r"no column `nam`.*Did you mean `name`"):
        read_qtt(folder, Columns(task="nam"))


@pytest.mark.parametrize(
    ("curve", "says"),
    [
        (["1,2", "0.1,0.2", "0.1,0.2"], r"one row per run each, but have: config.csv 3, curve.csv 2"),
        (["1,2", "0.1,0.2", "0.1", "0.2,0.3"], r"curve\.csv.*cannot be read as CSV"),
        (["1,2", "0.1,0.2", "0.1,x", "0.2,0.3"], r"curve\.csv.*column `2` must hold numbers, but row 2 has 'x'"),
    ],
)
def test_tables_that_do_not_fit_are_refused_with_the_place(tmp_path, curve, says):
    with pytest.raises(DataError, match=says):
        read_qtt(qtt(tmp_path, curve, CONFIG))


def test_check_1_the_round_trip_to_quick_tunes_tables_is_bit_equal(tmp_path):
    first = read_taskset(taskset(tmp_path / "in", broken={"Fixed_imdb_patch32_GRU64_avg_bs128": 2}))
    lost = write_qtt(tmp_path / "a", first)
    again = read_qtt(tmp_path / "a")
    write_qtt(tmp_path / "b", again)
    assert any("test loss, train loss" in sentence for sentence in lost)
    for name in ("config.csv", "curve.csv", "meta.csv", "runs.csv"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    for before, after in zip(first.runs, again.runs, strict=True):
        assert (before.config, before.status, before.max_steps) == (after.config, after.status, after.max_steps)
        assert repr(before.line("dev", "loss").values) == repr(after.line("dev", "loss").values)
    assert not (tmp_path / "a" / "cost.csv").exists()


def test_runs_of_different_lengths_are_written_in_tenths(tmp_path):
    peft(tmp_path / "in")
    first = read_peft_comparison(tmp_path / "in")
    longer = read_taskset(taskset(tmp_path / "t", runs=1))
    from foretune.records import RunCollection

    both = RunCollection("both", (*first.tasks, *longer.tasks), (*first.runs, *longer.runs))
    (_, sentence) = write_qtt(tmp_path / "out", both)
    assert "tenths" in sentence
    again = read_qtt(tmp_path / "out")
    assert {run.max_steps for run in again.runs} == {10}
    assert again.runs[0].lines[0].values == first.runs[0].line("dev", "accuracy").values[1::2]
    assert again.runs[0].cost == {"train_seconds": first.runs[0].cost["train_seconds"]}


LONG = """task,run,step,dev.accuracy,dev.loss,train.loss,config.lr,config.opt,meta.classes,status,elapsed,max_steps
a,1,10,0.5,0.7,0.8,0.1,adam,2,stopped,1.5,40
a,1,20,0.6,0.6,,0.1,adam,2,stopped,3.0,40
b,1,10,0.0,nan,0.9,0.2,adam,3,ok,1.0,10
"""


@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_a_table_of_evaluations_is_read_from_csv_and_parquet(tmp_path, ending):
    (tmp_path / "mine.csv").write_text(LONG)
    path = tmp_path / f"mine.{ending}"
    if ending == "parquet":
        from pyarrow import csv, parquet

        parquet.write_table(csv.read_csv(tmp_path / "mine.csv"), path)
    made = read_table(path)
    first, second = made.runs
    assert [task.features for task in made.tasks] == [{"classes": 2.0}, {"classes": 3.0}]
    assert (first.status, first.max_steps, first.config) == ("stopped", 40, {"lr": 0.1, "opt": "adam"})
    assert first.line("dev", "accuracy").values == (0.5, 0.6)
    assert first.line("dev", "accuracy").seconds == (1.5, 3.0)
    assert first.line("train", "loss").steps == (10,)
    assert second.line("dev", "accuracy").values == (0.0,)
    if ending == "csv":
        assert math.isnan(second.line("dev", "loss").values[0])
    assert read_table(path, Columns(minimise=True), "loss").tasks[0].metric == "loss"


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (("0.1,adam,2,stopped,3.0", "0.2,adam,2,stopped,3.0"), r"rows 1 and 2 are one run, but differ in `config.lr`"),
        (("a,1,20", "a,1,10"), "rows 1 and 2 are the same step"),
        (("config.opt", "opt"), r"the column `opt` is none that is known.*config.opt"),
        (("b,1,10,0.0,nan,0.9,0.2,adam,3,ok", "b,1,10,0.0,nan,0.9,0.2,adam,3,okay"), r"row 3.*Did you mean `ok`"),
        (("b,1,10", "b,1,-1"), "row 3, must have a run and a whole step"),
        (("run,", "runs,"), "lacks `run`"),
        (("dev.accuracy,dev.loss", "config.a,config.b"), "score in a column `dev.METRIC`"),
        (("b,1,10,0.0", "b,1,10,x"), r"column `dev.accuracy` must hold numbers, but row 3"),
    ],
)
def test_a_table_that_contradicts_itself_is_refused_with_the_rows(tmp_path, change, says):
    assert change[0] in LONG
    (tmp_path / "mine.csv").write_text(LONG.replace(*change))
    with pytest.raises(DataError, match=says):
        read_table(tmp_path / "mine.csv")


DATA = Path(os.environ.get("FORETUNE_DATA", "."))


@pytest.mark.slow
@pytest.mark.skipif("FORETUNE_DATA" not in os.environ, reason="needs FORETUNE_DATA")
def test_check_1_the_published_files(tmp_path):
    made = read_taskset(DATA / "taskset_text")
    counts = [sum(run.status == "diverged" for run in made.runs if run.task_id == task.task_id) for task in made.tasks]
    assert counts == [84, 99, 78, 1, 0, 234, 245, 1, 3, 1, 171, 0]
    assert (len(made.tasks), len(made.runs)) == (12, 12_000)
    assert sum(len(line.steps) for run in made.runs for line in run.lines) == 12_000 * 51 * 3
    orders = {tuple(run.config_id for run in made.runs if run.task_id == task.task_id) for task in made.tasks}
    assert len(orders) == 1
    results = read_peft_comparison(DATA / "peft_metamathqa")
    final = [run.line("test", "accuracy").values[0] for run in results.runs]
    assert (len(results.runs), len({run.config["method"] for run in results.runs})) == (63, 38)
    assert {run.line("dev", "accuracy").steps for run in results.runs} == {tuple(range(250, 5001, 250))}
    assert {run.status for run in results.runs} == {"ok"}
    assert (min(final), round(max(final), 3), sum(value < 0.05 for value in final)) == (0.0, 0.526, 5)
    write_qtt(tmp_path / "a", made)
    write_qtt(tmp_path / "b", read_qtt(tmp_path / "a"))
    for path in (tmp_path / "a").iterdir():
        assert path.read_bytes() == (tmp_path / "b" / path.name).read_bytes()
