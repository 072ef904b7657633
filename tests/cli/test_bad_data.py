"""Data that break a rule: one line with the rule, the row and the way out, before any model is loaded."""

import os
import subprocess
import sys

import pytest

from foretune.testing.toys import rows

GOOD = rows("classification")


def text(records, extra=""):
    return "text,label\n" + "".join(f"{r['text']},{r['label']}\n" for r in records) + extra


BAD = {
    "ragged": (text(GOOD, "one,good,three\n"), [], ["row 49", "3", "2"]),
    "one class": (text([r for r in GOOD if r["label"] == "good"]), [], ["two classes or more", "`good`", "--label"]),
    "a lone class": (text(GOOD, "meh,fair\n"), [], ["at least 2 examples", "`fair`", "row 49", "remove the class"]),
    "empty text": (text(GOOD, ",good\n"), [], ["must not be empty", "row 49", "Fill it in or remove"]),
    "no label": (text(GOOD, "fine,\n"), [], ["needs a label", "row 49"]),
    "typo in a column": (text(GOOD), ["--label", "lable"], ["no column `lable`", "Did you mean `label`?"]),
    "no numbers": (text(GOOD), ["--kind", "regression"], ["must be a number", "rows 1, 2", "--kind classification"]),
    "a header alone": ("text,label\n", [], ["holds no rows"]),
    "nothing": ("", [], ["is empty (0 bytes)"]),
    "too few": (text(GOOD[:3] + GOOD[-3:]), [], ["at least 8 labelled rows", "has 6"]),
    "too many shots": (text(GOOD), ["--shots", "500"], ["shots=500", "Use `--shots"]),
}


@pytest.mark.parametrize("case", BAD)
def test_a_file_that_breaks_a_rule_is_one_line(case, refuses, tmp_path):
    content, words, says = BAD[case]
    (tmp_path / "data.csv").write_text(content, encoding="utf-8")
    refuses(3, "tune", "data.csv", *words, says=says)
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["data.csv"]


def test_another_encoding_is_named_with_its_place_and_a_command_that_converts(refuses, tmp_path):
    (tmp_path / "data.csv").write_bytes(text(GOOD, "trop cher \u00e9t\u00e9,bad\n").encode("latin-1"))
    refuses(3, "tune", "data.csv", says=["must be UTF-8", "0xe9", "line 50", "iconv"])


def test_a_missing_file_is_answered_with_the_nearest_one(refuses, table):
    table(GOOD, "reviews.csv")
    refuses(3, "tune", "review.csv", says=["no such file", "Did you mean `reviews.csv`?", "foretune tasks"])


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
def test_a_pipe_is_not_waited_for(refuses, tmp_path):
    os.mkfifo(tmp_path / "data.csv")
    refuses(3, "tune", "data.csv", says=["must be a regular file"])


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="the superuser may read everything")
def test_a_file_without_permission_is_named(refuses, table):
    table(GOOD).chmod(0)
    refuses(3, "tune", "data.csv", says=["may not be read", "permissions"])


@pytest.mark.parametrize("name", ["data.parquet", "data.jsonl", "data.xlsx"])
def test_a_file_that_is_not_what_its_ending_says_is_one_line(name, refuses, tmp_path):
    (tmp_path / name).write_bytes(b"PK\x03\x04 neither this nor that")
    refuses(3, "tune", name, says=[name])


def test_training_rows_offered_as_out_of_domain_are_refused(refuses, table):
    table(GOOD)
    table(GOOD[:10], "other.csv")
    refuses(3, "tune", "data.csv", "--ood", "other.csv", says=["no out-of-domain set", "100%", "row"])


def test_rows_to_predict_without_the_text_column_are_refused_before_a_model_is_loaded(refuses, tmp_path, table):
    table([{"label": "good"}])
    (tmp_path / "run" / "adapter").mkdir(parents=True)
    refuses(6, "predict", "run", "data.csv", says=["no trained adapter", "foretune tune"])


LOADED = """
import sys
from foretune.cli.main import main
sys.argv = ["foretune", *sys.argv[1:]]
try:
    main()
except SystemExit as stop:
    print(stop.code or 0, *sorted({"torch", "transformers", "peft", "datasets", "sklearn"} & set(sys.modules)))
"""


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (["--help"], 0),
        (["tune", "--help"], 0),
        (["tune", "data.csv"], 3),
        (["tune", "data.csv", "--tuner", "lroa"], 2),
        (["recommend", "nowhere.csv"], 3),
        (["predict", "nowhere", "data.csv"], 6),
        (["runs", "list"], 0),
        (["tasks"], 0),
    ],
)
def test_what_needs_no_model_loads_no_torch(words, code, tmp_path):
    (tmp_path / "data.csv").write_text("text,label\na,b\n", encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-c", LOADED, *words],
        capture_output=True,
        encoding="utf-8",
        cwd=tmp_path,
        env={**os.environ, "FORETUNE_STORE": str(tmp_path / "store"), "PYTHONIOENCODING": "utf-8"},
        timeout=60,
    )
    assert done.stdout.splitlines()[-1] == str(code), done.stderr


def test_importing_the_package_loads_no_torch():
    code = "import sys, foretune; foretune.Seeds, foretune.ForetuneError; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout.strip() == "False", done.stderr
