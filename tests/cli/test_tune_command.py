"""``foretune tune`` and ``predict`` from end to end, on a file that has everything a real one may have."""

import csv
import io
import json

import pyarrow.parquet as pq
import pytest

from foretune.testing import toys

KIND = 'gut, "sehr"\ngut'
UNKIND = "плохо <script>alert(1)</script> :bomb: [red]"


def named(record):
    return {"text": record["text"], "label": KIND if record["label"] == "good" else UNKIND}


@pytest.fixture(scope="session")
def place(tmp_path_factory, bert, run_in):
    """A folder with a finished run, and what its command printed.

    Of the 48 toy rows the last ten are test.csv. data.csv has the others and then: 39, a copy of row 1; 40, row 2 with
    another label; 41, a copy of the first test row; 42, a text that is longer than the model.
    """
    folder = tmp_path_factory.mktemp("place")
    records = [named(record) for record in toys.rows("classification")]
    records = [*records[::2], *records[1::2]]
    train, test = records[:-10], records[-10:]
    other = {"text": train[1]["text"], "label": UNKIND if train[1]["label"] == KIND else KIND}
    long = {"text": "the good food was " + "very " * 60 + "nice", "label": KIND}
    toys.table(folder / "data.csv", [*train, train[0], other, test[0], long])
    toys.table(folder / "test.csv", test)
    toys.table(folder / "far.csv", [{"text": r["text"] + " and four", "label": r["label"]} for r in test])
    words = ("tune", "data.csv", "--test", "test.csv", "--ood", "far.csv", "--model", bert, "--out", "run")
    done = run_in(folder, *words, "--steps", "6", "--evaluations", "2")
    return folder, done, words


@pytest.fixture(scope="session")
def record(place):
    return json.loads((place[0] / "run" / "run.json").read_text(encoding="utf-8"))


def test_it_ends_well_and_libraries_say_nothing(place):
    _, done, _ = place
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert lines[0] == "data: classification, judged by accuracy"
    assert [line for line in lines if line.startswith("step ")][-1].startswith("step 6: dev accuracy")
    (plan,) = (line for line in lines if line.startswith("Plan: "))
    assert plan.startswith("Plan: lora (rank 8, alpha 16.0, targets all-linear) on ")
    assert ", 6 steps of 16 rows, learning rate 0.0005" in plan
    assert "Run folder: run" in lines
    assert "Use it: foretune predict run new.csv" in lines


def test_texts_of_a_user_are_printed_as_they_are(place):
    """No markup, no emoji, and a line break cannot tear a line apart."""
    assert 'gut, "sehr"\ufffdgut' in place[1].stdout
    assert "плохо <script>alert(1)</script> :bomb: [red]" in place[1].stdout


def test_copies_leaks_contradictions_and_cuts_are_reported_with_their_rows(place, record):
    said = place[1].stdout
    for part in (
        "train: not drawn, as copies of an evaluation row (dev, test or out of domain): row 41.",
        "train: not drawn, as copies of an earlier row: rows 39, 40.",
        "train: equal text with different labels: rows 2 = 40.",
        "train and test share text: train row 41; test row 1",
        "longer than 32 tokens",
    ):
        assert part in said
        assert any(part in told for told in (*record["notes"], *record["warnings"]))


def test_the_folder_holds_what_it_should(place, record):
    folder = place[0] / "run"
    assert {entry.name for entry in folder.iterdir()} == {
        "adapter", "floors.parquet", "plan.json", "predictions.parquet", "report.html", "request.json", "run.json",
    }  # fmt: skip
    assert (record["status"], record["labels"]) == ("ok", sorted((KIND, UNKIND)))
    assert {"dev", "test", "ood:far"} <= set(record["evaluations"])
    assert {"majority", "tfidf", "embedding"} == set(record["floors"])
    answers = pq.read_table(folder / "predictions.parquet")
    assert set(answers["prediction"].to_pylist()) <= {KIND, UNKIND}
    assert answers["split"].to_pylist().count("test") == 10
    page = (folder / "report.html").read_text(encoding="utf-8")
    assert "<script" not in page
    assert "&lt;script&gt;alert(1)" in page
    assert KIND.splitlines()[0].split(",")[0] in (folder / "adapter" / "README.md").read_text(encoding="utf-8")


def test_the_run_is_remembered(place, record, run_in):
    listed = json.loads(run_in(place[0], "runs", "list", "--json").stdout)
    assert [run["status"] for run in listed] == ["ok"]


def test_the_same_command_again_does_nothing(place, run_in):
    folder, _, words = place
    before = {path: path.stat().st_mtime_ns for path in folder.joinpath("run").rglob("*")}
    again = run_in(folder, *words, "--steps", "6", "--evaluations", "2", "--json")
    assert (again.returncode, again.stderr) == (0, "")
    assert json.loads(again.stdout)["record"]["status"] == "ok"
    assert "nothing to do" in run_in(folder, *words, "--steps", "6", "--evaluations", "2").stdout
    assert {path: path.stat().st_mtime_ns for path in folder.joinpath("run").rglob("*")} == before


def test_another_command_in_the_same_folder_is_refused_and_told_the_difference(place, run_in):
    folder, _, words = place
    other = run_in(folder, *words, "--steps", "7", "--evaluations", "2")
    assert other.returncode == 2
    assert "`steps` was `6` and is `7`" in other.stderr
    assert "--overwrite" in other.stderr


def test_a_report_is_written_again_where_it_was_lost(place, run_in):
    folder, _, words = place
    page = (folder / "run" / "report.html").read_bytes()
    (folder / "run" / "report.html").unlink()
    assert run_in(folder, *words, "--steps", "6", "--evaluations", "2").returncode == 0
    assert (folder / "run" / "report.html").read_bytes() == page


def test_predict_needs_no_label_and_finds_the_text_under_another_name(place, run_in, record):
    folder, _, _ = place
    answers = pq.read_table(folder / "run" / "predictions.parquet").to_pylist()
    asked = [row for row in answers if row["split"] == "test"]
    toys.table(folder / "new.csv", [{"note": "no", "review": row["text"]} for row in asked])
    done = run_in(folder, "predict", "run", "new.csv", "--text", "review")
    assert (done.returncode, done.stderr) == (0, "")
    read = list(csv.DictReader(io.StringIO(done.stdout)))
    assert [row["prediction"] for row in read] == [row["prediction"] for row in asked]
    for found, row in zip(read, asked, strict=True):
        assert float(found["probability"]) == pytest.approx(row["probability"], abs=1e-6)
    assert [row["row"] for row in read] == [str(n) for n in range(1, 11)]


def test_a_file_of_predictions_is_named_with_its_rows_and_an_empty_cell_on_stderr(place, run_in):
    folder, _, _ = place
    toys.table(folder / "holes.csv", [{"review": "the good film was"}, {"review": " "}])
    words = ("predict", "run", "holes.csv", "--text", "review", "--out", "labelled.csv")
    done = run_in(folder, *words)
    assert (done.returncode, done.stdout) == (0, "2 rows in labelled.csv\n")
    assert done.stderr == "1 row has no text and got no answer (row 2).\n"
    plain = json.loads(run_in(folder, *words, "--json").stdout)
    assert plain == {"predictions": "labelled.csv", "rows": 2, "notes": [done.stderr.strip()]}


def test_predict_says_which_column_it_lacks(place, run_in):
    folder, _, _ = place
    toys.table(folder / "lacking.csv", [{"a": "1", "b": "2"}])
    done = run_in(folder, "predict", "run", "lacking.csv", "--text", "review")
    assert done.returncode == 3
    assert done.stderr.startswith("Error: ")
    assert "`review`" in done.stderr


def test_a_dry_run_is_one_json_object_and_the_command_line_wins_over_the_file(bert, foretune, table, tmp_path):
    table(toys.rows("classification"))
    (tmp_path / "conf.yaml").write_text(f"model: {bert}\nlr: 1e-3\nepochs: 2\nweight-decay: 0.5\nclip: 2\nseed: 4\n")
    words = ("--config", "conf.yaml", "--weight-decay", "0", "--seed", "0", "--clip", "0")
    done = foretune("tune", "data.csv", *words, "--dry-run", "--json")
    assert (done.returncode, done.stderr) == (0, "")
    plain = json.loads(done.stdout)
    schedule = plain["config"]["schedule"]
    assert (schedule["lr"], schedule["weight_decay"], schedule["clip"]) == (1e-3, 0.0, None)
    assert plain["config"]["seeds"]["init"] == 0
    assert plain["plan"]["ranked"][0]["schedule"] == schedule
    assert plain["plan"]["ranked"][0]["seconds"] > 0
    assert plain["plan"]["ranked"][0]["bytes"] > 0
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["conf.yaml", "data.csv"]


def test_recommend_prints_the_plan_with_its_sources_and_trains_nothing(bert, foretune, table, tmp_path):
    table(toys.rows("classification"))
    done = foretune("recommend", "data.csv", "--model", bert, "--epochs", "3")
    assert (done.returncode, done.stderr) == (0, "")
    assert "lora" in done.stdout
    assert "Hu et al. 2021" in done.stdout
    assert "No score is foretold" in done.stdout
    assert "--epochs 3.0" in done.stdout
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["data.csv"]


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_the_demo_learns_from_real_questions_with_a_real_model(foretune):
    done = foretune("demo", "--json", timeout=1100)
    assert (done.returncode, done.stderr) == (0, "")
    record = json.loads(done.stdout)["record"]
    chance = record["floors"]["majority"]["test"]["scores"]["accuracy"]
    assert record["evaluations"]["test"]["intervals"]["accuracy"][0] > chance
    assert "nothing to do" in foretune("demo").stdout


def test_recommend_says_how_much_more_it_could_explain(place, run_in):
    folder, _, words = place
    asked = ["recommend", *words[1 : words.index("--out")], "--steps", "2", "--recommender", "default"]
    done = run_in(folder, *asked, "--explain")
    assert done.returncode == 0, done.stderr
    assert "no earlier run was consulted" in done.stdout


def test_playing_needs_a_budget(refuses):
    refuses(2, "tune", "data.csv", "--mode", "grey-box", says=["--mode grey-box", "--budget 20m"])
    refuses(2, "tune", "data.csv", "--mode", "portfolio", "--recommender", "default", says=["--recommender default"])
