"""Options, folders and configurations that cannot be: exit code 2 and one line, before the data are described."""

import json

import pytest

from foretune.testing.toys import rows

WRONG = {
    "--tuner lroa": ["`lroa` is not a tuner", "Did you mean `lora`?"],
    "--tuner lora --option rnk=4": ["`rnk` is not an option of `lora`", "Did you mean `rank`?"],
    "--tuner lora --option rank": ["key=value", "`rank`"],
    "--tuner lora --option rank=0": ["rank"],
    "--objective haed": ["`haed` is not an objective", "Did you mean `head`?"],
    "--objective regression": ["serves regression tasks", "classification task"],
    "--steps 3 --epochs 2": ["`--steps` or `--epochs`, not both", "3", "2"],
    "--lr 0": ["`--lr` must be greater than 0", "0"],
    "--test-fraction 0": ["`--test-fraction` must be greater than 0", "give `--test`"],
    "--kind sentiment": ["classification, regression", "`sentiment`"],
    "--metric acuracy": ["`acuracy`", "accuracy"],
    "--budget soon": ["90s, 20m or 1.5h", "`soon`"],
    "--ood a.csv:x --ood b.csv:x": ["Two out-of-domain sets are called `x`"],
    "--steps many": ["--steps", "foretune tune --help"],
    "--labl label": ["--labl", "--label", "foretune tune --help"],
    "--config absent.yaml": ["`absent.yaml` cannot be read"],
    "--out data.csv": ["`data.csv` is a file", "--out"],
    "--out filled": ["`filled` holds files that are not a run of foretune", "--out"],
    "--out filled --overwrite": ["`filled` holds files that are not a run of foretune", "--out"],
}


@pytest.mark.parametrize("words", WRONG)
def test_a_wrong_option_is_one_line_and_touches_nothing(words, refuses, table, tmp_path):
    table(rows("classification"))
    (tmp_path / "filled").mkdir()
    (tmp_path / "filled" / "diary.txt").write_text("mine")
    refuses(2, "tune", "data.csv", *words.split(), says=WRONG[words])
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["data.csv", "filled"]
    assert (tmp_path / "filled" / "diary.txt").read_text() == "mine"


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("lrr: 0.1", ["`lrr` is not an option of `tune`", "Did you mean `lr`?"]),
        ("steps: lots", ["`--steps` does not fit", "`lots`"]),
        ("out: runs/x", ["`out` belongs on the command line", "--out"]),
        ("- lr", ["must hold `name: value` lines", "list"]),
        ("", ["must hold `name: value` lines"]),
        ("lr: [", ["is not YAML"]),
        ("lr: !!python/object:os.system {}", ["is not YAML"]),
    ],
)
def test_a_configuration_that_cannot_be_is_one_line(content, says, refuses, table, tmp_path):
    table(rows("classification"))
    (tmp_path / "conf.yaml").write_text(content)
    refuses(2, "tune", "data.csv", "--config", "conf.yaml", says=says)


@pytest.mark.parametrize(("words", "says"), [(["tuen"], "Did you mean 'tune'?"), (["tune"], "source")])
def test_wrong_words_are_answered_in_one_line(words, says, refuses):
    refuses(2, *words, says=[says, "--help"])


def test_foretune_alone_shows_its_commands(foretune):
    done = foretune()
    assert (done.returncode, done.stderr) == (2, "")
    assert "foretune demo" in done.stdout


def test_the_help_of_tune_begins_with_the_data_and_says_how_to_go_on(foretune):
    done = foretune("tune", "--help", env={"COLUMNS": "120"})
    places = [done.stdout.index(f"─ {panel} ─") for panel in ("Data", "Model and method", "Run", "What is drawn")]
    assert places == sorted(places)
    assert "the same command goes on" in " ".join(done.stdout.split())


def test_a_newer_run_folder_is_named_and_left_alone(refuses, tmp_path):
    (tmp_path / "run" / "adapter").mkdir(parents=True)
    (tmp_path / "run" / "run.json").write_text(json.dumps({"format": 99}))
    (tmp_path / "run" / "adapter" / "foretune.json").write_text(json.dumps({"format": 99}))
    for words in (["predict", "run", "data.csv"], ["report", "run"], ["runs", "show", "run"]):
        line = refuses(6, *words, says=["format 99"])
        assert "pgrade foretune" in line or "newer foretune" in line


def test_predictions_are_not_written_to_an_ending_that_says_no_format(refuses):
    refuses(2, "predict", "run", "data.csv", "--out", "answers.xlsx", says=[".csv, .jsonl, .parquet", "answers.xlsx"])


def test_a_replay_is_not_begun_for_a_format_that_a_report_does_not_have(refuses):
    refuses(2, "replay", "--out", "x.pdf", says=[".html, .htm, .md, .json", "x.pdf"])


@pytest.mark.parametrize("words", ["predict run data.csv --out data.csv/x.csv", "replay --out data.csv/x.md"])
def test_a_place_below_a_file_is_refused_before_the_work(words, refuses, table):
    table(rows("classification"))
    refuses(6, *words.split(), says=["cannot be written: `data.csv` is a file", "--out"])
